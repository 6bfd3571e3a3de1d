//! A database of its own on the PostgreSQL that tests share, read with PostgreSQL's own tools.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{program, wanted};

/// A database that is dropped with this.
pub(crate) struct Database {
    server: String,
    pub(crate) name: String,
}

fn psql(url: &str) -> Command {
    let mut psql = program("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]);
    psql
}

fn checked(what: &str, output: std::io::Result<Output>) -> String {
    let output = output.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

impl Database {
    /// A new, empty database. `None`: there is no server, and need not be.
    pub(crate) fn create() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !super::installed(&["psql", "pg_dump", "pg_restore"]) {
            return None;
        }
        let Ok(server) = std::env::var("CONTRAFLOW_TEST_POSTGRES") else {
            assert!(
                !wanted(),
                "CONTRAFLOW_TEST_POSTGRES is not set: expected the URL of a PostgreSQL superuser's database"
            );
            eprintln!("not tested: CONTRAFLOW_TEST_POSTGRES is not set (tests/servers/with)");
            return None;
        };
        let name =
            format!("contraflow_servers_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Some(Self::named(server, name))
    }

    fn named(server: String, name: String) -> Self {
        checked("create", psql(&server).args(["-c", &format!("CREATE DATABASE {name}")]).output());
        Self { server, name }
    }

    /// Another new database on the same server.
    pub(crate) fn another(&self) -> Self {
        Self::named(self.server.clone(), format!("{}_other", self.name))
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        let (before, _) = self.server.rsplit_once('/').expect("a URL with a database");
        format!("{before}/{}", self.name)
    }

    /// What a query answers, fields separated by `|`.
    pub(crate) fn ask(&self, sql: &str) -> String {
        checked(sql, psql(&self.url()).args(["-c", sql]).output())
    }

    /// Everything but data, as `pg_dump` writes it, without the history of migrations.
    pub(crate) fn schema(&self) -> String {
        let mut dump = program("pg_dump");
        dump.args(["--schema-only", "--exclude-table=_contraflow_migrations", "-d", &self.url()]);
        let text = checked("pg_dump", dump.output());
        // Newer ones write a random word into these.
        let lines = text.lines().filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Names of the tables.
    pub(crate) fn tables(&self) -> String {
        self.ask(
            "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'",
        )
    }

    /// Writes a schema into a file, as the guide says.
    pub(crate) fn dump(&self, schema: &str, file: &Path) {
        let mut dump = program("pg_dump");
        dump.args(["--format", "custom", "--schema", schema, "-d", &self.url(), "--file"]).arg(file);
        checked("pg_dump", dump.output());
    }

    /// Restores a backup into this database.
    pub(crate) fn restore(&self, file: &Path) {
        let mut restore = program("pg_restore");
        checked("pg_restore", restore.args(["--exit-on-error", "-d", &self.url()]).arg(file).output());
    }

    /// A session of the name `who` that has run `sql` and stays open until this is dropped.
    pub(crate) fn session(&self, who: &str, sql: &str) -> Session {
        let mut child = psql(&self.url())
            .env("PGAPPNAME", who)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql starts");
        let mut input = child.stdin.take().expect("its input");
        writeln!(input, "{sql}\n\\echo done").expect("sent");
        let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
        let done = output.by_ref().map_while(Result::ok).any(|line| line == "done");
        assert!(done, "{sql}");
        Session { child, _input: input }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        drop(psql(&self.server).args(["-c", &sql]).output());
    }
}

/// An open session.
pub(crate) struct Session {
    child: Child,
    _input: ChildStdin,
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
