//! Goes through an outline in the order in which a run would, with a state of its own.

use crate::script::outline::{Call, Ends, Leave, Node, Part, PartKind};

/// What a lint makes of what it comes past.
pub trait Walk {
    /// What is known at a place.
    type State: Clone;

    /// A call; `state` is what is known before it, and afterwards what is known behind it.
    fn call(&mut self, call: &Call, state: &mut Self::State, around: Around);

    /// Something that cannot be followed.
    fn unknown(&mut self, state: &mut Self::State);

    /// What is known where two ways meet.
    fn either(&self, a: Self::State, b: Self::State) -> Self::State;

    /// What is known at the beginning of a `catch`, of two states in which something may have failed.
    fn caught(&self, a: Self::State, b: Self::State) -> Self::State {
        self.either(a, b)
    }
}

/// What is around a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Around {
    /// A guard watches.
    pub guarded: bool,
    /// It happens when the run is rolled back.
    pub undoing: bool,
    /// It happens when something has failed.
    pub catching: bool,
    /// Whether, when and inside what it happens is not known.
    pub loose: bool,
}

/// Ways out of the middle of something, with what is known there.
struct Outs<S> {
    thrown: Option<S>,
    returned: Option<S>,
    left: Option<S>,
}

/// Goes through `nodes` from `state`. Answers what is known at their end; `None` if that is never reached.
pub fn flow<W: Walk>(nodes: &[Node], state: W::State, walk: &mut W) -> Option<W::State> {
    Flow { walk }.nodes(nodes, state, Around::default(), &mut Outs::none())
}

impl<S> Outs<S> {
    const fn none() -> Self {
        Self { thrown: None, returned: None, left: None }
    }
}

struct Flow<'a, W> {
    walk: &'a mut W,
}

impl<W: Walk> Flow<'_, W> {
    fn join(&self, a: Option<W::State>, b: Option<W::State>) -> Option<W::State> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.walk.either(a, b)),
            (one, other) => one.or(other),
        }
    }

    fn may_throw(&self, state: &W::State, outs: &mut Outs<W::State>) {
        let before = outs.thrown.take();
        outs.thrown = Some(match before {
            Some(before) => self.walk.caught(before, state.clone()),
            None => state.clone(),
        });
    }

    fn nodes(
        &mut self,
        nodes: &[Node],
        mut state: W::State,
        around: Around,
        outs: &mut Outs<W::State>,
    ) -> Option<W::State> {
        for node in nodes {
            match node {
                Node::Call(call) => {
                    if call.class.is_some() || call.asks() || !call.noun().is_empty() {
                        self.may_throw(&state, outs);
                    }
                    self.walk.call(call, &mut state, around);
                }
                Node::Unknown => {
                    self.may_throw(&state, outs);
                    self.walk.unknown(&mut state);
                }
                Node::Part(part) => state = self.part(part, state, around, outs)?,
                Node::Leave(leave) => {
                    match leave {
                        Leave::Throw => self.may_throw(&state, outs),
                        Leave::Return { .. } => outs.returned = self.join(outs.returned.take(), Some(state)),
                        Leave::Break { .. } | Leave::Continue => {
                            outs.left = self.join(outs.left.take(), Some(state))
                        }
                        Leave::Exit => {}
                    }
                    return None;
                }
            }
        }
        Some(state)
    }

    /// The only body of a part that `return` leaves.
    fn closed(
        &mut self,
        body: &[Node],
        state: W::State,
        around: Around,
        outs: &mut Outs<W::State>,
    ) -> Option<W::State> {
        let mut inside = Outs { thrown: outs.thrown.take(), returned: None, left: None };
        let end = self.nodes(body, state, around, &mut inside);
        outs.thrown = inside.thrown;
        self.join(end, inside.returned)
    }

    fn part(
        &mut self,
        part: &Part,
        state: W::State,
        around: Around,
        outs: &mut Outs<W::State>,
    ) -> Option<W::State> {
        let bodies = part.bodies.iter().map(Vec::as_slice);
        let first = part.bodies.first().map_or(&[][..], Vec::as_slice);
        match part.kind {
            PartKind::Step { .. } | PartKind::Function => self.closed(first, state, around, outs),
            PartKind::Guard => {
                // What a guard finds is thrown at any moment.
                self.may_throw(&state, outs);
                self.closed(first, state, Around { guarded: true, ..around }, outs)
            }
            PartKind::Parallel => {
                let mut end = None;
                for body in bodies {
                    let branch = self.closed(body, state.clone(), around, outs)?;
                    end = self.join(end, Some(branch));
                }
                Some(end.unwrap_or(state))
            }
            PartKind::OnRollback => {
                // What was done behind this place has been undone when it is called: what is known here is known there.
                let undoing = Around { undoing: true, guarded: false, ..around };
                self.nodes(first, state.clone(), undoing, &mut Outs::none());
                Some(state)
            }
            PartKind::Closure => {
                let loose = Around { loose: true, ..around };
                let end = self.closed(first, state.clone(), loose, outs);
                self.join(Some(state), end)
            }
            PartKind::Choice => {
                let mut end = None;
                for body in bodies {
                    let one = self.nodes(body, state.clone(), around, outs);
                    end = self.join(end, one);
                }
                end
            }
            PartKind::Loop(about) => {
                let before = (!about.runs).then(|| state.clone());
                let outer = outs.left.take();
                let end = self.nodes(first, state, around, outs).filter(|_| about.ends != Ends::Never);
                let left = std::mem::replace(&mut outs.left, outer);
                let end = self.join(end, left);
                self.join(before, end)
            }
            PartKind::Try => {
                let outer = outs.thrown.take();
                let end = self.nodes(first, state.clone(), around, outs);
                let thrown = std::mem::replace(&mut outs.thrown, outer);
                let caught = thrown.unwrap_or(state);
                let catching = Around { catching: true, ..around };
                let rest = part.bodies.get(1).map_or(&[][..], Vec::as_slice);
                let caught = self.nodes(rest, caught, catching, outs);
                self.join(end, caught)
            }
        }
    }
}
