//! The tables, and how an older store becomes one of this version.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// The steps from an empty database to the current tables. Steps that were released are never changed.
///
/// Tables and columns are named as in SQLite. `idempotency_key` is a random number that tells a repeated attempt, whose first answer
/// was lost on the way, from the attempt of somebody else. Ids are compared byte by byte, whatever the database's language.
const STEPS: [&str; 1] = [r#"
CREATE TABLE contraflow.bundles (
    hash  TEXT COLLATE "C" PRIMARY KEY,
    files TEXT NOT NULL
);
CREATE TABLE contraflow.runs (
    id              TEXT COLLATE "C" PRIMARY KEY,
    runbook         TEXT NOT NULL,
    version         TEXT NOT NULL,
    environment     TEXT NOT NULL,
    params          TEXT NOT NULL,
    bundle          TEXT COLLATE "C" NOT NULL REFERENCES contraflow.bundles (hash),
    status          TEXT NOT NULL,
    epoch           BIGINT NOT NULL,
    started_by      TEXT NOT NULL,
    started_ms      BIGINT NOT NULL,
    ended_ms        BIGINT,
    holder          TEXT,
    heartbeat_ms    BIGINT NOT NULL,
    request         TEXT,
    idempotency_key BIGINT NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX runs_by_start ON contraflow.runs (started_ms);
CREATE INDEX runs_by_bundle ON contraflow.runs (bundle);
CREATE TABLE contraflow.locks (
    environment TEXT COLLATE "C" NOT NULL,
    target      TEXT COLLATE "C" NOT NULL,
    run         TEXT COLLATE "C" NOT NULL REFERENCES contraflow.runs (id) ON DELETE CASCADE,
    since_ms    BIGINT NOT NULL,
    PRIMARY KEY (environment, target)
);
CREATE INDEX locks_by_run ON contraflow.locks (run);
CREATE TABLE contraflow.questions (
    run        TEXT COLLATE "C" NOT NULL REFERENCES contraflow.runs (id) ON DELETE CASCADE,
    id         TEXT COLLATE "C" NOT NULL,
    question   TEXT NOT NULL,
    asked_ms   BIGINT NOT NULL,
    expires_ms BIGINT,
    PRIMARY KEY (run, id)
);
CREATE TABLE contraflow.answers (
    run             TEXT COLLATE "C" NOT NULL,
    id              TEXT COLLATE "C" NOT NULL,
    n               BIGINT GENERATED ALWAYS AS IDENTITY,
    reply           TEXT NOT NULL,
    idempotency_key BIGINT NOT NULL UNIQUE,
    PRIMARY KEY (run, id, n),
    FOREIGN KEY (run, id) REFERENCES contraflow.questions (run, id) ON DELETE CASCADE
);
CREATE TABLE contraflow.records (
    run   TEXT COLLATE "C" NOT NULL,
    seq   BIGINT NOT NULL,
    v     BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    id    TEXT NOT NULL,
    body  TEXT NOT NULL,
    hash  BYTEA NOT NULL,
    PRIMARY KEY (run, seq)
);
CREATE TABLE contraflow.plans (
    plan       TEXT COLLATE "C" PRIMARY KEY,
    run        TEXT COLLATE "C" NOT NULL UNIQUE,
    expires_ms BIGINT NOT NULL,
    binding    TEXT NOT NULL
);
CREATE TABLE contraflow.approvals (
    plan            TEXT COLLATE "C" NOT NULL,
    n               BIGINT GENERATED ALWAYS AS IDENTITY,
    expires_ms      BIGINT NOT NULL,
    reply           TEXT NOT NULL,
    idempotency_key BIGINT NOT NULL UNIQUE,
    PRIMARY KEY (plan, n)
);
"#];

/// The version of the tables that this program writes.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Whoever creates or migrates holds this lock of the database: "contrafl" in ASCII.
const LOCK: i64 = 0x636f_6e74_7261_666c;

/// The version of the tables that are there. 0: none yet.
pub(super) async fn version(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    // Only the catalogue is asked before the table is: a table that is missing would be an error.
    let there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = 'contraflow' AND c.relname = 'schema_version')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !there {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM contraflow.schema_version")
        .fetch_one(connection)
        .await
}

/// Brings the tables to [`VERSION`]. Answers the version that was there before, which may be a newer one that is left as it is.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    // Whatever the database's default is: each statement has to see what was committed before it.
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    // Should this process hang or vanish, the others need not wait for it.
    sqlx::raw_sql("SET LOCAL idle_in_transaction_session_timeout = '30s'").execute(&mut *transaction).await?;
    sqlx::query("SELECT pg_catalog.pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    // Somebody else may have done it while this one waited for the lock.
    let before = version(&mut transaction).await?;
    if before >= VERSION {
        return Ok(before);
    }
    if before == 0 {
        let encoding: String = sqlx::query_scalar("SELECT current_setting('server_encoding')")
            .fetch_one(&mut *transaction)
            .await?;
        if !["UTF8", "SQL_ASCII"].contains(&&*encoding) {
            let why = format!(
                "the database has the encoding {encoding}, which cannot store all text: expected UTF8"
            );
            return Err(sqlx::Error::Configuration(why.into()));
        }
        // `IF NOT EXISTS` would want the right to create schemas also where somebody who has it has made this one.
        let there: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'contraflow')",
        )
        .fetch_one(&mut *transaction)
        .await?;
        if !there {
            sqlx::raw_sql("CREATE SCHEMA contraflow").execute(&mut *transaction).await?;
        }
        sqlx::raw_sql(
            "CREATE TABLE contraflow.schema_version (version BIGINT PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())",
        )
        .execute(&mut *transaction)
        .await?;
    }
    for (step, version) in STEPS.iter().zip(1_i64..).filter(|(_, version)| *version > before) {
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
        let note = format!("INSERT INTO contraflow.schema_version (version) VALUES ({version})");
        sqlx::raw_sql(AssertSqlSafe(note)).execute(&mut *transaction).await?;
    }
    // Also where commits need not be durable by default: what is written next must find these tables.
    sqlx::raw_sql("SET LOCAL synchronous_commit = on").execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(before)
}
