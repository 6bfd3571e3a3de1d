//! What values of scripts can do.

use rhai::{Dynamic, EvalAltResult, FuncRegistration, ImmutableString, Module, Position};

use super::{
    ScriptContext as _, Session, answers,
    convert::{self, Unknown},
    error::plain_words,
};
use crate::{
    budget,
    error::{RunError, codes},
    secret::SecretText,
};

/// What `type_of` would call a value that a plan does not know.
pub(super) const UNKNOWN: &str = "unknown";

type Native<T = Dynamic> = Result<T, Box<EvalAltResult>>;
type Cx<'a> = rhai::NativeCallContext<'a>;

/// Registers `name` for every pair of an [`Unknown`] and another type, in both orders.
macro_rules! pairs_with_unknown {
    ($module:ident, $($type:ty),+) => {
        for name in ["+", "-", "*", "/", "%", "+=", "==", "!=", "<", "<=", ">", ">=", "contains"] {
            FuncRegistration::new(name)
                .set_into_module(&mut $module, |cx: Cx<'_>, left: &mut Unknown, _: Unknown| -> Native { Err(unknown(&cx, left)) });
            $(
                FuncRegistration::new(name)
                    .set_into_module(&mut $module, |cx: Cx<'_>, left: &mut Unknown, _: $type| -> Native { Err(unknown(&cx, left)) });
                FuncRegistration::new(name)
                    .set_into_module(&mut $module, |cx: Cx<'_>, _: &mut $type, right: Unknown| -> Native { Err(unknown(&cx, &right)) });
            )+
        }
    };
}

fn unknown(cx: &Cx<'_>, value: &Unknown) -> Box<EvalAltResult> {
    cx.throw(convert::unknown_in_plan(&value.origin))
}

fn thrown_here(error: RunError) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(error), Position::NONE))
}

