//! `parallel` runs closures at the same time.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use contraflow_provider::effect_id::EffectId;
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, Map, NativeCallContext, plugin::*};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    error::{RunError, codes},
    kernel::{Kernel, cursor},
    script::{ScriptContext as _, ScriptError, ScriptResult, Session, convert, innermost, takes},
};

/// Most branches that run at the same time; more wait for their turn.
const WIDTH: usize = 64;

/// Most branches of one call.
const MOST: usize = 10_000;

/// Stack of a branch. Deep enough for the deepest calls that the interpreter allows.
const STACK: usize = 32 << 20;

#[export_module]
pub(super) mod script {
    /// Runs closures at the same time, waits for all, and returns their values in the same order.
    ///
    /// Branches cannot see each other's changes to outer variables: return what a branch finds out. If a branch
    /// fails, the others stop at their next safe point, and its error is thrown.
    ///
    /// ```rhai
    /// parallel([|| 1 + 1, || 2 + 2]) == [2, 4]
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn parallel(cx: NativeCallContext<'_>, branches: Array) -> ScriptResult<Array> {
        super::run(&cx, branches, super::Options::default())
    }

    /// ```rhai
    /// let why = "";
    /// try { parallel([|| fail("no"), || sleep("1m")], #{ on_failure: "cancel" }); } catch (e) { why = e.message; }
    /// why == "no"
    /// ```
    #[rhai_fn(name = "parallel", return_raw, volatile)]
    pub fn parallel_with(cx: NativeCallContext<'_>, branches: Array, options: Map) -> ScriptResult<Array> {
        let options = cx.options(options)?;
        super::run(&cx, branches, options)
    }

    /// Runs named closures at the same time, waits for all, and returns a map of their values.
    ///
    /// ```rhai
    /// parallel(#{ a: || 1, b: || 2 }) == #{ a: 1, b: 2 }
    /// ```
    #[rhai_fn(name = "parallel", return_raw, volatile)]
    pub fn parallel_map(cx: NativeCallContext<'_>, branches: Map) -> ScriptResult<Map> {
        let (names, bodies): (Vec<_>, Array) = branches.into_iter().unzip();
        Ok(names.into_iter().zip(super::run(&cx, bodies, super::Options::default())?).collect())
    }

    /// ```rhai
    /// parallel(#{ a: || 1, b: || 2 }, #{ on_failure: "finish" }) == #{ a: 1, b: 2 }
    /// ```
    #[rhai_fn(name = "parallel", return_raw, volatile)]
    pub fn parallel_map_with(cx: NativeCallContext<'_>, branches: Map, options: Map) -> ScriptResult<Map> {
        let (names, bodies): (Vec<_>, Array) = branches.into_iter().unzip();
        let options = cx.options(options)?;
        Ok(names.into_iter().zip(super::run(&cx, bodies, options)?).collect())
    }
}

/// Options of `parallel`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    /// What happens to the other branches when one fails.
    on_failure: OnFailure,
}

/// What happens to the other branches when one fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnFailure {
    /// They stop at their next safe point: an effect that is being applied finishes first, sleeps and waits are cancelled.
    #[default]
    Cancel,
    /// They finish; the first failure in array order is thrown.
    Finish,
}

fn run(cx: &NativeCallContext<'_>, branches: Array, options: Options) -> ScriptResult<Array> {
    let session = Session::of(cx)?;
    if branches.len() > MOST {
        return Err(cx.throw(RunError::new(codes::ARGUMENT, format!("more than {MOST} branches"))));
    }
    let bodies = branches
        .into_iter()
        .enumerate()
        .map(|(i, branch)| {
            let kind = convert::kind(&branch);
            let body = branch.try_cast::<FnPtr>().map(isolated).ok_or_else(|| {
                cx.bad_argument(&format!("branches[{i}]"), &format!("expected a closure, this is {kind}"))
            })?;
            takes(cx, &body, 0)?;
            Ok(body)
        })
        .collect::<ScriptResult<Vec<_>>>()?;
    let id = cursor::next(EffectId::PARALLEL);
    let whole = session.within(cx, &id, |scope| {
        let failed = |error: &EvalAltResult| {
            if options.on_failure == OnFailure::Cancel && weight(error) == 1 {
                session.kernel.stop_and_tell(scope, session.explain(error));
            }
        };
        all(cx, &session, &id, bodies, &failed).map(Dynamic::from_array)
    })?;
    Ok(whole.into_array().unwrap_or_default())
}

