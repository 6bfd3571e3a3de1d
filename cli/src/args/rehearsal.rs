//! The commands that try a runbook in a simulated world.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueHint};
use contraflow_runtime::{quantity::Span, rehearsal::Explore};

use super::Script;

/// `contraflow rehearse`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rehearse {
    /// What to rehearse.
    #[command(flatten)]
    pub(crate) script: Script,
    /// Scenario file with the initial state and the answers [default: NAME.scenario.toml next to NAME.rhai, if it exists].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) scenario: Option<PathBuf>,
    /// Do not contact the targets: take the initial state from the scenario file only.
    #[arg(long)]
    pub(crate) no_look: bool,
    /// Also try every pair of faults.
    #[arg(long)]
    pub(crate) pairs: bool,
    /// Stop after this many scenarios or this much time, such as 5000 or 60s. Skipped scenarios are reported.
    #[arg(long, value_name = "N|DURATION")]
    pub(crate) budget: Option<Budget>,
    /// Run only this scenario, such as 2:traffic.shift=lost-answer or as-planned.
    #[arg(long, value_name = "SCENARIO", conflicts_with_all = ["pairs", "budget", "html", "junit", "all"])]
    pub(crate) only: Option<String>,
    /// With --only: show the run line by line, with simulated time.
    #[arg(long, requires = "only")]
    pub(crate) trace: bool,
    /// Write an HTML report.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,
    /// Write a JUnit XML report for CI.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) junit: Option<PathBuf>,
    /// List every scenario and every violation.
    #[arg(long)]
    pub(crate) all: bool,
}

/// `contraflow snapshot`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Snapshot {
    /// Whose targets to look at.
    #[command(flatten)]
    pub(crate) script: Script,
    /// Output file [default: standard output].
    #[arg(short, long = "out", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
    /// Replace an existing file.
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
}

/// How much is explored at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    /// So many scenarios.
    Scenarios(usize),
    /// So long.
    Time(Span),
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse() {
                Ok(0) => Err("expected one scenario or more".to_owned()),
                Ok(n) => Ok(Self::Scenarios(n)),
                Err(_) => Err("that are too many scenarios".to_owned()),
            };
        }
        match text.parse::<Span>() {
            Ok(span) if span.0.is_zero() => Err("expected some time".to_owned()),
            Ok(span) => Ok(Self::Time(span)),
            Err(_) => {
                Err("expected a number of scenarios, such as 5000, or a duration, such as 60s".to_owned())
            }
        }
    }
}

impl Rehearse {
    /// What is to be explored.
    pub(crate) fn explore(&self) -> Explore {
        let (scenarios, time) = match self.budget {
            Some(Budget::Scenarios(n)) => (Some(n), None),
            Some(Budget::Time(span)) => (None, Some(span.0)),
            None => (None, None),
        };
        Explore { pairs: self.pairs, scenarios, time, ..Explore::default() }
    }
}

pub(super) const REHEARSE_EXAMPLES: &str = "\
Examples:
  contraflow rehearse blue-green.rhai
  contraflow rehearse blue-green.rhai --env staging --param service=shop --pairs --budget 60s
  contraflow rehearse blue-green.rhai --scenario production.toml --no-look --junit rehearsal.xml --html rehearsal.html
  contraflow rehearse blue-green.rhai --only 2:traffic.shift=lost-answer --trace";

pub(super) const SNAPSHOT_EXAMPLES: &str = "\
Examples:
  contraflow snapshot blue-green.rhai --env production -o blue-green.scenario.toml
  contraflow snapshot blue-green.rhai --param to=blue";
