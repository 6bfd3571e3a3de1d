//! What may be run.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Component, Path, PathBuf},
};

use contraflow_provider::{
    config::{BadSetting, Building, Resolve as _},
    registry::Section,
};
use contraflow_runtime::{error::did_you_mean, provider::ProviderError, secret::Text};
use nix::unistd::{AccessFlags, access};
use schemars::JsonSchema;
use serde::Deserialize;

use super::command::shown;
use crate::codes;

/// Where programs are looked for if `PATH` is neither set nor passed on.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Programs that take commands as text.
const SHELLS: [&str; 14] = [
    "sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "csh", "tcsh", "rbash", "pwsh", "nu",
    "busybox",
];

/// What commands an environment allows: the table `[env.NAME.exec]`.
///
/// It keeps runbooks to the tools they are meant to use. It is no sandbox: an allowed program does what it does, with the rights
/// of the process that runs the runbook.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExecPolicy {
    /// Commands that are allowed.
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<Pattern>,
    /// Whether shells are allowed: `exec::shell`, and programs such as `sh` and `bash` in `exec::run`. Without it they are
    /// refused even where `allow` matches.
    pub shell: bool,
    /// Environment variables that are passed on to commands. All others are not.
    pub env: Vec<String>,
    /// Environment variables that scripts may set for commands; `*` stands for any characters. Without it, all but those that can
    /// make an allowed program run others, such as `PATH`, `LD_PRELOAD`, `GIT_SSH`, `PAGER`: those must be named in full.
    pub set_env: Option<Vec<String>>,
    /// Where commands are run, taken from the folder of the configuration.
    pub dir: Option<PathBuf>,
    /// The folder of the configuration. Empty: the current one.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The values of the variables in `env`.
    #[serde(skip)]
    variables: BTreeMap<String, OsString>,
}

impl Section for ExecPolicy {
    type Settings = Self;

    const NAME: &'static str = "exec";
    const ABOUT: &'static str = "The commands that runbooks may run in the environment, with their \
        variables and folder. Without this table, no command is allowed.";
    const EXAMPLE: &'static str = r#"[env.production.exec]
allow = ["git", "npm run *"]
env = ["PATH", "HOME"]
dir = "work"
"#;

    fn build(at: &Building<'_>, settings: Self) -> Result<Self, BadSetting> {
        Ok(settings.with_variables(|name| at.variable(name)).in_folder(at.path("")))
    }
}

impl Default for ExecPolicy {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            shell: false,
            env: ["PATH", "HOME", "LANG", "TZ"].map(str::to_owned).into(),
            set_env: None,
            dir: None,
            folder: PathBuf::new(),
            variables: BTreeMap::new(),
        }
    }
}

