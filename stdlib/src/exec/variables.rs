//! Which environment variables a script may set for a command.
//!
//! What is allowed to run is decided by the words of a command. Variables can undo that: with `GIT_SSH`, `LD_PRELOAD` or `PAGER` an
//! allowed program runs any other. So these are not for scripts to set, unless the configuration names them.

use contraflow_runtime::provider::ProviderError;

use super::policy::matches;
use crate::codes;

/// Names of variables that make programs load code, run other programs, or read settings that say so. `*` stands for any characters.
/// Those of tools are there by their beginning: each version adds some.
const STEERING: [&str; 110] = [
    // The loader and the C library.
    "LD_*",
    "DYLD_*",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "NLSPATH",
    "LOCPATH",
    "HOSTALIASES",
    "RES_OPTIONS",
    "MALLOC_*",
    // Where programs and their settings are looked for.
    "PATH",
    "HOME",
    "XDG_CONFIG_*",
    "XDG_DATA_*",
    "PWD",
    "CDPATH",
    // Shells.
    "ENV",
    "BASH*",
    "SHELL",
    "SHELLOPTS",
    "IFS",
    "PS1",
    "PS4",
    "PROMPT_COMMAND",
    "ZDOTDIR",
    "FPATH",
    "KSH_*",
    "PSModulePath",
    // Programs that others start.
    "PAGER",
    "*_PAGER",
    "MANPAGER",
    "LESS",
    "LESSOPEN",
    "LESSCLOSE",
    "LESSKEY*",
    "EDITOR",
    "*_EDITOR",
    "VISUAL",
    "BROWSER",
    "*ASKPASS*",
    "*_RSH",
    "*_SSH",
    "*_SSH_COMMAND",
    "*_WRAPPER",
    "*_PROXY_COMMAND",
    "TERMINFO*",
    "VIMINIT",
    "EXINIT",
    // Tools.
    "GIT_*",
    "SVN_*",
    "HG*",
    "SSH_*",
    "GNUPGHOME",
    "RSYNC_*",
    "TAR_*",
    "CURL_HOME",
    "WGETRC",
    "OPENSSL_*",
    "SSL_*",
    "SSLKEYLOGFILE",
    "KRB5*",
    "SUDO_*",
    "SYSTEMD_*",
    "DOCKER_*",
    "KUBE*",
    "HELM_*",
    "TF_*",
    "ANSIBLE_*",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "CLOUDSDK_*",
    "PSQLRC",
    "PSQL_*",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "MYSQL_HOME",
    "MYSQL_TEST*",
    // Languages and what builds with them.
    "PYTHON*",
    "PIP_*",
    "VIRTUAL_ENV",
    "PERL*",
    "RUBY*",
    "GEM_*",
    "BUNDLE_*",
    "NODE_*",
    "NPM_*",
    "npm_*",
    "YARN_*",
    "DENO_*",
    "BUN_*",
    "JAVA_*",
    "_JAVA_*",
    "JDK_*",
    "CLASSPATH",
    "MAVEN_*",
    "GRADLE_*",
    "DOTNET_*",
    "CORECLR_*",
    "COMPlus_*",
    "PHP*",
    "LUA_*",
    "GO*",
    "CARGO*",
    "RUST*",
    "CC",
    "CXX",
    "MAKE*",
    "GNUMAKEFLAGS",
    "CMAKE_*",
    "R_*",
    "JULIA_*",
];

/// Whether it can make an allowed program run others.
fn steers(name: &str) -> bool {
    STEERING.iter().any(|steering| matches(steering, name))
}

