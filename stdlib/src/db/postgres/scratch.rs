//! A database that is made for a moment and dropped again.

use contraflow_runtime::provider::ProviderError;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};

use super::{Address, Connected, connect, failed, state};
use crate::db::sql::quoted;

/// A scratch database. Dropped by [`Scratch::remove`], or in the background when an effect is cut short. What a crash leaves
/// behind goes when the same effect is repeated, which uses the same name.
pub(super) struct Scratch {
    server: PgConnectOptions,
    name: String,
    is_there: bool,
}

impl Scratch {
    /// Makes an empty database with the encoding and collation of the one that `admin` is connected to.
    pub(super) async fn create(
        address: &Address,
        admin: &mut Connected<'_>,
        key: &str,
    ) -> Result<Self, ProviderError> {
        let server = address.options.clone();
        let name = format!("contraflow_scratch_{key}");
        let fail = |e: sqlx::Error| failed(&address.options, &e);
        remove(&mut admin.connection, &name).await.map_err(fail)?;
        let sql = "SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text \
                   FROM pg_catalog.pg_database WHERE datname = current_database()";
        let (encoding, collate, ctype): (String, String, String) =
            sqlx::query_as(sql).fetch_one(&mut admin.connection).await.map_err(fail)?;
        let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let sql = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            quoted(&name),
            literal(&encoding),
            literal(&collate),
            literal(&ctype)
        );
        // From here on it may be there, whether the answer arrives or not.
        let mut this = Self { server, name, is_there: true };
        if let Err(e) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin.connection).await {
            this.is_there = e.as_database_error().is_none();
            return Err(failed(&address.options, &e));
        }
        Ok(this)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A connection to it.
    pub(super) async fn connect(&self) -> Result<PgConnection, ProviderError> {
        connect(&self.server.clone().database(&self.name)).await
    }

    /// Drops it.
    pub(super) async fn remove(mut self, admin: &mut Connected<'_>) -> Result<(), ProviderError> {
        remove(&mut admin.connection, &self.name).await.map_err(|e| failed(&self.server, &e))?;
        self.is_there = false;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_there {
            return;
        }
        let (server, name) = (self.server.clone(), self.name.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Ok(mut connection) = connect(&server).await {
                    drop(remove(&mut connection, &name).await);
                    drop(connection.close().await);
                }
            });
        }
    }
}

/// Drops a scratch database if it is there, and ends who is still connected to it.
async fn remove(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let sql = format!("DROP DATABASE IF EXISTS {}", quoted(name));
    let forced = sqlx::raw_sql(AssertSqlSafe(format!("{sql} WITH (FORCE)"))).execute(&mut *connection).await;
    match forced {
        // PostgreSQL before 13 does not know FORCE.
        Err(e) if state(&e) == "42601" => {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
        }
        other => other.map(drop),
    }
}