/// A command, or a family of commands, that is allowed.
///
/// - It is read word by word; words are separated by spaces. The first is the program, the others are its arguments.
/// - A program alone, `git`, allows it with any arguments.
/// - With arguments, `git fetch origin`, it allows exactly these. A last word `*` stands for any further arguments, none too:
///   `npm run *`. Anywhere else a word `*` stands for exactly one argument.
/// - `*` within a word stands for any characters: `deploy/*`.
/// - A program without a slash, `kubectl`, matches only when a script names it without a slash; it is then found on `PATH`.
///   `/usr/bin/kubectl` matches a script that says so and also `kubectl` if that is what is found on `PATH`.
/// - A secret among the arguments is matched by a word `*` only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Vec<String>);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err(
                "expected a program, with arguments or without, such as \"git\" or \"npm run *\"".to_owned()
            );
        }
        Ok(Self(words))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl Pattern {
    fn program(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// Whether it allows `argv`, whose program was found at `found`.
    fn allows(&self, argv: &[Text], found: Option<&Path>) -> bool {
        let Some(Text::Plain(program)) = argv.first() else { return false };
        let want = self.program();
        let by_name = if want.contains('/') {
            // `/opt/tools/*` must not allow `/opt/tools/../../bin/rm`.
            let climbs = Path::new(program).components().any(|part| part == Component::ParentDir);
            want == program || (program.contains('/') && !climbs && matches(want, program))
        } else {
            !program.contains('/') && matches(want, program)
        };
        let by_path = !program.contains('/')
            && want.contains('/')
            && found.and_then(Path::to_str).is_some_and(|found| matches(want, found));
        (by_name || by_path) && self.allows_arguments(&argv[1..])
    }

    fn allows_arguments(&self, arguments: &[Text]) -> bool {
        let wanted = match self.0.get(1..) {
            None | Some([]) => return true,
            Some([exact @ .., last]) if last == "*" => {
                return arguments.len() >= exact.len() && exact.iter().zip(arguments).all(allows_one);
            }
            Some(exact) => exact,
        };
        wanted.len() == arguments.len() && wanted.iter().zip(arguments).all(allows_one)
    }
}

fn allows_one((want, argument): (&String, &Text)) -> bool {
    match argument {
        Text::Plain(text) => matches(want, text),
        Text::Secret(_) => want == "*",
    }
}

/// Whether `text` is `pattern` with each `*` replaced by some characters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

impl ExecPolicy {
    /// The same, with paths taken from `folder`.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// With the values of the variables that it passes on; `variable` finds them.
    #[must_use]
    pub fn with_variables(mut self, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        self.variables = self.env.iter().filter_map(|name| Some((name.clone(), variable(name)?))).collect();
        self
    }

    /// Where a command is run that asks for `dir`.
    pub(super) fn dir(&self, dir: Option<&str>) -> PathBuf {
        let dir = match (dir, &self.dir) {
            (Some(dir), _) => self.folder.join(dir),
            (None, Some(dir)) => self.folder.join(dir),
            (None, None) => self.folder.clone(),
        };
        if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir }
    }

    /// The variables that are passed on, with their values.
    pub(super) fn passed_on(&self) -> Vec<(String, OsString)> {
        self.variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Whether the command is allowed and, as far as that can be known before earlier steps are done, its program is there.
    pub(super) fn foresee(&self, argv: &[Text], environment: &str) -> Result<(), ProviderError> {
        let (program, found) = self.allowed(argv, environment)?;
        // An earlier step may build or fetch what is given by its path.
        if program.contains('/') { Ok(()) } else { found.map(drop) }
    }

    /// The path of the program of `argv`, if the command is allowed.
    ///
    /// A program is looked for on the `PATH` that is passed on, never on one that the script sets, and one given by a relative
    /// path is taken from the configured folder: so what is allowed does not depend on a command's options.
    pub(super) fn admit(&self, argv: &[Text], environment: &str) -> Result<PathBuf, ProviderError> {
        self.allowed(argv, environment)?.1
    }

    /// The program of `argv` and where it is, if the command is allowed.
    fn allowed<'a>(
        &self,
        argv: &'a [Text],
        environment: &str,
    ) -> Result<(&'a str, Result<PathBuf, ProviderError>), ProviderError> {
        let program = match argv.first() {
            Some(Text::Plain(program)) if !program.is_empty() => program,
            Some(Text::Secret(_)) => {
                return Err(ProviderError::terminal(codes::EXEC, "a secret cannot be the program to run"));
            }
            _ => return Err(ProviderError::terminal(codes::EXEC, "there is no program to run")),
        };
        let found = self.find(program);
        let table = format!("[env.{environment}.exec] in contraflow.toml");
        if is_shell(program) {
            if !self.shell {
                return Err(ProviderError::terminal(
                    codes::EXEC,
                    format!(
                        "`{program}` is a shell, and shells are not allowed in environment \"{environment}\""
                    ),
                )
                .hint("exec::run passes arguments as they are: most commands need no shell")
                .hint(format!("to allow shells, set shell = true in {table}")));
            }
        } else if !self.allow.iter().any(|p| p.allows(argv, found.as_ref().ok().map(PathBuf::as_path))) {
            let names: Vec<String> = self.allow.iter().map(|p| format!("`{p}`")).collect();
            let error = ProviderError::terminal(
                codes::EXEC,
                format!("`{}` is not allowed in environment \"{environment}\"", shown(argv)),
            );
            let error = match did_you_mean(program, self.allow.iter().map(Pattern::program)) {
                Some(close) if close != program => error.hint(format!("did you mean `{close}`?")),
                _ => error,
            };
            return Err(error.hint(format!("to allow it, add it to `allow` of {table}")).hint(
                if names.is_empty() {
                    "nothing is allowed there now".to_owned()
                } else {
                    format!("allowed there now: {}", names.join(", "))
                },
            ));
        }
        Ok((program, found))
    }

    /// Where a program is.
    fn find(&self, program: &str) -> Result<PathBuf, ProviderError> {
        let runs = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
        if program.contains('/') {
            let path = self.dir(None).join(program);
            let path = std::path::absolute(&path).unwrap_or(path);
            return if runs(&path) {
                Ok(path)
            } else if path.is_file() {
                Err(ProviderError::terminal(codes::EXEC, format!("{} is not executable", path.display()))
                    .hint(format!("chmod +x {}", path.display())))
            } else {
                Err(ProviderError::terminal(codes::EXEC, format!("there is no program {}", path.display()))
                    .hint(
                        "a relative path starts at the folder of contraflow.toml, or at `dir` of its exec \
                        table",
                    ))
            };
        }
        let path = self.variables.get("PATH").and_then(|path| path.to_str()).unwrap_or(DEFAULT_PATH);
        let folders = || std::env::split_paths(path).filter(|folder| folder.is_absolute());
        if let Some(found) = folders().map(|folder| folder.join(program)).find(|path| runs(path)) {
            return Ok(found);
        }
        let error =
            ProviderError::terminal(codes::EXEC, format!("there is no program `{program}` on PATH ({path})"));
        Err(match folders().map(|folder| folder.join(program)).find(|path| path.is_file()) {
            Some(there) => error.hint(format!("{} exists but is not executable", there.display())),
            None if program.contains(char::is_whitespace) => error.hint(
                "each word of a command is a separate element: [\"git\", \"fetch\"], not [\"git fetch\"]",
            ),
            None => error.hint("install it where the runbook runs, or give its full path"),
        })
    }
}

