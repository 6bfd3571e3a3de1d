//! Secrets in environment variables of the process.

use async_trait::async_trait;
use contraflow_runtime::{
    error::codes,
    provider::{Provider, ProviderError},
};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Secrets, remark, usable};

/// Settings of `provider = "env"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of the variable, such as `DEPLOY_TOKEN`.
    pub variable: String,
}

/// A secret in an environment variable. It is read each time, so a variable set later is seen.
#[derive(Debug)]
pub struct Env {
    variable: String,
}

impl Env {
    /// The secret in that variable.
    ///
    /// # Errors
    /// No variable can have that name.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let variable = settings.variable;
        if variable.is_empty() || variable.contains(['=', '\0']) {
            return Err(format!("\"{variable}\" cannot be the name of an environment variable"));
        }
        Ok(Self { variable })
    }

    fn look(&self) -> Result<Zeroizing<String>, ProviderError> {
        let variable = &self.variable;
        match std::env::var(variable).map(Zeroizing::new) {
            Ok(value) => usable(value, &format!("the environment variable {variable}")),
            Err(std::env::VarError::NotPresent) => Err(ProviderError::terminal(
                codes::SECRET,
                format!("the environment variable {variable} is not set"),
            )
            .hint(format!("set {variable} where contraflow is started"))),
            Err(std::env::VarError::NotUnicode(_)) => Err(ProviderError::terminal(
                codes::SECRET,
                format!("the environment variable {variable} is not UTF-8 text"),
            )),
        }
    }
}

#[async_trait]
impl Provider for Env {
    fn kind(&self) -> &'static str {
        "env"
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
    use super::*;

    fn variable(name: &str) -> Env {
        Env::new(Settings { variable: name.to_owned() }).expect("a name")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_value_is_that_of_the_variable() {
        // Cargo sets this one for every test.
        let value = variable("CARGO_PKG_NAME").value().await.expect("set");
        assert_eq!(value.as_str(), "contraflow-stdlib");
        assert_eq!(variable("CARGO_PKG_NAME").check().await, Ok("set".to_owned()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_variable_that_is_not_set_or_empty_is_named() {
        let missing = variable("CONTRAFLOW_NO_SUCH_VARIABLE").value().await.expect_err("not set");
        assert_eq!(missing.message, "the environment variable CONTRAFLOW_NO_SUCH_VARIABLE is not set");
        assert!(!missing.hints.is_empty());
        // Cargo sets this one too, empty for a final version.
        let empty = variable("CARGO_PKG_VERSION_PRE").value().await.expect_err("empty");
        assert_eq!(empty.message, "the environment variable CARGO_PKG_VERSION_PRE is empty");
        assert!(Env::new(Settings { variable: "A=B".to_owned() }).is_err());
    }
}
