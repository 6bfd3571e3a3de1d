//! A loop that looks whether something is well and cannot fail.

use super::{Lint, Warning};
use crate::script::{
    EffectClass,
    outline::{Call, Ends, Leave, Loop, Node, Outline, Part, PartKind, Value},
};

const NAME: &str = "health-loop-cannot-fail";

/// Finds loops around checks that go on when no check has passed, and loops that never give up.
pub(super) struct HealthLoop;

impl Lint for HealthLoop {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a loop checks health, and continues, or never ends, if the check does not pass"
    }

    fn look(&self, outline: &Outline) -> Vec<Warning> {
        let mut search = Search { found: Vec::new() };
        search.nodes(&outline.body, &[], outline.has_deadline);
        search.found
    }
}

struct Search {
    found: Vec<Warning>,
}

impl Search {
    /// Judges all loops. `behind` is what follows, innermost last; `bounded`, whether something else ends a loop that does not.
    fn nodes(&mut self, nodes: &[Node], behind: &[&[Node]], bounded: bool) {
        for (at, node) in nodes.iter().enumerate() {
            let Node::Part(part) = node else { continue };
            let rest = &nodes[at + 1..];
            let follows = [behind, &[rest]].concat();
            if let PartKind::Loop(about) = part.kind {
                self.found.extend(judge(part, about, &follows, bounded));
            }
            let (follows, bounded) = match part.kind {
                // When they are called is not where they stand, and what calls them may catch what they throw.
                PartKind::OnRollback | PartKind::Closure => (Vec::new(), true),
                PartKind::Step { timed: true } | PartKind::Guard => (follows, true),
                _ => (follows, bounded),
            };
            if matches!(part.kind, PartKind::Closure) {
                continue;
            }
            for body in &part.bodies {
                self.nodes(body, &follows, bounded);
            }
        }
    }
}

/// What is wrong with a loop.
fn judge(part: &Part, about: Loop, behind: &[&[Node]], bounded: bool) -> Option<Warning> {
    let body = part.bodies.first()?;
    let lost = |node: &Node| {
        matches!(node, Node::Unknown)
            || matches!(node, Node::Part(part) if matches!(part.kind, PartKind::Closure | PartKind::OnRollback))
            || matches!(node, Node::Leave(Leave::Break { value: true } | Leave::Return { value: true }))
            || matches!(node, Node::Call(call) if call.asks() || is_undeclared(call))
    };
    if about.ends == Ends::Found || about.tells || any(body, &lost) || may_fail(body) {
        return None;
    }
    let (check, swallowed) = match swallowed(body) {
        Some(check) => (check, true),
        None => (polled(body)?, false),
    };
    let waits = any(body, &|node| matches!(node, Node::Call(call) if call.name == "sleep"));
    let writes =
        any(body, &|node| matches!(node, Node::Call(call) if call.class.is_some_and(EffectClass::writes)));
    let leaves = count(body, &|node| matches!(node, Node::Leave(Leave::Break { .. } | Leave::Return { .. })));
    let name = &check.name;
    if about.ends == Ends::Never {
        let on_success = if swallowed { leaves_in_tries(body) } else { leaves };
        if bounded || leaves == 0 || leaves != on_success || leaves > 1 {
            return None;
        }
        let message = format!("this loop never ends unless `{name}` finds what it waits for");
        return Some(
            Warning::of_part(NAME, part, message)
                .why(
                    "if that never happens, the run stays partially applied and keeps its locks until \
                    somebody notices",
                )
                .help("limit the rounds: for attempt in 0..30 { … }, then fail(\"…\") if none found it")
                .help(format!(
                    "or set a deadline: step(\"wait\", #{{ timeout: \"5m\" }}, || {{ … \
                    }}){}",
                    attempts(check)
                )),
        );
    }
    // A loop that only notes what it finds may be meant so: it neither tries again nor goes on to change something.
    if !waits && !writes && leaves == 0 || !swallowed && (!waits || leaves != 1 || writes) {
        return None;
    }
    if matches!(next(behind, check), Next::Heeds) && !writes {
        return None;
    }
    let message = if writes && leaves == 0 {
        format!("this loop ignores a failure of `{name}`: it catches the error and continues")
    } else if swallowed {
        format!("this loop cannot fail: if `{name}` never passes, the run continues as if it had")
    } else {
        format!(
            "this loop cannot fail: if `{name}` never finds what it waits for, the run continues as if it had"
        )
    };
    let help = if writes && leaves == 0 {
        "let it fail: remove the `catch`, or throw the error again in it"
    } else {
        "record whether it was found, and fail(\"…\") after the loop if not"
    };
    Some(
        Warning::of_part(NAME, part, message)
            .why("the next steps act on something unhealthy, and the run reports success")
            .help(format!("{help}{}", attempts(check))),
    )
}

/// A probe can try again by itself.
fn attempts(check: &Call) -> String {
    if check.noun() != "probe" {
        return String::new();
    }
    format!(
        "; `{}` retries by itself, and fails in the end, with #{{ attempts: 10, interval: \"10s\" }}",
        check.name
    )
}

fn any(nodes: &[Node], such: &dyn Fn(&Node) -> bool) -> bool {
    nodes.iter().any(|node| node.any(such))
}

fn count(nodes: &[Node], such: &dyn Fn(&Node) -> bool) -> usize {
    nodes
        .iter()
        .map(|node| {
            let inside = match node {
                // What leaves a loop inside stays in this one.
                Node::Part(part) if matches!(part.kind, PartKind::Loop(_)) => 0,
                Node::Part(part) => part.bodies.iter().map(|body| count(body, such)).sum(),
                _ => 0,
            };
            inside + usize::from(such(node))
        })
        .sum()
}

