//! A command as a script asks for it, from its words to its result.

use std::{collections::BTreeMap, ffi::OsString, os::unix::process::ExitStatusExt, process::ExitStatus};

use contraflow_runtime::{
    effect::{Limits, On},
    error::{RunError, codes as core},
    provider::ProviderError,
    quantity::{Size, Span},
    secret::Text,
};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    policy,
    process::{Ending, Finished, Job, run},
    variables,
};
use crate::{codes, secrets::ensure};

/// Lines of output in an error.
const LAST_LINES: usize = 5;

/// A command.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Command {
    pub(super) argv: Vec<Text>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) env: BTreeMap<String, Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stdin: Option<Text>,
    pub(super) status: Vec<i32>,
    pub(super) timeout: Span,
    pub(super) grace: Span,
    pub(super) keep: Size,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Exit code.
    pub exit_code: i32,
    /// What it printed, without newlines at the end. Of long output the beginning and the end.
    pub stdout: String,
    /// What it printed on the error stream, in the same way.
    pub stderr: String,
    /// Whether something was left out of `stdout`.
    pub stdout_truncated: bool,
    /// Whether something was left out of `stderr`.
    pub stderr_truncated: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl Command {
    /// Another command, with the environment, folder and times of this one.
    pub(super) fn instead(&self, argv: &[Text]) -> Self {
        Self { argv: argv.to_vec(), stdin: None, status: vec![0], ..self.clone() }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let text = shown(&self.argv);
        let line = text.lines().next().unwrap_or_default();
        let short: String = line.chars().take(200).collect();
        if short.len() < text.len() { format!("{short} …") } else { short }
    }

    /// The command ends itself after its own time, and says more then than the kernel could.
    pub(super) fn limits(&self) -> Limits {
        let spare = Span::secs(5);
        let timeout = self.timeout.0.saturating_add(self.grace.0).saturating_add(spare.0);
        let stop_grace = self.grace.0.saturating_add(spare.0);
        Limits { timeout, attempts: 1, stop_grace, ..Limits::default() }
    }

    /// Whether it is allowed and its program is there. Answers where.
    pub(super) fn admit(&self, on: &On) -> Result<std::path::PathBuf, ProviderError> {
        let policy = policy(on)?;
        let path = policy.admit(&self.argv, on.environment())?;
        variables::admit(self.env.keys(), policy.set_env.as_deref(), on.environment())?;
        let dir = policy.dir(self.dir.as_deref());
        if !dir.is_dir() {
            return Err(ProviderError::terminal(codes::EXEC, format!("no such folder: {}", dir.display()))
                .hint("`dir` starts at the folder of contraflow.toml"));
        }
        Ok(path)
    }

    /// Whether it would be allowed.
    pub(super) fn foresee(&self, on: &On) -> Result<(), ProviderError> {
        let policy = policy(on)?;
        policy.foresee(&self.argv, on.environment())?;
        variables::admit(self.env.keys(), policy.set_env.as_deref(), on.environment())
    }

    /// Runs it.
    pub(super) async fn run(&self, on: &On) -> Result<Output, ProviderError> {
        let path = self.admit(on)?;
        let policy = policy(on)?;
        let mut argv = Vec::with_capacity(self.argv.len());
        for word in &self.argv {
            argv.push(ensure(on, word).await?);
        }
        let mut env = policy.passed_on();
        for (name, value) in &self.env {
            env.retain(|(passed, _)| passed != name);
            env.push((name.clone(), OsString::from(ensure(on, value).await?.as_str())));
        }
        let stdin = match &self.stdin {
            Some(text) => Some(ensure(on, text).await?),
            None => None,
        };
        let dir = policy.dir(self.dir.as_deref());
        let (timeout, grace, keep) = (self.timeout.0, self.grace.0, self.keep);
        let job = Job { path, argv, env, dir, stdin, timeout, grace, keep };
        let finished = run(on, &job).await.map_err(|e| {
            let error =
                ProviderError::terminal(codes::EXEC, format!("`{}` cannot be started: {e}", self.describe()));
            match e.raw_os_error().map(nix::errno::Errno::from_raw) {
                Some(nix::errno::Errno::ENOEXEC) => error.hint(format!(
                    "{} is not a program; a script must begin with #! and its interpreter",
                    job.path.display()
                )),
                Some(nix::errno::Errno::ENOENT) => error.hint(format!(
                    "the interpreter in the first line of {} does not exist",
                    job.path.display()
                )),
                Some(nix::errno::Errno::E2BIG) => {
                    error.hint("pass long input with `stdin`, not as an argument")
                }
                _ => error,
            }
        })?;
        self.judge(on, finished)
    }

    /// What its end means.
    fn judge(&self, on: &On, finished: Finished) -> Result<Output, ProviderError> {
        let what = self.describe();
        let (stdout, stderr) = (finished.stdout.kept(on), finished.stderr.kept(on));
        let (out, err) =
            (stdout.text.trim_end_matches(['\r', '\n']), stderr.text.trim_end_matches(['\r', '\n']));
        let last = last_lines(if err.is_empty() { out } else { err });
        let said = if last.is_empty() { " and printed nothing".to_owned() } else { format!(":\n{last}") };
        let duration_ms = u64::try_from(finished.took.as_millis()).unwrap_or(u64::MAX);
        let failed = |code: &'static str, message: String, signal: Option<&str>, exit_code: Option<i32>| {
            ProviderError::terminal(code, message).detail(json!({
                "argv": self.argv.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "exit_code": exit_code,
                "signal": signal,
                "last_lines": last,
                "duration_ms": duration_ms,
            }))
        };
        let status = match finished.ending {
            Ending::Exited(status) => status,
            Ending::TimedOut => {
                let message = format!("`{what}` did not end within {} and was stopped{said}", self.timeout);
                return Err(failed(core::TIMEOUT, message, None, None)
                    .hint("its effects until then remain; to give it more time, pass `timeout`"));
            }
            Ending::Cancelled => {
                return Err(failed(
                    core::CANCELLED,
                    format!("`{what}` was stopped with the run{said}"),
                    None,
                    None,
                ));
            }
        };
        let Some(exit_code) = status.code() else {
            let signal = signal_name(status);
            let error =
                failed(codes::EXEC, format!("`{what}` was killed by {signal}{said}"), Some(&signal), None);
            return Err(if signal == "SIGKILL" {
                error.hint("something outside killed it, often because the machine ran out of memory")
            } else {
                error
            });
        };
        if !self.status.contains(&exit_code) {
            let message = format!("`{what}` exited with {exit_code}{said}");
            let error = failed(codes::EXEC, message, None, Some(exit_code));
            return Err(
                error.hint(format!("if {exit_code} is not a failure, add `status: [0, {exit_code}]`"))
            );
        }
        Ok(Output {
            exit_code,
            stdout: out.to_owned(),
            stderr: err.to_owned(),
            stdout_truncated: stdout.truncated,
            stderr_truncated: stderr.truncated,
            duration_ms,
        })
    }
}

/// Whether that is the error of a command that a signal ended, wherever it came from.
pub(super) fn was_killed(error: &RunError) -> bool {
    error.detail.as_ref().is_some_and(|detail| detail["signal"].is_string())
}

/// The last lines of a text, indented.
fn last_lines(text: &str) -> String {
    let mut lines: Vec<&str> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(LAST_LINES).collect();
    lines.reverse();
    let short = |line: &str| line.chars().take(300).collect::<String>();
    lines.into_iter().map(|line| format!("  {}", short(line))).collect::<Vec<_>>().join("\n")
}

fn signal_name(status: ExitStatus) -> String {
    let number = status.signal().unwrap_or_default();
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// Words as one would type them, secrets by name.
pub(super) fn shown(argv: &[Text]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,~^".contains(c);
    let word = |text: &Text| match text {
        Text::Plain(word) if !word.is_empty() && word.chars().all(plain) => word.clone(),
        Text::Plain(word) => format!("'{}'", word.replace('\'', r"'\''")),
        Text::Secret(secret) => secret.to_string(),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}
