use super::*;

/// The same bytes on every machine: a failure can be looked at again.
struct Bytes(fastrand::Rng);

impl Bytes {
    fn mutated(&mut self, text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..self.0.usize(1..6) {
            if bytes.is_empty() {
                break;
            }
            let at = self.0.usize(..bytes.len());
            let pieces: [&[u8]; 14] = [
                b"[",
                b"]]",
                b"{",
                b"}",
                b"=",
                b"\"",
                b"'''",
                b".",
                b"\n",
                b"\xc3",
                "é".as_bytes(),
                b"[[env]]",
                b"a.b=1\n",
                b"#",
            ];
            match self.0.u8(..5) {
                0 => {
                    bytes.remove(at);
                }
                1 => bytes[at] = self.0.u8(..),
                2 => {
                    let piece = pieces[self.0.usize(..pieces.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                3 => bytes.truncate(at),
                _ => {
                    let to = self.0.usize(at..bytes.len());
                    let part = bytes[at..to].to_vec();
                    let into = self.0.usize(..bytes.len());
                    bytes.splice(into..into, part);
                }
            }
        }
        bytes
    }
}

/// Loads it, uses all that was read, and looks whether each error points into the text.
fn exercise(text: &str, vars: &[(&str, &str)]) -> bool {
    let inside = |errors: &ConfigErrors| {
        assert!(!errors.is_empty());
        for error in errors.iter() {
            for at in &error.frames {
                let line = text.split('\n').nth(at.line.saturating_sub(1));
                let length = line.map(|line| line.chars().count());
                assert!(length.is_some_and(|length| at.column <= length + 1), "{error:?} in {text:?}");
            }
        }
    };
    match parsed("conf/contraflow.toml", text, vars.iter().copied()) {
        Ok(config) => {
            for environment in config.environments() {
                if let Err(errors) = config.providers(&environment.name) {
                    inside(&errors);
                }
                for entry in environment.targets() {
                    let _ = entry.settings::<BTreeMap<String, Setting>>().map_err(|e| inside(&e.into()));
                    let _ = entry.settings::<Limits>().map_err(|e| inside(&e.into()));
                    inside(&entry.bad_setting("pools.green[0].x", "no").into());
                }
            }
            true
        }
        Err(errors) => {
            inside(&errors);
            false
        }
    }
}

#[test]
fn changed_files_give_errors_with_a_place_and_never_panic() {
    let mut bytes = Bytes(fastrand::Rng::with_seed(20_240_501));
    let (mut good, mut bad) = (0, 0);
    for _ in 0..4_000 {
        let text = bytes.mutated(FULL);
        let text = String::from_utf8_lossy(&text);
        if exercise(&text, &[]) { good += 1 } else { bad += 1 }
    }
    // Both paths were walked; otherwise this test would show nothing.
    assert!(good > 50 && bad > 500, "{good} good, {bad} bad");
}

#[test]
fn changed_variables_give_errors_and_never_panic() {
    let mut bytes = Bytes(fastrand::Rng::with_seed(7));
    let (mut good, mut bad) = (0, 0);
    for _ in 0..4_000 {
        let name = bytes.mutated("ENV__PRODUCTION__TRAFFIC__WEB__POOLS__GREEN");
        let name = format!("CONTRAFLOW__{}", String::from_utf8_lossy(&name).to_uppercase());
        let value = bytes.mutated("[1, { a = \"x\" }]");
        if exercise(FULL, &[(&name, &String::from_utf8_lossy(&value))]) { good += 1 } else { bad += 1 }
    }
    assert!(good > 50 && bad > 500, "{good} good, {bad} bad");
}

#[test]
fn random_bytes_in_a_file_never_panic() {
    let (_dir, top) = folder();
    let path = top.join("contraflow.toml");
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..500 {
        let bytes: Vec<u8> = (0..random.usize(..200))
            .map(|_| if round % 2 == 0 { random.u8(..) } else { random.u8(32..127) })
            .collect();
        std::fs::write(&path, &bytes).expect("write");
        let _ = loaded(&path, NO_VARS);
    }
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    let deep = format!("[env.a.params]\nx = {}1{}", "[".repeat(500_000), "]".repeat(500_000));
    assert!(parsed("c", &deep, NO_VARS).is_err());
    let dotted = format!("{} = 1", vec!["env"; 250_000].join("."));
    assert!(parsed("c", &dotted, NO_VARS).is_err());
    let header = format!("[{}]", vec!["a"; 500_000].join("."));
    assert!(parsed("c", &header, NO_VARS).is_err());
}