/// A primitive that does not say what it does may do anything.
fn is_undeclared(call: &Call) -> bool {
    call.class.is_none() && !call.noun().is_empty()
}

/// Whether a `catch` does nothing about what it has caught: it notes it, tells people, waits, looks.
fn swallows(part: &Part) -> bool {
    let heeds = |node: &Node| match node {
        Node::Unknown => true,
        Node::Leave(leave) => *leave != Leave::Continue,
        Node::Call(call) => {
            call.asks()
                || is_undeclared(call)
                || call.class.is_some_and(|class| class.writes() || class == EffectClass::Check)
        }
        Node::Part(part) => matches!(part.kind, PartKind::Closure | PartKind::OnRollback),
    };
    part.kind == PartKind::Try && part.bodies.get(1).is_some_and(|caught| !any(caught, &heeds))
}

/// Whether something in a loop can end it with an error: what is thrown, and checks, where nothing swallows them.
fn may_fail(nodes: &[Node]) -> bool {
    nodes.iter().any(|node| match node {
        Node::Leave(leave) => matches!(leave, Leave::Throw | Leave::Exit),
        Node::Call(call) => call.class == Some(EffectClass::Check),
        Node::Part(part) if swallows(part) => part.bodies.get(1).is_some_and(|caught| may_fail(caught)),
        Node::Part(part) => part.bodies.iter().any(|body| may_fail(body)),
        Node::Unknown => true,
    })
}

/// The first check whose failure is swallowed, or a read where what is read decides about leaving the loop.
fn swallowed(nodes: &[Node]) -> Option<&Call> {
    nodes.iter().find_map(|node| match node {
        Node::Part(part) if swallows(part) => {
            let tried = part.bodies.first()?;
            first(tried, &|call| call.class == Some(EffectClass::Check)).or_else(|| {
                leaves(tried).then(|| first(tried, &|call| call.class == Some(EffectClass::Read)))?
            })
        }
        Node::Part(part) if matches!(part.kind, PartKind::Loop(_)) => None,
        Node::Part(part) => part.bodies.iter().find_map(|body| swallowed(body)),
        _ => None,
    })
}

/// What a loop without `try` asks again and again, to leave when it has the right answer.
fn polled(nodes: &[Node]) -> Option<&Call> {
    let leaving = nodes.iter().any(|node| {
        matches!(node, Node::Part(part) if part.kind == PartKind::Choice && part.bodies.iter().any(|body| leaves(body)))
    });
    nodes.iter().filter(|_| leaving).find_map(|node| match node {
        Node::Call(call) if call.class == Some(EffectClass::Read) && !call.only_told => Some(call),
        _ => None,
    })
}

fn leaves(nodes: &[Node]) -> bool {
    count(nodes, &|node| matches!(node, Node::Leave(Leave::Break { .. } | Leave::Return { .. }))) > 0
}

/// How many ways out of a loop there are in what is tried.
fn leaves_in_tries(nodes: &[Node]) -> usize {
    let out = |node: &Node| matches!(node, Node::Leave(Leave::Break { .. } | Leave::Return { .. }));
    nodes
        .iter()
        .map(|node| match node {
            Node::Part(part) if swallows(part) => part.bodies.first().map_or(0, |tried| count(tried, &out)),
            Node::Part(part) => part.bodies.iter().map(|body| leaves_in_tries(body)).sum(),
            _ => 0,
        })
        .sum()
}

fn first<'a>(nodes: &'a [Node], such: &dyn Fn(&Call) -> bool) -> Option<&'a Call> {
    nodes.iter().find_map(|node| match node {
        Node::Call(call) => such(call).then_some(call),
        Node::Part(part) => part.bodies.iter().find_map(|body| first(body, such)),
        _ => None,
    })
}

/// What comes behind a loop.
enum Next {
    /// Something that can still say no: another check, a person, an error.
    Heeds,
    /// A change, or the end.
    Goes,
}

fn next(behind: &[&[Node]], check: &Call) -> Next {
    behind.iter().rev().find_map(|nodes| heeds(nodes, check)).unwrap_or(Next::Goes)
}

/// What the first of these that matters comes to.
fn heeds(nodes: &[Node], check: &Call) -> Option<Next> {
    nodes.iter().find_map(|node| match node {
        Node::Unknown | Node::Leave(Leave::Throw | Leave::Exit | Leave::Return { value: true }) => {
            Some(Next::Heeds)
        }
        Node::Leave(_) => None,
        Node::Call(call) if call.asks() || is_undeclared(call) => Some(Next::Heeds),
        Node::Call(call) => match call.class? {
            EffectClass::Check => Some(Next::Heeds),
            EffectClass::Read => same_subject(call, check).then_some(Next::Heeds),
            EffectClass::Change | EffectClass::Action => Some(Next::Goes),
            EffectClass::Message | EffectClass::Nothing => None,
        },
        Node::Part(part) => match part.kind {
            PartKind::Closure => Some(Next::Heeds),
            PartKind::OnRollback => None,
            _ if swallows(part) => None,
            // One of several ways that says no is enough.
            _ => {
                let mut ways: Vec<Next> = part.bodies.iter().filter_map(|body| heeds(body, check)).collect();
                let no = ways.iter().position(|way| matches!(way, Next::Heeds)).unwrap_or(0);
                (!ways.is_empty()).then(|| ways.swap_remove(no))
            }
        },
    })
}

/// Whether two calls may be about the same thing.
fn same_subject(a: &Call, b: &Call) -> bool {
    match (a.arg(0), b.arg(0)) {
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Unknown | Value::OneOf(_) | Value::Named(_), _)
        | (_, Value::Unknown | Value::OneOf(_) | Value::Named(_)) => true,
        (a, b) => a == b,
    }
}
