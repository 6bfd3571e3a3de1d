//! What a runbook does, in which order and inside what, as far as its text says it.
//!
//! An [`Outline`] is made from the syntax trees of a runbook and of what it imports, without running anything. Script functions and
//! closures stand where they are called. What cannot be followed is there as such: nobody who looks at an outline should take it for
//! something that does nothing.

mod build;
mod calls;
mod loops;
mod source;
mod value;

use std::sync::Arc;

pub use self::value::Value;
use super::EffectClass;
use crate::error::Frame;

/// A place in a script.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The script, as in its bundle.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// What a runbook does.
#[derive(Debug, Clone)]
pub struct Outline {
    /// The runbook itself, in order.
    pub body: Vec<Node>,
    /// Whether its header says how long a run may take.
    pub has_deadline: bool,
}

/// One thing in an outline.
#[derive(Debug, Clone)]
pub enum Node {
    /// A primitive or a control word is called.
    Call(Call),
    /// Something with things inside.
    Part(Part),
    /// The script goes somewhere else.
    Leave(Leave),
    /// Something that cannot be followed.
    Unknown,
}

/// The call of a primitive or a control word.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its name: `traffic::shift`, `point_of_no_return`.
    pub name: String,
    /// What it does outside. `None`: nothing, or it does not say.
    pub class: Option<EffectClass>,
    /// Its arguments.
    pub args: Vec<Value>,
    /// Where it stands.
    pub place: Place,
    /// The calls of script functions that lead here, innermost first.
    pub way: Vec<Frame>,
    /// Whether its value is only shown to people.
    pub only_told: bool,
}

impl Call {
    /// An argument. `Unit` where there is none.
    pub fn arg(&self, at: usize) -> &Value {
        self.args.get(at).unwrap_or(&Value::Unit)
    }

    /// Its noun: `traffic` of `traffic::shift`. Empty for a control word.
    pub fn noun(&self) -> &str {
        self.name.split_once("::").map_or("", |(noun, _)| noun)
    }

    /// Whether it asks a person.
    pub fn asks(&self) -> bool {
        matches!(&*self.name, "approve" | "confirm" | "manual" | "checklist")
    }
}

/// Something with things inside.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Where it begins.
    pub place: Place,
    /// The calls of script functions that lead here, innermost first.
    pub way: Vec<Frame>,
    /// What is inside. How many there are depends on the kind.
    pub bodies: Vec<Vec<Node>>,
}

/// What has things inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartKind {
    /// `step`: one body.
    Step {
        /// Whether it has a deadline.
        timed: bool,
    },
    /// `guard`: one body.
    Guard,
    /// `parallel`: a body for each branch.
    Parallel,
    /// `on_rollback`: one body, which is run if the run is rolled back.
    OnRollback,
    /// A script function or a closure that is called here: one body.
    Function,
    /// A closure that is given to something: one body, which is run now, later, several times or never.
    Closure,
    /// `for`, `while`, `loop` or `do`: one body.
    Loop(Loop),
    /// `try` and its `catch`: two bodies.
    Try,
    /// `if`, `switch` and what is only sometimes evaluated: one of the bodies, of which one may be empty.
    Choice,
}

/// What is known of a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop {
    /// How it ends.
    pub ends: Ends,
    /// Whether its body is run at least once.
    pub runs: bool,
    /// Whether something that is found out inside is used outside, as by a variable.
    pub tells: bool,
}

/// How a loop ends, besides by what leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// After a number of rounds.
    Counted,
    /// When a condition says so that may depend on what is found out inside.
    Found,
    /// Not.
    Never,
}

/// Where a script goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Out of the loop.
    Break {
        /// Whether the loop has a value then.
        value: bool,
    },
    /// To the next round.
    Continue,
    /// Out of the function or closure.
    Return {
        /// Whether it has a value then.
        value: bool,
    },
    /// `throw` or `fail`.
    Throw,
    /// `exit`: out of the script.
    Exit,
}

impl Node {
    /// Whether something in it, itself included, is such.
    pub fn any(&self, such: &dyn Fn(&Self) -> bool) -> bool {
        such(self)
            || matches!(self, Self::Part(part) if part.bodies.iter().flatten().any(|node| node.any(such)))
    }
}