fn is_shell(program: &str) -> bool {
    Path::new(program).file_name().and_then(|name| name.to_str()).is_some_and(|name| SHELLS.contains(&name))
}

#[cfg(test)]
mod tests {
    use contraflow_runtime::secret::SecretText;

    use super::*;

    fn policy(allow: &[&str]) -> ExecPolicy {
        let allow = allow.iter().map(|p| Pattern::try_from((*p).to_owned()).expect("pattern")).collect();
        ExecPolicy { allow, ..ExecPolicy::default() }
    }

    /// Whether `pattern` allows `command`, split at spaces, as far as names go.
    fn allows(pattern: &str, command: &str) -> bool {
        let argv: Vec<Text> = command.split(' ').map(Text::from).collect();
        Pattern::try_from(pattern.to_owned()).expect("pattern").allows(&argv, None)
    }

    #[test]
    fn a_program_alone_allows_any_arguments_and_words_allow_exactly_these() {
        assert!(allows("git", "git"));
        assert!(allows("git", "git push --force"));
        assert!(!allows("git", "gitk"));
        assert!(allows("npm run *", "npm run"));
        assert!(allows("npm run *", "npm run build --prod"));
        assert!(!allows("npm run *", "npm publish"));
        assert!(allows("git fetch origin", "git fetch origin"));
        assert!(!allows("git fetch origin", "git fetch origin main"));
        assert!(!allows("git fetch origin", "git fetch"));
        assert!(allows("kubectl * restart deploy/*", "kubectl rollout restart deploy/web"));
        assert!(!allows("kubectl * restart deploy/*", "kubectl rollout restart deploy/web now"));
        assert!(!allows("kubectl * restart deploy/*", "kubectl rollout undo restart deploy/web"));
        assert!(allows("a *b*c", "a xbyc") && allows("a *b*c", "a bc") && !allows("a *b*c", "a cb"));
        assert!(!allows("a xx*xx", "a xxx"), "pieces do not overlap");
    }

