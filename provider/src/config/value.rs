//! Settings whose value may come from elsewhere: from a variable of the process, from a file or from a secret.

use std::{borrow::Cow, fmt, io::Read as _, path::PathBuf, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, value::MapAccessDeserializer},
};
use serde_json::json;
use zeroize::Zeroizing;

use super::{BadSetting, ConfigError, Entry, file::File};
use crate::{provider::ProviderError, secrets::Secrets};

/// A file with one value is small; a larger one is a wrong path.
const LARGEST: u64 = 64 << 10;

/// A text that stands in the configuration, or that the configuration says where to find:
///
/// ```toml
/// url = "postgres://db.example.com/shop"
/// url = { env = "DATABASE_URL" }
/// url = { file = "/run/secrets/database-url" }
/// url = { secret = "database-url" }
/// ```
///
/// It holds no value that came from elsewhere, so it can be shown. [`Resolve::source`](super::Resolve::source) makes a
/// [`Source`] of it, which fetches the value when it is needed.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting(Origin);

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Plain(String),
    Env(String),
    File(String),
    Secret(String),
}

/// The value of a [`Setting`]. Wiped from memory when dropped; shown only where it stands in the configuration itself.
#[derive(Clone)]
pub struct Resolved {
    value: Zeroizing<String>,
    setting: Setting,
}

impl JsonSchema for Setting {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Setting".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = outside_environments();
        if let Some(forms) = schema.get_mut("anyOf").and_then(|forms| forms.as_array_mut()) {
            forms.push(form("secret", "The secret of this environment that holds the value."));
        }
        schema
    }
}

/// The schema of a setting that belongs to no environment, and so cannot be in a secret of one.
pub(super) fn outside_environments() -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "string" },
            form("env", "The environment variable that holds the value."),
            form("file", "The file that holds the value."),
        ]
    })
}

fn form(key: &str, description: &str) -> serde_json::Value {
    let given = json!({ "type": "string", "description": description });
    json!({ "type": "object", "properties": { key: given }, "required": [key], "additionalProperties": false })
}

impl Setting {
    /// A setting with this text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self(Origin::Plain(text.into()))
    }

    /// The text, if it stands in the configuration itself.
    pub fn as_plain(&self) -> Option<&str> {
        match &self.0 {
            Origin::Plain(text) => Some(text),
            Origin::Env(_) | Origin::File(_) | Origin::Secret(_) => None,
        }
    }

    /// Fetches the value now, which a secret of an environment cannot be. `key` is the setting's name in `entry`, for errors.
    ///
    /// # Errors
    /// As [`Source::read`], at the place of the key.
    pub fn resolve(&self, entry: &Entry, key: &str) -> Result<Resolved, ConfigError> {
        let source = Source::new(&entry.file, key, self, None);
        source.read_here().map_err(|bad| entry.placed_setting(bad))
    }

    /// The name of the secret that holds the value, if one does.
    pub(super) fn secret(&self) -> Option<&str> {
        match &self.0 {
            Origin::Secret(name) => Some(name),
            Origin::Plain(_) | Origin::Env(_) | Origin::File(_) => None,
        }
    }
}

/// Where the value of a setting comes from. It is fetched at each use, so that a file or secret that was rotated is read anew;
/// variables are those that the configuration was loaded with.
#[derive(Clone)]
pub struct Source {
    key: String,
    setting: Setting,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Here,
    Variables(Arc<File>),
    File(PathBuf),
    Secret(Arc<dyn Secrets>),
    /// A secret of an environment, for a setting that belongs to none.
    Nowhere,
}

// The value is not shown, not even where it stands in the configuration: it may be a password.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.origin())
    }
}

impl Source {
    /// A value that is known, for programs that make providers without a configuration.
    pub fn plain(key: &str, text: impl Into<String>) -> Self {
        Self { key: key.to_owned(), setting: Setting::plain(text), place: Place::Here }
    }

    pub(super) fn new(
        file: &Arc<File>,
        key: &str,
        setting: &Setting,
        secret: Option<Arc<dyn Secrets>>,
    ) -> Self {
        let place = match &setting.0 {
            Origin::Plain(_) => Place::Here,
            Origin::Env(_) => Place::Variables(Arc::clone(file)),
            Origin::File(path) => Place::File(file.beside(path)),
            Origin::Secret(_) => secret.map_or(Place::Nowhere, Place::Secret),
        };
        Self { key: key.to_owned(), setting: setting.clone(), place }
    }

    /// The text, if it stands in the configuration itself: it can be checked before anything happens.
    pub fn as_plain(&self) -> Option<&str> {
        self.setting.as_plain()
    }

    /// Where the value is, for people: `the environment variable TOKEN`.
    pub fn origin(&self) -> String {
        match (&self.setting.0, &self.place) {
            (Origin::Env(name), _) => format!("the environment variable {name}"),
            (_, Place::File(path)) => format!("the file {}", path.display()),
            (Origin::File(path), _) => format!("the file {path}"),
            (Origin::Secret(name), _) => format!("the secret {name}"),
            (Origin::Plain(_), _) => "the configuration".to_owned(),
        }
    }

