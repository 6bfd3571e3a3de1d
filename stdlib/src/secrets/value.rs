//! The secret as a script value: a handle that can be passed on and do nothing else.

use contraflow_runtime::{
    error::{RunError, codes},
    script::{ScriptContext, ScriptResult},
    secret::SecretText,
};
use rhai::{Array, FuncRegistration, ImmutableString, Map, Module, NativeCallContext};

fn misuse() -> RunError {
    RunError::new(codes::SECRET, "a secret cannot be printed, joined or compared").hint(
        "pass it to a primitive as it is, or build a longer text with secrets::text(\"Bearer \
            {token}\", #{ token: … })",
    )
}

fn refused(cx: &NativeCallContext<'_>) -> ScriptResult {
    Err(cx.throw(misuse()))
}

/// Refuses functions of a secret and a value of another type.
macro_rules! refuse_before {
    ($module:ident, $names:expr, $($type:ty),+) => {$(
        for name in $names {
            FuncRegistration::new(name).set_into_module(
                &mut $module,
                |cx: NativeCallContext<'_>, _: &mut SecretText, _: $type| refused(&cx),
            );
        }
    )+};
}

/// Refuses functions of a value of another type and a secret.
macro_rules! refuse_after {
    ($module:ident, $names:expr, $($type:ty),+) => {$(
        for name in $names {
            FuncRegistration::new(name).set_into_module(
                &mut $module,
                |cx: NativeCallContext<'_>, _: &mut $type, _: SecretText| refused(&cx),
            );
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
    const EDIT: [&str; 8] =
        ["+=", "append", "push", "replace", "split", "starts_with", "ends_with", "index_of"];

    let mut m = Module::new();
    m.set_custom_type::<SecretText>("secret");

    // Rhai drops an error of these inside an interpolated text, an array or a map, and would go on with the name of the type.
    for name in ["to_string", "to_debug"] {
        FuncRegistration::new(name)
            .set_into_module(&mut m, |cx: NativeCallContext<'_>, _: &mut SecretText| -> ScriptResult {
                Err(cx.stop(misuse()))
            });
    }
    for name in ["print", "debug", "len", "is_empty", "chars", "bytes", "to_chars", "to_blob", "to_json"] {
        FuncRegistration::new(name)
            .set_into_module(&mut m, |cx: NativeCallContext<'_>, _: &mut SecretText| refused(&cx));
    }
    let both = || COMPARE.into_iter().chain(JOIN);
    refuse_before!(m, both(), SecretText, ImmutableString, char, i64, f64, bool);
    refuse_after!(m, both(), ImmutableString, char, i64, f64, bool);
    refuse_before!(m, EDIT, SecretText, ImmutableString, char);
    refuse_after!(m, EDIT, ImmutableString);
    refuse_after!(m, ["contains"], Map);
    refuse_before!(m, ["contains"], Array);
    m.set_indexer_get_fn(|cx: NativeCallContext<'_>, _: &mut SecretText, _: i64| refused(&cx));
    m.set_indexer_get_fn(|cx: NativeCallContext<'_>, _: &mut SecretText, _: ImmutableString| refused(&cx));
    m
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use contraflow_runtime::{
        Bundle, Runtime,
        effect::{Action, On},
        provider::{ProviderError, Providers},
    };
    use rhai::Dynamic;
    use serde::Serialize;

    use super::*;
    use crate::secrets::{self, Secrets, env};

    /// What was sent, by the only effect of these tests.
    #[derive(Default)]
    struct Sent(Mutex<Vec<String>>);

    #[derive(Serialize)]
    struct Send {
        what: String,
    }

    impl Action for Send {
        const ID: &'static str = "out.send";
        type Output = ();

        fn describe(&self) -> String {
            self.what.clone()
        }

        async fn perform(&self, on: &On) -> Result<(), ProviderError> {
            on.extension::<Sent>().expect("there").0.lock().expect("lock").push(self.what.clone());
            Ok(())
        }
    }

    /// Runs a script in which `s` is a secret; answers what was sent and why it ended.
    fn run(script: &str) -> (Vec<String>, String) {
        let mut out = Module::new();
        FuncRegistration::new("send")
            .set_into_module(&mut out, |cx: NativeCallContext<'_>, what: Dynamic| {
                cx.action(Send { what: format!("{what:?}") })
            });
        let sent = Arc::new(Sent::default());
        let mut providers = Providers::new("test");
        let secret = env::Settings { variable: "CARGO_PKG_NAME".to_owned() };
        let secret = Arc::new(
            env::Env::new(secret, &contraflow_provider::config::Detached::new("/", std::env::vars_os()))
                .expect("a name"),
        );
        providers.bind::<dyn Secrets>("token", secret);
        providers.extend(Arc::clone(&sent));
        let runtime = Runtime::builder()
            .modules([("secrets", Arc::new(secrets::module())), ("out", Arc::new(out))])
            .global(secret_type())
            .providers(providers)
            .build();
        let script =
            format!("const RUNBOOK = #{{ name: \"test\" }}; let s = secrets::get(\"token\"); {script}");
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let report = tokio
            .block_on(runtime.run(&Bundle::single("test.rhai", &script), &BTreeMap::new()))
            .unwrap_or_else(|e| panic!("{script}: {e}"));
        let ended = report.error.map_or_else(|| "ok".to_owned(), |e| format!("{}: {}", e.code, e.message));
        let sent = sent.0.lock().expect("lock").clone();
        (sent, ended)
    }

    const REFUSED: &str = "secret: a secret cannot be printed, joined or compared";

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
            assert_eq!(run(script), (Vec::new(), REFUSED.to_owned()), "{script}");
        }
    }

    #[test]
    fn an_interpolated_secret_ends_the_run_before_anything_is_sent() {
        for script in [
            "let t = `token: ${s}`; out::send(t)",
            "out::send(`token: ${s}`)",
            "`token: ${s}`",
            "out::send(`${[s]}`)",
            "let m = #{ a: #{ b: [s] } }; out::send(m.to_string())",
            "out::send([s].to_string())",
            "out::send(\"x\" + [s])",
            "print(`x ${s}`); out::send(1)",
            "print([s]); out::send(1)",
            "try { out::send(`x ${s}`); } catch { out::send(\"caught\") }",
            "try { s.to_string(); } catch { out::send(\"caught\") }",
            "let f = || `x ${s}`; out::send(f.call())",
            "step(\"a\", || out::send(`x ${s}`))",
            "parallel([|| out::send(`x ${s}`), || 1])",
        ] {
            assert_eq!(run(script), (Vec::new(), REFUSED.to_owned()), "{script}");
        }
    }

    #[test]
    fn a_secret_can_be_held_passed_on_and_recognized() {
        for (script, sent) in [
            ("out::send(type_of(s))", "\"secret\""),
            ("out::send(type_of(#{ token: s }.token))", "\"secret\""),
            ("out::send(type_of([s, s][1]))", "\"secret\""),
            ("let list = []; list += s; list.push(s); out::send(list.len())", "2"),
            ("let f = || s; out::send(type_of(f.call()))", "\"secret\""),
            ("out::send(s == ())", "false"),
            ("out::send(switch s { \"x\" => 1, _ => 2 })", "2"),
            ("out::send(type_of(secrets::text(\"Bearer {t}\", #{ t: s })))", "\"secret\""),
        ] {
            assert_eq!(run(script), (vec![sent.to_owned()], "ok".to_owned()), "{script}");
        }
    }

    #[test]
    fn the_error_says_what_to_do_instead() {
        assert!(misuse().hints[0].contains("secrets::text"));
    }
}
