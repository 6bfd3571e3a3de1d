//! `db::backup` writes a copy of a database to a file and proves that it can be read back.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use contraflow_runtime::{
    effect::{Action, InDoubt, Limits, On},
    error::codes as runtime_codes,
    provider::ProviderError,
    quantity::Span,
    script::{Acts, ScriptContext, ScriptResult},
};
use rhai::plugin::*;
use rhai::{Map, NativeCallContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Job, Proof, Verify};
use crate::codes;

/// Options of `db::backup`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Folder, relative to the database's folder; created if missing.
    pub dir: String,
    /// How many backups of this database to keep in the folder, counting the new one. Default: all.
    pub keep: Option<u32>,
    /// How the backup is verified: restored and compared, only read from end to end, or not at all.
    #[schemars(with = "serde_json::Value", extend("enum" = [true, "read", false], "default" = true))]
    pub verify: Verify,
    /// Time limit for everything.
    pub timeout: Span,
    /// The result that a plan assumes: a map.
    pub assume: Option<Value>,
}

impl Default for Options {
    fn default() -> Self {
        let (dir, timeout) = ("backups".to_owned(), Span::secs(3600));
        Self { dir, keep: None, verify: Verify::Restore, timeout, assume: None }
    }
}

/// Writes a copy of a database to a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backup {
    /// The database.
    pub database: String,
    /// Folder for backups.
    pub dir: String,
    /// How many to keep.
    pub keep: Option<u32>,
    /// How it is proven.
    pub verify: Verify,
    /// Longest time.
    pub timeout: Span,
    /// The result that a plan assumes.
    pub assume: Option<Value>,
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The file.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// How it was proven: `restored`, `read`, `no`.
    pub verified: String,
    /// Tables that were compared, or nothing.
    pub tables: Option<u64>,
    /// Rows that were counted, or nothing.
    pub rows: Option<u64>,
    /// What a person should know about the proof. Empty: nothing.
    pub note: String,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// Older backups that were removed.
    pub removed: Vec<String>,
}

impl Action for Backup {
    const ID: &'static str = "db.backup";
    type Output = Finished;

    fn describe(&self) -> String {
        format!("{} into {}", self.database, self.dir)
    }

    async fn perform(&self, on: &On) -> Result<Finished, ProviderError> {
        let database = super::ready(on, &self.database).await?;
        let begun = on.clock().monotonic();
        let folder = database.folder().join(&self.dir);
        let made = OpenFolder::make(&folder, &self.database, database.backups()?.ending())?;
        let key = key(on, &folder);
        let partial = Partial::create(&folder, &key)?;
        let job = Job { file: partial.0.clone(), verify: self.verify, key };
        let proof = tokio::time::timeout(self.timeout.0, database.backups()?.backup(on, &job))
            .await
            .map_err(|_| {
                let message =
                    format!("the backup of \"{}\" took longer than {}", self.database, self.timeout);
                ProviderError::terminal(runtime_codes::TIMEOUT, message).hint("raise `timeout`")
            })??;
        let stamp = on.clock().now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let keep = self.keep;
        let (path, size, sha256, removed) = blocking(move || {
            let (path, size, sha256) = made.publish(partial, &stamp)?;
            let removed = made.prune(keep, &path);
            Ok((path, size, sha256, removed))
        })
        .await?;
        let elapsed = on.clock().monotonic().saturating_sub(begun);
        let Proof { verified, tables, rows, note } = proof;
        Ok(Finished {
            path: path.display().to_string(),
            size,
            sha256,
            verified,
            tables,
            rows,
            note,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            removed,
        })
    }

    fn planned(&self) -> Option<Value> {
        self.assume.clone()
    }

    fn in_doubt(&self) -> InDoubt {
        InDoubt::Repeat
    }

    fn limits(&self) -> Limits {
        // The action ends itself with a better message; the kernel's deadline is only for one that hangs.
        let all = self.timeout.0.saturating_add(Span::secs(15).0);
        Limits { timeout: all, total: Some(all), ..Limits::default() }
    }
}

