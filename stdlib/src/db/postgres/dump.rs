//! Backups of a PostgreSQL database by `pg_dump`, proven by `pg_restore`.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
    process::Output,
};

use contraflow_runtime::{effect::On, provider::ProviderError};
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgSslMode};

use super::{Address, Postgres, said, scratch::Scratch, shown};
use crate::{
    codes,
    db::{Job, Proof, Verify, child, sql::quoted},
};

/// Tables of users, by schema and name: what a dump brings back with its rows. Those of extensions come with the extension.
const TABLES: &str = "SELECT n.nspname::text, c.relname::text, c.relkind = 'r' FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' \
    AND n.nspname !~ '^pg_' AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2";

/// Bundles of root certificates, for `sslmode=verify-…` without `sslrootcert`: libpq does not look for them itself.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

fn broken(message: String) -> ProviderError {
    ProviderError::terminal(codes::BACKUP, message)
}

/// A table and, where they were counted, its rows. A partitioned table has none of its own.
type Tables = BTreeMap<(String, String), Option<i64>>;

async fn tables(connection: &mut PgConnection, counted: bool) -> Result<Tables, sqlx::Error> {
    let found: Vec<(String, String, bool)> = sqlx::query_as(TABLES).fetch_all(&mut *connection).await?;
    let mut tables = Tables::new();
    for (schema, name, has_rows) in found {
        let rows = if counted && has_rows {
            let sql = format!("SELECT count(*) FROM ONLY {}.{}", quoted(&schema), quoted(&name));
            Some(sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false).fetch_one(&mut *connection).await?)
        } else {
            None
        };
        tables.insert((schema, name), rows);
    }
    Ok(tables)
}

/// `pg_dump` and `pg_restore`, with what they need to connect. The password is in a file of its own: arguments can be read by
/// everybody on the machine.
struct Tools<'a> {
    database: &'a Postgres,
    env: Vec<(String, String)>,
    _password: Option<tempfile::NamedTempFile>,
}

