//! Conditions that a plan cannot decide.
//!
//! A plan must not take a branch because of a value that only a real run can tell. Operators refuse such a value by themselves,
//! but `switch` silently takes its default branch for any value it does not know, and the type error of an `if` could be caught.
//! So the conditions of `if`, `while`, `until` and `switch` are wrapped in a call of `known`, which lets every other value
//! through, as is the argument of `type_of`. A `catch` begins with a call of `known_error`, which does not let an error pass
//! that came from such a value, and gives every other error the same form. The wrapping is done on the text before it is compiled; places in errors are mapped back.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rhai::{Position, Token};

use super::syntax;
use crate::error::Frame;

const BEFORE: &str = " known(";
const AFTER: &str = ")";

/// Text that was put in: line and column in front of which it stands in the original, both from 1, and its length.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Insertion {
    line: usize,
    column: usize,
    text: Cow<'static, str>,
}

/// Maps places in compiled text back to the original, by file.
#[derive(Debug, Default)]
pub(crate) struct Places {
    files: BTreeMap<String, Vec<Insertion>>,
}

impl Places {
    /// The column in the original text.
    pub(crate) fn column(&self, file: &str, line: usize, column: usize) -> usize {
        let mut shift = 0;
        for insertion in self.files.get(file).into_iter().flatten().filter(|i| i.line == line) {
            let begins = insertion.column + shift;
            if column < begins {
                break;
            }
            let length = insertion.text.chars().count();
            if column < begins + length {
                return insertion.column;
            }
            shift += length;
        }
        column - shift
    }

    /// Maps a frame back.
    pub(crate) fn fix(&self, frame: &mut Frame) {
        frame.column = self.column(&frame.source, frame.line, frame.column);
    }

    /// The text to compile for `file`. Text that does not parse is left as it is: the parser says why.
    pub(crate) fn wrap(&mut self, file: &str, text: &str) -> String {
        let insertions = find(text);
        let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        for insertion in insertions.iter().rev() {
            if let Some(line) = lines.get_mut(insertion.line - 1) {
                let at = line.char_indices().nth(insertion.column - 1).map_or(line.len(), |(at, _)| at);
                line.insert_str(at, &insertion.text);
            }
        }
        self.files.insert(file.to_owned(), insertions);
        lines.join("\n")
    }
}

fn find(text: &str) -> Vec<Insertion> {
    let tokens = tokens(text);
    let mut insertions = Vec::new();
    for (at, (token, position)) in tokens.iter().enumerate() {
        let length = match token {
            Token::If => 2,
            Token::While => 5,
            Token::Switch => 6,
            Token::Until => 5,
            Token::Catch => {
                add_known_error(&tokens, at, &mut insertions);
                continue;
            }
            token if is_type_of(token) => {
                add_type_of(&tokens, at, &mut insertions);
                continue;
            }
            _ => continue,
        };
        let Some(end) = end_of_condition(&tokens, at) else { continue };
        let (Some(begin), Some(end)) = (place(*position, length), place(end, 0)) else { continue };
        insertions.push(Insertion { line: begin.0, column: begin.1, text: BEFORE.into() });
        insertions.push(Insertion { line: end.0, column: end.1, text: AFTER.into() });
    }
    insertions.sort();
    insertions
}

/// `catch (e) {` → `catch (e) { e = known_error(e);`, and the same with a name of its own where there is none.
fn add_known_error(tokens: &[(Token, Position)], at: usize, insertions: &mut Vec<Insertion>) {
    const OWN: &str = "caught_";
    let rest = &tokens[at + 1..];
    let (name, open) = match rest {
        [(Token::LeftBrace, open), ..] => (None, *open),
        [
            (Token::LeftParen, _),
            (Token::Identifier(name), _),
            (Token::RightParen, _),
            (Token::LeftBrace, open),
            ..,
        ] => (Some(name.as_str()), *open),
        _ => return,
    };
    let (Some(before), Some(behind)) = (place(open, 0), place(open, 1)) else { return };
    if name.is_none() {
        insertions.push(Insertion { line: before.0, column: before.1, text: format!("({OWN}) ").into() });
    }
    insertions.push(Insertion {
        line: behind.0,
        column: behind.1,
        text: format!(" {0} = known_error({0});", name.unwrap_or(OWN)).into(),
    });
}

pub(super) fn is_type_of(token: &Token) -> bool {
    matches!(token, Token::Identifier(name) | Token::Reserved(name) if **name == "type_of")
}

/// `type_of(x)` → `type_of( known(x))`.
fn add_type_of(tokens: &[(Token, Position)], at: usize, insertions: &mut Vec<Insertion>) {
    let Some((Token::LeftParen, open)) = tokens.get(at + 1) else { return };
    let mut depth = 0usize;
    for (i, (token, position)) in tokens.iter().enumerate().skip(at + 1) {
        match token {
            Token::LeftParen | Token::LeftBracket | Token::MapStart | Token::LeftBrace => depth += 1,
            Token::RightParen | Token::RightBracket | Token::RightBrace => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            if i > at + 2
                && let (Some(open), Some(close)) = (place(*open, 1), place(*position, 0))
            {
                insertions.push(Insertion { line: open.0, column: open.1, text: BEFORE.into() });
                insertions.push(Insertion { line: close.0, column: close.1, text: AFTER.into() });
            }
            return;
        }
    }
}

