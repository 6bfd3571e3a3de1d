//! A JSON Schema of `contraflow.toml`, for editors: what they complete, describe and underline.

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf};

use serde_json::{Map, Value, json};

use super::{FILE_NAME, Limits, Role, SANDBOX, value::outside_environments};
use crate::{
    registry::{Kind, Registry},
    schema::{self, JsonSchema, Schema},
};

/// The draft that most editors of TOML know.
const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// Names of environments and targets.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";

/// The top of a file.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes what is read one key after the other")]
struct Top {
    /// The environment that is used if none is named.
    default_env: Option<String>,
    /// The run store: a folder, or the URL of a PostgreSQL database.
    store: Option<Store>,
    /// The folder of the run store if no `store` is set.
    state_dir: Option<PathBuf>,
    /// Limits of one run.
    limits: Option<Limits>,
    /// The members of each role, for `approve`.
    roles: Option<BTreeMap<String, Role>>,
    /// The environments.
    env: Option<BTreeMap<String, Value>>,
}

/// An environment, without its targets.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes what is read one key after the other")]
struct Environment {
    /// Whether only saved plans run here.
    protected: Option<bool>,
    /// Roles or names of the people who approve saved plans.
    approvers: Option<Vec<String>>,
    /// How many different people must approve a plan before it runs.
    #[schemars(range(min = 1))]
    approvals: Option<u32>,
    /// Values for parameters of runbooks.
    params: Option<BTreeMap<String, Param>>,
}

/// The run store belongs to no environment.
struct Store;

impl JsonSchema for Store {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Store".into()
    }

    fn json_schema(_: &mut schema::SchemaGenerator) -> Schema {
        outside_environments()
    }
}

/// The value of a parameter: anything but a table.
struct Param;

impl JsonSchema for Param {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Param".into()
    }

    fn json_schema(_: &mut schema::SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean", "array"] })
    }
}

/// What a file can hold with the libraries of this registry.
pub(crate) fn json_schema(registry: &Registry) -> Value {
    let mut sandbox = of(schema::of::<Environment>());
    for table in registry.tables() {
        let mut described = of(table.schema());
        described.insert("description".to_owned(), table.about.into());
        add(&mut sandbox, table.name, described.into());
    }
    let mut environment = sandbox.clone();
    for noun in registry.nouns() {
        let kinds: Vec<Value> = registry.kinds(noun.name).map(target).collect();
        let targets = if kinds.is_empty() { json!(false) } else { json!({ "oneOf": kinds }) };
        add(
            &mut environment,
            noun.name,
            json!({
                "type": "object",
                "description": noun.about,
                "propertyNames": { "pattern": NAME },
                "additionalProperties": targets,
            }),
        );
    }
    let mut top = of(schema::of::<Top>());
    top.insert("$schema".to_owned(), DRAFT.into());
    top.insert("title".to_owned(), FILE_NAME.into());
    top["properties"]["env"] = json!({
        "type": "object",
        "description": "The environments.",
        "propertyNames": { "pattern": NAME },
        "properties": { SANDBOX: sandbox },
        "additionalProperties": environment,
    });
    top.into()
}

/// A target of this kind.
fn target(kind: &Kind) -> Value {
    let mut target = kind.schema().map_or_else(Map::new, of);
    let about = match kind.left_out() {
        Some(feature) => format!("Not in this build: the feature `{feature}` adds it."),
        None => kind.about.to_owned(),
    };
    add(&mut target, "provider", json!({ "const": kind.name, "description": about }));
    target.insert("type".to_owned(), "object".into());
    match target.entry("required").or_insert_with(|| json!([])) {
        Value::Array(required) => required.push("provider".into()),
        other => *other = json!(["provider"]),
    }
    target.into()
}

fn add(table: &mut Map<String, Value>, key: &str, value: Value) {
    table.entry("properties").or_insert_with(|| json!({}))[key] = value;
}

/// A schema as a part of another one.
fn of(schema: Schema) -> Map<String, Value> {
    let Value::Object(mut map) = schema.to_value() else { return Map::new() };
    for key in ["$schema", "title"] {
        map.remove(key);
    }
    map.values_mut().for_each(without_formats);
    map
}

/// Formats are the words of scripts: `duration` is `"90s"` here, and for editors that of ISO 8601.
fn without_formats(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.retain(|key, value| key != "format" || !value.is_string());
            map.values_mut().for_each(without_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(without_formats),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::schema::{ENVIRONMENT_KEYS, KEYS},
        *,
    };

    #[test]
    fn editors_know_the_keys_that_are_read() {
        let keys = |schema: &Value| -> Vec<String> {
            schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned().collect()
        };
        let sorted = |keys: &[&str]| {
            let mut keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
            keys.sort();
            keys
        };
        let schema = json_schema(&Registry::default());
        assert_eq!(keys(&schema), sorted(&KEYS));
        assert_eq!(keys(&schema["properties"]["env"]["additionalProperties"]), sorted(&ENVIRONMENT_KEYS));
    }
}
