//! The database of the sandbox: an SQLite file with a little data, and a folder of migrations for it.

use std::{
    io,
    path::{Path, PathBuf},
};

use contraflow_runtime::provider::ProviderError;
use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::http::not_started;

/// The tables and rows that are there before any migration.
const SEED: &str = include_str!("seed.sql");

/// The migrations, as files are named in the folder.
const MIGRATIONS: [(&str, &str); 6] = [
    ("0001_add_customer_phone.up.sql", include_str!("migrations/0001_add_customer_phone.up.sql")),
    ("0001_add_customer_phone.down.sql", include_str!("migrations/0001_add_customer_phone.down.sql")),
    ("0002_create_invoices.up.sql", include_str!("migrations/0002_create_invoices.up.sql")),
    ("0002_create_invoices.down.sql", include_str!("migrations/0002_create_invoices.down.sql")),
    ("0003_index_orders_by_customer.up.sql", include_str!("migrations/0003_index_orders_by_customer.up.sql")),
    (
        "0003_index_orders_by_customer.down.sql",
        include_str!("migrations/0003_index_orders_by_customer.down.sql"),
    ),
];

/// A folder that does not exist yet and is nobody else's.
pub(super) fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("contraflow-sandbox-{}-{:016x}", std::process::id(), fastrand::u64(..)))
}

pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join("main.db")
}

pub(super) fn migrations(folder: &Path) -> PathBuf {
    folder.join("migrations")
}

/// Makes the folder and what is in it. It is removed when the result is dropped.
pub(super) async fn create(folder: &Path) -> Result<TempDir, ProviderError> {
    let made = || -> io::Result<TempDir> {
        // Exactly that name, readable by its owner only; an error if somebody else made it first.
        let (parent, name) = (folder.parent(), folder.file_name());
        let (parent, name) = parent.zip(name).ok_or(io::ErrorKind::InvalidInput)?;
        let made = tempfile::Builder::new().prefix(name).rand_bytes(0).tempdir_in(parent)?;
        let migrations = migrations(folder);
        std::fs::create_dir(&migrations)?;
        for (name, sql) in MIGRATIONS {
            std::fs::write(migrations.join(name), sql)?;
        }
        Ok(made)
    };
    let made = made().map_err(|e| not_started(&e))?;
    let seeded = async {
        let options = SqliteConnectOptions::new().filename(file(folder)).create_if_missing(true);
        let mut connection = options.connect().await?;
        sqlx::raw_sql(SEED).execute(&mut connection).await?;
        connection.close().await
    };
    seeded.await.map_err(|e| not_started(&e))?;
    Ok(made)
}
