//! Functions of the language that act on what a closure answers: `filter`, `all`, `sort` and their kind.
//!
//! Those of Rhai take every answer but `true` for a no, and `sort` and `dedup` drop the errors of the closure. In a plan, a
//! value that only a real run can tell would silently count as a no, and the plan would go the wrong way. These here want a
//! boolean and pass errors on.

use std::{
    cmp::Ordering,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use rhai::{Array, Dynamic, EvalAltResult, FnPtr, FuncRegistration, Map, Module, NativeCallContext};

use super::{
    ScriptContext as _,
    convert::{self, Unknown},
};
use crate::error::{RunError, codes};

type Native<T = Dynamic> = Result<T, Box<EvalAltResult>>;
type Cx<'a> = NativeCallContext<'a>;

/// Registers them.
pub(super) fn register(m: &mut Module) {
    let pure = |name: &str| FuncRegistration::new(name).with_purity(true);
    pure("filter").set_into_module(m, |cx: Cx<'_>, array: &mut Array, test: FnPtr| -> Native<Array> {
        let mut kept = Array::new();
        for (i, item) in array.iter_mut().enumerate() {
            if holds(&cx, "filter", &test, item, i)? {
                kept.push(item.clone());
            }
        }
        Ok(kept)
    });
    pure("all").set_into_module(m, |cx: Cx<'_>, array: &mut Array, test: FnPtr| -> Native<bool> {
        for (i, item) in array.iter_mut().enumerate() {
            if !holds(&cx, "all", &test, item, i)? {
                return Ok(false);
            }
        }
        Ok(true)
    });
    pure("some").set_into_module(m, |cx: Cx<'_>, array: &mut Array, test: FnPtr| -> Native<bool> {
        Ok(position(&cx, "some", array, &test, 0)?.is_some())
    });
    pure("index_of").set_into_module(m, |cx: Cx<'_>, array: &mut Array, test: FnPtr| -> Native<i64> {
        Ok(index(position(&cx, "index_of", array, &test, 0)?))
    });
    pure("index_of").set_into_module(
        m,
        |cx: Cx<'_>, array: &mut Array, test: FnPtr, start: i64| -> Native<i64> {
            Ok(index(position(&cx, "index_of", array, &test, start)?))
        },
    );
    pure("find").set_into_module(m, |cx: Cx<'_>, array: &mut Array, test: FnPtr| -> Native {
        let found = position(&cx, "find", array, &test, 0)?;
        Ok(found.map_or(Dynamic::UNIT, |i| array[i].clone()))
    });
    pure("find").set_into_module(m, |cx: Cx<'_>, array: &mut Array, test: FnPtr, start: i64| -> Native {
        let found = position(&cx, "find", array, &test, start)?;
        Ok(found.map_or(Dynamic::UNIT, |i| array[i].clone()))
    });
    for (name, stays) in [("retain", true), ("drain", false)] {
        FuncRegistration::new(name).set_into_module(
            m,
            move |cx: Cx<'_>, array: &mut Array, test: FnPtr| -> Native<Array> {
                let answers = array
                    .iter_mut()
                    .enumerate()
                    .map(|(i, item)| holds(&cx, name, &test, item, i))
                    .collect::<Native<Vec<bool>>>()?;
                let (mut kept, mut gone) = (Array::new(), Array::new());
                for (item, answer) in std::mem::take(array).into_iter().zip(answers) {
                    if answer == stays { kept.push(item) } else { gone.push(item) }
                }
                *array = kept;
                Ok(gone)
            },
        );
        FuncRegistration::new(name).set_into_module(
            m,
            move |cx: Cx<'_>, map: &mut Map, test: FnPtr| -> Native<Map> {
                let answers = entries(&cx, name, map, &test)?;
                let (mut kept, mut gone) = (Map::new(), Map::new());
                for ((key, item), answer) in std::mem::take(map).into_iter().zip(answers) {
                    if answer == stays {
                        kept.insert(key, item)
                    } else {
                        gone.insert(key, item)
                    };
                }
                *map = kept;
                Ok(gone)
            },
        );
    }
    pure("filter").set_into_module(m, |cx: Cx<'_>, map: &mut Map, test: FnPtr| -> Native<Map> {
        let answers = entries(&cx, "filter", map, &test)?;
        let kept = map.iter().zip(answers).filter(|(_, answer)| *answer);
        Ok(kept.map(|((key, item), _)| (key.clone(), item.clone())).collect())
    });
    FuncRegistration::new("dedup").set_into_module(
        m,
        |cx: Cx<'_>, array: &mut Array, same: FnPtr| -> Native<()> {
            let mut kept = Array::new();
            for item in array.iter() {
                let again = match kept.last() {
                    Some(last) => {
                        truth(&cx, "dedup", &same.call_raw(&cx, None, [last.clone(), item.clone()])?)?
                    }
                    None => false,
                };
                if !again {
                    kept.push(item.clone());
                }
            }
            *array = kept;
            Ok(())
        },
    );
    for name in ["sort", "sort_by"] {
        FuncRegistration::new(name).set_into_module(
            m,
            move |cx: Cx<'_>, array: &mut Array, compare: FnPtr| -> Native<()> {
                *array = sorted(&cx, name, array, &compare)?;
                Ok(())
            },
        );
    }
    for name in ["order", "order_by"] {
        pure(name).set_into_module(
            m,
            move |cx: Cx<'_>, array: &mut Array, compare: FnPtr| -> Native<Array> {
                sorted(&cx, name, array, &compare)
            },
        );
    }
}

