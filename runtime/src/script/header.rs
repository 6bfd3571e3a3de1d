//! The header of a runbook: what it is called and which parameters it takes, read without running anything.

use std::collections::BTreeMap;

use rhai::{AST, Dynamic};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::convert;
use crate::{
    bundle::Given,
    error::{RunError, codes, did_you_mean},
    quantity::{Percent, Size, Span},
};

/// What `const RUNBOOK = #{…};` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Name of the runbook, used in the ids of its runs: letters, digits, `-`, `_`.
    pub name: String,
    /// Version of the runbook.
    #[serde(default = "unversioned")]
    pub version: String,
    /// Whom to ask.
    #[serde(default)]
    pub owner: Option<String>,
    /// Longest time that a run may take, not counting the time when nobody works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// Parameters by name.
    #[serde(default)]
    pub params: BTreeMap<String, Param>,
    /// First paragraph of the `//!` comment.
    #[serde(skip)]
    pub summary: String,
}

fn unversioned() -> String {
    "0".into()
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// What values it takes.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// Value where none is given. Without one the parameter is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Value where none is given and the environment is the built-in sandbox, such as a short soak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Value>,
    /// The only values that are allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Value>,
    /// Smallest number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// What it is for.
    #[serde(default)]
    pub help: String,
}

/// Type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// Text.
    String,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// `true` or `false`.
    Bool,
    /// A duration such as `90s`.
    Duration,
    /// A percentage such as `0.1%`.
    Percent,
    /// A size such as `1MiB`.
    Size,
    /// A list of texts; on the command line separated by commas.
    List,
}

impl ParamType {
    fn wants(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Bool => "true or false",
            Self::Duration => "a duration such as \"90s\"",
            Self::Percent => "a percentage such as \"0.1%\"",
            Self::Size => "a size such as \"1MiB\"",
            Self::List => "a list of texts",
        }
    }

    /// The value in its canonical form, or nothing if it is not of this type.
    fn accept(self, value: &Value) -> Option<Value> {
        let text = || value.as_str();
        match self {
            Self::String => text().map(Value::from),
            Self::Int => value.as_i64().map(Value::from),
            Self::Float => value.as_f64().map(Value::from),
            Self::Bool => value.as_bool().map(Value::from),
            Self::Duration => text()?.parse::<Span>().ok().map(|span| span.to_string().into()),
            Self::Percent => text()?.parse::<Percent>().ok().map(|percent| percent.to_string().into()),
            Self::Size => text()?.parse::<Size>().ok().map(|size| size.to_string().into()),
            Self::List => value.as_array()?.iter().all(Value::is_string).then(|| value.clone()),
        }
    }

    /// Reads the text of a command line.
    fn read(self, text: &str) -> Value {
        match self {
            Self::Int => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
            Self::Float => text.parse::<f64>().map_or_else(|_| text.into(), Value::from),
            Self::Bool => text.parse::<bool>().map_or_else(|_| text.into(), Value::from),
            Self::List if text.is_empty() => Value::Array(Vec::new()),
            Self::List => text.split(',').map(|item| Value::from(item.trim())).collect(),
            Self::String | Self::Duration | Self::Percent | Self::Size => text.into(),
        }
    }
}

impl Header {
    /// Reads the header of a script.
    ///
    /// # Errors
    /// `header`: it is missing, not literal, or has a field that is not known.
    pub fn read(ast: &AST, file: &str) -> Result<Self, RunError> {
        let wrong =
            |message: String, line: usize| RunError::new(codes::HEADER, message).at("", file, line, 1);
        let (line, declared) = declaration(ast);
        if let Some(again) = declarations(ast).nth(1) {
            return Err(wrong("there are two RUNBOOK headers".into(), again));
        }
        let value = ast
            .iter_literal_variables(true, false)
            .find(|(name, ..)| *name == "RUNBOOK")
            .map(|(_, _, value)| value);
        let Some(value) = value else {
            return Err(if declared {
                wrong("the RUNBOOK header is not literal".into(), line).hint(
                    "it is read without running anything: use only literal values, no calls, no variables",
                )
            } else {
                wrong("the runbook has no header".into(), 1)
                    .hint("begin it with: const RUNBOOK = #{ name: \"…\" };")
            });
        };
        let mut header: Self = convert::decode(&value, "RUNBOOK")
            .map_err(|e| RunError { code: codes::HEADER.into(), ..e }.at("", file, line, 1))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if header.name.is_empty() || header.name.len() > 60 || !header.name.chars().all(plain) {
            return Err(wrong(format!("`RUNBOOK.name`: \"{}\" is not a valid name", header.name), line)
                .hint("use at most 60 letters, digits, - and _: it becomes part of run ids"));
        }
        for (name, param) in &mut header.params {
            param.check(name).map_err(|e| e.at("", file, line, 1))?;
        }
        header.summary = summary(ast.doc());
        Ok(header)
    }

