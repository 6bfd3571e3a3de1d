//! Messages to a Slack channel, through an incoming webhook.
//!
//! Format, escaping and errors: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>,
//! <https://docs.slack.dev/messaging/formatting-message-text>. Mattermost and Rocket.Chat accept the same requests.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use contraflow_provider::{
    config::{BadSetting, Building, Resolve, Setting},
    registry::Factory,
};
use contraflow_runtime::{
    effect::On,
    provider::{Provider, ProviderError, Retry},
};
use reqwest::{StatusCode, header::CONTENT_TYPE};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{Message, Notify, Severity, endpoint::Endpoint};
use crate::{codes, net::egress::Egress};

/// Slack cuts longer texts silently, in characters.
const LONGEST: usize = 40_000;

/// Settings of `provider = "slack"`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The URL of the incoming webhook. Whoever knows it can send: better in a variable, a file or a secret.
    pub url: Setting,
    /// PEM file with the certificates to trust, in place of the machine's (those of `SSL_CERT_FILE`, where that variable is set).
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// URL of the HTTP proxy to go through, or `none`. Default: what the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY` say.
    #[serde(default)]
    pub proxy: Option<String>,
}

/// A Slack channel behind an incoming webhook.
///
/// Slack does not recognize a repeated message, so one of which it is not known whether it was delivered is not sent again by
/// itself.
pub struct Slack {
    endpoint: Endpoint,
}

impl Slack {
    /// The channel behind a webhook.
    ///
    /// # Errors
    /// The setting that cannot be used.
    pub fn new(settings: &Settings, at: &dyn Resolve) -> Result<Self, BadSetting> {
        let egress = Egress::new(settings.ca.as_deref(), settings.proxy.as_deref(), at)?;
        Ok(Self { endpoint: Endpoint::new(&settings.url, egress, at)? })
    }
}

/// The text as Slack wants it: `&`, `<` and `>` are its control characters, so nothing in a message can become a link or a
/// mention of everybody.
fn text(message: &Message) -> String {
    let loud = match message.severity {
        Severity::Info => "",
        Severity::Warning => ":warning: ",
        Severity::Critical => ":rotating_light: ",
    };
    let escaped = message.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let text = format!("{loud}{escaped}");
    if text.chars().count() <= LONGEST {
        return text;
    }
    let mut cut: String = text.chars().take(LONGEST - 1).collect();
    // Not within an entity.
    if let Some(at) = cut.rfind('&')
        && !cut[at..].contains(';')
    {
        cut.truncate(at);
    }
    cut.push('…');
    cut
}

/// What to do about an error that Slack names.
fn advice(name: &str) -> Option<&'static str> {
    Some(match name {
        "no_service" | "no_service_id" | "no_team" | "no_active_hooks" | "invalid_token"
        | "team_disabled" => {
            "the webhook was removed or disabled, or its URL is incomplete: create a webhook and set its URL"
        }
        "channel_not_found" | "user_not_found" => "the channel was deleted: create a webhook for another one",
        "channel_is_archived" => "the channel is archived: unarchive it, or create a webhook for another one",
        "action_prohibited" | "posting_to_general_channel_denied" => {
            "the workspace does not let this webhook post there: ask its administrators"
        }
        "invalid_payload" | "no_text" => {
            "Slack could not read the message: the URL may be that of a workflow"
        }
        "rollup_error" => "the message may have been delivered: check before you send it again",
        "rate_limited" | "rate_limit_exceeded" => "Slack accepts about one message per second and webhook",
        _ => return None,
    })
}

impl Factory for Slack {
    type Capability = dyn Notify;
    type Settings = Settings;

    const KIND: &'static str = "slack";
    const ABOUT: &'static str =
        "A Slack channel behind an incoming webhook. Mattermost and Rocket.Chat accept the same requests.";
    const EXAMPLE: &'static str = r#"[env.production.notify.ops]
provider = "slack"
url = { env = "SLACK_WEBHOOK_URL" }
"#;

    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Notify>, BadSetting> {
        Ok(Arc::new(Self::new(&settings, at)?))
    }
}

#[async_trait]
impl Provider for Slack {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        self.endpoint.describe()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        self.endpoint.check().await
    }
}

