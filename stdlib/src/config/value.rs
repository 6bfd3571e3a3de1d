//! Settings whose value may come from elsewhere: from a variable of the process or from a file.

use std::{fmt, io::Read as _};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, value::MapAccessDeserializer},
};
use zeroize::Zeroizing;

use super::{ConfigError, Entry};

/// A file with one value is small; a larger one is a wrong path.
const LARGEST: u64 = 64 << 10;

/// A text that stands in the configuration, or that the configuration says where to find:
///
/// ```toml
/// url = "postgres://db.example.com/shop"
/// url = { env = "DATABASE_URL" }
/// url = { file = "/run/secrets/database-url" }
/// ```
///
/// It holds no value that came from elsewhere, so it can be shown; [`Setting::resolve`] fetches the value when it is needed.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting(Origin);

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Plain(String),
    Env(String),
    File(String),
}

/// The value of a [`Setting`]. Wiped from memory when dropped; shown only where it stands in the configuration itself.
#[derive(Clone)]
pub struct Resolved {
    value: Zeroizing<String>,
    setting: Setting,
}

impl Setting {
    /// A setting with this text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self(Origin::Plain(text.into()))
    }

    /// The text, if it stands in the configuration itself.
    pub(super) fn as_plain(&self) -> Option<&str> {
        match &self.0 {
            Origin::Plain(text) => Some(text),
            Origin::Env(_) | Origin::File(_) => None,
        }
    }

    /// Fetches the value. `key` is the setting's name in `entry`, for errors. Called at each use, so that a file that was
    /// replaced is read anew; variables are those that the configuration was loaded with. The line end after the value in
    /// a file is dropped.
    ///
    /// # Errors
    /// `config`, at the place of the key: the variable is not set or empty, the file cannot be read, is empty, or is no
    /// text.
    pub fn resolve(&self, entry: &Entry, key: &str) -> Result<Resolved, ConfigError> {
        let value = match &self.0 {
            Origin::Plain(text) => Zeroizing::new(text.clone()),
            Origin::Env(name) => {
                let bad =
                    |what: &str| entry.bad_setting(key, &format!("the environment variable {name} {what}"));
                let value = entry.variable(name).ok_or_else(|| {
                    bad("is not set").hint(format!("set {name}, or give `{key}` another source"))
                })?;
                let value = value.to_str().ok_or_else(|| bad("is not UTF-8"))?;
                if value.is_empty() {
                    return Err(bad("is empty"));
                }
                Zeroizing::new(value.to_owned())
            }
            Origin::File(path) => {
                let path = entry.path(path);
                let bad = |what: &str| entry.bad_setting(key, &format!("the file {} {what}", path.display()));
                let cannot = |error: std::io::Error| match error.kind() {
                    std::io::ErrorKind::NotFound => bad("does not exist"),
                    std::io::ErrorKind::PermissionDenied => bad("cannot be read: permission denied"),
                    std::io::ErrorKind::InvalidData => bad("is not UTF-8"),
                    std::io::ErrorKind::IsADirectory => bad("is a folder"),
                    _ => bad(&format!("cannot be read: {error}")),
                };
                let mut value = Zeroizing::new(String::new());
                let file = std::fs::File::open(&path).map_err(cannot)?;
                file.take(LARGEST + 1).read_to_string(&mut value).map_err(cannot)?;
                if value.len() as u64 > LARGEST {
                    return Err(bad("is larger than 64KiB, which no setting is"));
                }
                let end = value.trim_end_matches(['\n', '\r']).len();
                value.truncate(end);
                if value.is_empty() {
                    return Err(bad("is empty"));
                }
                value
            }
        };
        Ok(Resolved { value, setting: self.clone() })
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
        }

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Setting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, { env = \"VARIABLE\" } or { file = \"path\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Setting, E> {
                Ok(Setting::plain(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Setting, A::Error> {
                match Elsewhere::deserialize(MapAccessDeserializer::new(map))? {
                    Elsewhere { env: Some(name), file: None } => {
                        if name.is_empty() || name.contains(['=', '\0']) {
                            return Err(de::Error::custom(format_args!(
                                "\"{name}\" is no name of an environment variable"
                            )));
                        }
                        Ok(Setting(Origin::Env(name)))
                    }
                    Elsewhere { env: None, file: Some(path) } => Ok(Setting(Origin::File(path))),
                    _ => Err(de::Error::custom("expected one of `env` and `file`")),
                }
            }
        }

        from.deserialize_any(Visitor)
    }
}
