//! A script sees the same values when it is replayed as when it ran.

use contraflow_runtime::event::{Event, RunOutcome};

use crate::lab::Lab;

fn notes(lab: &Lab) -> Vec<String> {
    lab.events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|e| if let Event::Note { text, .. } = &e.event { Some(text.clone()) } else { None })
        .collect()
}

/// Runs a script, replays it, and answers what it noted each time.
fn both(script: &str) -> (Vec<String>, Vec<String>) {
    let lab = Lab::new();
    let first = lab.run(script);
    assert_eq!(first.outcome, RunOutcome::Succeeded, "{script}: {:?}", first.error);
    let live = notes(&lab);
    lab.events.lock().unwrap().clear();
    let run = lab.tokio.block_on(lab.store.find(&first.run)).unwrap().remove(0);
    let again = lab.tokio.block_on(lab.runtime().replay(&run)).unwrap();
    assert_eq!((again.outcome, &again.error), (first.outcome, &first.error), "{script}");
    (live, notes(&lab))
}

#[test]
fn values_are_the_same_on_replay() {
    for json in [
        "null",
        "[null, {\"a\": null}, []]",
        "{}",
        "{\"a\": {}, \"b\": [[]], \"\": \"\"}",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551615",
        "1e308",
        "5e-324",
        "-0.0",
        "1.0",
        "100000000000000000000",
        "0.1",
        "\"x\"",
        "\"\\u0000\\n\\u2028\\ud83d\\ude00\"",
        "{\"$secret\": 3}",
        "{\"b\": 1, \"a\": 2}",
        "true",
    ] {
        let script = format!(
            r#"let v = lab::echo(`{}`); note(type_of(v)); note(v.to_debug());
            if type_of(v) == "f64" {{ note(`${{v * 3.0}}`); }}"#,
            json.replace('\\', "\\\\").replace('`', "\\`").replace('$', "\\u0024")
        );
        let (live, again) = both(&script);
        assert_eq!(live, again, "{json}");
    }
}

#[test]
fn every_bit_of_a_number_survives_the_journal() {
    // A few thousand numbers of all sizes; a sloppy reader of decimal numbers gets some of them wrong by one bit.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut numbers = Vec::new();
    while numbers.len() < 2000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let number = f64::from_bits(state);
        if number.is_finite() {
            numbers.push(number);
        }
    }
    let json = serde_json::to_string(&numbers).unwrap();
    let (live, again) = both(&format!(
        "let v = lab::echo(`{json}`); let sum = 0.0; for x in v {{ sum += (x % 1000.0); }} note(`${{sum}}`); note(v.to_debug());"
    ));
    assert_eq!(live[0], again[0]);
    assert_eq!(live[1], again[1]);
}