/// What a closure says about an item of an array: its first argument, or `this`; the second is its place.
fn holds(cx: &Cx<'_>, name: &str, test: &FnPtr, item: &mut Dynamic, place: usize) -> Native<bool> {
    let place = Dynamic::from_int(i64::try_from(place).unwrap_or(i64::MAX));
    truth(cx, name, &test.call_raw_with_extra_args(name, cx, Some(item), [], [place], Some(0))?)
}

/// What a closure says about each entry of a map: key first, then value, or the value as `this`.
fn entries(cx: &Cx<'_>, name: &str, map: &mut Map, test: &FnPtr) -> Native<Vec<bool>> {
    map.iter_mut()
        .map(|(key, item)| {
            let key = [key.clone().into()];
            truth(cx, name, &test.call_raw_with_extra_args(name, cx, Some(item), key, [], Some(1))?)
        })
        .collect()
}

fn truth(cx: &Cx<'_>, name: &str, answer: &Dynamic) -> Native<bool> {
    answer.as_bool().map_err(|_| wrong(cx, name, answer, "true or false"))
}

fn wrong(cx: &Cx<'_>, name: &str, answer: &Dynamic, wanted: &str) -> Box<EvalAltResult> {
    cx.throw(match answer.read_lock::<Unknown>() {
        Some(unknown) => convert::unknown_in_plan(&unknown.origin),
        None => RunError::new(
            codes::SCRIPT,
            format!(
                "the closure given to `{name}` returned {}, but {wanted} is expected",
                convert::kind(answer)
            ),
        ),
    })
}

/// The first item for which `test` holds, from `start` on; a negative one counts from the end.
fn position(cx: &Cx<'_>, name: &str, array: &mut Array, test: &FnPtr, start: i64) -> Native<Option<usize>> {
    let from = usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX);
    let from = if start < 0 { array.len().saturating_sub(from) } else { from };
    for (i, item) in array.iter_mut().enumerate().skip(from) {
        if holds(cx, name, test, item, i)? {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

fn index(found: Option<usize>) -> i64 {
    found.map_or(-1, |i| i64::try_from(i).unwrap_or(i64::MAX))
}

fn sorted(cx: &Cx<'_>, name: &str, array: &Array, compare: &FnPtr) -> Native<Array> {
    let ask = |a: &Dynamic, b: &Dynamic| -> Native<Ordering> {
        let answer = compare.call_raw(cx, None, [a.clone(), b.clone()])?;
        match (answer.as_int(), answer.as_bool()) {
            (Ok(order), _) => Ok(order.cmp(&0)),
            (_, Ok(true)) => Ok(Ordering::Less),
            (_, Ok(false)) => Ok(Ordering::Greater),
            _ => Err(wrong(cx, name, &answer, "a whole number or true or false")),
        }
    };
    let mut sorted = array.clone();
    let (mut error, mut panic) = (None, None);
    // A closure that contradicts itself may make the sort panic.
    let done = catch_unwind(AssertUnwindSafe(|| {
        sorted.sort_by(|a, b| {
            if error.is_some() || panic.is_some() {
                return Ordering::Equal;
            }
            match catch_unwind(AssertUnwindSafe(|| ask(a, b))) {
                Ok(Ok(order)) => return order,
                Ok(Err(e)) => error = Some(e),
                Err(payload) => panic = Some(payload),
            }
            Ordering::Equal
        });
    }));
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
    if let Some(error) = error {
        return Err(error);
    }
    done.map_err(|_| {
        cx.throw(RunError::new(codes::SCRIPT, format!("the closure given to `{name}` contradicts itself")))
    })?;
    Ok(sorted)
}