    /// Fills in and checks parameters: given values over those of the environment over defaults.
    ///
    /// # Errors
    /// `parameter`: the first one that is unknown, missing, of the wrong type or not allowed, and what is allowed.
    pub fn params(
        &self,
        given: &BTreeMap<String, Given>,
        environment: &BTreeMap<String, Value>,
        sandbox: bool,
    ) -> Result<BTreeMap<String, Value>, RunError> {
        for name in given.keys() {
            if !self.params.contains_key(name) {
                return Err(self.unknown(name));
            }
        }
        self.params
            .iter()
            .map(|(name, param)| {
                let value = match (given.get(name), environment.get(name)) {
                    (Some(Given::Text(text)), _) => param.kind.read(text),
                    (Some(Given::Value(value)), _) => value.clone(),
                    (None, Some(value)) => value.clone(),
                    (None, None) => match (param.sandbox.as_ref().filter(|_| sandbox), &param.default) {
                        (Some(value), _) | (None, Some(value)) => value.clone(),
                        (None, None) => {
                            let help = if param.help.is_empty() {
                                String::new()
                            } else {
                                format!(" ({})", param.help)
                            };
                            return Err(RunError::new(
                                codes::PARAMETER,
                                format!("the parameter `{name}`{help} is required"),
                            )
                            .hint(format!("give it with --param {name}=…: {}", param.allowed())));
                        }
                    },
                };
                param.accept(name, &value).map(|value| (name.clone(), value))
            })
            .collect()
    }

    /// The error for a parameter that the runbook does not have.
    pub fn unknown(&self, name: &str) -> RunError {
        let error = RunError::new(
            codes::PARAMETER,
            format!("the runbook \"{}\" has no parameter `{name}`", self.name),
        );
        let known: Vec<&str> = self.params.keys().map(String::as_str).collect();
        match did_you_mean(name, known.iter().copied()) {
            Some(close) => error.hint(format!("did you mean `{close}`?")),
            None if known.is_empty() => error.hint("it has no parameters"),
            None => error.hint(format!("it has: {}", known.join(", "))),
        }
    }
}

impl Param {
    fn check(&mut self, name: &str) -> Result<(), RunError> {
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            let message = format!("`RUNBOOK.params.{name}`: min {min} is greater than max {max}");
            return Err(RunError::new(codes::HEADER, message));
        }
        for choice in &mut self.choices {
            *choice =
                self.kind.accept(choice).ok_or_else(|| self.kind.header_error(name, "choices", choice))?;
        }
        if let Some(value) = self.default.clone() {
            self.default =
                Some(self.accept(name, &value).map_err(|e| RunError { code: codes::HEADER.into(), ..e })?);
        }
        if let Some(value) = self.sandbox.clone() {
            self.sandbox =
                Some(self.accept(name, &value).map_err(|e| RunError { code: codes::HEADER.into(), ..e })?);
        }
        Ok(())
    }

    fn allowed(&self) -> String {
        if !self.choices.is_empty() {
            let choices: Vec<String> = self.choices.iter().map(plain).collect();
            return format!("one of {}", choices.join(", "));
        }
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{}, {min} to {max}", self.kind.wants()),
            (Some(min), None) => format!("{}, {min} or more", self.kind.wants()),
            (None, Some(max)) => format!("{}, {max} or less", self.kind.wants()),
            (None, None) => self.kind.wants().to_owned(),
        }
    }

    fn accept(&self, name: &str, value: &Value) -> Result<Value, RunError> {
        let refuse = || {
            RunError::new(
                codes::PARAMETER,
                format!("the parameter `{name}` is {}: expected {}", plain(value), self.allowed()),
            )
        };
        let accepted = self.kind.accept(value).ok_or_else(refuse)?;
        let in_range = accepted
            .as_f64()
            .is_none_or(|n| self.min.is_none_or(|min| n >= min) && self.max.is_none_or(|max| n <= max));
        if !in_range || (!self.choices.is_empty() && !self.choices.contains(&accepted)) {
            return Err(refuse());
        }
        Ok(accepted)
    }
}

