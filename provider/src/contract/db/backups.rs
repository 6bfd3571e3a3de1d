//! Databases that can be copied.

use std::{
    fs::{File, Permissions},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Fixture, on};
use crate::{
    codes as own,
    contract::describes_itself,
    db::{Job, Proof, Verify},
    provider::ProviderError,
};

/// All of it, each part on a database that `fresh` makes. Where it is, it can be restored.
///
/// # Panics
/// The contract is broken.
pub async fn holds<F: Fixture>(fresh: impl AsyncFn() -> F) {
    describes_itself(&*fresh().await.database()).await;
    a_backup_is_proven_and_private(&fresh().await).await;
}

/// A backup that is damaged on its way is found. `spoil` is called when the database is filled, and damages every backup of it
/// from then on, unless `fixture` is one whose backups are always damaged.
///
/// # Panics
/// The contract is broken.
pub async fn damage_is_found(fixture: &dyn Fixture, spoil: impl FnOnce()) {
    fixture.database().ready().await.expect("ready");
    fixture.run("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)").await;
    let rows: Vec<String> = (1..4000).map(|n| format!("({n}, 'name {n}', 'mail {}')", n * 7919)).collect();
    fixture.run(&format!("INSERT INTO users VALUES {}", rows.join(","))).await;
    spoil();
    for verify in [Verify::Restore, Verify::Read] {
        let e = backup(fixture, verify).await.1.expect_err("damaged");
        assert_eq!(e.code.as_str(), own::BACKUP, "{e:?}");
    }
}

/// The file as the job gets it, and what came of it.
async fn backup(fixture: &dyn Fixture, verify: Verify) -> (PathBuf, Result<Proof, ProviderError>) {
    let file = fixture.folder().join("copy");
    let made = File::create(&file).expect("an empty file");
    made.set_permissions(private(&made)).expect("permissions");
    // Other tests may restore on the same server at the same time.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let key = format!("contract{}n{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let job = Job { file: file.clone(), verify, key };
    let database = fixture.database();
    let done = database.backups().expect("the database has backups").backup(&on(), &job).await;
    (file, done)
}

#[cfg(unix)]
fn private(_: &File) -> Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o600)
}

#[cfg(not(unix))]
fn private(file: &File) -> Permissions {
    file.metadata().expect("a file").permissions()
}

async fn a_backup_is_proven_and_private(fixture: &dyn Fixture) {
    let database = fixture.database();
    database.ready().await.expect("ready");
    let ending = database.backups().expect("the database has backups").ending();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(!ending.is_empty() && ending.chars().all(plain), "an ending without its dot: {ending:?}");
    fixture.run("CREATE TABLE none (id INTEGER PRIMARY KEY)").await;
    let before = backup(fixture, Verify::Restore).await.1.expect("a backup");
    fixture.run("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)").await;
    fixture.run("INSERT INTO users VALUES (1, 'ann'), (2, 'bob')").await;
    let counted = (before.tables.map(|n| n + 1), before.rows.map(|n| n + 2));
    assert!(counted.0 > Some(1) && counted.1 >= Some(2), "a restored backup is counted: {before:?}");
    for (verify, verified) in [
        (Verify::Restore, "restored"),
        (Verify::Read, "read"),
        (Verify::No, "no"),
        (Verify::Restore, "restored"),
    ] {
        let (file, proof) = backup(fixture, verify).await;
        let proof = proof.expect("a backup");
        assert_eq!((&*proof.verified, &*proof.note), (verified, ""), "{proof:?}");
        if verify == Verify::Restore {
            assert_eq!((proof.tables, proof.rows), counted, "{proof:?}");
        }
        let meta = std::fs::metadata(&file).expect("the file is where the job says");
        assert!(meta.len() > 0, "it is not empty");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777;
            assert_eq!(mode, 0o600, "only its owner may read it");
        }
        std::fs::remove_file(file).expect("removed");
    }
    let names = fixture.rows("SELECT name FROM users ORDER BY id").await;
    assert_eq!(names, serde_json::json!([{ "name": "ann" }, { "name": "bob" }]), "nothing was changed");
}
