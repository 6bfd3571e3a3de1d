//! The schema of the SQLite store.

/// What each version of the schema adds to the one before. Written once, never changed: files of every version are around.
pub(super) const SCHEMA: [&str; 1] = ["
CREATE TABLE bundles (
    hash  TEXT PRIMARY KEY,
    files TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE runs (
    id           TEXT PRIMARY KEY,
    runbook      TEXT NOT NULL,
    version      TEXT NOT NULL,
    environment  TEXT NOT NULL,
    params       TEXT NOT NULL,
    bundle       TEXT NOT NULL REFERENCES bundles (hash),
    status       TEXT NOT NULL,
    epoch        INTEGER NOT NULL,
    started_by   TEXT NOT NULL,
    started_ms   INTEGER NOT NULL,
    ended_ms     INTEGER,
    holder       TEXT,
    heartbeat_ms INTEGER NOT NULL,
    request      TEXT
) WITHOUT ROWID;
CREATE INDEX runs_by_start ON runs (started_ms);
CREATE TABLE records (
    run   TEXT NOT NULL,
    seq   INTEGER NOT NULL,
    v     INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    id    TEXT NOT NULL,
    body  TEXT NOT NULL,
    hash  BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE TABLE locks (
    environment TEXT NOT NULL,
    target      TEXT NOT NULL,
    run         TEXT NOT NULL,
    since_ms    INTEGER NOT NULL,
    PRIMARY KEY (environment, target)
) WITHOUT ROWID;
CREATE TABLE questions (
    run        TEXT NOT NULL,
    id         TEXT NOT NULL,
    question   TEXT NOT NULL,
    asked_ms   INTEGER NOT NULL,
    expires_ms INTEGER,
    PRIMARY KEY (run, id)
) WITHOUT ROWID;
CREATE TABLE answers (
    run   TEXT NOT NULL,
    id    TEXT NOT NULL,
    n     INTEGER NOT NULL,
    reply TEXT NOT NULL,
    PRIMARY KEY (run, id, n)
) WITHOUT ROWID;
CREATE TABLE plans (
    plan       TEXT PRIMARY KEY,
    run        TEXT NOT NULL UNIQUE,
    expires_ms INTEGER NOT NULL,
    binding    TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE approvals (
    plan       TEXT NOT NULL,
    n          INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    reply      TEXT NOT NULL,
    PRIMARY KEY (plan, n)
) WITHOUT ROWID;
"];
