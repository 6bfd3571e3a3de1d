//! `exec::run` and `exec::shell` run a command of the machine that runs the runbook.

use std::collections::BTreeMap;

use contraflow_runtime::{
    effect::{Action, InDoubt, Limits, On, Read, Verdict, VerdictName},
    error::RunError,
    provider::ProviderError,
    quantity::{Size, Span},
    script::{Acts, ScriptContext, ScriptResult},
    secret::Text,
    target::Target,
};
use rhai::{Map, NativeCallContext, plugin::*};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command::{Command, Output};

/// Most that may be kept of each stream: it goes into the journal.
const MOST_KEPT: Size = Size(16 << 20);

/// Options of `exec::run` and `exec::shell`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    /// Additional environment variables, each a text or a secret.
    env: BTreeMap<String, Text>,
    /// Working directory, relative to the folder of the configuration.
    dir: Option<String>,
    /// Standard input. Default: none.
    stdin: Option<Text>,
    /// Exit codes that mean success.
    status: Vec<i32>,
    /// When it is over, the command and all processes it started are asked to end.
    timeout: Span,
    /// How long after that they are killed.
    grace: Span,
    /// How much of each stream to keep; of longer output, the beginning and the end.
    keep: Size,
    /// It changes nothing, so a plan runs it too.
    read_only: bool,
    /// With `read_only`: it is a check, something that passes or fails.
    check: bool,
    /// With `read_only`: the targets that its answer depends on.
    #[schemars(with = "Vec<Target>")]
    depends_on: Vec<Named>,
    /// Targets that it may alter, such as `["deploy/web/blue"]`. In a plan, checks on them cannot be known afterwards.
    #[schemars(with = "Vec<Target>")]
    touches: Vec<Named>,
    /// Running it twice is harmless, so after a crash it runs again without asking.
    idempotent: bool,
    /// The result that a plan assumes, because it does not run the command. What is not given is as after a success
    /// without output.
    assume: Option<Assumed>,
    /// The command that undoes it on rollback, an array like `argv`.
    undo: Vec<Text>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            env: BTreeMap::new(),
            dir: None,
            stdin: None,
            status: vec![0],
            timeout: Span::secs(600),
            grace: Span::secs(5),
            keep: Size(64 << 10),
            read_only: false,
            check: false,
            depends_on: Vec::new(),
            touches: Vec::new(),
            idempotent: false,
            assume: None,
            undo: Vec::new(),
        }
    }
}

/// A target, as a script names it: `deploy/web/blue`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(try_from = "String")]
struct Named(Target);

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((noun, name)) if !noun.is_empty() && !name.is_empty() => Ok(Self(Target::new(noun, name))),
            _ => Err(format!(
                "\"{text}\" is not a target: expected a noun and a name, such as \"deploy/web/blue\""
            )),
        }
    }
}

/// The result that a plan takes for granted. What is not given is as after a success without output.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Assumed {
    /// The exit code.
    exit_code: i32,
    /// Its output.
    stdout: String,
    /// What it wrote to the error stream.
    stderr: String,
}

/// Runs a command that may change something.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    #[serde(flatten)]
    command: Command,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undo: Vec<Text>,
    touches: Vec<Named>,
    idempotent: bool,
    /// Only for plans: what is assumed is no part of what is done.
    #[serde(skip)]
    assume: Option<Assumed>,
}

impl Run {
    fn undo_command(&self) -> Option<Command> {
        (!self.undo.is_empty()).then(|| self.command.instead(&self.undo))
    }

    fn foresee(&self, on: &On) -> Result<(), ProviderError> {
        self.command.foresee(on)?;
        // Not to be found out in the middle of a rollback.
        match self.undo_command() {
            Some(undo) => undo.foresee(on).map_err(|mut e| {
                e.message = format!("`undo`: {}", e.message);
                e
            }),
            None => Ok(()),
        }
    }
}

impl Action for Run {
    const ID: &'static str = "exec.run";

    type Output = Output;

    fn describe(&self) -> String {
        self.command.describe()
    }

    fn touches(&self) -> Vec<Target> {
        self.touches.iter().map(|named| named.0.clone()).collect()
    }

    async fn rehearse(&self, on: &On) -> Result<(), ProviderError> {
        self.foresee(on)
    }

    async fn perform(&self, on: &On) -> Result<Output, ProviderError> {
        self.foresee(on)?;
        self.command.run(on).await
    }

    fn planned(&self) -> Option<serde_json::Value> {
        let Assumed { exit_code, stdout, stderr } = self.assume.clone()?;
        let output = Output {
            exit_code,
            stdout,
            stderr,
            stdout_truncated: false,
            stderr_truncated: false,
            duration_ms: 0,
        };
        serde_json::to_value(output).ok()
    }

    fn in_doubt(&self) -> InDoubt {
        if self.idempotent { InDoubt::Repeat } else { InDoubt::Ask }
    }

    fn may_be_half_done(&self, error: &RunError) -> bool {
        super::command::was_killed(error)
    }

    fn undoable(&self) -> bool {
        !self.undo.is_empty()
    }

    async fn undo(&self, on: &On, _: Option<&Output>) -> Result<(), ProviderError> {
        match self.undo_command() {
            Some(undo) => undo.run(on).await.map(drop),
            None => Ok(()),
        }
    }

    fn limits(&self) -> Limits {
        self.command.limits()
    }
}

/// Runs a command that only looks. A plan runs it as well.
#[derive(Debug, Clone, Serialize)]
pub struct Look {
    #[serde(flatten)]
    command: Command,
    depends_on: Vec<Named>,
    check: bool,
}

