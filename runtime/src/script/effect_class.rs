//! What a script function does outside, as its result type says.
//!
//! A function of a module declares it by the name of its result: `-> Changes`, `-> Checks`. All of these names are
//! [`ScriptResult`]; which one was written is part of the function's metadata, and that is where lints read it.

use rhai::Dynamic;
use serde::Serialize;

use super::ScriptResult;

/// What a function returns that changes something: a [`Change`](crate::effect::Change).
pub type Changes<T = Dynamic> = ScriptResult<T>;

/// What a function returns that does something that cannot be read back: an [`Action`](crate::effect::Action). With the option
/// `read_only: true` it only looks, and with `check: true` as well it passes or throws.
pub type Acts<T = Dynamic> = ScriptResult<T>;

/// What a function returns that tells people something and alters nothing else.
pub type Tells<T = Dynamic> = ScriptResult<T>;

/// What a function returns that looks.
pub type Reads<T = Dynamic> = ScriptResult<T>;

/// What a function returns that passes, or throws because something is not well: a probe, a gate.
pub type Checks<T = Dynamic> = ScriptResult<T>;

/// What a function returns that does nothing outside.
pub type Gives<T = Dynamic> = ScriptResult<T>;

/// What a function does outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// It changes a target.
    Change,
    /// It does something that cannot be read back.
    Action,
    /// It tells people something.
    Message,
    /// It looks.
    Read,
    /// It passes, or throws because something is not well.
    Check,
    /// Nothing.
    Nothing,
}

impl EffectClass {
    /// By the result type of a function, as it was written. `None`: it does not say.
    pub(crate) fn of(returns: &str) -> Option<Self> {
        let name = returns.split('<').next().unwrap_or_default().trim();
        Some(match name.rsplit("::").next().unwrap_or_default().trim() {
            "Changes" => Self::Change,
            "Acts" => Self::Action,
            "Tells" => Self::Message,
            "Reads" => Self::Read,
            "Checks" => Self::Check,
            "Gives" => Self::Nothing,
            _ => return None,
        })
    }

    /// Whether it may alter something outside.
    pub fn writes(self) -> bool {
        matches!(self, Self::Change | Self::Action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_class_is_read_from_the_name_of_the_result_type() {
        for (returns, class) in [
            ("Changes", Some(EffectClass::Change)),
            ("Checks < Array >", Some(EffectClass::Check)),
            ("contraflow_runtime::script::Acts", Some(EffectClass::Action)),
            ("ScriptResult", None),
            ("", None),
        ] {
            assert_eq!(EffectClass::of(returns), class, "{returns}");
        }
    }
}
