//! What settings refer to: values elsewhere, paths, variables.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BadSetting, Building, FILE_NAME, Setting, Source,
    file::{File, Variables},
};

/// Finds what settings refer to. A provider takes it next to its settings, so that it can be made from a configuration and
/// without one.
pub trait Resolve {
    /// Where a value comes from that may stand elsewhere: in a variable, a file or a secret. `key` is the name of the setting,
    /// for errors.
    ///
    /// # Errors
    /// A secret that is not there.
    fn source(&self, key: &str, setting: &Setting) -> Result<Source, BadSetting>;

    /// A path, taken from the folder of the configuration.
    fn path(&self, path: &str) -> PathBuf;

    /// A variable of the process, as it was when the configuration was loaded.
    fn variable(&self, name: &str) -> Option<OsString>;
}

impl Resolve for Building<'_> {
    fn source(&self, key: &str, setting: &Setting) -> Result<Source, BadSetting> {
        let secret = match setting.secret() {
            Some(name) => Some(self.shared::<dyn crate::secrets::Secrets>(key, name)?),
            None => None,
        };
        Ok(Source::new(self.file(), key, setting, secret))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.file().beside(path)
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        self.file().variables.get(name).map(ToOwned::to_owned)
    }
}

/// Settings that stand in no configuration: those of an embedding program or of a test. There are no secrets to refer to.
#[derive(Debug, Clone, Default)]
pub struct Detached(Arc<File>);

impl Detached {
    /// Relative paths are taken from `folder`; variables are those given.
    pub fn new<K: Into<OsString>, V: Into<OsString>>(
        folder: impl AsRef<Path>,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let path = Some(folder.as_ref().join(FILE_NAME));
        Self(Arc::new(File { path, variables: Variables::new(variables), ..File::default() }))
    }
}

impl Resolve for Detached {
    fn source(&self, key: &str, setting: &Setting) -> Result<Source, BadSetting> {
        match setting.secret() {
            Some(name) => {
                Err(BadSetting::new(key, format!("there is no secret \"{name}\" outside a configuration")))
            }
            None => Ok(Source::new(&self.0, key, setting, None)),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.beside(path)
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        self.0.variables.get(name).map(ToOwned::to_owned)
    }
}
