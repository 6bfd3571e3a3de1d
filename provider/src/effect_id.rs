//! Ids of effects: where in the tree of steps and branches of a script something stands.
//!
//! An id is a path. `shift-25/2:par[0]/1:probe.http` is the first effect in branch 0 of the `parallel` that is the second thing in
//! step `shift-25`; `rollback/shift-25/1:traffic.shift` undoes the first effect of that step. It follows from what the script
//! does and never from timing, so a run that is resumed finds its effects again by their ids.
//!
//! **Invariant:** only this file knows how ids are written. Whoever wants to know what one says asks it.

use std::{
    borrow::Borrow,
    fmt::{self, Write as _},
    ops::Deref,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// The way back.
const ROLLBACK: &str = "rollback";

/// What stands before the id of what is undone.
const UNDOES: &str = "rollback/";

/// What stands before the name of what the plan does not have.
const OUTSIDE_PLAN: &str = "outside-plan:";

/// The id of an effect, a step or another place of a script, such as `preflight/1:probe.http`. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EffectId(Arc<str>);

/// A part of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The id that ends with this part.
    pub id: &'a str,
    /// The part as it is written.
    pub text: &'a str,
    /// What it is.
    pub segment: Segment<'a>,
}

/// What a part of an id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'a> {
    /// The way back: behind it stands what is undone.
    Rollback,
    /// A step.
    Step(&'a str),
    /// An effect or a mark, by its name.
    Effect(&'a str),
    /// A branch of a `parallel`, counted from 0.
    Branch {
        /// Id of the `parallel`.
        parallel: &'a str,
        /// Which one.
        index: usize,
    },
    /// The question whether the effect before it may be done although the plan does not have it.
    OutsidePlan,
    /// Something that a guard watches, counted from 0.
    Watch {
        /// Id of the guard.
        guard: &'a str,
        /// Which one.
        index: usize,
    },
}

impl EffectId {
    /// Name of what has branches.
    pub const PARALLEL: &'static str = "par";

    /// Name of what watches.
    pub const GUARD: &'static str = "guard";

    /// The run as a whole.
    pub fn of_run() -> Self {
        Self::from("run")
    }

    /// The rollback as a whole.
    pub fn of_rollback() -> Self {
        Self::from(ROLLBACK)
    }

    /// The effect or mark `name` that is the `n`th in this step or branch.
    #[must_use]
    pub fn effect(&self, n: u32, name: &str) -> Self {
        let slash = if self.0.is_empty() { "" } else { "/" };
        let mut id = String::with_capacity(self.len() + name.len() + 12);
        // A string takes everything.
        let _ = write!(id, "{}{slash}{n}:{name}", &*self.0);
        Self::from(id)
    }

    /// The step `slug`, as [`EffectId::slug`] answers it, in this step or branch for the `times`th time.
    #[must_use]
    pub fn step(&self, slug: &str, times: u32) -> Self {
        let slash = if self.0.is_empty() { "" } else { "/" };
        if times > 1 {
            Self::from(format!("{self}{slash}{slug}#{times}"))
        } else {
            Self::from(format!("{self}{slash}{slug}"))
        }
    }

    /// A step's name as part of an id: lower case, words joined by `-`.
    pub fn slug(name: &str) -> String {
        let mut slug = String::with_capacity(name.len());
        for c in name.chars() {
            if c.is_alphanumeric() || c == '_' || c == '.' {
                slug.extend(c.to_lowercase());
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        match slug.trim_end_matches('-') {
            "" => "step".to_owned(),
            // What undoes gets the id of what it undoes, below this.
            ROLLBACK => format!("{ROLLBACK}-step"),
            slug => slug.chars().take(60).collect(),
        }
    }

    /// Branch `index` of this `parallel`, or what this guard watches, counted from 0.
    #[must_use]
    pub fn branch(&self, index: usize) -> Self {
        Self::from(format!("{self}[{index}]"))
    }

    /// The id of the question whether this may be done although the plan does not have it; `exactly` names what is done.
    #[must_use]
    pub fn outside_plan(&self, exactly: &str) -> Self {
        Self::from(format!("{self}/{OUTSIDE_PLAN}{exactly}"))
    }

    /// The id of what undoes this.
    #[must_use]
    pub fn rollback(&self) -> Self {
        Self::from(format!("{UNDOES}{self}"))
    }

    /// Whether it belongs to a rollback.
    pub fn is_rollback(&self) -> bool {
        self.0.starts_with(UNDOES)
    }

    /// The id of what this undoes, if it belongs to a rollback.
    pub fn undoes(&self) -> Option<&str> {
        self.0.strip_prefix(UNDOES)
    }

    /// The id of the step or branch in which it stands. Empty: in none.
    pub fn scope(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(scope, _)| scope)
    }

    /// Its parts, outermost first.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let id = &*self.0;
        let ends = id.match_indices('/').map(|(at, _)| at).chain([id.len()]);
        ends.scan(0, move |start, end| {
            let begin = std::mem::replace(start, end + 1);
            Some(part(id, begin, end))
        })
    }

    /// The last of its parts.
    pub fn last(&self) -> Part<'_> {
        let begin = self.0.rfind('/').map_or(0, |at| at + 1);
        part(&self.0, begin, self.0.len())
    }

    /// Name of the effect or step.
    pub fn name(&self) -> &str {
        match self.last().segment {
            Segment::Rollback => ROLLBACK,
            Segment::Step(name) | Segment::Effect(name) => name,
            Segment::OutsidePlan => "outside-plan",
            Segment::Branch { .. } => Self::PARALLEL,
            Segment::Watch { .. } => Self::GUARD,
        }
    }

    /// Whether it is that of a guard.
    pub fn is_guard(&self) -> bool {
        matches!(self.last().segment, Segment::Effect(Self::GUARD))
    }

    /// The branches around it, outermost first: the id of each `parallel`, and which branch.
    pub fn branches(&self) -> impl Iterator<Item = (&str, usize)> {
        self.parts().filter_map(|part| match part.segment {
            Segment::Branch { parallel, index } => Some((parallel, index)),
            _ => None,
        })
    }

    /// Whether it is what a person means who names `place`: its id, the id of something around it, or one of its parts.
    pub fn is_meant_by(&self, place: &str) -> bool {
        let place = place.trim_end_matches('/');
        self.parts().any(|part| part.id == place || part.text == place)
    }
}

