//! What goes wrong in one rehearsed run.

use std::{fmt, str::FromStr};

use contraflow_provider::effect_id::EffectId;
use serde::{Serialize, Serializer};

use crate::effect::VerdictName;

/// One way in which an effect can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The target cannot be looked at.
    Unreachable,
    /// It fails before anything was done.
    Refused,
    /// It is done, and the answer is lost.
    LostAnswer,
    /// It never answers, and nothing was done.
    TimesOut,
    /// It is set and does not come into effect.
    NeverSettles,
    /// A check or a gate comes to one of its own bad ends.
    Verdict(VerdictName),
    /// A person says no.
    Denied,
    /// Nobody answers.
    NoAnswer,
    /// The guard of that id finds something meanwhile.
    Breach(EffectId),
    /// The process dies once it is done and before that is recorded; the run is resumed.
    Killed,
}

impl Fault {
    /// Its column in the matrix.
    pub fn name(&self) -> &str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::LostAnswer => "lost-answer",
            Self::TimesOut => "times-out",
            Self::NeverSettles => "never-settles",
            Self::Verdict(name) => name.as_str(),
            Self::Denied => "denied",
            Self::NoAnswer => "no-answer",
            Self::Breach(_) => "breach",
            Self::Killed => "killed",
        }
    }

    /// Whether it stands in the same column: whichever guard is breached.
    pub fn is_like(&self, other: &Self) -> bool {
        self == other || matches!((self, other), (Self::Breach(_), Self::Breach(_)))
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Unreachable => "the target cannot be reached".to_owned(),
            Self::Refused => "it fails before anything was done".to_owned(),
            Self::LostAnswer => "it is done, and the answer is lost".to_owned(),
            Self::TimesOut => "it never answers".to_owned(),
            Self::NeverSettles => "it is set and never takes effect".to_owned(),
            Self::Verdict(name) => format!("it {}", name.predicate()),
            Self::Denied => "a person says no".to_owned(),
            Self::NoAnswer => "nobody answers".to_owned(),
            Self::Breach(guard) => format!("the guard {guard} is breached"),
            Self::Killed => "the process dies before it is recorded as done; the run is resumed".to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Breach(guard) => write!(f, "breach({guard})"),
            other => f.write_str(other.name()),
        }
    }
}

/// By its name alone: which guard was breached is not told.
impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "unreachable" => Self::Unreachable,
            "refused" => Self::Refused,
            "lost-answer" => Self::LostAnswer,
            "times-out" => Self::TimesOut,
            "never-settles" => Self::NeverSettles,
            "denied" => Self::Denied,
            "no-answer" => Self::NoAnswer,
            "killed" => Self::Killed,
            other => match other.strip_prefix("breach(").and_then(|rest| rest.strip_suffix(')')) {
                Some(guard) => Self::Breach(guard.into()),
                None => Self::Verdict(other.into()),
            },
        })
    }
}

/// What goes wrong in one rehearsed run. Its text names it: `shift/1:traffic.shift=lost-answer`, faults joined by `+`; `as-planned`
/// where nothing goes wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scenario {
    /// The effects that go wrong, by id, and how.
    pub faults: Vec<(EffectId, Fault)>,
    /// The process dies as soon as that many records are in the journal; the run is resumed.
    pub crash: Option<usize>,
    /// Branches of a `parallel` are run last to first.
    pub backwards: bool,
}

/// The name of the scenario in which nothing goes wrong.
const AS_PLANNED: &str = "as-planned";
const CRASH: &str = "crash@";
const BACKWARDS: &str = "branches-backwards";

impl Scenario {
    /// One effect goes wrong.
    pub fn fault(id: impl Into<EffectId>, fault: Fault) -> Self {
        Self { faults: vec![(id.into(), fault)], ..Self::default() }
    }

    /// The process dies once.
    pub fn crash(records: usize) -> Self {
        Self { crash: Some(records), ..Self::default() }
    }

    /// The same, and one more effect goes wrong.
    #[must_use]
    pub fn and(&self, id: impl Into<EffectId>, fault: Fault) -> Self {
        let mut faults = self.faults.clone();
        faults.push((id.into(), fault));
        Self { faults, ..self.clone() }
    }

    /// The same where nobody kills the process.
    pub(crate) fn without_crash(&self) -> Self {
        Self { crash: None, ..self.clone() }
    }

    /// Whether nothing goes wrong.
    pub fn is_as_planned(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something goes wrong while the run is undone.
    pub fn disturbs_rollback(&self) -> bool {
        self.faults.iter().any(|(id, fault)| id.is_rollback() && *fault != Fault::Killed)
    }

    /// Whether the process dies.
    pub fn dies(&self) -> bool {
        self.crash.is_some() || self.faults.iter().any(|(_, fault)| *fault == Fault::Killed)
    }

    /// Whether nothing goes wrong but that the process dies, or branches come in another order: the run must come to the same end.
    pub fn only_dies(&self) -> bool {
        self.faults.iter().all(|(_, fault)| *fault == Fault::Killed)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.faults.iter().map(|(id, fault)| format!("{id}={fault}")).collect();
        parts.extend(self.crash.map(|records| format!("{CRASH}{records}")));
        parts.extend(self.backwards.then(|| BACKWARDS.to_owned()));
        f.write_str(if parts.is_empty() { AS_PLANNED } else { "" })?;
        f.write_str(&parts.join("+"))
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut scenario = Self::default();
        if text == AS_PLANNED {
            return Ok(scenario);
        }
        for part in text.split('+') {
            if let Some(records) = part.strip_prefix(CRASH) {
                let records = records.parse().ok().filter(|n| *n > 0);
                scenario.crash = Some(
                    records.ok_or(format!("\"{part}\": expected a number of records, such as {CRASH}17"))?,
                );
            } else if part == BACKWARDS {
                scenario.backwards = true;
            } else if let Some((id, fault)) =
                part.split_once('=').filter(|(id, f)| !id.is_empty() && !f.is_empty())
            {
                let Ok(fault) = fault.parse();
                scenario.faults.push((id.into(), fault));
            } else {
                return Err(format!(
                    "\"{part}\": expected an effect and a fault, such as 1:traffic.shift=lost-answer"
                ));
            }
        }
        Ok(scenario)
    }
}

impl Serialize for Scenario {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_found_again_by_its_name() {
        let breach = Fault::Breach("2:guard".into());
        let several = Scenario { backwards: true, ..Scenario::crash(17) }
            .and("shift/1:par[0]/1:traffic.shift", Fault::LostAnswer)
            .and("shift#2/3:metrics.hold", Fault::Verdict(VerdictName::NoData))
            .and("rollback/1:lab.set", breach);
        for scenario in [Scenario::default(), Scenario::crash(1), several] {
            assert_eq!(scenario.to_string().parse(), Ok(scenario));
        }
        for wrong in ["", "what", "=refused", "a=", "crash@0", "crash@x"] {
            assert!(wrong.parse::<Scenario>().is_err(), "{wrong}");
        }
    }
}
