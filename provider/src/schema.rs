//! What options and settings look like: names, types, units, defaults and descriptions, read from the types that decode them.
//!
//! A type derives [`JsonSchema`] next to `Deserialize`; from its schema follow the tables of the reference, what `check` knows about
//! options, completion and help in editors. Quantities say by their `format` what they are called in scripts.

use std::borrow::Cow;

pub use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    quantity::{Comparison, Percent, Size, Span},
    secret::{SecretText, Text},
    target::Target,
};

/// The schema of a type, without references to other schemas.
pub fn of<T: JsonSchema>() -> Schema {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
    });
    settings.into_generator().into_root_schema_for::<T>()
}

/// One option of a function, or one setting of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OptionSchema {
    /// Its name.
    pub name: String,
    /// What it takes, in the words of scripts: `duration`, `text`, `array of targets`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is in effect where it is not given. `None`: nothing, or something that depends on the other options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Whether it must be given.
    pub required: bool,
    /// What it does, in Markdown.
    pub doc: String,
    /// The values it takes, where there are only a few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// The options inside, where it is a map of options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<OptionSchema>,
}

/// One of a few values that an option takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The value.
    pub value: Value,
    /// What it means, in Markdown. May be empty.
    pub doc: String,
}

impl OptionSchema {
    /// The options of a struct, by name. Empty for a schema that is not that of a struct.
    pub fn list(schema: &Schema) -> Vec<Self> {
        schema.as_object().map_or_else(Vec::new, list)
    }

    /// The default as it is written in a script: `"5m"`, `[0]`.
    pub fn default_text(&self) -> Option<String> {
        self.default.as_ref().map(literal)
    }
}

/// What a value of this schema is called in scripts: `duration`, `text or number`.
pub fn kind(schema: &Schema) -> String {
    kind_of(schema.as_value(), false)
}

/// A value as a script would write it.
pub fn literal(value: &Value) -> String {
    match value {
        Value::Null => "()".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(name, value)| format!("{name}: {}", literal(value))).collect();
            format!("#{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

fn list(schema: &Map<String, Value>) -> Vec<OptionSchema> {
    let Some(Value::Object(properties)) = schema.get("properties") else { return Vec::new() };
    let required = |name: &str| {
        schema
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|names| names.iter().any(|given| given == name))
    };
    properties
        .iter()
        .map(|(name, schema)| OptionSchema {
            name: name.clone(),
            kind: kind_of(schema, false),
            default: schema.get("default").filter(|value| says_something(value)).cloned(),
            required: required(name),
            doc: doc(schema),
            choices: choices(schema),
            options: inner(schema).map_or_else(Vec::new, list),
        })
        .collect()
}

/// A default that is not the same as giving nothing.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

fn doc(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

/// The alternatives of a schema but `null`: an option that may be left out takes nothing, too.
fn alternatives(schema: &Value) -> Option<Vec<&Value>> {
    let all = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    Some(all.iter().filter(|schema| schema.get("type").is_none_or(|kind| kind != "null")).collect())
}

/// The schema of a map of options: itself, or the only one of its alternatives that is one.
fn inner(schema: &Value) -> Option<&Map<String, Value>> {
    if schema.get("properties").is_some() {
        return schema.as_object();
    }
    match alternatives(schema)?.as_slice() {
        [one] => inner(one),
        _ => None,
    }
}

fn choices(schema: &Value) -> Vec<Choice> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let given = values.iter().filter(|value| !value.is_null());
        return given.map(|value| Choice { value: value.clone(), doc: String::new() }).collect();
    }
    let Some(all) = alternatives(schema) else { return Vec::new() };
    let each: Option<Vec<Vec<Choice>>> = all
        .iter()
        .map(|schema| match schema.get("const") {
            Some(value) => Some(vec![Choice { value: value.clone(), doc: doc(schema) }]),
            None => Some(choices(schema)).filter(|choices| !choices.is_empty()),
        })
        .collect();
    each.unwrap_or_default().concat()
}

