//! Files that are there complete or not at all.

use std::{
    fs::Permissions,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use contraflow_runtime::error::{RunError, codes};
use tempfile::NamedTempFile;

/// Why a file that is there is left alone.
pub(crate) fn exists(file: &Path) -> RunError {
    RunError::new(codes::ARGUMENT, format!("{} already exists", file.display()))
        .hint("choose another name, or remove it first")
}

/// Writes a file that does not exist yet: complete under another name, then renamed without replacing anything.
///
/// # Errors
/// It exists, or cannot be written.
pub(crate) fn create(file: &Path, text: &str) -> Result<(), RunError> {
    create_with(file, text, 0o644)
}

/// The same, for nobody but this user to read.
///
/// # Errors
/// As [`create`].
pub(crate) fn create_private(file: &Path, text: &str) -> Result<(), RunError> {
    create_with(file, text, 0o600)
}

fn create_with(file: &Path, text: &str, mode: u32) -> Result<(), RunError> {
    match written(file, text, mode)?.persist_noclobber(file) {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Err(exists(file)),
        Err(e) => Err(refused(file, &e.error)),
    }
}

/// Writes a file, in place of the one that may be there.
///
/// # Errors
/// It cannot be written.
pub(crate) fn replace(file: &Path, text: &str) -> Result<(), RunError> {
    written(file, text, 0o644)?.persist(file).map(drop).map_err(|e| refused(file, &e.error))
}

/// The same, for nobody but this user to read.
///
/// # Errors
/// As [`replace`].
pub(crate) fn replace_private(file: &Path, text: &str) -> Result<(), RunError> {
    written(file, text, 0o600)?.persist(file).map(drop).map_err(|e| refused(file, &e.error))
}

fn refused(file: &Path, error: &io::Error) -> RunError {
    RunError::new(codes::ARGUMENT, format!("cannot write {}: {error}", file.display()))
}

fn written(file: &Path, text: &str, mode: u32) -> Result<NamedTempFile, RunError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let refused = |error: io::Error| refused(file, &error);
    let mut new = tempfile::Builder::new()
        .prefix(".contraflow-new-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)
        .map_err(refused)?;
    new.write_all(text.as_bytes()).and_then(|()| new.as_file().sync_all()).map_err(refused)?;
    Ok(new)
}