fn place(position: Position, further: usize) -> Option<(usize, usize)> {
    Some((position.line()?, position.position()? + further))
}

/// Where the condition behind the keyword at `at` ends: at the block, the arrow or the semicolon behind it.
fn end_of_condition(tokens: &[(Token, Position)], at: usize) -> Option<Position> {
    let mut depth = 0usize;
    for (i, (token, position)) in tokens.iter().enumerate().skip(at + 1) {
        let interpolation = matches!(tokens[i - 1].0, Token::InterpolatedString(_));
        match token {
            Token::LeftParen | Token::LeftBracket | Token::MapStart => depth += 1,
            Token::LeftBrace if interpolation || depth > 0 => depth += 1,
            Token::LeftBrace | Token::DoubleArrow | Token::SemiColon if depth == 0 => {
                return (i > at + 1).then_some(*position);
            }
            Token::RightParen | Token::RightBracket | Token::RightBrace => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// Where functions use `params`, which they cannot see.
pub(super) fn params_in_functions(text: &str) -> Vec<Position> {
    let tokens = tokens(text);
    let is_params = |token: &Token| matches!(token, Token::Identifier(name) if **name == "params");
    let mut found = Vec::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, (token, _))| *token == Token::Fn) {
        let Some(open) = (at..tokens.len()).find(|i| tokens[*i].0 == Token::LeftBrace) else { continue };
        if tokens[at..open].iter().any(|(token, _)| is_params(token)) {
            continue;
        }
        let mut depth = 0usize;
        for (i, (token, position)) in tokens.iter().enumerate().skip(open) {
            match token {
                Token::LeftBrace | Token::MapStart => depth += 1,
                Token::RightBrace => depth -= 1,
                token if is_params(token) => {
                    let property = matches!(tokens[i - 1].0, Token::Period | Token::Elvis);
                    let key = matches!(tokens.get(i + 1), Some((Token::Colon, _)));
                    if !property && !key {
                        found.push(*position);
                    }
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// The tokens of a text as the parser asks for them, which alone knows where text interpolation ends.
fn tokens(text: &str) -> Vec<(Token, Position)> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut parser = syntax::parser();
    let list = Arc::clone(&seen);
    #[expect(deprecated, reason = "volatile, not deprecated")]
    parser.on_parse_token(move |token, position, _| {
        list.lock().unwrap_or_else(PoisonError::into_inner).push((token.clone(), position));
        token
    });
    let parsed = parser.compile(text).is_ok();
    drop(parser);
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if parsed { std::mem::take(&mut *seen) } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_wrapped_and_nothing_else() {
        for (text, wrapped) in [
            (
                "if a { b } else if c == 1 { d }",
                "if known( a )".to_owned() + "{ b } else if known( c == 1 ){ d }",
            ),
            ("while x.len() > #{a: 1}.a { }", "while known( x.len() > #{a: 1}.a ){ }".into()),
            (
                "switch f(|x| { x }) { 1 if y => 2, _ => 3 }",
                "switch known( f(|x| { x }) ){ 1 if known( y )=> 2, _ => 3 }".into(),
            ),
            ("do { x } while y;", "do { x } while known( y);".into()),
            ("if(a){ }", "if known((a)){ }".into()),
            ("if `a${b}c` == d { }", "if known( `a${b}c` == d ){ }".into()),
            ("let s = \"if a { }\"; // if b { }", "let s = \"if a { }\"; // if b { }".into()),
            ("let x = if a { 1 } else { 2 };", "let x = if known( a ){ 1 } else { 2 };".into()),
            ("if a\n{ b }", "if known( a\n){ b }".into()),
            ("do { x } until y;", "do { x } until known( y);".into()),
            ("try { } catch (e) { x }", "try { } catch (e) { e = known_error(e); x }".into()),
            ("try { } catch { x }", "try { } catch (caught_) { caught_ = known_error(caught_); x }".into()),
            ("f(type_of(a[(1)]) == b)", "f(type_of( known(a[(1)])) == b)".into()),
        ] {
            assert_eq!(Places::default().wrap("f", text), wrapped, "{text}");
        }
    }

    #[test]
    fn functions_that_use_params_are_found_and_closures_are_not() {
        for (text, found) in [
            ("fn f() { params.x }", 1),
            ("fn f(params) { params.x }", 0),
            ("fn f(x) { x.params + #{ params: 1 }.params }", 0),
            ("let f = || params.x; step(\"a\", || { params.y });", 0),
            ("fn f(x) { if x { `${params.x}` } else { || params } } params.z", 2),
        ] {
            assert_eq!(params_in_functions(text).len(), found, "{text}");
        }
    }

    #[test]
    fn places_map_back_to_the_original() {
        let text = "  if abc { d(); } else if efg { h(); }";
        let mut places = Places::default();
        let wrapped = places.wrap("f", text);
        for name in ["abc", "d(", "else", "efg", "h("] {
            let column = |text: &str| text.find(name).expect("is there") + 1;
            assert_eq!(places.column("f", 1, column(&wrapped)), column(text), "{name}");
        }
    }
}
