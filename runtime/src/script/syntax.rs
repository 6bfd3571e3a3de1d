//! Parsing without executing, and the places that errors point to.

use rhai::{AST, Engine, OptimizationLevel, ParseError, ParseErrorType, Position};

use crate::error::{RunError, codes};

/// Deepest nesting of expressions, at top level and in functions.
pub(crate) const MAX_EXPR_DEPTH: usize = 128;

/// An engine that can only parse, with the syntax that all scripts share.
pub(crate) fn parser() -> Engine {
    let mut engine = Engine::new_raw();
    set_syntax(&mut engine);
    engine
}

/// The syntax that all scripts share.
pub(crate) fn set_syntax(engine: &mut Engine) {
    engine.set_optimization_level(OptimizationLevel::Simple);
    engine.set_max_expr_depths(MAX_EXPR_DEPTH, MAX_EXPR_DEPTH);
    // `curry` can build chains whose drop overflows the stack; `eval` would run text that no check has seen.
    engine.disable_symbol("curry");
    engine.disable_symbol("eval");
}

/// Parses one script.
///
/// # Errors
/// `syntax` with its place.
pub(crate) fn parse(text: &str, file: &str) -> Result<AST, RunError> {
    let mut ast = parser().compile(text).map_err(|e| syntax_error(&e, file))?;
    ast.set_source(file);
    Ok(ast)
}

/// Whether every place in a text can be told: positions are counted in 16 bits.
///
/// # Errors
/// `syntax`: a line that is too long, or too many of them.
pub(crate) fn places_fit(text: &str, file: &str) -> Result<(), RunError> {
    // Some room for what is put around conditions.
    const MOST: usize = 60_000;
    let wrong = |what: &str, line: usize| {
        Err(RunError::new(codes::SYNTAX, format!("{what}; at most {MOST} are read")).at("", file, line, 1))
    };
    for (i, line) in text.split('\n').enumerate() {
        if i >= MOST {
            return wrong("the script has too many lines", MOST);
        }
        if line.len() > MOST && line.chars().count() > MOST {
            return wrong("the line is too long: it has too many characters", i + 1);
        }
    }
    Ok(())
}

/// Line and column, 0 where not known.
pub(crate) fn place(position: Position) -> (usize, usize) {
    (position.line().unwrap_or(0), position.position().unwrap_or(0))
}

/// A parse error with its place and, where one is known, a way out.
pub(crate) fn syntax_error(error: &ParseError, file: &str) -> RunError {
    let (line, column) = place(error.position());
    let kind = error.err_type();
    let (code, message) = match kind {
        ParseErrorType::VariableUndefined(name) => {
            (codes::UNKNOWN_VARIABLE, format!("no variable named `{name}` here"))
        }
        ParseErrorType::ModuleUndefined(name) => {
            (codes::UNKNOWN_FUNCTION, format!("no module named `{name}`"))
        }
        other => (codes::SYNTAX, lower(&other.to_string())),
    };
    let error = RunError::new(code, message).at("", file, line, column);
    match kind {
        ParseErrorType::Reserved(word) if word == "default" => {
            error.hint("`default` is a reserved word: write it as \"default\" in a map")
        }
        ParseErrorType::Reserved(word) => {
            error.hint(format!("`{word}` is a reserved word: in a map, put the key in quotes"))
        }
        ParseErrorType::VariableUndefined(name) if name == "params" => {
            error.hint("functions see only their arguments: pass what they need of `params`")
        }
        ParseErrorType::VariableUndefined(_) => {
            error.hint("functions (`fn`) see only their arguments and constants, not outer variables")
        }
        _ => error,
    }
}

pub(crate) fn lower(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
