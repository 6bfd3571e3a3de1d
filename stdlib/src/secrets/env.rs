//! Secrets in environment variables of the process.

use std::{os::unix::ffi::OsStringExt as _, sync::Arc};

use async_trait::async_trait;
use contraflow_provider::{
    config::{BadSetting, Building, Resolve},
    registry::Factory,
};
use contraflow_runtime::{
    error::codes,
    provider::{Provider, ProviderError},
};
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Secrets, remark, usable};

/// Settings of `provider = "env"`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of the variable, such as `DEPLOY_TOKEN`.
    pub variable: String,
}

/// A secret in an environment variable, as it was when the configuration was loaded.
pub struct Env {
    variable: String,
    value: Option<Zeroizing<OsBytes>>,
}

/// What a variable holds, which may be no text.
type OsBytes = Vec<u8>;

impl Env {
    /// The secret in that variable.
    ///
    /// # Errors
    /// No variable can have that name.
    pub fn new(settings: Settings, at: &dyn Resolve) -> Result<Self, BadSetting> {
        let variable = settings.variable;
        if variable.is_empty() || variable.contains(['=', '\0']) {
            let message = format!("\"{variable}\" is not a valid name of an environment variable");
            return Err(BadSetting::new("variable", message));
        }
        let value = at.variable(&variable).map(|value| Zeroizing::new(value.into_vec()));
        Ok(Self { variable, value })
    }

    fn look(&self) -> Result<Zeroizing<String>, ProviderError> {
        let variable = &self.variable;
        let failed = |what: &str| {
            ProviderError::terminal(codes::SECRET, format!("the environment variable {variable} {what}"))
        };
        let value = self.value.as_ref().ok_or_else(|| {
            failed("is not set").hint(format!("set {variable} where contraflow is started"))
        })?;
        let text = std::str::from_utf8(value).map_err(|_| failed("is not UTF-8 text"))?;
        usable(Zeroizing::new(text.to_owned()), &format!("the environment variable {variable}"))
    }
}

impl Factory for Env {
    type Capability = dyn Secrets;
    type Settings = Settings;

    const KIND: &'static str = "env";
    const ABOUT: &'static str = "A secret in an environment variable of the process.";
    const EXAMPLE: &'static str = r#"[env.production.secrets.deploy-token]
provider = "env"
variable = "DEPLOY_TOKEN"
"#;

    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Secrets>, BadSetting> {
        Ok(Arc::new(Self::new(settings, at)?))
    }
}

#[async_trait]
impl Provider for Env {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        format!("${}", self.variable)
    }

    async fn check(&self) -> Result<String, ProviderError> {
        let value = self.look()?;
        Ok(format!("set{}", remark(&value)))
    }
}

#[async_trait]
impl Secrets for Env {
    async fn value(&self) -> Result<Zeroizing<String>, ProviderError> {
        self.look()
    }
}

#[cfg(test)]
mod tests {
    use contraflow_provider::config::Detached;

    use super::*;

    fn variable(name: &str) -> Result<Env, BadSetting> {
        let at = Detached::new("/", [("TOKEN", "hunter2"), ("EMPTY", " ")]);
        Env::new(Settings { variable: name.to_owned() }, &at)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_value_is_that_of_the_variable() {
        let token = variable("TOKEN").expect("a name");
        assert_eq!(token.value().await.expect("set").as_str(), "hunter2");
        assert_eq!(token.check().await, Ok("set".to_owned()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_variable_that_is_not_set_or_empty_is_named() {
        let missing = variable("NO_TOKEN").expect("a name").value().await.expect_err("not set");
        assert_eq!(missing.message, "the environment variable NO_TOKEN is not set");
        assert!(!missing.hints.is_empty());
        let empty = variable("EMPTY").expect("a name").value().await.expect_err("empty");
        assert_eq!(empty.message, "the environment variable EMPTY is empty");
        assert_eq!(variable("A=B").map(drop).map_err(|e| e.key), Err("variable".to_owned()));
    }
}