/// The part of `id` from `begin` to `end`.
fn part(id: &str, begin: usize, end: usize) -> Part<'_> {
    let (outer, text) = (&id[..end], &id[begin..end]);
    Part { id: outer, text, segment: segment(outer, text) }
}

/// What `text` at the end of `outer` stands for.
fn segment<'a>(outer: &'a str, text: &'a str) -> Segment<'a> {
    if outer == ROLLBACK {
        return Segment::Rollback;
    }
    if text.starts_with(OUTSIDE_PLAN) {
        return Segment::OutsidePlan;
    }
    let counted =
        text.split_once(':').filter(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let Some((_, name)) = counted else { return Segment::Step(text) };
    let indexed = || {
        let (name, index) = name.strip_suffix(']')?.split_once('[')?;
        let of = &outer[..outer.len() - index.len() - 2];
        Some((name, of, index.parse().ok()?))
    };
    match indexed() {
        Some((EffectId::PARALLEL, parallel, index)) => Segment::Branch { parallel, index },
        Some((EffectId::GUARD, guard, index)) => Segment::Watch { guard, index },
        _ => Segment::Effect(name),
    }
}

impl Deref for EffectId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for EffectId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for EffectId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl From<&str> for EffectId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for EffectId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<&Self> for EffectId {
    fn from(id: &Self) -> Self {
        id.clone()
    }
}

impl PartialEq<str> for EffectId {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for EffectId {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_parts() {
        let id = EffectId::default()
            .step(&EffectId::slug("Shift 25%"), 1)
            .effect(2, "par")
            .branch(0)
            .effect(1, "probe.http");
        assert_eq!(id, "shift-25/2:par[0]/1:probe.http");
        let parts: Vec<_> = id.parts().map(|part| (part.id, part.text, part.segment)).collect();
        assert_eq!(
            parts,
            [
                ("shift-25", "shift-25", Segment::Step("shift-25")),
                ("shift-25/2:par[0]", "2:par[0]", Segment::Branch { parallel: "shift-25/2:par", index: 0 }),
                (&*id, "1:probe.http", Segment::Effect("probe.http")),
            ]
        );
        assert_eq!((id.name(), id.scope()), ("probe.http", "shift-25/2:par[0]"));
        assert_eq!(id.branches().collect::<Vec<_>>(), [("shift-25/2:par", 0)]);
    }

    #[test]
    fn what_undoes_names_what_it_undoes() {
        let done = EffectId::from("a/1:lab.set");
        let undoing = done.rollback();
        assert_eq!(undoing, "rollback/a/1:lab.set");
        assert!(undoing.is_rollback() && !done.is_rollback());
        assert_eq!((undoing.undoes(), done.undoes()), (Some(&*done), None));
        assert_eq!(undoing.parts().next().map(|part| part.segment), Some(Segment::Rollback));
        assert_eq!(EffectId::of_rollback().last().segment, Segment::Rollback);
    }

    #[test]
    fn no_step_passes_for_the_rollback() {
        let step = EffectId::default().step(&EffectId::slug("Rollback"), 2);
        assert_eq!(step, "rollback-step#2");
        assert!(!step.effect(1, "lab.set").is_rollback());
    }

    #[test]
    fn a_guard_is_known_and_what_it_watches_knows_it() {
        let guard = EffectId::from("a/3:guard");
        assert!(guard.is_guard() && !EffectId::from("guard").is_guard(), "a step may be called so");
        let watch = guard.branch(1);
        assert_eq!(watch.last().segment, Segment::Watch { guard: "a/3:guard", index: 1 });
        assert_eq!(watch.name(), "guard");
    }

    #[test]
    fn a_question_about_an_effect_is_no_step() {
        let question = EffectId::from("a/1:lab.set").outside_plan("0a1b");
        assert_eq!(question, "a/1:lab.set/outside-plan:0a1b");
        assert_eq!(question.last().segment, Segment::OutsidePlan);
    }

    #[test]
    fn a_person_means_an_id_by_itself_by_what_is_around_it_or_by_a_part() {
        let id = EffectId::from("a/b/1:ops.confirm");
        for place in ["a", "a/", "a/b", "b", "1:ops.confirm", "a/b/1:ops.confirm"] {
            assert!(id.is_meant_by(place), "{place}");
        }
        for place in ["", "c", "b/1:ops.confirm", "ops.confirm", "a/b/1"] {
            assert!(!id.is_meant_by(place), "{place}");
        }
    }

    #[test]
    fn it_is_written_as_plain_text() {
        let id = EffectId::from("1:note");
        let json = serde_json::to_string(&id).expect("json");
        assert_eq!(json, r#""1:note""#);
        assert_eq!(serde_json::from_str::<EffectId>(&json).expect("id"), id);
        assert_eq!(format!("{id:>8}|{id:?}"), "  1:note|\"1:note\"");
    }
}