#[async_trait]
impl Notify for Slack {
    async fn send(&self, on: &On, message: &Message) -> Result<(), ProviderError> {
        let body = json!({ "text": text(message) }).to_string();
        let mut answered = self
            .endpoint
            .send(on, false, |client, url| {
                client.post(url).header(CONTENT_TYPE, "application/json; charset=utf-8").body(body)
            })
            .await?;
        if !answered.response.status().is_success() {
            let mut error = answered.refused(on).await;
            let name = error.message.rsplit(": ").next().unwrap_or_default().to_owned();
            if let Some(advice) = advice(&name) {
                error.hints.insert(0, advice.to_owned());
            }
            return Err(error);
        }
        // Some errors came with status 200 in the past, and receivers that imitate Slack still do that.
        let from = answered.from().to_owned();
        let said = answered.said().await;
        match advice(said.trim()) {
            Some(advice) => {
                let error = ProviderError::terminal(
                    codes::NOTIFY,
                    format!("{from} answered {}: {}", StatusCode::OK, said.trim()),
                );
                Err(ProviderError { retry: Retry::Never, ..error }.hint(advice))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use contraflow_provider::config::Detached;
    use std::{sync::Arc, time::Duration};

    use contraflow_runtime::provider::Providers;

    use super::*;
    use crate::notify::lab::{Answer, Server};

    async fn send(server: &Server, text: &str, severity: Severity) -> Result<(), ProviderError> {
        let url = server.url("/services/T000/B000/hunter2hunter2");
        let slack = Slack::new(
            &Settings { url: Setting::plain(url), ca: None, proxy: None },
            &Detached::new("/", [("A", "b")]),
        )
        .expect("usable");
        let on = On::detached(Arc::new(Providers::new("test")));
        slack.send(&on, &Message { text: text.to_owned(), severity }).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn control_characters_are_escaped_and_all_else_is_left() {
        let server = Server::answering([Answer::status(200).body("ok"), Answer::status(200).body("ok")]);
        send(&server, "a < b && c > \"d\" <!channel> *ü*", Severity::Info).await.expect("accepted");
        send(&server, "now", Severity::Critical).await.expect("accepted");
        let requests = server.requests();
        assert_eq!(requests[0].line, "POST /services/T000/B000/hunter2hunter2 HTTP/1.1");
        assert_eq!(
            requests[0].json(),
            json!({ "text": "a &lt; b &amp;&amp; c &gt; \"d\" &lt;!channel&gt; *ü*" })
        );
        assert_eq!(requests[1].json(), json!({ "text": ":rotating_light: now" }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn errors_that_slack_names_are_terminal_and_explained() {
        for (status, name, hint) in [
            (400, "invalid_payload", "could not read"),
            (404, "no_service", "removed or disabled"),
            (404, "channel_not_found", "deleted"),
            (410, "channel_is_archived", "archived"),
            (403, "action_prohibited", "administrators"),
            (403, "invalid_token", "removed or disabled"),
            (500, "rollup_error", "may have been delivered"),
            (200, "no_text", "could not read"),
        ] {
            let server = Server::answering([Answer::status(status).body(name)]);
            let error = send(&server, "x", Severity::Info).await.expect_err(name);
            assert_eq!((error.code.as_str(), error.retry), (codes::NOTIFY, Retry::Never), "{name}");
            assert!(error.message.ends_with(&format!(": {name}")), "{error}");
            assert!(error.hints[0].contains(hint), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_what_was_surely_not_delivered_may_be_sent_again() {
        let server = Server::answering([
            Answer::status(429).header("Retry-After: 30").body("rate_limited"),
            Answer::status(503),
            Answer::status(500),
            Answer::hang_up(),
        ]);
        let retries = async || send(&server, "x", Severity::Info).await.expect_err("refused").retry;
        assert_eq!(retries().await, Retry::Safe { after: Some(Duration::from_secs(30)) });
        assert_eq!(retries().await, Retry::Safe { after: None });
        assert_eq!(retries().await, Retry::Never);
        assert_eq!(retries().await, Retry::Never);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_visibly_and_not_within_an_entity() {
        for letters in LONGEST - 8..LONGEST {
            let message =
                Message { text: format!("{}<<<<<<<<", "x".repeat(letters)), severity: Severity::Info };
            let text = text(&message);
            assert!(text.chars().count() <= LONGEST && text.ends_with('…'), "{letters}");
            let tail = text.trim_end_matches('…').trim_start_matches('x');
            assert_eq!(tail.replace("&lt;", ""), "", "{letters}");
        }
    }
}