/// Value types of the runtime, and safe forms of what the standard library has in unsafe ones.
pub(super) fn values() -> Module {
    let mut m = Module::new();

    // What a plan does not know can be passed on and looked into; it cannot be used.
    pairs_with_unknown!(
        m,
        i64,
        f64,
        bool,
        char,
        ImmutableString,
        rhai::Array,
        rhai::Map,
        rhai::Blob,
        rhai::FnPtr,
        std::ops::Range<i64>,
        std::ops::RangeInclusive<i64>,
        SecretText,
        RunError,
        ()
    );
    for name in ["to_string", "to_debug", "print", "debug", "!", "-", "to_int", "to_float", "len", "is_empty"]
    {
        FuncRegistration::new(name).set_into_module(&mut m, |cx: Cx<'_>, value: &mut Unknown| -> Native {
            Err(unknown(&cx, value))
        });
    }
    m.set_indexer_get_fn(|value: &mut Unknown, _: ImmutableString| -> Native {
        Ok(Dynamic::from(value.clone()))
    });
    m.set_indexer_get_fn(|value: &mut Unknown, _: i64| -> Native { Ok(Dynamic::from(value.clone())) });
    FuncRegistration::new("known")
        .with_params_info(["value: Dynamic", "Dynamic"])
        .with_comments([
            "/// Returns `value` if a plan knows all of it; otherwise the plan ends here and says what the \
             value depends on.",
            "///",
            "/// Use it for a value that a plan must know completely. In a run it does nothing.",
            "///",
            "/// ```rhai",
            "/// known([1, #{ a: 2 }]) == [1, #{ a: 2 }]",
            "/// ```",
        ])
        .set_into_module(&mut m, |cx: Cx<'_>, value: Dynamic| -> Native {
            // The interpreter cannot tell where a script that used up its operations is; this call can.
            if let Some(error) = budget::used_up_here() {
                return Err(cx.stop(error));
            }
            match find_unknown(&value) {
                Some(origin) => Err(cx.throw(convert::unknown_in_plan(&origin))),
                None => Ok(value),
            }
        });
    FuncRegistration::new("known_error").set_into_module(&mut m, |cx: Cx<'_>, error: Dynamic| -> Native {
        let session = Session::of(&cx)?;
        let unknown = |session: &Session| session.kernel.may_not_know();
        if is_about_unknown(&error) && unknown(&session) {
            return Err(cx.throw(convert::unknown_in_plan("an earlier effect")));
        }
        match session.caught(&cx, error) {
            Ok(error) => Ok(error),
            Err(about_unknown) if unknown(&session) => Err(cx.throw(about_unknown)),
            Err(error) => Ok(Dynamic::from(error)),
        }
    });
    m.set_iter_result(std::any::TypeId::of::<Unknown>(), |value: Dynamic| {
        let origin = value.try_cast::<Unknown>().map_or_else(String::new, |unknown| unknown.origin);
        Box::new(std::iter::once(Err(thrown_here(convert::unknown_in_plan(&origin)))))
    });

    // What `catch` binds.
    m.set_getter_fn("code", |e: &mut RunError| -> Native<String> { Ok(e.code.to_string()) });
    m.set_getter_fn("message", |e: &mut RunError| -> Native<String> { Ok(e.message.clone()) });
    m.set_getter_fn("effect", |e: &mut RunError| -> Native<String> {
        Ok(e.effect.as_deref().unwrap_or_default().to_owned())
    });
    m.set_getter_fn("hints", |e: &mut RunError| -> Native {
        Ok(Dynamic::from_array(e.hints.iter().map(|hint| hint.clone().into()).collect()))
    });
    m.set_getter_fn("source", |e: &mut RunError| -> Native<String> {
        Ok(e.frames.first().map(|frame| frame.source.clone()).unwrap_or_default())
    });
    m.set_getter_fn("line", |e: &mut RunError| -> Native<i64> {
        Ok(e.frames.first().and_then(|frame| i64::try_from(frame.line).ok()).unwrap_or_default())
    });
    m.set_getter_fn("detail", |e: &mut RunError| -> Native {
        Ok(e.detail.clone().map_or(Dynamic::UNIT, convert::from_json))
    });
    for name in ["to_string", "to_debug", "print", "debug"] {
        FuncRegistration::new(name).set_into_module(&mut m, |e: &mut RunError| -> Native<ImmutableString> {
            Ok(e.message.as_str().into())
        });
    }
    FuncRegistration::new("+").set_into_module(
        &mut m,
        |left: &mut ImmutableString, right: RunError| -> Native<ImmutableString> {
            Ok(format!("{left}{}", right.message).into())
        },
    );
    FuncRegistration::new("+=").set_into_module(
        &mut m,
        |left: &mut ImmutableString, right: RunError| -> Native<()> {
            *left = format!("{left}{}", right.message).into();
            Ok(())
        },
    );

    for_thrown_values(&mut m);

    // It would end the run as if it had succeeded, whatever it is given.
    let no_exit = || -> Native<()> { Err(thrown_here(no_exit())) };
    FuncRegistration::new("exit").set_into_module(&mut m, no_exit);
    FuncRegistration::new("exit").set_into_module(&mut m, move |_: Dynamic| no_exit());

    // Time is an effect: `timestamp` of the standard library would differ at each execution.
    FuncRegistration::new("timestamp").set_into_module(&mut m, || -> Native<()> {
        Err(thrown_here(
            RunError::new(codes::SCRIPT, "a script has no clock")
                .hint("the journal keeps the time of every effect; to wait, use sleep(\"30s\")"),
        ))
    });
    // Rhai's own form of other types in JSON is the name of the type.
    FuncRegistration::new("to_json").with_purity(true).set_into_module(
        &mut m,
        |cx: Cx<'_>, map: &mut rhai::Map| -> Native<String> {
            let json = convert::to_plain_json(&Dynamic::from_map(map.clone()));
            json.map(|json| json.to_string()).map_err(|error| cx.throw(error))
        },
    );
    answers::register(&mut m);
    for_replace(&mut m);
    m
}