    #[test]
    fn a_name_allows_no_path_and_a_path_allows_what_is_found_there() {
        assert!(!allows("git", "/tmp/git"));
        assert!(!allows("*", "/tmp/git") && allows("*", "git"));
        assert!(!allows("/usr/bin/git", "git"), "not found on PATH");
        let pattern = Pattern::try_from("/usr/bin/git".to_owned()).expect("pattern");
        assert!(pattern.allows(&["git".into()], Some(Path::new("/usr/bin/git"))));
        assert!(!pattern.allows(&["git".into()], Some(Path::new("/home/me/bin/git"))));
        assert!(allows("/opt/tools/*", "/opt/tools/x"));
        assert!(!allows("/opt/tools/*", "/opt/tools/../../bin/rm"));
        assert!(allows("./deploy.sh", "./deploy.sh") && !allows("./deploy.sh", "deploy.sh"));
    }

    #[test]
    fn a_secret_is_matched_by_a_star_only() {
        let argv = ["curl".into(), Text::Secret(SecretText::named("t").surrounded("--header=", ""))];
        let allows =
            |pattern: &str| Pattern::try_from(pattern.to_owned()).expect("pattern").allows(&argv, None);
        assert!(allows("curl") && allows("curl *") && !allows("curl --header=*"));
    }

    #[test]
    fn shells_need_to_be_allowed_by_name_of_the_key() {
        for shell in ["sh", "/bin/sh", "bash"] {
            let error = policy(&["sh", "bash", "/bin/sh"])
                .admit(&[shell.into(), "-c".into(), "true".into()], "prod")
                .expect_err("a shell");
            assert!(error.message.contains("shells are not allowed in environment \"prod\""), "{error}");
            assert!(error.hints[1].contains("shell = true in [env.prod.exec]"), "{error:?}");
        }
        let open = ExecPolicy { shell: true, ..policy(&[]) };
        assert!(open.admit(&["sh".into(), "-c".into(), "true".into()], "prod").is_ok());
        assert!(open.admit(&["ls".into()], "prod").is_err(), "only shells");
    }

    #[test]
    fn a_refusal_says_what_to_set_and_what_is_allowed() {
        let error = policy(&["npm run *"]).admit(&["npm".into(), "publish".into()], "prod").expect_err("no");
        assert_eq!(error.message, "`npm publish` is not allowed in environment \"prod\"");
        assert_eq!(
            error.hints,
            [
                "to allow it, add it to `allow` of [env.prod.exec] in contraflow.toml",
                "allowed there now: `npm run *`"
            ]
        );
        let typo = policy(&["kubectl"]).admit(&["kubctl".into()], "prod").expect_err("no");
        assert_eq!(typo.hints[0], "did you mean `kubectl`?");
    }

    #[test]
    fn a_program_that_is_not_there_or_not_executable_is_said_to_be() {
        let error = policy(&["no-such-program"]).admit(&["no-such-program".into()], "prod").expect_err("no");
        assert!(error.message.starts_with("there is no program `no-such-program` on PATH ("), "{error}");
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("deploy"), "#!/bin/sh\n").expect("written");
        let policy = policy(&["./deploy", "./other"]).in_folder(folder.path());
        let error = policy.admit(&["./deploy".into()], "prod").expect_err("no");
        assert!(error.message.ends_with("deploy is not executable"), "{error}");
        let error = policy.admit(&["./other".into()], "prod").expect_err("no");
        assert!(error.message.starts_with("there is no program /"), "{error}");
    }

    #[test]
    fn the_configuration_table_is_strict() {
        let policy: ExecPolicy =
            toml_edit::de::from_str("allow = [\"git\", \"npm run *\"]\nenv = [\"PATH\"]\ndir = \"work\"")
                .expect("table");
        assert_eq!(policy.allow[1].to_string(), "npm run *");
        assert_eq!(policy.clone().in_folder("/etc/contraflow").dir(None), Path::new("/etc/contraflow/work"));
        assert_eq!(policy.in_folder("/etc/contraflow").dir(Some("x")), Path::new("/etc/contraflow/x"));
        assert!(toml_edit::de::from_str::<ExecPolicy>("alow = []").is_err());
        assert!(toml_edit::de::from_str::<ExecPolicy>("allow = [\" \"]").is_err());
    }
}
