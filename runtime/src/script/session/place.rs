//! Where in a script something happened.

use rhai::{Dynamic, EvalAltResult, Map, NativeCallContext};

use super::{Session, lock};
use crate::{
    error::{Frame, RunError, codes},
    kernel::cursor,
    script::error::{from_fields, from_rhai, origin, plain_words, thrown},
};

impl Session {
    /// Keeps the open steps for an error of Rhai's own, which does not know them. An error may be caught, so more than one is kept.
    pub(super) fn remember_steps(&self, error: String) {
        const MOST: usize = 64;
        let mut trace = lock(&self.trace);
        if trace.iter().all(|(known, _)| *known != error) {
            if trace.len() >= MOST {
                trace.remove(0);
            }
            trace.push((error, cursor::frames()));
        }
    }

    pub(super) fn placed(&self, cx: &NativeCallContext<'_>, mut error: RunError) -> RunError {
        if error.frames.is_empty() {
            error.frames.push(self.frame(cx));
            error.frames.extend(cursor::frames());
        }
        self.kernel.scrub(&mut error);
        error
    }

    /// An error of Rhai's as an error of the run.
    pub(crate) fn explain(&self, error: &EvalAltResult) -> RunError {
        let placed = thrown(error).is_some_and(|known| !known.frames.is_empty());
        let mut error = from_rhai(error, &self.bundle.main);
        if !placed {
            error.frames.iter_mut().for_each(|frame| self.places.fix(frame));
        }
        error
    }

    /// What a `catch` binds, in the form that all errors have. A value that the script threw itself stays what it is; a map gets the
    /// code that it lacks.
    ///
    /// # Errors
    /// It is about a value that a plan does not know.
    pub(crate) fn caught(&self, cx: &NativeCallContext<'_>, error: Dynamic) -> Result<Dynamic, RunError> {
        if !error.is_map() {
            return Ok(error);
        }
        let mut fields = error.cast::<Map>();
        let of_rhai = fields
            .get("error")
            .is_some_and(|name| name.as_immutable_string_ref().is_ok_and(|name| name.starts_with("Error")));
        if !of_rhai || !fields.contains_key("message") {
            let message = plain_words(&Dynamic::from_map(fields.clone()).to_string());
            fields.entry("code".into()).or_insert_with(|| codes::FAILED.into());
            fields.entry("message".into()).or_insert_with(|| message.into());
            return Ok(Dynamic::from_map(fields));
        }
        let source = cx.call_source().filter(|s| !s.is_empty()).unwrap_or(&self.bundle.main);
        let mut error = from_fields(&fields, source);
        error.frames.iter_mut().for_each(|frame| self.places.fix(frame));
        error.frames.extend(cursor::frames());
        self.kernel.scrub(&mut error);
        if error.is(codes::UNKNOWN_IN_PLAN) { Err(error) } else { Ok(Dynamic::from(error)) }
    }

    pub(super) fn origin(&self, cx: &NativeCallContext<'_>, effect: &str) -> String {
        let frame = self.frame(cx);
        format!("{effect} ({}:{})", frame.source, frame.line)
    }

    /// Where an interpreter that was ended from outside was, as far as it says: of a script in functions, the outermost call.
    pub(super) fn ended_at(&self, error: &EvalAltResult) -> Option<Frame> {
        let (source, position) = origin(error, &self.bundle.main);
        let mut frame = Frame {
            what: String::new(),
            source,
            line: position.line()?,
            column: position.position().unwrap_or(0),
        };
        self.places.fix(&mut frame);
        Some(frame)
    }

    pub(super) fn frame(&self, cx: &NativeCallContext<'_>) -> Frame {
        let position = cx.call_position();
        let source = cx.call_source().filter(|s| !s.is_empty()).unwrap_or(&self.bundle.main).to_owned();
        let (line, column) = (position.line().unwrap_or(0), position.position().unwrap_or(0));
        let column = self.places.column(&source, line, column);
        let (what, column) =
            self.bundle.files.get(&source).map_or((None, column), |text| word_at(text, line, column));
        Frame { what: what.unwrap_or_else(|| cx.fn_name().to_owned()), source, line, column }
    }
}

/// The path of names around a place, such as `traffic::shift`, and the column where it begins.
fn word_at(text: &str, line: usize, column: usize) -> (Option<String>, usize) {
    let Some(line) = line.checked_sub(1).and_then(|n| text.lines().nth(n)) else { return (None, column) };
    let chars: Vec<char> = line.chars().collect();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let Some(mut start) = column.checked_sub(1).filter(|c| chars.get(*c).copied().is_some_and(is_part))
    else {
        return (None, column);
    };
    let mut end = start;
    while start > 0 && is_part(chars[start - 1]) {
        start -= 1;
    }
    while end < chars.len() && is_part(chars[end]) {
        end += 1;
    }
    let word: String = chars[start..end].iter().collect();
    (Some(word), start + 1)
}