    /// What to call the value where it is kept out of output: the name of the variable or secret, else of the setting.
    pub fn name(&self) -> &str {
        match &self.setting.0 {
            Origin::Env(name) | Origin::Secret(name) => name,
            Origin::Plain(_) | Origin::File(_) => &self.key,
        }
    }

    /// A value that cannot be used, such as one that is no URL. Where it comes from elsewhere, the error says from where.
    pub fn unusable(&self, why: impl fmt::Display) -> BadSetting {
        match self.setting.0 {
            Origin::Plain(_) => BadSetting::new(&*self.key, why.to_string()),
            _ => BadSetting::new(&*self.key, format!("{}: {why}", self.origin())),
        }
    }

    /// Fetches the value. The line end after the value in a file is dropped.
    ///
    /// # Errors
    /// `config`: the variable is not set or empty; the file cannot be read, is empty or is no text. The errors of the provider of
    /// the secret.
    pub async fn read(&self) -> Result<Resolved, ProviderError> {
        match &self.place {
            Place::Secret(secret) => {
                Ok(Resolved { value: secret.value().await?, setting: self.setting.clone() })
            }
            _ => Ok(self.read_here()?),
        }
    }

    /// The value, if it can be had without asking anybody.
    pub fn peek(&self) -> Option<Resolved> {
        self.read_here().ok()
    }

    /// Fetches a value that is not in a secret.
    pub(super) fn read_here(&self) -> Result<Resolved, BadSetting> {
        let bad = |what: &str| BadSetting::new(&*self.key, format!("{} {what}", self.origin()));
        let value = match &self.place {
            Place::Here => Zeroizing::new(self.as_plain().unwrap_or_default().to_owned()),
            Place::Variables(file) => {
                let name = self.name();
                let value = file.variables.get(name).ok_or_else(|| {
                    bad("is not set").hint(format!(
                        "set {name} where contraflow is started, or set `{}` another way",
                        self.key
                    ))
                })?;
                let value = value.to_str().ok_or_else(|| bad("is not UTF-8"))?;
                if value.trim().is_empty() {
                    return Err(bad("is empty"));
                }
                Zeroizing::new(value.to_owned())
            }
            Place::File(path) => {
                let cannot = |error: std::io::Error| match error.kind() {
                    std::io::ErrorKind::NotFound => bad("does not exist"),
                    std::io::ErrorKind::PermissionDenied => bad("cannot be read: permission denied"),
                    std::io::ErrorKind::InvalidData => bad("is not UTF-8"),
                    std::io::ErrorKind::IsADirectory => bad("is a folder"),
                    _ => bad(&format!("cannot be read: {error}")),
                };
                let mut value = Zeroizing::new(String::new());
                let file = std::fs::File::open(path).map_err(cannot)?;
                file.take(LARGEST + 1).read_to_string(&mut value).map_err(cannot)?;
                if value.len() as u64 > LARGEST {
                    return Err(bad("is larger than 64KiB, too large for a setting"));
                }
                let mark = value.len() - crate::text::without_mark(&value).len();
                value.drain(..mark);
                let end = value.trim_end_matches(['\n', '\r']).len();
                value.truncate(end);
                if value.is_empty() {
                    return Err(bad("is empty"));
                }
                value
            }
            Place::Secret(_) | Place::Nowhere => {
                return Err(bad("can only be read in an environment"));
            }
        };
        Ok(Resolved { value, setting: self.setting.clone() })
    }
}

impl From<&str> for Setting {
    fn from(text: &str) -> Self {
        Self::plain(text)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Plain(text) => f.write_str(text),
            Origin::Env(name) => write!(f, "<env {name}>"),
            Origin::File(path) => write!(f, "<file {path}>"),
            Origin::Secret(name) => write!(f, "<secret {name}>"),
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Resolved {
    /// The value.
    pub fn as_str(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.setting.fmt(f)
    }
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Elsewhere {
            env: Option<String>,
            file: Option<String>,
            secret: Option<String>,
        }

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Setting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, { env = \"VARIABLE\" }, { file = \"path\" } or { secret = \"name\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Setting, E> {
                Ok(Setting::plain(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Setting, A::Error> {
                match Elsewhere::deserialize(MapAccessDeserializer::new(map))? {
                    Elsewhere { env: Some(name), file: None, secret: None } => {
                        if name.is_empty() || name.contains(['=', '\0']) {
                            return Err(de::Error::custom(format_args!(
                                "\"{name}\" is not a valid name of an environment variable"
                            )));
                        }
                        Ok(Setting(Origin::Env(name)))
                    }
                    Elsewhere { env: None, file: Some(path), secret: None } => {
                        Ok(Setting(Origin::File(path)))
                    }
                    Elsewhere { env: None, file: None, secret: Some(name) } => {
                        Ok(Setting(Origin::Secret(name)))
                    }
                    _ => Err(de::Error::custom("expected one of `env`, `file` and `secret`")),
                }
            }
        }

        from.deserialize_any(Visitor)
    }
}
