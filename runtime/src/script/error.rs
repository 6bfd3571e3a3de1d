//! Rhai's errors as errors of a run.

use rhai::{Dynamic, EvalAltResult, ImmutableString, Map, ParseError, Position};

use super::{
    convert::{Unknown, kind, unknown_in_plan},
    syntax::{lower, place, syntax_error},
};
use crate::{
    error::{RunError, codes},
    secret::SecretText,
};

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

/// An error in words, without its place.
pub(super) fn describe(error: &EvalAltResult) -> RunError {
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
            let name = if name.starts_with(ANONYMOUS) { "this closure" } else { &*format!("`{name}`") };
            RunError::new(codes::SCRIPT, format!("{name} cannot take ({})", plain_types(arguments)))
                .hint("check the types, the number and the order of the arguments")
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
        E::ErrorIndexingType(types, _) => {
            let on = types.split(" [").next().unwrap_or_default();
            RunError::new(codes::SCRIPT, format!("{} cannot be indexed like this", with_article(on)))
        }
        _ => RunError::new(codes::SCRIPT, lower(&plain_words(&without_place(error)))),
    }
}

/// What Rhai calls functions that have no name.
const ANONYMOUS: &str = "anon$";

/// An error of Rhai's own as a `catch` binds it: a map with the text and, of the outermost call, the place. `source` is the script
/// in which it was caught.
pub(super) fn from_fields(fields: &Map, source: &str) -> RunError {
    let text = |name: &str| {
        fields.get(name).and_then(|value| value.clone().into_immutable_string().ok()).unwrap_or_default()
    };
    let number = |name: &str| {
        fields.get(name).and_then(|value| value.as_int().ok()).and_then(|n| usize::try_from(n).ok())
    };
    let message = text("message");
    // Of an error that comes out of calls the first line tells what and where, the others which calls.
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    let out_of_a_call = lines.next().is_some();
    let (what, inner) = match first.rsplit_once(" (line ") {
        Some((what, place)) if out_of_a_call => (what, place_in(place)),
        _ => (first, None),
    };
    let (what, file) = match what.rsplit_once(" @ '") {
        Some((what, file)) if out_of_a_call => (what, file.strip_suffix('\'')),
        _ => (what, None),
    };
    let outer = || (number("line").unwrap_or(0), number("position").unwrap_or(0));
    let (file, (line, column)) = match inner {
        Some(place) => (file.unwrap_or(source), place),
        None => (source, outer()),
    };
    described(what).at("", file, line, column)
}

