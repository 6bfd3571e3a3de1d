//! Messages to whoever watches the run.

use std::sync::Arc;

use async_trait::async_trait;
use contraflow_provider::{
    config::{BadSetting, Building},
    registry::Factory,
};
use contraflow_runtime::{
    effect::On,
    event::Stream,
    provider::{Provider, ProviderError},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Message, Notify, Severity};

/// Settings of `provider = "console"`: there are none.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {}

/// Shows messages among the output of the run.
#[derive(Debug, Default)]
pub struct Console {}

impl Console {
    /// A console.
    pub fn new(settings: Settings) -> Self {
        let Settings {} = settings;
        Self {}
    }
}

impl Factory for Console {
    type Capability = dyn Notify;
    type Settings = Settings;

    const KIND: &'static str = "console";
    const ABOUT: &'static str = "The output of the run: messages are shown there.";
    const EXAMPLE: &'static str = r#"[env.production.notify.ops]
provider = "console"
"#;

    fn build(_: &Building<'_>, settings: Settings) -> Result<Arc<dyn Notify>, BadSetting> {
        Ok(Arc::new(Self::new(settings)))
    }
}

#[async_trait]
impl Provider for Console {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        "the output of the run".to_owned()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        Ok("ready".to_owned())
    }
}

#[async_trait]
impl Notify for Console {
    async fn send(&self, on: &On, message: &Message) -> Result<(), ProviderError> {
        let loud = match message.severity {
            Severity::Info => "",
            Severity::Warning => "warning: ",
            Severity::Critical => "critical: ",
        };
        for line in message.text.lines() {
            on.output(Stream::Stdout, &format!("{loud}{line}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use contraflow_runtime::{
        event::{Envelope, Event, heard_by},
        provider::Providers,
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn each_line_is_shown_as_loud_as_the_message() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let sink = move |event: &Envelope| {
            if let Event::Output { line, stream: Stream::Stdout, .. } = &event.event {
                heard.lock().expect("lock").push(line.clone());
            }
        };
        let on = heard_by(Arc::new(sink), &On::detached(Arc::new(Providers::new("test"))));
        let console = Console::new(Settings {});
        for (text, severity) in [("done", Severity::Info), ("a\nb", Severity::Critical)] {
            console.send(&on, &Message { text: text.to_owned(), severity }).await.expect("shown");
        }
        assert_eq!(*lines.lock().expect("lock"), ["done", "critical: a", "critical: b"]);
    }
}
