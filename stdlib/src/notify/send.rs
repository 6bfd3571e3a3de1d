//! `notify::send` sends a message to people.

use contraflow_runtime::{
    effect::{Action, InDoubt, On},
    provider::{Capability as _, ProviderError},
    script::{ScriptContext, ScriptResult, Tells},
    secret::SecretText,
    target::Target,
};
use rhai::{Map, NativeCallContext, plugin::*};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Message, Notify, Severity};

/// Options of `notify::send`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    /// How urgent it is.
    severity: Severity,
    /// What happens when a crash left it unknown whether the message went out.
    in_doubt: InDoubt,
}

impl Default for Options {
    fn default() -> Self {
        // A message that came twice does less harm than one that never came.
        Self { severity: Severity::Info, in_doubt: InDoubt::Repeat }
    }
}

/// Sends one message.
#[derive(Debug, Clone, Serialize)]
pub struct Send {
    target: String,
    #[serde(flatten)]
    message: Message,
    in_doubt: InDoubt,
}

impl Action for Send {
    const ID: &'static str = "notify.send";

    type Output = ();

    fn describe(&self) -> String {
        let line = self.message.text.lines().next().unwrap_or_default();
        let short: String = line.chars().take(200).collect();
        let more = if short.len() < self.message.text.trim_end().len() { " …" } else { "" };
        format!("{}: {short}{more}", self.target)
    }

    fn touches(&self) -> Vec<Target> {
        vec![Target::new(<dyn Notify>::NOUN, &self.target)]
    }

    fn binds(&self) -> Option<String> {
        Some(self.target.clone())
    }

    fn alters(&self) -> bool {
        false
    }

    async fn rehearse(&self, on: &On) -> Result<(), ProviderError> {
        on.get::<dyn Notify>(&self.target).map(drop)
    }

    async fn perform(&self, on: &On) -> Result<(), ProviderError> {
        on.get::<dyn Notify>(&self.target)?.send(on, &self.message).await
    }

    fn planned(&self) -> Option<serde_json::Value> {
        Some(serde_json::Value::Null)
    }

    fn in_doubt(&self) -> InDoubt {
        self.in_doubt
    }
}

fn perform(cx: &NativeCallContext<'_>, target: &str, text: Dynamic, options: Map) -> ScriptResult {
    if text.is::<SecretText>() {
        return Err(cx.bad_argument("text", "a secret cannot be sent to people"));
    }
    let text: String = cx.arg("text", text)?;
    if text.trim().is_empty() {
        return Err(cx.bad_argument("text", "the message is empty"));
    }
    let Options { severity, in_doubt } = cx.options(options)?;
    cx.action(Send { target: target.to_owned(), message: Message { text, severity }, in_doubt })
}

/// Script functions.
#[export_module]
pub mod script {
    /// Sends `text` to `target`; returns nothing.
    ///
    /// ```rhai
    /// notify::send("ops", "cutover to green done") == ()
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn send(cx: NativeCallContext<'_>, target: &str, text: Dynamic) -> Tells {
        perform(&cx, target, text, Map::new())
    }

