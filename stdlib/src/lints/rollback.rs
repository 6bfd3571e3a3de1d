//! A rollback sends traffic to a pool that the runbook has scaled to zero.

use contraflow_runtime::{
    lint::{Around, Lint, Walk, Warning, flow},
    script::{
        EffectClass,
        outline::{Call, Outline, Value},
    },
};

use super::{PoolRef, is_none, retired, retires};

const NAME: &str = "rollback-without-capacity";

/// Finds `on_rollback` closures and `catch` blocks that send traffic to a pool without replicas.
pub(crate) struct RollbackWithoutCapacity;

impl Lint for RollbackWithoutCapacity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a rollback sends traffic to a pool that was scaled to zero"
    }

    fn look(&self, outline: &Outline) -> Vec<Warning> {
        let mut found = Vec::new();
        for pool in retired(outline) {
            let mut search = Search { pool, found: Vec::new() };
            flow(&outline.body, None, &mut search);
            found.append(&mut search.found);
        }
        found
    }
}

struct Search {
    pool: PoolRef,
    found: Vec<Warning>,
}

impl Search {
    /// Whether a call gives the pool traffic: a share that is not 0 for sure.
    fn routes_to(&self, call: &Call) -> bool {
        let PoolRef { route, pool } = &self.pool;
        if call.arg(0).is_named(route) != Some(true) {
            return false;
        }
        match &*call.name {
            "traffic::shift" => call.arg(1).is_named(pool) == Some(true) && !is_none(call.arg(2)),
            "traffic::set" => {
                matches!(call.arg(1), Value::Map(weights) if weights.get(pool).is_some_and(|weight| !is_none(weight)))
            }
            _ => false,
        }
    }

    /// Whether a call gives the pool replicas again, looks whether it has some, or may do so.
    fn may_restore(&self, call: &Call) -> bool {
        let about = |value: &Value| value.may_mention(&self.pool.name());
        match (call.noun(), call.class) {
            ("deploy", _) => about(call.arg(0)),
            (_, Some(EffectClass::Check | EffectClass::Read)) => call.args.iter().any(about),
            ("exec" | "http", _) => true,
            ("", _) => matches!(&*call.name, "manual" | "checklist"),
            (_, class) => class.is_none(),
        }
    }
}

impl Walk for Search {
    /// The line in which the pool was scaled to zero, if it was for sure.
    type State = Option<usize>;

    fn call(&mut self, call: &Call, gone: &mut Self::State, around: Around) {
        if retires(call).as_ref() == Some(&self.pool) {
            *gone = Some(call.place.line);
            return;
        }
        if self.may_restore(call) {
            *gone = None;
            return;
        }
        let Some(line) = *gone else { return };
        if !self.routes_to(call) || !(around.undoing || around.catching) || around.loose {
            return;
        }
        let name = self.pool.name();
        let (when, order) = if around.undoing {
            (
                "in the rollback",
                Some(format!(
                    "or register it before line {line}: then it is called after that line is undone"
                )),
            )
        } else {
            ("after a failure", None)
        };
        let warning = Warning::of_call(
            NAME,
            call,
            format!("{when}, traffic goes to {name}, which line {line} scaled to zero"),
        )
        .why("a rollback runs when something has already failed: this one would cause an outage")
        .help(format!("scale it up first: deploy::scale(\"{name}\", 3)"));
        self.found.push(order.into_iter().fold(warning, Warning::help));
    }

    fn unknown(&mut self, gone: &mut Self::State) {
        *gone = None;
    }

    fn either(&self, a: Self::State, b: Self::State) -> Self::State {
        a.filter(|_| b.is_some())
    }

    fn caught(&self, a: Self::State, b: Self::State) -> Self::State {
        // It is enough that one of the places at which something may fail lies behind it.
        a.or(b)
    }
}
