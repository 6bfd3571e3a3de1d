//! The scripts of a runbook, and where they lie: errors name files by the path that leads to them from here.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use contraflow_runtime::{Bundle, error::RunError, lint::Warning, text};

use crate::{
    args::Exit,
    command::{Refused, complain},
    context::Context,
    render::Sources,
};

/// A runbook with all it imports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scripts {
    bundle: Bundle,
    /// The folder that it was read from, as it was given. `None`: it comes from a store or a plan.
    folder: Option<PathBuf>,
}

impl Deref for Scripts {
    type Target = Bundle;

    fn deref(&self) -> &Bundle {
        &self.bundle
    }
}

impl Scripts {
    /// Reads a runbook.
    ///
    /// # Errors
    /// It cannot be read, or does not parse; with the texts that the error points into.
    pub(crate) fn load(file: &Path) -> Result<Self, (RunError, Sources)> {
        let folder = file.parent().map(Path::to_owned);
        match Bundle::load(file) {
            Ok(bundle) => Ok(Self { bundle, folder }),
            Err(mut error) => {
                let here = Self { bundle: Bundle::default(), folder };
                let mut sources = Sources::new();
                for frame in &mut error.frames {
                    let path = here.path(&frame.source);
                    if let Ok(text) = std::fs::read_to_string(&path) {
                        sources.insert(path.clone(), text::unmarked(text));
                        frame.source = path;
                    }
                }
                Err((error, sources))
            }
        }
    }

    /// Scripts that do not lie in a folder of this machine.
    pub(crate) fn stored(bundle: Bundle) -> Self {
        Self { bundle, folder: None }
    }

    pub(crate) fn into_bundle(self) -> Bundle {
        self.bundle
    }

    /// The path of one of its files, as a person would type it here.
    fn path(&self, name: &str) -> String {
        match &self.folder {
            Some(folder) => folder.join(name).display().to_string(),
            None => name.to_owned(),
        }
    }

    /// The texts that errors point into, by their paths.
    pub(crate) fn sources(&self) -> Sources {
        self.files.iter().map(|(name, text)| (self.path(name), text.clone())).collect()
    }

    /// An error that names its files by their paths.
    pub(crate) fn placed(&self, mut error: RunError) -> RunError {
        for frame in error.frames.iter_mut().filter(|frame| self.files.contains_key(&frame.source)) {
            frame.source = self.path(&frame.source);
        }
        error
    }

    /// The same for a warning.
    pub(crate) fn warned(&self, mut warning: Warning) -> Warning {
        for frame in warning.frames.iter_mut().filter(|frame| self.files.contains_key(&frame.source)) {
            frame.source = self.path(&frame.source);
        }
        warning
    }

    /// Errors in it, or in what it was given.
    pub(crate) fn refuse(&self, errors: Vec<RunError>) -> Refused {
        Refused::input(errors.into_iter().map(|error| self.placed(error)).collect(), self.sources())
    }

    /// It could not be done.
    pub(crate) fn failed(&self, error: RunError) -> Refused {
        Refused::failed_in(self.placed(error), self.sources())
    }

    /// Says what went wrong; answers `exit`.
    pub(crate) fn complain(&self, error: RunError, context: &Context, exit: Exit) -> Exit {
        complain(&[self.placed(error)], &self.sources(), context, exit)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn errors_and_warnings_name_files_by_the_path_that_was_given() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("a/web.rhai");
        fs::create_dir(folder.path().join("a")).expect("folder");
        fs::write(&file, "import \"lib\" as lib;\nlib::f();").expect("file");
        fs::write(folder.path().join("a/lib.rhai"), "fn f() { }").expect("file");
        let scripts = Scripts::load(&file).expect("loads");
        let lib = folder.path().join("a/lib.rhai").display().to_string();
        let error = RunError::new("script", "no").at("f", "lib.rhai", 1, 1).at("", "elsewhere.toml", 2, 1);
        let placed = scripts.placed(error);
        assert_eq!(placed.frames[0].source, lib);
        assert_eq!(placed.frames[1].source, "elsewhere.toml");
        assert!(scripts.sources().contains_key(&lib));
        assert_eq!(Scripts::stored(scripts.clone().into_bundle()).sources().len(), 2);
        fs::write(&file, "let = 5;").expect("file");
        let (error, sources) = Scripts::load(&file).expect_err("does not parse");
        assert_eq!(error.frames[0].source, file.display().to_string());
        assert!(sources.contains_key(&error.frames[0].source));
    }
}