/// What tells this backup from others that run now, and is the same when it is repeated after a crash.
fn key(on: &On, folder: &Path) -> String {
    let text = format!("{}\n{}", on.idempotency_key(), folder.display());
    hex(&Sha256::digest(text))[..16].to_owned()
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn failed(what: &Path, e: &io::Error) -> ProviderError {
    ProviderError::terminal(codes::BACKUP, format!("{}: {e}", what.display()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| ProviderError::terminal(runtime_codes::INTERNAL, e.to_string()))?
}

/// A backup that is being written. Removed unless it is published.
struct Partial(PathBuf);

impl Partial {
    fn create(folder: &Path, key: &str) -> Result<Self, ProviderError> {
        let path = folder.join(format!(".{key}.partial"));
        // What a crash left behind of this same backup.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&path, &e)),
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| failed(&path, &e))?;
        Ok(Self(path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// A folder of backups of one database.
struct OpenFolder {
    folder: PathBuf,
    stem: String,
    ending: &'static str,
}

impl OpenFolder {
    fn make(folder: &Path, database: &str, ending: &'static str) -> Result<Self, ProviderError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed(folder, &e))?;
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        Ok(Self { folder: folder.to_owned(), stem: database.chars().map(plain).collect(), ending })
    }

    /// Gives the finished file its name, durably. Answers path, size and SHA-256.
    fn publish(&self, partial: Partial, stamp: &str) -> Result<(PathBuf, u64, String), ProviderError> {
        let written = &partial.0;
        fs::set_permissions(written, fs::Permissions::from_mode(0o600)).map_err(|e| failed(written, &e))?;
        let (size, sha256) = summed(written).map_err(|e| failed(written, &e))?;
        for n in 1..1000 {
            let suffix = if n == 1 { String::new() } else { format!("-{n}") };
            let path = self.folder.join(format!("{}-{stamp}{suffix}.{}", self.stem, self.ending));
            // A link is refused where a rename would replace another backup; some file systems have no links.
            let named = match fs::hard_link(written, &path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
                    fs::rename(written, &path)
                }
                linked => linked,
            };
            match named {
                Ok(()) => {
                    drop(partial);
                    File::open(&self.folder)
                        .and_then(|folder| folder.sync_all())
                        .map_err(|e| failed(&self.folder, &e))?;
                    return Ok((path, size, sha256));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&path, &e)),
            }
        }
        let message =
            format!("{}: there are already a thousand backups from this second", self.folder.display());
        Err(ProviderError::terminal(codes::BACKUP, message))
    }

    /// Removes all but the newest `keep` backups of this database, never `newest`. Answers what was removed.
    fn prune(&self, keep: Option<u32>, newest: &Path) -> Vec<String> {
        let Some(keep) = keep else { return Vec::new() };
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut found: Vec<(String, u64, PathBuf)> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path != newest)
            .filter_map(|path| {
                let (stamp, n) = self.stamp(path.file_name()?.to_str()?)?;
                Some((stamp, n, path))
            })
            .collect();
        found.sort();
        let surplus = (found.len() + 1).saturating_sub(keep.max(1) as usize);
        let oldest = found.into_iter().take(surplus).map(|(_, _, path)| path);
        oldest.filter(|path| fs::remove_file(path).is_ok()).map(|path| path.display().to_string()).collect()
    }

    /// The time and number in a file name that [`OpenFolder::publish`] gave.
    fn stamp(&self, file: &str) -> Option<(String, u64)> {
        let middle = file.strip_prefix(&self.stem)?.strip_prefix('-')?;
        let middle = middle.strip_suffix(self.ending)?.strip_suffix('.')?;
        let (stamp, n) = middle.split_once('-').map_or((middle, Some(1)), |(s, n)| (s, n.parse().ok()));
        let shape = |(i, b): (usize, u8)| match i {
            8 => b == b'T',
            15 => b == b'Z',
            _ => b.is_ascii_digit(),
        };
        (stamp.len() == 16 && stamp.bytes().enumerate().all(shape)).then_some((stamp.to_owned(), n?))
    }
}

/// Size and SHA-256 of a file, which is on disk afterwards.
fn summed(path: &Path) -> io::Result<(u64, String)> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => {
                sum.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
    file.sync_all()?;
    Ok((size, hex(&sum.finalize())))
}

fn start(cx: &NativeCallContext<'_>, database: &str, options: Options) -> ScriptResult {
    let Options { dir, keep, verify, timeout, assume } = options;
    if keep == Some(0) {
        return Err(cx.bad_argument("keep", "expected 1 or more: the new backup counts"));
    }
    cx.action(Backup { database: database.to_owned(), dir, keep, verify, timeout, assume })
}

/// The script functions.
#[export_module]
pub mod script {
    /// Writes a copy of a database to a file in the folder `backups` and verifies that it can be read back; returns the
    /// file.
    ///
    /// SQLite: `VACUUM INTO`; the copy is opened, its integrity checked, tables and rows compared. PostgreSQL: `pg_dump` in
    /// custom format; the dump is restored into a scratch database that is dropped again, and tables and rows are compared with
    /// the dump's snapshot. If the role may not create databases, the dump is read from end to end instead; `verified` and
    /// `note` of the result say so. A backup that cannot be read back is an error, and its file is removed.
    ///
    /// The result has `path`, `size` in bytes, `sha256`, `verified` ("restored", "read" or "no"), `tables` and `rows` where they
    /// were compared, `note`, `elapsed_ms`, `removed`. Only the owner may read the file.
    ///
    /// ```rhai
    /// db::migrate("main");
    /// db::backup("main").verified == "restored"
    /// ```
    #[rhai_fn(name = "backup", return_raw, volatile)]
    pub fn backup(cx: NativeCallContext<'_>, database: &str) -> Acts {
        start(&cx, database, Options::default())
    }

    /// ```rhai
    /// db::migrate("main");
    /// db::backup("main", #{ dir: "kept", keep: 2, verify: "read" }).size > 0
    /// ```
    #[rhai_fn(name = "backup", return_raw, volatile)]
    pub fn backup_with(cx: NativeCallContext<'_>, database: &str, options: Map) -> Acts {
        let options = cx.options(options)?;
        start(&cx, database, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_the_oldest_of_this_database_are_removed_and_two_of_one_second_are_kept_apart() {
        let folder = tempfile::tempdir().expect("folder");
        let made = OpenFolder::make(folder.path(), "shop", "dump").expect("folder");
        for other in
            ["shop-20260101T000000Z.sqlite", "shop-x.dump", "other-20260101T000000Z.dump", "shop-2.dump"]
        {
            fs::write(folder.path().join(other), "x").expect("write");
        }
        let publish = |stamp: &str| {
            let partial = Partial::create(folder.path(), "k").expect("partial");
            made.publish(partial, stamp).expect("published").0
        };
        publish("20260101T000000Z");
        publish("20260102T000000Z");
        let twice = publish("20260102T000000Z");
        assert!(twice.ends_with("shop-20260102T000000Z-2.dump"));
        let newest = publish("20260103T000000Z");
        assert_eq!(made.prune(Some(2), &newest).len(), 2);
        assert_eq!(
            names(folder.path()),
            [
                "other-20260101T000000Z.dump",
                "shop-2.dump",
                "shop-20260101T000000Z.sqlite",
                "shop-20260102T000000Z-2.dump",
                "shop-20260103T000000Z.dump",
                "shop-x.dump"
            ]
        );
        assert_eq!(made.prune(None, &newest), Vec::<String>::new());
    }

    #[test]
    fn a_backup_that_is_not_finished_leaves_no_file() {
        let folder = tempfile::tempdir().expect("folder");
        drop(Partial::create(folder.path(), "k").expect("partial"));
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