impl ParamType {
    fn header_error(self, name: &str, field: &str, value: &Value) -> RunError {
        RunError::new(
            codes::HEADER,
            format!("`RUNBOOK.params.{name}.{field}`: {} is not {}", plain(value), self.wants()),
        )
    }
}

fn plain(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("\"{text}\""),
        other => other.to_string(),
    };
    // Enough to recognize it by.
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn declaration(ast: &AST) -> (usize, bool) {
    declarations(ast).next().map_or((1, false), |line| (line, true))
}

/// Lines of all headers.
fn declarations(ast: &AST) -> impl Iterator<Item = usize> {
    ast.statements().iter().filter_map(|statement| match statement {
        rhai::Stmt::Var(declared, ..) if declared.0.name == "RUNBOOK" => {
            Some(declared.0.pos.line().unwrap_or(1))
        }
        _ => None,
    })
}

fn summary(doc: &str) -> String {
    doc.lines()
        .map(|line| line.trim_start_matches("//!").trim())
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Parameters as the constant `params` of a script.
pub(crate) fn to_script(params: &BTreeMap<String, Value>) -> Dynamic {
    Dynamic::from_map(
        params.iter().map(|(name, value)| (name.into(), convert::from_json(value.clone()))).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::syntax;

    fn header(text: &str) -> Result<Header, RunError> {
        Header::read(&syntax::parse(text, "a.rhai").expect("parses"), "a.rhai")
    }

    const GOOD: &str = r#"//! Moves one service.
const RUNBOOK = #{ name: "move", params: #{
    to: #{ type: "string", "default": "green", choices: ["blue", "green"] },
    hold: #{ type: "duration", "default": "900s", sandbox: "5s", help: "soak" },
    n: #{ type: "int", min: 1, max: 9 },
} };"#;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, Given> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), Given::Text((*text).to_owned()))).collect()
    }

    #[test]
    fn defaults_are_filled_in_and_normalized() {
        let header = header(GOOD).expect("header");
        assert_eq!(header.summary, "Moves one service.");
        let params = header.params(&given(&[("n", "3")]), &BTreeMap::new(), false).expect("params");
        assert_eq!(serde_json::to_string(&params).expect("json"), r#"{"hold":"15m","n":3,"to":"green"}"#);
        let params = header.params(&given(&[("n", "3")]), &BTreeMap::new(), true).expect("params");
        assert_eq!(params["hold"], "5s");
    }

    #[test]
    fn a_wrong_parameter_says_what_is_allowed() {
        let header = header(GOOD).expect("header");
        for (pairs, message, hint) in [
            (&[("n", "x")][..], "the parameter `n` is \"x\": expected a whole number, 1 to 9", ""),
            (&[("n", "10")], "the parameter `n` is 10: expected a whole number, 1 to 9", ""),
            (
                &[("n", "1"), ("to", "red")],
                "the parameter `to` is \"red\": expected one of \"blue\", \"green\"",
                "",
            ),
            (
                &[("n", "1"), ("hold", "5x")],
                "the parameter `hold` is \"5x\": expected a duration such as \"90s\"",
                "",
            ),
            (
                &[("n", "1"), ("holdd", "5s")],
                "the runbook \"move\" has no parameter `holdd`",
                "did you mean `hold`?",
            ),
            (&[], "the parameter `n` is required", "give it with --param n=…: a whole number, 1 to 9"),
        ] {
            let error = header.params(&given(pairs), &BTreeMap::new(), false).expect_err(message);
            assert_eq!(error.message, message);
            assert_eq!(error.hints.first().map_or("", String::as_str), hint);
        }
    }

    #[test]
    fn a_bad_header_is_refused_with_its_place() {
        for (text, message) in [
            ("let x = 1;", "the runbook has no header"),
            ("let n = 1; const RUNBOOK = #{ name: `a${n}` };", "the RUNBOOK header is not literal"),
            (r#"const RUNBOOK = #{ name: "a", vresion: "1" };"#, "`RUNBOOK`: unknown key `vresion`"),
            (r#"const RUNBOOK = #{ name: "a b" };"#, "`RUNBOOK.name`: \"a b\" is not a valid name"),
            (
                r#"const RUNBOOK = #{ name: "a", params: #{ x: #{ type: "int", "default": "z" } } };"#,
                "the parameter `x` is \"z\": expected a whole number",
            ),
        ] {
            let error = header(text).expect_err(text);
            assert!(error.message.starts_with(message), "{}", error.message);
            assert_eq!((error.code.as_str(), error.frames.len()), ("header", 1));
        }
    }
}
