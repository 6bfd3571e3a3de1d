//! A store in a file: the contract, and what goes wrong with files.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use contraflow_runtime::journal::{Maintenance as _, RecordStore as _, RunStore as _, SqliteStore, Store};
use sqlx::Connection as _;

use super::{Place, begin, chain, chain_of, contract::contracts, holds};

async fn place() -> Option<Place> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let path = folder.path().to_owned();
    let open = move || -> futures_util::future::BoxFuture<'static, Arc<dyn Store>> {
        let path = path.clone();
        Box::pin(async move { Arc::new(SqliteStore::open(&path).await.unwrap()) as Arc<dyn Store> })
    };
    Some(Place { open: Box::new(open), _kept: Box::new(folder) })
}

contracts!(super::place);

/// A store with a run of 300 records, folded into its one file.
async fn folded() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    begin(&store, "r").await;
    store.append("r", 1, &chain(1, 300), true).await.unwrap();
    drop(store);
    let file = folder.path().join("contraflow.db");
    let mut connection =
        sqlx::SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    (folder, file)
}

fn remove_log(file: &Path) {
    for end in ["-wal", "-shm"] {
        drop(fs::remove_file(format!("{}{end}", file.display())));
    }
}

#[tokio::test]
async fn a_damaged_file_is_complained_of_and_never_read_as_something_else() {
    let (folder, file) = folded().await;
    let good = fs::read(&file).unwrap();
    let mut noticed = 0;
    for page in 1..good.len() / 4096 {
        remove_log(&file);
        let mut bad = good.clone();
        bad[page * 4096..page * 4096 + 64].fill(0xA5);
        fs::write(&file, &bad).unwrap();
        let Ok(store) = SqliteStore::open(folder.path()).await else {
            noticed += 1;
            continue;
        };
        let found = store.check().await;
        let all = store.records("r").await;
        let unharmed = all.as_ref().is_ok_and(|all| *all == chain(1, 300));
        assert!(!found.as_ref().is_ok_and(Vec::is_empty) || unharmed, "page {page}: {found:?}");
        noticed += usize::from(!unharmed || !found.is_ok_and(|found| found.is_empty()));
        if let Err(error) = all {
            assert!(error.message.starts_with(&*file.display().to_string()), "{error}");
        }
    }
    assert!(noticed > 5, "{noticed}");
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_an_error() {
    let (folder, file) = folded().await;
    let good = fs::read(&file).unwrap();
    for length in [10, 100, 1000, 4096, 5000, good.len() / 2, good.len() - 5000] {
        remove_log(&file);
        fs::write(&file, &good[..length]).unwrap();
        let Ok(store) = SqliteStore::open(folder.path()).await else { continue };
        let all = store.records("r").await;
        let found = store.check().await;
        assert!(all.is_err() || !found.as_ref().is_ok_and(Vec::is_empty), "{length}: {found:?}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_says_so_and_what_to_do() {
    // Root may write everywhere but where nobody can.
    let small = nix::unistd::geteuid().is_root().then(Small::mount).flatten();
    let folder = tempfile::tempdir().unwrap();
    let path = small.as_ref().map_or(folder.path(), |small| small.0.path());
    let store = SqliteStore::open(path).await.unwrap();
    begin(&store, "r").await;
    drop(store);
    match &small {
        Some(small) => small.remount("ro"),
        None if nix::unistd::geteuid().is_root() => return,
        None => {
            fs::set_permissions(path.join("contraflow.db"), fs::Permissions::from_mode(0o400)).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o500)).unwrap();
        }
    }
    let error = SqliteStore::open(path).await.unwrap_err();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(error.message.starts_with(&*path.join("contraflow.db").display().to_string()), "{error}");
    assert_eq!(error.hints, ["make it writable for this user, or choose another folder with --state-dir"]);
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let (folder, file) = folded().await;
    let mut connection =
        sqlx::SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let error = SqliteStore::open(folder.path()).await.unwrap_err();
    assert_eq!(error.message, format!("{} was written by a newer version of Contraflow", file.display()));
    assert_eq!(error.hints, ["use that version, or another state directory"]);
}

#[tokio::test]
async fn several_open_a_new_store_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..10 {
        let path = folder.path().to_owned();
        tasks.spawn(async move { begin(&SqliteStore::open(&path).await.unwrap(), &format!("r{n}")).await });
    }
    assert_eq!(tasks.join_all().await.len(), 10);
    assert_eq!(SqliteStore::open(folder.path()).await.unwrap().runs(20).await.unwrap().len(), 10);
}

/// A small file system of its own, if this user may have one. Unmounted at the end.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = || Command::new("mount").args(["-o", &options]).arg(self.0.path()).status().unwrap();
        // A connection that was dropped is closed a moment later; until then it is busy.
        let begun = std::time::Instant::now();
        while !done().success() {
            assert!(begun.elapsed().as_secs() < 20, "{options}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0.path()).status());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_does_not_fit_and_loses_nothing_before_it() {
    let Some(small) = Small::mount() else { return };
    let store = SqliteStore::open(small.0.path()).await.unwrap();
    begin(&store, "r").await;
    let all = chain_of(1, 4000, |seq| format!("{{\"note\":\"{}\"}}", format!("{seq}").repeat(200)));
    let (mut kept, mut refused) = (0, None);
    for (batch, n) in all.chunks(10).zip(0..) {
        match store.append("r", 1, batch, n % 2 == 0).await {
            Ok(()) => kept += batch.len(),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let error = refused.unwrap();
    assert!(kept > 100 && error.message.contains("full"), "{kept}: {error}");
    assert_eq!(error.hints, ["free some space on that disk, then resume the run"]);
    assert_eq!(store.records("r").await.unwrap(), all[..kept]);
    // Space is found, and it goes on where it stopped.
    small.remount("size=8m");
    store.append("r", 1, &all[kept..kept + 10], true).await.unwrap();
    assert_eq!(store.records("r").await.unwrap(), all[..kept + 10]);
    assert_eq!(store.check().await, Ok(vec![]));
}

#[tokio::test]
async fn a_store_that_was_only_looked_at_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    assert!(SqliteStore::look(folder.path()).await.unwrap().is_none());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let store = SqliteStore::open(folder.path()).await.unwrap();
    begin(&store, "r").await;
    store.append("r", 1, &chain(1, 4), false).await.unwrap();
    let looked = SqliteStore::look(folder.path()).await.unwrap().unwrap();
    holds(&looked, "r", 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn many_that_make_a_store_at_the_same_moment_all_have_it() {
    for _ in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let open = |n: usize| {
            let path = path.clone();
            tokio::spawn(async move {
                match n % 2 {
                    0 => SqliteStore::open(&path).await.map(Some),
                    _ => SqliteStore::look(&path).await,
                }
            })
        };
        for opened in futures_util::future::join_all((0..8).map(open)).await {
            opened.unwrap().unwrap();
        }
    }
}