/// `12, position 5)` as line and column.
fn place_in(text: &str) -> Option<(usize, usize)> {
    let (line, column) = text.trim_end_matches(')').split_once(", position ")?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

/// An error of which only Rhai's text is left.
fn described(text: &str) -> RunError {
    use EvalAltResult as E;
    let none = Position::NONE;
    let of = |prefix: &str| text.strip_prefix(prefix).map(str::to_owned);
    if let Some(signature) = of("Function not found: ") {
        return describe(&E::ErrorFunctionNotFound(signature, none));
    }
    if let Some(name) = of("Property not found: ") {
        return describe(&E::ErrorPropertyNotFound(name, none));
    }
    if let Some(name) = of("Data race detected on ") {
        return describe(&E::ErrorDataRace(name, none));
    }
    if let Some(types) = of("Indexer unavailable: ") {
        return describe(&E::ErrorIndexingType(types, none));
    }
    let types = of("Data type incorrect: ").or_else(|| of("Output type incorrect: "));
    if let Some((actual, expected)) = types.as_deref().and_then(|types| types.split_once(" (expecting ")) {
        let expected = expected.trim_end_matches(')').to_owned();
        return describe(&E::ErrorMismatchDataType(expected, actual.to_owned(), none));
    }
    RunError::new(codes::SCRIPT, lower(&plain_words(text)))
}

fn without_place(error: &EvalAltResult) -> String {
    let text = error.to_string();
    match text.rfind(" (line ") {
        Some(place) => text[..place].to_owned(),
        None => text,
    }
}

fn show(value: &Dynamic) -> String {
    match kind(value) {
        // A secret, a closure, a value that a plan does not know: there is nothing to be shown of it.
        what @ ("a secret" | "a closure" | "a value that is unknown in a plan") => what.to_owned(),
        _ if value.is_unit() => "nothing".to_owned(),
        _ => plain_words(&value.to_string()),
    }
}

/// Types by their names in Rust, as far as Rhai uses these, in words.
fn names() -> [(&'static str, &'static str); 8] {
    [
        (std::any::type_name::<Unknown>(), "unknown"),
        (std::any::type_name::<SecretText>(), "secret"),
        (std::any::type_name::<RunError>(), "error"),
        (std::any::type_name::<std::ops::RangeInclusive<i64>>(), "range"),
        (std::any::type_name::<std::ops::Range<i64>>(), "range"),
        (std::any::type_name::<ImmutableString>(), "text"),
        (std::any::type_name::<rhai::FnPtr>(), "closure"),
        ("&str | ImmutableString | String", "text"),
    ]
}

/// A text of Rhai's without names of types that only its authors know.
pub(super) fn plain_words(text: &str) -> String {
    let mut text = names().iter().fold(text.to_owned(), |text, (name, word)| {
        if text.contains(name) { text.replace(name, word) } else { text }
    });
    while let Some((before, (kind, behind))) =
        text.split_once("type '").and_then(|(before, rest)| Some((before, rest.split_once('\'')?)))
    {
        text = format!("{before}{}{behind}", with_article(kind));
    }
    text
}

/// Rhai's type names in words.
fn plain_types(types: &str) -> String {
    plain_words(types).split(", ").map(plain_type).collect::<Vec<_>>().join(", ")
}

fn plain_type(name: &str) -> &str {
    match name.trim_start_matches("&mut ") {
        "i64" | "f64" | "INT" | "FLOAT" => "number",
        "&str" | "string" | "ImmutableString" | "String" => "text",
        "bool" => "boolean",
        "char" => "character",
        "()" => "nothing",
        "Fn" | "FnPtr" => "closure",
        "map" | "Map" => "map",
        "array" | "Array" => "array",
        "blob" | "Blob" => "bytes",
        "range" | "range=" => "range",
        other if other.contains("::") || other.contains('<') || other.contains('|') => {
            "value of another kind"
        }
        other => other,
    }
}

/// The same with *a* in front, where one belongs there.
fn with_article(types: &str) -> String {
    let words = plain_types(types);
    match words.as_str() {
        "text" | "nothing" | "bytes" => words,
        "array" | "error" => format!("an {words}"),
        _ => format!("a {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_is_told_of_types_is_in_its_own_words() {
        let range = std::any::type_name::<std::ops::RangeInclusive<i64>>();
        assert_eq!(plain_types(&format!("&mut i64, {range}")), "number, range");
        assert_eq!(plain_types("some_crate::deep::Type<u8>"), "value of another kind");
        assert_eq!(
            plain_words("a getter is not registered for type 'i64'"),
            "a getter is not registered for a number"
        );
        let wrong = EvalAltResult::ErrorMismatchDataType("i64".into(), range.into(), Position::NONE);
        assert_eq!(describe(&wrong).message, "this is range, but number is expected");
    }

    #[test]
    fn an_error_that_comes_out_of_calls_is_placed_where_it_struck() {
        let fields = |message: &str| {
            let mut fields = Map::new();
            fields.insert("message".into(), message.into());
            fields.insert("line".into(), 7_i64.into());
            fields.insert("position".into(), 3_i64.into());
            fields
        };
        let error = from_fields(&fields("Array index 3 out of bounds: array is empty"), "main.rhai");
        assert_eq!((error.frames[0].line, error.frames[0].column), (7, 3));
        assert_eq!(error.frames[0].source, "main.rhai");
        let text = "Function not found: f (i64) @ 'lib.rhai' (line 4, position 9)\nin call to function 'g'";
        let error = from_fields(&fields(text), "main.rhai");
        assert_eq!(error.message, "`f` cannot take (number)");
        assert_eq!(
            (&*error.frames[0].source, error.frames[0].line, error.frames[0].column),
            ("lib.rhai", 4, 9)
        );
    }
}