impl Read for Look {
    const ID: &'static str = "exec.read";

    type Value = Output;

    fn describe(&self) -> String {
        self.command.describe()
    }

    fn depends_on(&self) -> Vec<Target> {
        self.depends_on.iter().map(|named| named.0.clone()).collect()
    }

    fn is_check(&self) -> bool {
        self.check
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let error = ProviderError::terminal(crate::codes::EXEC, "exit code 1, expected 0");
        vec![Verdict::new(VerdictName::Fails, error.about(self.command.describe()))]
    }

    async fn read(&self, on: &On) -> Result<Output, ProviderError> {
        self.command.run(on).await
    }

    fn show(&self, value: &Output) -> String {
        let line = value.stdout.lines().next().unwrap_or_default();
        let short: String = line.chars().take(80).collect();
        if short.len() < value.stdout.len() { format!("{short} …") } else { short }
    }

    fn limits(&self) -> Limits {
        self.command.limits()
    }
}

/// Either effect.
#[derive(Debug)]
enum Effect {
    Run(Run),
    Look(Look),
}

/// What options ask for, or the option that does not go with the others and why.
fn effect(argv: Vec<Text>, options: Options) -> Result<Effect, (&'static str, String)> {
    let Options {
        env,
        dir,
        stdin,
        status,
        timeout,
        grace,
        keep,
        read_only,
        check,
        depends_on,
        touches,
        idempotent,
        assume,
        undo,
    } = options;
    if argv.is_empty() {
        return Err((
            "argv",
            "expected a program and its arguments, such as [\"git\", \"fetch\"]".to_owned(),
        ));
    }
    if status.is_empty() {
        return Err(("status", "expected the exit codes that mean success, such as [0, 1]".to_owned()));
    }
    if keep > MOST_KEPT {
        return Err((
            "keep",
            format!("at most {MOST_KEPT} of each stream can be kept: it goes into the journal"),
        ));
    }
    if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(("env", format!("\"{name}\" is not a valid variable name")));
    }
    let command = Command { argv, env, dir, stdin, status, timeout, grace, keep };
    if read_only {
        for (name, given) in [
            ("undo", !undo.is_empty()),
            ("touches", !touches.is_empty()),
            ("idempotent", idempotent),
            ("assume", assume.is_some()),
        ] {
            if given {
                return Err((name, "a `read_only` command changes nothing, so a plan runs it".to_owned()));
            }
        }
        return Ok(Effect::Look(Look { command, depends_on, check }));
    }
    for (name, given) in [("check", check), ("depends_on", !depends_on.is_empty())] {
        if given {
            return Err((name, "only with `read_only: true`, for a command that changes nothing".to_owned()));
        }
    }
    Ok(Effect::Run(Run { command, undo, touches, idempotent, assume }))
}

fn perform(cx: &NativeCallContext<'_>, argv: Vec<Text>, options: Map) -> ScriptResult {
    match effect(argv, cx.options(options)?).map_err(|(name, why)| cx.bad_argument(name, &why))? {
        Effect::Run(run) => cx.action(run),
        Effect::Look(look) => cx.read(look),
    }
}

fn shell_words(command: &str) -> Vec<Text> {
    vec!["sh".into(), "-c".into(), command.into()]
}

/// Script functions.
#[export_module]
pub mod script {
    /// Runs a command; returns a map with `exit_code`, `stdout`, `stderr`, `stdout_truncated`, `stderr_truncated` and `duration_ms`.
    ///
    /// `argv` is an array: the program and its arguments, each a text or a secret. No shell is used. The configuration
    /// must allow the command. It gets no input and only the environment variables that the configuration passes on. An
    /// exit code
    /// other than 0 is an error.
    ///
    /// Every user of the machine can see the arguments while the command runs: pass secrets with `env` or `stdin`.
    ///
    /// ```rhai
    /// exec::run(["echo", "green"]).stdout == "green"
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn run(cx: NativeCallContext<'_>, argv: Dynamic) -> Acts {
        let argv = cx.arg("argv", argv)?;
        perform(&cx, argv, Map::new())
    }

    /// ```rhai
    /// let result = exec::run(["cat"], #{ stdin: "green", timeout: "10s", read_only: true });
    /// result.exit_code == 0 && result.stdout == "green"
    /// ```
    #[rhai_fn(name = "run", return_raw, volatile)]
    pub fn run_with(cx: NativeCallContext<'_>, argv: Dynamic, options: Map) -> Acts {
        let argv = cx.arg("argv", argv)?;
        perform(&cx, argv, options)
    }

    /// Runs a command line with `sh -c`; returns the same map as `exec::run`. Shells must be allowed with `shell = true`.
    ///
    /// A parameter inside the command line is parsed as shell syntax: pass it with `env` and write `"$NAME"` instead.
    ///
    /// ```rhai
    /// exec::shell("echo green | tr a-z A-Z").stdout == "GREEN"
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn shell(cx: NativeCallContext<'_>, command: &str) -> Acts {
        perform(&cx, shell_words(command), Map::new())
    }

    /// ```rhai
    /// exec::shell("echo \"$POOL\"", #{ env: #{ POOL: "green; rm x" } }).stdout == "green; rm x"
    /// ```
    #[rhai_fn(name = "shell", return_raw, volatile)]
    pub fn shell_with(cx: NativeCallContext<'_>, command: &str, options: Map) -> Acts {
        perform(&cx, shell_words(command), options)
    }
}

#[cfg(test)]
mod tests;
