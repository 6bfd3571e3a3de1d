//! `exec`: commands of the machine that runs the runbook.
//!
//! A command is a list of words that is passed on as it is: no shell takes part, so nothing in a parameter is ever expanded or
//! executed. Only what the environment's [`ExecPolicy`] allows is run. A command gets a clean environment and a process group of
//! its own, and the whole group is ended when the command takes too long or the run stops.

use std::sync::Arc;

use contraflow_runtime::{
    provider::{ProviderError, Providers},
    script::options,
};
use rhai::{Module, plugin::*};

use crate::codes;

mod capture;
mod command;
mod policy;
mod process;
pub mod run;
mod variables;

pub use command::Output;
pub use policy::{ExecPolicy, Pattern};

/// What may be run in this environment: what was kept with [`Providers::extend`].
///
/// # Errors
/// Nothing may: no `[env.NAME.exec]` in the configuration.
pub fn policy(on: &Providers) -> Result<Arc<ExecPolicy>, ProviderError> {
    on.extension::<ExecPolicy>().ok_or_else(|| {
        let environment = on.environment();
        ProviderError::terminal(
            codes::EXEC,
            format!("no command is allowed in environment \"{environment}\""),
        )
        .hint(format!(
            "list the commands that runbooks may run in contraflow.toml: [env.{environment}.exec] allow \
                 = [\"git\"]"
        ))
    })
}

/// The script module `exec`.
pub fn module() -> Module {
    let mut m = Module::new();
    m.set_doc("Commands on the machine that runs the runbook. [The configuration](../configuration.md#envnameexec) sets which are allowed.");
    combine_with_exported_module!(&mut m, "run", run::script);
    options::<run::Options>(&mut m, "run");
    options::<run::Options>(&mut m, "shell");
    m
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn providers(table: &str) -> Result<Providers, String> {
        let none: [(String, String); 0] = [];
        let text = format!("[env.staging]\n{table}");
        Config::parse("/etc/contraflow/contraflow.toml", &text, none, crate::library().registry())
            .and_then(|config| config.providers("staging"))
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn the_table_of_an_environment_becomes_its_policy() {
        let found =
            providers("[env.staging.exec]\nallow = [\"git fetch *\"]\ndir = \"work\"").expect("usable");
        let policy = policy(&found).expect("there");
        assert_eq!(policy.allow[0].to_string(), "git fetch *");
        assert_eq!(policy.dir(None), Path::new("/etc/contraflow/work"));
        assert!(!policy.shell);
        assert!(super::policy(&providers("").expect("usable")).is_err());
        let wrong = providers("[env.staging.exec]\nalow = []").map(drop).expect_err("a typing error");
        assert!(wrong.contains("alow"), "{wrong}");
    }
}