/// The word for a schema, and the one for several.
fn kind_of(schema: &Value, many: bool) -> String {
    let word = |one: &str| match one {
        "text" => if many { "texts" } else { one }.to_owned(),
        one if many && !one.contains(' ') => format!("{one}s"),
        one => one.to_owned(),
    };
    let choices = choices(schema);
    if !choices.is_empty() {
        return any_of(choices.iter().map(|choice| match choice.value {
            Value::Bool(_) => word("boolean"),
            Value::Number(_) => word("number"),
            _ => word("text"),
        }));
    }
    if let Some(all) = alternatives(schema) {
        return any_of(all.iter().map(|schema| kind_of(schema, many)));
    }
    let format = schema.get("format").and_then(Value::as_str);
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
        _ => Vec::new(),
    };
    let simple = |kind: &str| match (kind, format) {
        ("string" | "object", Some(format)) => word(format),
        ("string", None) => word("text"),
        ("integer" | "number", _) => word("number"),
        ("boolean", _) => word("boolean"),
        ("array", _) => match schema.get("items").map(|items| kind_of(items, true)) {
            Some(items) if items != ANY => format!("array of {items}"),
            _ => word("array"),
        },
        ("object", _) => match schema.get("additionalProperties").filter(|more| more.is_object()) {
            Some(more) if kind_of(more, true) != ANY => format!("map of {}", kind_of(more, true)),
            _ => word("map"),
        },
        _ => ANY.to_owned(),
    };
    match types.as_slice() {
        [] => ANY.to_owned(),
        kinds => kinds.iter().map(|kind| simple(kind)).collect::<Vec<_>>().join(" or "),
    }
}

const ANY: &str = "any value";

fn any_of(all: impl Iterator<Item = String>) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for kind in all {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    match kinds.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => kinds.join(""),
    }
}

/// Text with a format of its own: what it is called in scripts, and an example.
macro_rules! quantities {
    ($($name:ident: $word:literal, $example:literal;)+) => {$(
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $word.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                text($word, $example)
            }
        }
    )+};
}

/// The schema of text with a format: `word` is what it is called in scripts.
pub fn text(word: &str, example: &str) -> Schema {
    let mut schema = Schema::default();
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("format".to_owned(), json!(word));
    schema.insert("examples".to_owned(), json!([example]));
    schema
}

quantities! {
    Span: "duration", "90s";
    Percent: "percentage", "0.1%";
    Size: "size", "1MiB";
    Comparison: "comparison", "< 200ms";
    Target: "target", "traffic/web";
}

impl JsonSchema for SecretText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = Schema::default();
        schema.insert("type".to_owned(), json!("object"));
        schema.insert("format".to_owned(), json!("secret"));
        schema
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "text or secret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let either = [String::json_schema(generator), SecretText::json_schema(generator)];
        let mut schema = Schema::default();
        schema.insert("anyOf".to_owned(), json!(either));
        schema
    }
}

/// The form of an option that takes one thing or several.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Several.
    Many(Vec<T>),
}

/// The form of an option that takes a whole number or text.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum NumberOrText {
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

/// The form of an option that takes a percentage as a number, such as 0.5, or as text, such as `"0.5%"`.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum FractionOrText {
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
}

/// The form of an option that can be switched on and off, or given as a number.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum SwitchOrNumber {
    /// On or off.
    Switch(bool),
    /// A number.
    Number(u32),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Options {
        /// Time limit for one attempt.
        timeout: Span,
        limit: Option<Size>,
        #[schemars(extend("default" = Span::secs(5)))]
        drain: Option<Span>,
        headers: BTreeMap<String, Text>,
        on_failure: OnFailure,
        targets: Vec<Target>,
        status: Vec<i32>,
        inner: Option<Inner>,
        any: Option<Value>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum OnFailure {
        /// They stop.
        Cancel,
        Finish,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Inner {
        port: u16,
        #[serde(default)]
        bounds: BTreeMap<String, Comparison>,
    }

    impl Default for Options {
        fn default() -> Self {
            Self {
                timeout: Span::secs(30),
                limit: None,
                drain: None,
                headers: BTreeMap::new(),
                on_failure: OnFailure::Cancel,
                targets: Vec::new(),
                status: vec![0],
                inner: None,
                any: None,
            }
        }
    }

    #[test]
    fn a_struct_says_what_its_options_are() {
        fn lines(options: &[OptionSchema], depth: usize) -> String {
            let line = |o: &OptionSchema| {
                let choices: Vec<String> = o.choices.iter().map(|choice| literal(&choice.value)).collect();
                format!(
                    "{:depth$}{}: {}, default {}, required {}, {:?} {choices:?}\n{}",
                    "",
                    o.name,
                    o.kind,
                    o.default_text().unwrap_or_default(),
                    o.required,
                    o.doc,
                    lines(&o.options, depth + 2),
                )
            };
            options.iter().map(line).collect()
        }
        insta::assert_snapshot!(lines(&OptionSchema::list(&of::<Options>()), 0), @r#"
        any: any value, default , required false, "" []
        drain: duration, default "5s", required false, "" []
        headers: map of texts or secrets, default , required false, "" []
        inner: map, default , required false, "" []
          bounds: map of comparisons, default , required false, "" []
          port: number, default , required true, "" []
        limit: size, default , required false, "" []
        on_failure: text, default "cancel", required false, "" ["\"finish\"", "\"cancel\""]
        status: array of numbers, default [0], required false, "" []
        targets: array of targets, default , required false, "" []
        timeout: duration, default "30s", required false, "Time limit for one attempt." []
        "#);
    }
}
