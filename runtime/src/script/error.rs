//! Rhai's errors as errors of a run.

use rhai::{Dynamic, EvalAltResult, ParseError, Position};

use super::{
    convert::{Unknown, unknown_in_plan},
    syntax::{lower, place, syntax_error},
};
use crate::error::{RunError, codes};

/// A parse error with its place.
pub(crate) fn syntax(error: &ParseError, file: &str) -> RunError {
    syntax_error(error, file)
}

/// Whether `error` carries an error of the runtime rather than one of Rhai or a value that the script threw.
pub(crate) fn thrown(error: &EvalAltResult) -> Option<RunError> {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) => {
            thrown(inner)
        }
        EvalAltResult::ErrorRuntime(value, _) => value.read_lock::<RunError>().map(|e| e.clone()),
        _ => None,
    }
}

/// Whether it is no error: the script called `exit`, maybe within a closure that a function of Rhai's own called.
pub(crate) fn is_exit(error: &EvalAltResult) -> bool {
    matches!(innermost(error), EvalAltResult::Exit(..))
}

/// Where an error struck: the innermost position and the script it lies in.
pub(crate) fn origin(error: &EvalAltResult, main: &str) -> (String, Position) {
    let mut source = main.to_owned();
    let mut here = error;
    while let EvalAltResult::ErrorInFunctionCall(_, callee, inner, position) = here {
        // A position lies in the caller's script; the callee's is that of the inner error.
        if inner.position().is_none() {
            return (source, *position);
        }
        if !callee.is_empty() {
            source.clone_from(callee);
        }
        here = inner;
    }
    (source, here.position())
}

/// Any error of a script as an error of the run, with its place if it has none yet.
pub(crate) fn from_rhai(error: &EvalAltResult, main: &str) -> RunError {
    if let Some(mut known) = thrown(error) {
        if known.frames.is_empty() {
            let (source, position) = origin(error, main);
            let (line, column) = place(position);
            known = known.at("", source, line, column);
        }
        return known;
    }
    let (source, position) = origin(error, main);
    let (line, column) = place(position);
    describe(innermost(error)).at("", source, line, column)
}

/// The error that those around it carry.
pub(crate) fn innermost(error: &EvalAltResult) -> &EvalAltResult {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) => {
            innermost(inner)
        }
        other => other,
    }
}

fn describe(error: &EvalAltResult) -> RunError {
    use EvalAltResult as E;
    match error {
        E::ErrorRuntime(value, _) => {
            RunError::new(codes::FAILED, format!("the script threw: {}", show(value)))
                .hint("to end a run with a reason, use fail(\"…\")")
        }
        E::ErrorMismatchDataType(_, actual, _) if actual == std::any::type_name::<Unknown>() => {
            unknown_in_plan("an earlier effect")
        }
        E::ErrorFunctionNotFound(signature, _) => {
            let (name, arguments) = signature.split_once(" (").unwrap_or((signature, ""));
            let arguments = arguments.trim_end_matches(')');
            if arguments.split(", ").any(|kind| kind == "unknown") {
                return unknown_in_plan("an earlier effect");
            }
            RunError::new(codes::SCRIPT, format!("`{name}` cannot take ({})", plain_types(arguments)))
                .hint("check the types and the order of the arguments")
        }
        E::ErrorMismatchDataType(expected, actual, _) | E::ErrorMismatchOutputType(expected, actual, _) => {
            RunError::new(
                codes::SCRIPT,
                format!("this is {}, but {} is expected", plain_types(actual), plain_types(expected)),
            )
        }
        E::ErrorPropertyNotFound(name, _) => RunError::new(codes::SCRIPT, format!("the map has no `{name}`")),
        E::ErrorStackOverflow(_) => RunError::new(codes::LIMIT, "calls are nested too deeply")
            .hint("look for a function that calls itself"),
        E::ErrorDataTooLarge(what, _) => {
            RunError::new(codes::LIMIT, format!("{} is over the limit", lower(what)))
                .hint("keep bulk data out of runbooks")
        }
        E::ErrorTooManyOperations(_) | E::ErrorTooManyVariables(_) | E::ErrorTooManyModules(_) => {
            RunError::new(codes::LIMIT, lower(&without_place(error)))
        }
        E::ErrorDataRace(name, _) => RunError::new(
            codes::SCRIPT,
            format!("`{name}` is in use by another branch or by the call it is passed to"),
        )
        .hint("return values from closures instead of changing outer variables"),
        _ => RunError::new(codes::SCRIPT, lower(&without_place(error))),
    }
}

fn without_place(error: &EvalAltResult) -> String {
    let text = error.to_string();
    match text.rfind(" (line ") {
        Some(place) => text[..place].to_owned(),
        None => text,
    }
}

fn show(value: &Dynamic) -> String {
    if value.is::<Unknown>() { "a value that is unknown in a plan".into() } else { value.to_string() }
}

/// Rhai's type names in words.
fn plain_types(types: &str) -> String {
    types
        .replace("&str | ImmutableString | String", "text")
        .split(", ")
        .map(|name| match name.trim_start_matches("&mut ") {
            "i64" | "f64" | "INT" | "FLOAT" => "number",
            "&str" | "string" | "ImmutableString" | "String" => "text",
            "bool" => "boolean",
            "char" => "character",
            "()" => "nothing",
            "Fn" | "FnPtr" => "closure",
            "map" | "Map" => "map",
            "array" | "Array" => "array",
            other => other,
        })
        .collect::<Vec<_>>()
        .join(", ")
}
