//! The secret as a script value: a handle that can be passed on and do nothing else.

use cutover_runtime::{
    error::{RunError, codes},
    script::ScriptError,
    secret::SecretText,
    unprintable,
};
use rhai::{Array, Dynamic, EvalAltResult, FuncRegistration, ImmutableString, Map, Module, Position};

type Refused = Result<Dynamic, ScriptError>;

fn misuse() -> RunError {
    RunError::new(codes::SECRET, "a secret cannot be printed, joined or compared")
        .hint("pass it to a primitive as it is, or put it into a longer text with secrets::text(\"Bearer {token}\", #{ token: … })")
}

fn refused() -> Refused {
    Err(Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(misuse()), Position::NONE)))
}

/// Refuses `name` between a secret and a value of another type, in both orders.
macro_rules! refuse_pairs {
    ($module:ident, $names:expr, $($type:ty),+) => {$(
        for name in $names {
            FuncRegistration::new(name)
                .set_into_module(&mut $module, |_: &mut SecretText, _: $type| -> Refused { refused() });
            FuncRegistration::new(name)
                .set_into_module(&mut $module, |_: &mut $type, _: SecretText| -> Refused { refused() });
        }
    )+};
}

/// What scripts can do with a secret, as a module to be registered globally: hold it and pass it on. All else is refused.
///
/// The standard library joins a string with a value of any type by way of `to_string`; a function of exactly these types is
/// found before it.
pub fn secret_type() -> Module {
    const COMPARE: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
    const JOIN: [&str; 3] = ["+", "-", "contains"];

    let mut m = Module::new();
    m.set_custom_type::<SecretText>("secret");

    // An error from these two is dropped inside an interpolated string, an array or a map: it is remembered as well.
    for name in ["to_string", "to_debug"] {
        FuncRegistration::new(name)
            .set_into_module(&mut m, |_: &mut SecretText| -> Refused { Err(unprintable::refuse(misuse())) });
    }
    for name in ["print", "debug", "len", "is_empty", "chars", "bytes", "to_json", "to_chars", "to_blob"] {
        FuncRegistration::new(name).set_into_module(&mut m, |_: &mut SecretText| -> Refused { refused() });
    }
    for name in COMPARE.into_iter().chain(JOIN) {
        FuncRegistration::new(name)
            .set_into_module(&mut m, |_: &mut SecretText, _: SecretText| -> Refused { refused() });
    }
    refuse_pairs!(m, COMPARE.into_iter().chain(JOIN), ImmutableString, char, i64, f64, bool);
    refuse_pairs!(
        m,
        ["append", "push", "replace", "split", "starts_with", "ends_with", "index_of", "+="],
        ImmutableString
    );
    FuncRegistration::new("+=")
        .set_into_module(&mut m, |_: &mut SecretText, _: SecretText| -> Refused { refused() });
    FuncRegistration::new("contains")
        .set_into_module(&mut m, |_: &mut Map, _: SecretText| -> Refused { refused() });
    FuncRegistration::new("contains")
        .set_into_module(&mut m, |_: &mut SecretText, _: Array| -> Refused { refused() });
    m.set_indexer_get_fn(|_: &mut SecretText, _: i64| -> Refused { refused() });
    m.set_indexer_get_fn(|_: &mut SecretText, _: ImmutableString| -> Refused { refused() });
    m
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use rhai::Engine;

    use super::*;

    /// An engine as a run builds it: it asks after each operation and before each effect whether something was refused.
    fn engine(sent: &Arc<Mutex<Vec<String>>>) -> Engine {
        let mut engine = Engine::new();
        engine.register_global_module(secret_type().into());
        engine.on_progress(|_| unprintable::refused().then(|| "refused".into()));
        engine.register_fn("secret", || SecretText::named("deploy-token"));
        engine.on_print(|text| assert!(unprintable::refused(), "printed {text}"));
        engine.on_debug(|text, _, _| assert!(unprintable::refused(), "printed {text}"));
        let sent = Arc::clone(sent);
        let send = move |value: Dynamic| -> Result<(), ScriptError> {
            if let Some(error) = unprintable::take_refused() {
                return Err(error.message.into());
            }
            sent.lock().expect("lock").push(format!("{value:?}"));
            Ok(())
        };
        let mut notify = Module::new();
        notify.set_native_fn("send", send.clone());
        engine.register_static_module("notify", notify.into());
        engine.register_fn("send", send);
        engine
    }

    /// Runs a script in which `s` is a secret; answers why it ended.
    fn run(script: &str) -> String {
        unprintable::take_refused();
        let sent = Arc::default();
        let result = engine(&sent).eval::<Dynamic>(&format!("let s = secret(); {script}"));
        let leftover = unprintable::take_refused();
        assert!(sent.lock().expect("lock").is_empty(), "{script} sent {sent:?}");
        match result {
            // What a run does when its script has ended.
            Ok(_) if leftover.is_some() => "refused at the end".to_owned(),
            Ok(value) => format!("ok: {value:?}"),
            Err(error) => match error.unwrap_inner() {
                EvalAltResult::ErrorRuntime(value, _) if value.is::<RunError>() => "refused".to_owned(),
                EvalAltResult::ErrorTerminated(..) => "stopped".to_owned(),
                EvalAltResult::ErrorRuntime(value, _) if value.is_string() => "not sent".to_owned(),
                other => format!("error: {other}"),
            },
        }
    }

    #[test]
    fn a_secret_cannot_be_printed_joined_or_compared() {
        for script in [
            "print(s)",
            "debug(s)",
            "s.to_string()",
            "to_string(s)",
            "s.to_debug()",
            "s + \"x\"",
            "\"x\" + s",
            "let t = \"x\"; t += s; t",
            "let t = s; t += \"x\"; t",
            "s + s",
            "s + 'x'",
            "'x' + s",
            "s == \"x\"",
            "\"x\" == s",
            "s != \"x\"",
            "s < \"x\"",
            "\"x\" >= s",
            "s == s",
            "s != s",
            "s <= s",
            "s == 1",
            "1.5 != s",
            "s == true",
            "\"x\".contains(s)",
            "s.contains(\"x\")",
            "\"x\" in s",
            "s in \"x\"",
            "s in [\"x\"]",
            "[s].contains(\"x\")",
            "[s].index_of(\"x\")",
            "s in #{ x: 1 }",
            "s.len()",
            "len(s)",
            "s.is_empty()",
            "s[0]",
            "s[\"x\"]",
            "let t = \"x\"; t.append(s); t",
            "let t = \"x\"; let f = || t + s; f.call()",
            "[s] == [\"x\"]",
            "#{ a: s } == #{ a: \"x\" }",
        ] {
            assert_eq!(run(script), "refused", "{script}");
        }
    }

    #[test]
    fn an_interpolated_secret_stops_the_script_before_anything_is_sent() {
        for script in [
            "let t = `token: ${s}`; send(t)",
            "let t = `token: ${s}`; t",
            "let t = `${[s]}`; send(t)",
            "let m = #{ a: #{ b: [s] } }; let t = m.to_string(); send(t)",
            "let t = [s].to_string(); send(t)",
            "let t = \"x\" + [s]; send(t)",
            "print(`x ${s}`); send(1)",
            "print([s]); send(1)",
            "try { let t = `x ${s}`; send(t); } catch { send(\"caught\") }",
            "let f = || `x ${s}`; send(f.call())",
        ] {
            let ended = run(script);
            assert!(["stopped", "not sent"].contains(&&*ended), "{script}: {ended}");
        }
        // Without an operation in between, it is the effect that asks.
        assert_eq!(run("notify::send(`token: ${s}`)"), "not sent");
        // With nothing after it, it is the run, at the end.
        assert_eq!(run("`token: ${s}`"), "refused at the end");
    }

    #[test]
    fn a_secret_can_be_held_passed_on_and_recognized() {
        for (script, value) in [
            ("type_of(s)", "\"secret\""),
            ("type_of(#{ token: s }.token)", "\"secret\""),
            ("type_of([s, s][1])", "\"secret\""),
            ("let list = []; list += s; list.push(s); list.len()", "2"),
            ("let f = || s; type_of(f.call())", "\"secret\""),
            ("s == ()", "false"),
            ("switch s { \"x\" => 1, _ => 2 }", "2"),
        ] {
            assert_eq!(run(script), format!("ok: {value}"), "{script}");
        }
    }

    #[test]
    fn the_error_says_what_to_do_instead() {
        let error = misuse();
        assert_eq!(error.code.as_str(), "secret");
        assert!(error.hints[0].contains("secrets::text"));
    }
}
