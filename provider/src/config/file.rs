//! One configuration file: its text, the variables over it, and where in it a key stands.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml_edit::{Document, Item, Key, Table, TableLike, Value};

use super::{ConfigError, overrides::Override};
use crate::{
    codes,
    error::{Frame, RunError},
};

/// A larger file is no configuration: most likely a wrong path.
const LARGEST: u64 = 1 << 20;

/// A configuration file.
#[derive(Default)]
pub(super) struct File {
    /// As it was given. `None`: there is no file.
    pub(super) path: Option<PathBuf>,
    pub(super) text: Arc<str>,
    /// Keys whose value comes from a variable.
    pub(super) overrides: Vec<Override>,
    /// The variables of the process, for settings that name one.
    pub(super) variables: Variables,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}", path.display()),
            None => f.write_str("no file"),
        }
    }
}

/// A snapshot of the process environment. It may hold secrets, so it is not `Debug`.
#[derive(Default)]
pub(super) struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    pub(super) fn new<K: Into<OsString>, V: Into<OsString>>(vars: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// In the order of their names, so that the same variables always give the same configuration.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

impl File {
    /// A path in the configuration, taken from the folder of the file.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        match self.path.as_deref().and_then(Path::parent) {
            Some(folder) => folder.join(path),
            None => path.into(),
        }
    }

    /// The place of the value at `path`: the variable that it comes from, else `offset` in the text.
    pub(super) fn frame<K: AsRef<str>>(&self, path: &[K], offset: Option<usize>) -> Frame {
        let what = dotted(path);
        if let Some(over) = self.overridden(path) {
            return over.frame(what);
        }
        let source = self.path.as_deref().unwrap_or(Path::new(super::FILE_NAME)).display().to_string();
        let (line, column) = offset.map_or((0, 0), |offset| position(&self.text, offset));
        Frame { what, source, line, column }
    }

    /// The variable that the value at `path`, or the value it is a part of, comes from.
    pub(super) fn overridden<K: AsRef<str>>(&self, path: &[K]) -> Option<&Override> {
        self.overrides.iter().find(|over| {
            over.path.len() <= path.len() && over.path.iter().zip(path).all(|(a, b)| a == b.as_ref())
        })
    }

    /// Where a key stands. The text is parsed again: this is asked once, for an error.
    pub(super) fn find(&self, keys: &[&str]) -> Option<Frame> {
        if let Some(over) = self.overridden(keys) {
            return Some(over.frame(dotted(keys)));
        }
        let (last, tables) = keys.split_last()?;
        let root = Document::parse(&*self.text).ok()?.into_table();
        let mut table: &dyn TableLike = &root;
        for key in tables {
            table = table.get(key)?.as_table_like()?;
        }
        let (key, _) = table.get_key_value(last)?;
        Some(self.frame(keys, key.span().map(|span| span.start)))
    }
}

/// Reads a file as text.
///
/// # Errors
/// `config`: it is missing, a folder, too large, unreadable, or not UTF-8 (with the place of the first bad byte).
pub(super) fn read(path: &Path) -> Result<Arc<str>, ConfigError> {
    let fail = |line, column, message: String| {
        RunError::new(codes::CONFIG, message).at("the file", path.display().to_string(), line, column)
    };
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => fail(0, 0, "there is no such file".to_owned()),
        std::io::ErrorKind::PermissionDenied => {
            fail(0, 0, "the file cannot be read: permission denied".to_owned())
        }
        _ => fail(0, 0, format!("the file cannot be read: {error}")),
    };
    let open = std::fs::File::open(path).map_err(cannot)?;
    if open.metadata().map_err(cannot)?.is_dir() {
        return Err(fail(0, 0, "this is a folder, expected a file".to_owned())
            .hint(format!("use the file in it: {}", path.join(super::FILE_NAME).display())));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits, also for a pipe.
    open.take(LARGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err(fail(0, 0, "the file is larger than 1MiB, too large for a configuration".to_owned()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(&error.as_bytes()[..good]);
            let (line, column) = position(&text, good);
            let byte = error.as_bytes()[good];
            Err(fail(line, column, format!("the file is not UTF-8: byte 0x{byte:02x} is not valid in UTF-8")))
        }
    }
}

/// Parses text into a tree that knows where each key and value stands.
///
/// # Errors
/// `config`, with the place of what is no TOML.
pub(super) fn parse(path: Option<&Path>, text: &str) -> Result<Table, ConfigError> {
    Document::parse(text).map(Document::into_table).map_err(|error| {
        let span = error.span().unwrap_or(text.len()..text.len());
        let (line, column) = position(text, span.start);
        let key = text.get(span).unwrap_or_default();
        let message = match error.message() {
            "duplicate key" => format!("`{key}` is defined twice"),
            other => format!("not valid TOML: {other}"),
        };
        let source = path.unwrap_or(Path::new(super::FILE_NAME)).display().to_string();
        RunError::new(codes::CONFIG, message).at("the file", source, line, column)
    })
}

/// Line and column, both from 1 and in characters, of a byte of the text.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = before[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    // A character is counted at its first byte; a byte order mark is none that a person sees.
    let in_line = before[start..].strip_prefix("\u{feff}".as_bytes()).unwrap_or(&before[start..]);
    (line, in_line.iter().filter(|byte| (**byte & 0xC0) != 0x80).count() + 1)
}

/// Keys as they would be written in a file: `env.production.db."main.old"`.
pub(super) fn dotted<K: AsRef<str>>(path: &[K]) -> String {
    let mut text = String::new();
    for key in path {
        let key = key.as_ref();
        if !text.is_empty() {
            text.push('.');
        }
        if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            text.push_str(key);
        } else {
            text.push_str(&format!("{key:?}"));
        }
    }
    text
}

/// The keys of a table with what stands behind them, in the order of the file.
pub(super) fn pairs(table: &dyn TableLike) -> impl Iterator<Item = (&Key, &Item)> {
    table.iter().filter_map(|(key, _)| table.get_key_value(key))
}

/// What stands there, for people. Text is shown up to a length that fits a line.
pub(super) fn describe(item: &Item) -> String {
    match item {
        Item::Value(Value::String(text)) => {
            let text = text.value();
            let shown: String = text.chars().take(60).collect();
            let more = if shown.len() < text.len() { "…" } else { "" };
            format!("the text \"{shown}{more}\"")
        }
        Item::Value(Value::Integer(number)) => format!("the number `{}`", number.value()),
        Item::Value(Value::Float(number)) => format!("the number `{}`", number.value()),
        Item::Value(Value::Boolean(flag)) => format!("`{}`", flag.value()),
        Item::Value(Value::Datetime(_)) => "a date".to_owned(),
        Item::Value(Value::Array(_)) => "an array".to_owned(),
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => "a table".to_owned(),
        Item::ArrayOfTables(_) => "an array of tables".to_owned(),
        Item::None => "nothing".to_owned(),
    }
}
