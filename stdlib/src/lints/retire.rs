//! A pool is retired, and nothing shows that no traffic is left on it.
//!
//! What counts as evidence, anywhere before on a way that leads to it: a change of weights that may leave the pool nothing, a look at
//! weights that is more than shown, a look at or gate on something that is not known to be about errors, times or machines (requests,
//! connections), a command or a request (which may be how somebody drains), a person; also that the runbook itself has started the pool. What counts against it is a change of weights
//! that leaves a part of the traffic: after that an approval alone is not enough.

use contraflow_runtime::{
    lint::{Around, Lint, Walk, Warning, flow},
    script::{
        EffectClass,
        outline::{Call, Outline, Value},
    },
};

use super::{Gets, PoolRef, gets, retired, retires};

const NAME: &str = "retire-without-evidence";

/// Finds pools that are scaled to zero without evidence that no traffic is left on them.
pub(crate) struct RetireWithoutEvidence;

impl Lint for RetireWithoutEvidence {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a pool is scaled to zero without evidence that it has no traffic"
    }

    fn look(&self, outline: &Outline) -> Vec<Warning> {
        let mut found = Vec::new();
        for pool in retired(outline) {
            let mut search = Search { pool, found: Vec::new() };
            flow(&outline.body, Left::Unasked, &mut search);
            found.append(&mut search.found);
        }
        found
    }
}

/// What is known of the traffic of a pool.
#[derive(Debug, Clone)]
enum Left {
    /// Nothing was asked or said.
    Unasked,
    /// Some, by the last change of weights.
    Some { line: usize, what: String },
    /// Something may show that there is none.
    Evidence,
}

struct Search {
    pool: PoolRef,
    found: Vec<Warning>,
}

impl Search {
    fn warning(&self, call: &Call, left: &Left) -> Warning {
        let PoolRef { route, pool } = &self.pool;
        let name = self.pool.name();
        let message = match left {
            Left::Some { line, what } => {
                format!("{name} is scaled to zero, but may still have traffic: after line {line}, {what}")
            }
            _ => format!("{name} is scaled to zero without evidence that it has no traffic"),
        };
        let warning = Warning::of_call(NAME, call, message).why(
            "requests that still go there fail at once, and starting a pool takes longer than stopping it",
        );
        if let Left::Some { .. } = left {
            return warning.help(format!(
                "take its traffic away first: send everything to another pool with \
                 traffic::shift(\"{route}\", …, 100), which waits until no connection is left"
            ));
        }
        warning
            .help(format!(
                "check first: if traffic::weights(\"{route}\").{pool} > 0 {{ fail(\"{name} still \
                has traffic\"); }}"
            ))
            .help("or wait until its request rate is zero: metrics::hold(…, #{ requests: \"< 1\" }, \"1m\")")
    }
}

/// Whether a metric is known to be about something else than how much traffic there is.
fn is_about_health(metric: &str) -> bool {
    const HEALTH: [&str; 17] = [
        "error",
        "errors",
        "failure",
        "failures",
        "failed",
        "latency",
        "duration",
        "p50",
        "p90",
        "p95",
        "p99",
        "p999",
        "availability",
        "saturation",
        "cpu",
        "memory",
        "lag",
    ];
    metric.to_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).any(|word| HEALTH.contains(&word))
}

/// Whether a look at metrics may be about how much traffic there is.
fn asks_for_traffic(call: &Call) -> bool {
    match call.arg(1) {
        Value::Map(bounds) => bounds.keys().any(|metric| !is_about_health(metric)),
        Value::Text(metric) => !is_about_health(metric),
        _ => true,
    }
}

/// Whether a call may show that no traffic is left.
fn shows(call: &Call) -> bool {
    match (call.noun(), call.class) {
        ("traffic", Some(EffectClass::Read)) => !call.only_told,
        ("metrics", _) => asks_for_traffic(call),
        ("exec" | "http", _) => true,
        ("", _) => matches!(&*call.name, "manual" | "checklist"),
        // What does not say what it does may do this.
        (_, class) => class.is_none(),
    }
}

impl Walk for Search {
    type State = Left;

    fn call(&mut self, call: &Call, left: &mut Left, around: Around) {
        if retires(call).as_ref() == Some(&self.pool) {
            // When a rollback gets here, what this run did to the weights since then has been taken back: only what was done before
            // the closure was registered is still there.
            let told = match left {
                Left::Evidence => false,
                Left::Unasked => !around.undoing && !around.loose,
                Left::Some { .. } => !around.loose,
            };
            if told {
                self.found.push(self.warning(call, left));
            }
            return;
        }
        match gets(call, &self.pool) {
            Some(Gets::None | Gets::Unknown) => *left = Left::Evidence,
            Some(Gets::Some(what)) => {
                // Another pool's share says nothing new about one that had none.
                let own = call.arg(1).is_named(&self.pool.pool) == Some(true) || call.name == "traffic::set";
                if own || !matches!(left, Left::Evidence) {
                    *left = Left::Some { line: call.place.line, what };
                }
            }
            // Who starts a pool and stops it again has it to try something.
            None if call.name == "deploy::scale" && call.arg(0).may_mention(&self.pool.name()) => {
                if matches!(left, Left::Unasked) {
                    *left = Left::Evidence;
                }
            }
            None if shows(call) => *left = Left::Evidence,
            None if call.asks() && matches!(left, Left::Unasked) => *left = Left::Evidence,
            None => {}
        }
    }

    fn unknown(&mut self, left: &mut Left) {
        *left = Left::Evidence;
    }

    fn either(&self, a: Left, b: Left) -> Left {
        match (a, b) {
            (Left::Evidence, _) | (_, Left::Evidence) => Left::Evidence,
            (Left::Unasked, _) | (_, Left::Unasked) => Left::Unasked,
            (some, Left::Some { .. }) => some,
        }
    }
}