    /// ```rhai
    /// notify::send("oncall", "error rate above 1%, rolling back", #{ severity: "critical" }) == ()
    /// ```
    #[rhai_fn(name = "send", return_raw, volatile)]
    pub fn send_with(cx: NativeCallContext<'_>, target: &str, text: Dynamic, options: Map) -> Tells {
        perform(&cx, target, text, options)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use contraflow_runtime::{Bundle, Report, Runtime, event::RunOutcome, provider::Providers};
    use serde_json::json;

    use super::*;
    use crate::{
        codes,
        notify::{
            self,
            lab::{Answer, Server},
            webhook::Webhook,
        },
    };

    /// Runs or plans a script in which `ops` is a webhook at `server`.
    fn execute(server: &Server, script: &str, plan: bool) -> Report {
        let mut providers = Providers::new("test");
        let settings = serde_json::from_value(json!({ "url": server.url("/in") })).expect("settings");
        let webhook = Arc::new(
            Webhook::new(settings, &contraflow_provider::config::Detached::default()).expect("webhook"),
        );
        providers.bind::<dyn Notify>("ops", webhook);
        let runtime = Runtime::builder()
            .modules([
                ("notify", Arc::new(notify::module())),
                ("secrets", Arc::new(crate::secrets::module())),
            ])
            .providers(providers)
            .build();
        let bundle = Bundle::single("test.rhai", format!("const RUNBOOK = #{{ name: \"test\" }}; {script}"));
        let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
        tokio
            .block_on(async {
                if plan {
                    runtime.plan(&bundle, &BTreeMap::new()).await
                } else {
                    runtime.run(&bundle, &BTreeMap::new()).await
                }
            })
            .expect("a script that loads")
    }

    #[test]
    fn a_script_sends_and_a_sink_that_stumbles_is_asked_again_with_the_same_key() {
        let server = Server::answering([Answer::status(500), Answer::status(503), Answer::status(202)]);
        let script = "step(\"tell\", || { if notify::send(\"ops\", \"done\", #{ severity: \"warning\" }) != () { fail(\"x\") } })";
        let report = execute(&server, script, false);
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
        let requests = server.requests();
        assert_eq!(requests.len(), 3);
        assert_eq!(requests[0].json()["text"], "done");
        assert_eq!(requests[0].json()["severity"], "warning");
        let keys: Vec<_> = requests.iter().map(|request| request.header("idempotency-key")).collect();
        assert!(keys[0].starts_with("test-") && keys[0].ends_with("/tell/1:notify.send"), "{keys:?}");
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }

    #[test]
    fn a_sink_that_goes_on_answering_500_fails_the_run_clearly() {
        let server = Server::answering(vec![Answer::status(500).body("database is down"); 4]);
        let report = execute(&server, "notify::send(\"ops\", \"done\")", false);
        let error = report.error.expect("failed");
        assert_eq!(error.code.as_str(), codes::NOTIFY);
        assert!(
            error.message.contains("answered 500 Internal Server Error: database is down"),
            "{}",
            error.message
        );
        assert!(!error.message.contains("/in"), "{}", error.message);
        assert_eq!(server.requests().len(), 4);
    }

    #[test]
    fn a_plan_sends_nothing_and_finds_a_receiver_that_is_not_bound() {
        let server = Server::answering([]);
        let report = execute(&server, "if notify::send(\"ops\", \"done\") == () { }", true);
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
        let report = execute(&server, "notify::send(\"opz\", \"done\")", true);
        let error = report.error.expect("not bound");
        assert_eq!(error.message, "no notify target named \"opz\" in environment \"test\"");
        assert!(server.requests().is_empty());
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let server = Server::answering([]);
        for (script, message) in [
            ("notify::send(\"ops\", \" \")", "`text`: the message is empty"),
            ("notify::send(\"ops\", secrets::text(\"x\", #{}))", "`text`: a secret cannot be sent to people"),
            ("notify::send(\"ops\", 5)", "`text`: invalid type: the number `5`, expected text"),
        ] {
            assert_eq!(execute(&server, script, false).error.expect(script).message, message);
        }
        let error =
            execute(&server, "let how = \"loud\"; notify::send(\"ops\", \"x\", #{ severity: how })", false)
                .error;
        assert!(error.expect("severity").message.contains("`severity`: unknown value `loud`"));
    }

    #[test]
    fn people_see_one_line_of_a_message() {
        let effect = |text: &str| Send {
            target: "ops".to_owned(),
            message: Message { text: text.to_owned(), severity: Severity::Info },
            in_doubt: InDoubt::Repeat,
        };
        assert_eq!(effect("cutover to green done").describe(), "ops: cutover to green done");
        assert_eq!(effect("first\nsecond").describe(), "ops: first …");
        assert_eq!(
            serde_json::to_value(effect("x")).expect("json"),
            json!({ "target": "ops", "text": "x", "severity": "info", "in_doubt": "repeat" })
        );
    }
}
