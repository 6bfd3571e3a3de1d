//! Warnings: what is probably wrong with a runbook that would run.
//!
//! A [`Lint`] looks at the [`Outline`] of a runbook, which is made without running anything. A warning that is wrong costs more than
//! one that is missing, since people stop reading all of them: a lint says nothing about what it does not know for sure.

mod allow;
mod flow;
mod health_loop;
mod no_return;

use serde::Serialize;

pub use self::flow::{Around, Walk, flow};
use self::{health_loop::HealthLoop, no_return::UnguardedWrite};
use crate::{
    error::{Code, Frame},
    script::{
        Bundle, Functions,
        outline::{Call, Outline, Part, Place},
    },
};

/// Something that is probably wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Which lint: `unguarded-write`.
    pub code: Code,
    /// What, as a lowercase fragment.
    pub message: String,
    /// What it means when the run goes wrong.
    pub why: String,
    /// Where in the script, innermost first.
    pub frames: Vec<Frame>,
    /// What to do about it, most useful first.
    pub help: Vec<String>,
}

impl Warning {
    /// A warning at a place.
    pub fn at(code: &'static str, place: &Place, what: &str, message: impl Into<String>) -> Self {
        let frame = Frame {
            what: what.to_owned(),
            source: place.file.to_string(),
            line: place.line,
            column: place.column,
        };
        Self {
            code: code.into(),
            message: message.into(),
            why: String::new(),
            frames: vec![frame],
            help: Vec::new(),
        }
    }

    /// A warning about a call.
    pub fn of_call(code: &'static str, call: &Call, message: impl Into<String>) -> Self {
        let mut warning = Self::at(code, &call.place, &call.name, message);
        warning.frames.extend(call.way.iter().cloned());
        warning
    }

    /// A warning about a part.
    pub fn of_part(code: &'static str, part: &Part, message: impl Into<String>) -> Self {
        let mut warning = Self::at(code, &part.place, "", message);
        warning.frames.extend(part.way.iter().cloned());
        warning
    }

    /// Says what it means when the run goes wrong.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// The script, line and column that it points to.
    fn spot(&self) -> (&str, usize, usize) {
        self.frames.first().map_or(("", 0, 0), |frame| (&*frame.source, frame.line, frame.column))
    }
}

/// Finds one kind of defect in runbooks.
pub trait Lint: Send + Sync {
    /// The code of its warnings: stable, small letters joined by `-`.
    fn name(&self) -> &'static str;

    /// What it finds, in one sentence without a full stop at its end.
    fn about(&self) -> &'static str;

    /// Looks at a runbook.
    fn look(&self, outline: &Outline) -> Vec<Warning>;
}

/// The code of warnings about the comments that silence warnings.
pub const ALLOW: &str = "allow";

/// What warnings with the code [`ALLOW`] are about.
pub const ABOUT_ALLOW: &str = "a comment that silences no warning, or gives no reason";

/// The lints of the runtime.
pub fn lints() -> Vec<std::sync::Arc<dyn Lint>> {
    vec![std::sync::Arc::new(UnguardedWrite), std::sync::Arc::new(HealthLoop)]
}

/// What `lints` and those of the runtime find in a bundle, by place. Nothing in one that does not parse.
pub(crate) fn warnings(
    bundle: &Bundle,
    functions: &Functions,
    lints: &[std::sync::Arc<dyn Lint>],
) -> Vec<Warning> {
    let Some(outline) = Outline::of(bundle, functions) else { return Vec::new() };
    let own = self::lints();
    let all: Vec<&dyn Lint> =
        own.iter().map(|lint| &**lint).chain(lints.iter().map(|lint| &**lint)).collect();
    let mut found: Vec<Warning> = Vec::new();
    for warning in all.iter().flat_map(|lint| lint.look(&outline)) {
        // A function that is called twice is looked at twice.
        if !found.iter().any(|known| known.code == warning.code && known.spot() == warning.spot()) {
            found.push(warning);
        }
    }
    let names: Vec<&str> = all.iter().map(|lint| lint.name()).collect();
    let mut warnings = allow::apply(bundle, found, &names);
    warnings.sort_by(|a, b| (a.spot(), a.code.as_str()).cmp(&(b.spot(), b.code.as_str())));
    warnings
}