/// Refuses variables that a script must not set. `allowed` is the list of the configuration, where there is one: what steers programs
/// must stand there in full, all else may be meant by a `*`.
pub(super) fn admit<'n>(
    names: impl IntoIterator<Item = &'n String>,
    allowed: Option<&[String]>,
    environment: &str,
) -> Result<(), ProviderError> {
    for name in names {
        let steers = steers(name);
        let fits = |pattern: &String| if steers { pattern == name } else { matches(pattern, name) };
        if allowed.map_or(!steers, |allowed| allowed.iter().any(fits)) {
            continue;
        }
        let why = if steers { ": it can make an allowed command run others" } else { "" };
        let error = ProviderError::terminal(
            codes::EXEC,
            format!("a script may not set the variable `{name}` in environment \"{environment}\"{why}"),
        );
        let error = error.hint(format!(
            "to allow it, name it in `set_env` of [env.{environment}.exec] in contraflow.toml"
        ));
        return Err(if steers {
            error.hint("to give it the value that the runner has, name it in `env` there")
        } else {
            error
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(name: &str, allowed: Option<&[&str]>) -> bool {
        let allowed: Option<Vec<String>> =
            allowed.map(|allowed| allowed.iter().map(|one| (*one).to_owned()).collect());
        admit([&name.to_owned()], allowed.as_deref(), "prod").is_ok()
    }

    #[test]
    fn what_makes_an_allowed_program_run_others_is_refused() {
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "DYLD_INSERT_LIBRARIES",
            "PATH",
            "HOME",
            "XDG_CONFIG_HOME",
            "BASH_ENV",
            "ENV",
            "BASH_FUNC_ls%%",
            "SHELLOPTS",
            "PS4",
            "PROMPT_COMMAND",
            "PAGER",
            "GIT_PAGER",
            "LESSOPEN",
            "EDITOR",
            "VISUAL",
            "KUBE_EDITOR",
            "GIT_SSH",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_KEY_0",
            "GIT_EXEC_PATH",
            "GIT_EXTERNAL_DIFF",
            "GIT_ASKPASS",
            "SSH_ASKPASS",
            "SUDO_ASKPASS",
            "RSYNC_RSH",
            "CVS_RSH",
            "SVN_SSH",
            "PYTHONSTARTUP",
            "PYTHONPATH",
            "PYTHONINSPECT",
            "PERL5OPT",
            "PERL5LIB",
            "RUBYOPT",
            "NODE_OPTIONS",
            "NPM_CONFIG_SCRIPT_SHELL",
            "npm_config_script_shell",
            "JAVA_TOOL_OPTIONS",
            "_JAVA_OPTIONS",
            "JDK_JAVA_OPTIONS",
            "MAVEN_OPTS",
            "RUSTC_WRAPPER",
            "CARGO_BUILD_RUSTC",
            "GOFLAGS",
            "MAKEFLAGS",
            "KUBECONFIG",
            "DOCKER_HOST",
            "HELM_PLUGINS",
            "TF_CLI_ARGS",
            "ANSIBLE_CONFIG",
            "AWS_CONFIG_FILE",
            "OPENSSL_CONF",
            "PSQLRC",
            "BROWSER",
        ] {
            assert!(!allows(name, None), "{name}");
            assert!(!allows(name, Some(&["*"])), "{name} is not meant by *");
            assert!(allows(name, Some(&[name])), "{name}");
        }
    }

    #[test]
    fn other_variables_may_be_set_unless_the_configuration_lists_some() {
        for name in [
            "TOKEN",
            "AWS_ACCESS_KEY_ID",
            "AWS_REGION",
            "PGPASSWORD",
            "VERSION",
            "LANG",
            "TZ",
            "POOL",
            "http_proxy",
            "CI",
        ] {
            assert!(allows(name, None), "{name}");
            assert!(allows(name, Some(&["*"])), "{name}");
            assert!(!allows(name, Some(&[])), "{name}");
        }
        assert!(allows("AWS_REGION", Some(&["AWS_*"])) && !allows("TOKEN", Some(&["AWS_*"])));
    }

    #[test]
    fn a_refusal_says_why_and_where_it_can_be_allowed() {
        let error = admit([&"GIT_SSH".to_owned()], None, "prod").expect_err("refused");
        assert_eq!(
            error.message,
            "a script may not set the variable `GIT_SSH` in environment \"prod\": it can make an allowed command run others"
        );
        assert_eq!(error.hints[0], "to allow it, name it in `set_env` of [env.prod.exec] in contraflow.toml");
    }
}