impl<'a> Tools<'a> {
    fn new(database: &'a Postgres, address: &Address) -> Result<Self, ProviderError> {
        let options = &address.options;
        let url =
            reqwest::Url::parse(&address.url).map_err(|_| broken("the URL cannot be used".to_owned()))?;
        let parameter = |names: &[&str]| {
            url.query_pairs()
                .filter(|(key, _)| names.contains(&&**key))
                .last()
                .map(|(_, value)| value.into_owned())
        };
        let own = |name: &str| database.own_variables.get(name).map(|value| value.to_string());
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().trim_matches(['[', ']']).to_owned(),
        };
        let mode = match options.get_ssl_mode() {
            PgSslMode::Disable => "disable",
            PgSslMode::Allow => "allow",
            PgSslMode::Prefer => "prefer",
            PgSslMode::Require => "require",
            PgSslMode::VerifyCa => "verify-ca",
            PgSslMode::VerifyFull => "verify-full",
        };
        let mut env: Vec<(String, String)> = [
            ("PGHOST", host),
            ("PGPORT", options.get_port().to_string()),
            ("PGUSER", options.get_username().to_owned()),
            ("PGDATABASE", options.get_database().unwrap_or_else(|| options.get_username()).to_owned()),
            ("PGSSLMODE", mode.to_owned()),
            ("PGAPPNAME", "contraflow backup".to_owned()),
            ("PGCONNECT_TIMEOUT", "10".to_owned()),
            ("LC_ALL", "C".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let bundle = || {
            let found =
                BUNDLES.into_iter().find(|path| mode.starts_with("verify") && Path::new(path).exists());
            found.map(str::to_owned)
        };
        let root = parameter(&["sslrootcert", "ssl-root-cert", "ssl-ca"]).or_else(|| own("PGSSLROOTCERT"));
        let more = [
            ("PGOPTIONS", options.get_options().map(str::to_owned)),
            ("PGSSLROOTCERT", root.or_else(bundle)),
            ("PGSSLCERT", parameter(&["sslcert", "ssl-cert"]).or_else(|| own("PGSSLCERT"))),
            ("PGSSLKEY", parameter(&["sslkey", "ssl-key"]).or_else(|| own("PGSSLKEY"))),
            ("PATH", own("PATH")),
            ("HOME", own("HOME")),
        ];
        env.extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        let in_url = url.password().map(percent_decoded).or_else(|| parameter(&["password"]));
        let password = match in_url.or_else(|| own("PGPASSWORD")) {
            Some(password) => {
                let file =
                    pass_file(&password).map_err(|e| broken(format!("no file for the password: {e}")))?;
                env.push(("PGPASSFILE".to_owned(), file.path().display().to_string()));
                Some(file)
            }
            None => {
                env.extend(own("PGPASSFILE").map(|path| ("PGPASSFILE".to_owned(), path)));
                None
            }
        };
        Ok(Self { database, env, _password: password })
    }

    async fn run(&self, program: &Path, args: &[&str]) -> Result<Output, ProviderError> {
        child::run(program.as_os_str(), args, &self.env).await.map_err(|e| {
            let name =
                program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            broken(format!("{} could not be started: {e}", program.display()))
                .hint(format!("install PostgreSQL's client programs, or set `{name}` to the path of it"))
        })
    }

    async fn dump(&self, file: &str, snapshot: &str) -> Result<(), ProviderError> {
        let (into, at) = (format!("--file={file}"), format!("--snapshot={snapshot}"));
        let args = ["--format=custom", "--no-password", &into, &at];
        let output = self.run(&self.database.pg_dump, &args).await?;
        if output.status.success() {
            return Ok(());
        }
        let said = last_lines(&output);
        let error = broken(format!("pg_dump failed ({}): {said}", output.status));
        Err(if said.contains("server version mismatch") {
            error.hint("set `pg_dump` and `pg_restore` to programs that are as new as the server")
        } else {
            error
        })
    }

    /// Reads a dump from end to end.
    async fn read(&self, file: &str, expected: &Tables) -> Result<(), ProviderError> {
        let restore = &self.database.pg_restore;
        let unreadable =
            |output: &Output| broken(format!("the dump cannot be read back: {}", last_lines(output)));
        let list = self.run(restore, &["--list", file]).await?;
        if !list.status.success() {
            return Err(unreadable(&list));
        }
        let contents = String::from_utf8_lossy(&list.stdout);
        for (schema, name) in expected.keys() {
            if !contents.contains(&format!(" TABLE {schema} {name} ")) {
                return Err(broken(format!("the dump has no table \"{schema}.{name}\"")));
            }
        }
        let all = self.run(restore, &["--file=/dev/null", file]).await?;
        if all.status.success() { Ok(()) } else { Err(unreadable(&all)) }
    }

    /// Restores a dump into a scratch database.
    ///
    /// # Errors
    /// Inside: what it said if it only lacked rights.
    async fn restore(&self, file: &str, scratch: &Scratch) -> Result<Result<(), String>, ProviderError> {
        let into = format!("--dbname={}", scratch.name());
        let args = [
            "--exit-on-error",
            "--no-owner",
            "--no-privileges",
            "--no-tablespaces",
            "--no-publications",
            "--no-subscriptions",
            "--no-password",
            &into,
            file,
        ];
        let output = self.run(&self.database.pg_restore, &args).await?;
        if output.status.success() {
            return Ok(Ok(()));
        }
        let said = last_lines(&output);
        if said.contains("permission denied")
            || said.contains("must be superuser")
            || said.contains("must be owner")
        {
            return Ok(Err(said));
        }
        Err(broken(format!("the dump cannot be restored: {said}")))
    }
}

fn percent_decoded(text: &str) -> String {
    // A form value differs from a percent-encoded text only in `+`.
    let escaped = text.replace('+', "%2B");
    let pair = format!("http://x/?v={escaped}");
    let decoded =
        reqwest::Url::parse(&pair).ok().and_then(|url| url.query_pairs().next().map(|(_, v)| v.into_owned()));
    decoded.unwrap_or_else(|| text.to_owned())
}

/// A file that gives this password for everything, which only its owner may read.
fn pass_file(password: &str) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    writeln!(file, "*:*:*:*:{escaped}")?;
    file.flush()?;
    Ok(file)
}

/// What a program said last, on one line.
fn last_lines(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(4)..];
    if last.is_empty() { "it printed nothing".to_owned() } else { last.join("; ") }
}

/// Whether this role, on this server, may make a scratch database.
async fn may_create(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let sql = "SELECT (rolcreatedb OR rolsuper) AND NOT pg_is_in_recovery() FROM pg_catalog.pg_roles \
               WHERE rolname = current_user";
    sqlx::query_scalar(sql).fetch_one(connection).await
}