/// The error for a call of `exit`, which ends other programs with a code.
pub(super) fn no_exit() -> RunError {
    RunError::new(codes::SCRIPT, "a runbook cannot be left with `exit`")
        .hint("to end the run as failed and undo what was done, use fail(\"…\"); to end it early as succeeded, `return`")
}

/// What a script throws without saying a code: it has one all the same, so that a `catch` can ask every error for it.
fn for_thrown_values(m: &mut Module) {
    fn one<T: Clone + Send + Sync + 'static>(m: &mut Module, show: fn(&T) -> String) {
        m.set_getter_fn("code", |_: &mut T| -> Native<String> { Ok(codes::FAILED.to_owned()) });
        m.set_getter_fn("message", move |value: &mut T| -> Native<String> { Ok(show(value)) });
    }
    one::<ImmutableString>(m, ToString::to_string);
    one::<i64>(m, ToString::to_string);
    one::<f64>(m, ToString::to_string);
    one::<bool>(m, ToString::to_string);
    one::<char>(m, ToString::to_string);
    one::<rhai::Array>(m, |items| plain_words(&Dynamic::from(items.clone()).to_string()));
}

/// Whether an error of Rhai's own, as `catch` binds it, is about a value that is not known.
fn is_about_unknown(error: &Dynamic) -> bool {
    let Some(fields) = error.read_lock::<rhai::Map>() else { return false };
    let text = |name: &str| fields.get(name).and_then(|v| v.clone().into_immutable_string().ok());
    let named = |name: &str| {
        text(name).is_some_and(|types| {
            types
                .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .any(|word| word == UNKNOWN || word == std::any::type_name::<Unknown>())
        })
    };
    fields.contains_key("error") && ["function", "actual", "requested", "type"].into_iter().any(named)
}

/// What in a value a plan does not know.
fn find_unknown(value: &Dynamic) -> Option<String> {
    if let Some(unknown) = value.read_lock::<Unknown>() {
        return Some(unknown.origin.clone());
    }
    if let Some(items) = value.read_lock::<rhai::Array>() {
        return items.iter().find_map(find_unknown);
    }
    if let Some(map) = value.read_lock::<rhai::Map>() {
        return map.values().find_map(find_unknown);
    }
    None
}

/// `replace` of the standard library builds its result before any limit sees it: `s.replace("a", s)` takes gigabytes.
fn for_replace(m: &mut Module) {
    fn bounded(limit: usize, text: &mut ImmutableString, find: &str, with: &str) -> Native<()> {
        let found = if find.is_empty() { text.chars().count() + 1 } else { text.matches(find).count() };
        let size =
            text.len().saturating_sub(found * find.len()).saturating_add(found.saturating_mul(with.len()));
        if limit > 0 && size > limit {
            return Err(Box::new(EvalAltResult::ErrorDataTooLarge(
                "Length of string".into(),
                Position::NONE,
            )));
        }
        *text = text.replace(find, with).into();
        Ok(())
    }
    fn limit(cx: &Cx<'_>) -> usize {
        cx.engine().max_string_size()
    }
    FuncRegistration::new("replace").set_into_module(
        m,
        |cx: Cx<'_>, text: &mut ImmutableString, find: ImmutableString, with: ImmutableString| {
            bounded(limit(&cx), text, &find, &with)
        },
    );
    FuncRegistration::new("replace").set_into_module(
        m,
        |cx: Cx<'_>, text: &mut ImmutableString, find: char, with: ImmutableString| {
            bounded(limit(&cx), text, find.encode_utf8(&mut [0; 4]), &with)
        },
    );
    FuncRegistration::new("replace").set_into_module(
        m,
        |cx: Cx<'_>, text: &mut ImmutableString, find: ImmutableString, with: char| {
            bounded(limit(&cx), text, &find, with.encode_utf8(&mut [0; 4]))
        },
    );
}