/// Runs the branches and waits for all.
fn all(
    cx: &NativeCallContext<'_>,
    session: &Session,
    id: &EffectId,
    bodies: Vec<FnPtr>,
    failed: &(dyn Fn(&EvalAltResult) + Sync),
) -> ScriptResult<Array> {
    let places: Vec<Mutex<Option<cursor::Cursor>>> =
        (0..bodies.len()).map(|i| Mutex::new(Some(cursor::branch(id, i)))).collect();
    let results: Vec<Mutex<Option<(ScriptResult, cursor::Planned)>>> =
        bodies.iter().map(|_| Mutex::default()).collect();
    let turn = AtomicUsize::new(0);
    let branch = |i: usize| {
        let Some(place) = taken(&places[i]) else { return };
        let body = &bodies[i];
        let done =
            cursor::enter(place, || session.guarded(cx, || body.call_within_context::<Dynamic>(cx, ())));
        if let Err(error) = &done.0 {
            failed(error);
        }
        *results[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    };
    let work = || {
        loop {
            let i = turn.fetch_add(1, Ordering::Relaxed);
            if i >= bodies.len() {
                return;
            }
            branch(i);
        }
    };
    if let Some(in_turn) = session.kernel.executor.in_turn() {
        in_turn.run(bodies.len(), branch);
    } else {
        on_threads(&session.kernel, bodies.len(), &work);
    }
    let mut values = Array::with_capacity(results.len());
    let mut first: Option<ScriptError> = None;
    let mut longest = cursor::Planned::default();
    for result in results {
        let Some((result, planned)) = taken(&result) else {
            let error = RunError::new(codes::INTERNAL, "a branch ended without a result");
            return Err(cx.throw(error));
        };
        longest = longest.beside(planned);
        match result {
            Ok(value) => values.push(value),
            Err(error) => {
                if first.as_ref().is_none_or(|first| weight(&error) > weight(first)) {
                    first = Some(error);
                }
            }
        }
    }
    cursor::add(longest);
    first.map_or(Ok(values), Err)
}

/// Calls `work` on as many threads as there may be, and waits for all.
fn on_threads(kernel: &Kernel, branches: usize, work: &(impl Fn() + Sync)) {
    let workers = branches.min(WIDTH);
    let branching = kernel.earlier.branching(workers);
    std::thread::scope(|scope| {
        let on_its_thread = || {
            work();
            branching.ended();
        };
        let started = (0..workers)
            .filter(|_| {
                let thread = std::thread::Builder::new().name("branch".into()).stack_size(STACK);
                let started = thread.spawn_scoped(scope, on_its_thread).is_ok();
                if !started {
                    branching.ended();
                }
                started
            })
            .count();
        // Without a thread to be had, the branches run one after the other.
        if started == 0 {
            work();
        }
    });
}

/// What stops the whole run counts more than what one branch threw, and that more than a branch that ended the script well.
fn weight(error: &EvalAltResult) -> u8 {
    match innermost(error) {
        EvalAltResult::ErrorTerminated(..) => 2,
        EvalAltResult::Exit(..) => 0,
        _ => 1,
    }
}

fn taken<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The closure with its own copies of what it captured, nested closures included.
fn isolated(mut body: FnPtr) -> FnPtr {
    for captured in body.iter_curry_mut() {
        let own = captured.flatten_clone();
        *captured = own_inside(own);
    }
    body
}

fn own_inside(value: Dynamic) -> Dynamic {
    if value.is_fnptr() {
        return value.try_cast::<FnPtr>().map_or(Dynamic::UNIT, |body| Dynamic::from(isolated(body)));
    }
    if value.is_array() {
        let items = value.try_cast::<Array>().unwrap_or_default();
        return Dynamic::from_array(items.into_iter().map(|item| own_inside(item.flatten_clone())).collect());
    }
    if value.is_map() {
        let items = value.try_cast::<Map>().unwrap_or_default();
        return Dynamic::from_map(
            items.into_iter().map(|(key, item)| (key, own_inside(item.flatten_clone()))).collect(),
        );
    }
    value
}