/// Dumps the database as it is at one moment, and proves the dump.
pub(super) async fn backup(database: &Postgres, on: &On, job: &Job) -> Result<Proof, ProviderError> {
    let address = database.address().await?;
    let tools = Tools::new(database, address)?;
    let file = job.file.display().to_string();
    let fail = |e: sqlx::Error| broken(format!("{}: {}", shown(&address.options), said(&e)));

    // The snapshot is the moment that the dump and the counted rows have in common.
    let mut source = database.connect().await?;
    let restorable = may_create(&mut source.connection).await.map_err(fail)?;
    let restores = job.verify == Verify::Restore && restorable;
    sqlx::raw_sql(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; \
         SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL row_security = off",
    )
    .execute(&mut source.connection)
    .await
    .map_err(fail)?;
    let snapshot: String = sqlx::query_scalar("SELECT pg_export_snapshot()::text")
        .fetch_one(&mut source.connection)
        .await
        .map_err(fail)?;
    on.progress(0, 0, if restores { "counting rows" } else { "listing tables" });
    let expected = tables(&mut source.connection, restores).await.map_err(fail)?;
    on.progress(0, 0, "dumping");
    tools.dump(&file, &snapshot).await?;
    source.close().await;

    let read = |note: String| Proof {
        verified: "read".to_owned(),
        tables: Some(expected.len() as u64),
        rows: None,
        note,
    };
    match job.verify {
        Verify::No => return Ok(Proof { verified: "no".to_owned(), ..Proof::default() }),
        Verify::Read => {
            tools.read(&file, &expected).await?;
            return Ok(read(String::new()));
        }
        Verify::Restore if !restorable => {
            tools.read(&file, &expected).await?;
            return Ok(read("read, not restored: the role may not create databases here".to_owned()));
        }
        Verify::Restore => {}
    }
    on.progress(0, 0, "restoring into a scratch database");
    let mut admin = database.connect().await?;
    let scratch = Scratch::create(address, &mut admin, &job.key).await?;
    let compared = prove(&tools, &file, &scratch, &expected).await;
    let removed = scratch.remove(&mut admin).await;
    admin.close().await;
    let proof = match compared? {
        Ok(proof) => proof,
        Err(lacking) => {
            tools.read(&file, &expected).await?;
            read(format!("read, not restored: {lacking}"))
        }
    };
    Ok(match removed {
        Ok(()) => proof,
        Err(e) => Proof { note: format!("the scratch database is still there: {}", e.message), ..proof },
    })
}

/// Restores the dump and compares what came out.
async fn prove(
    tools: &Tools<'_>,
    file: &str,
    scratch: &Scratch,
    expected: &Tables,
) -> Result<Result<Proof, String>, ProviderError> {
    if let Err(lacking) = tools.restore(file, scratch).await? {
        return Ok(Err(lacking));
    }
    let mut connection = scratch.connect().await?;
    let found = tables(&mut connection, true)
        .await
        .map_err(|e| broken(format!("the restored dump: {}", said(&e))))?;
    drop(connection);
    for (table @ (schema, name), rows) in expected {
        match found.get(table) {
            None => return Err(broken(format!("the restored dump has no table \"{schema}.{name}\""))),
            Some(restored) if restored != rows => {
                let n = |rows: &Option<i64>| rows.unwrap_or_default();
                let message = format!(
                    "\"{schema}.{name}\" has {} rows in the restored dump, but had {}",
                    n(restored),
                    n(rows)
                );
                return Err(broken(message));
            }
            Some(_) => {}
        }
    }
    let rows = expected.values().flatten().map(|n| u64::try_from(*n).unwrap_or_default()).sum();
    Ok(Ok(Proof {
        verified: "restored".to_owned(),
        tables: Some(expected.len() as u64),
        rows: Some(rows),
        note: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_password_reaches_the_programs_by_a_file_and_nothing_else() {
        let url = "postgres://ann:p%3Aw%5C%2B+d@127.0.0.1:5432/shop?sslmode=require";
        let settings = serde_json::from_value(serde_json::json!({ "url": url })).expect("settings");
        let nothing: [(&str, &str); 0] = [];
        let at = contraflow_provider::config::Detached::new("/", nothing);
        let database = Postgres::new(settings, &at).expect("made");
        let tools = Tools::new(&database, database.address().await.expect("address")).expect("tools");
        assert!(tools.env.iter().all(|(_, value)| !value.contains("p:w")));
        let get = |name: &str| tools.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let text = std::fs::read_to_string(get("PGPASSFILE").expect("file")).expect("read");
        assert_eq!(text, "*:*:*:*:p\\:w\\\\++d\n");
        assert_eq!((get("PGUSER").as_deref(), get("PGSSLMODE").as_deref()), (Some("ann"), Some("require")));
    }
}
