//! A store on a PostgreSQL server: the contract, and what goes wrong with servers.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use contraflow_runtime::{
    event::RunOutcome,
    journal::{
        Heartbeat, Holder, LockStore as _, Maintenance as _, PostgresStore, QuestionStore as _,
        RecordStore as _, RunStatus, RunStore as _, Store, StoreError,
    },
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{
    Place, begin, chain,
    contract::contracts,
    holds,
    server::{Server, number, shared, sql},
};

/// The page of the guide that says which rights a user needs.
const GUIDE: &str = include_str!("../../../../docs/src/guide/stores.md");

/// A database that is dropped with this.
pub(super) struct Scratch {
    server: String,
    name: String,
}

impl Scratch {
    pub(super) async fn create() -> Option<Self> {
        Self::create_with("").await
    }

    async fn create_with(options: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = shared()?;
        let name =
            format!("contraflow_store_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        sql(&server, &format!("CREATE DATABASE {name} {options}")).await;
        Some(Self { server, name })
    }

    pub(super) fn url(&self) -> String {
        let (before, _) = self.server.rsplit_once('/').unwrap();
        format!("{before}/{}", self.name)
    }

    fn url_as(&self, user: &str) -> String {
        let (_, host) = self.server.split_once('@').unwrap();
        let (host, _) = host.rsplit_once('/').unwrap();
        format!("postgres://{user}@{host}/{}", self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let tokio = tokio::runtime::Runtime::new().unwrap();
            tokio.block_on(sql(&server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        drop(dropping.join());
    }
}

fn connect(url: String) -> BoxFuture<'static, Arc<dyn Store>> {
    Box::pin(async move { Arc::new(PostgresStore::connect(&url).await.unwrap()) as Arc<dyn Store> })
}

async fn place() -> Option<Place> {
    let scratch = Scratch::create().await?;
    let url = scratch.url();
    Some(Place { open: Box::new(move || connect(url.clone())), _kept: Box::new(scratch) })
}

contracts!(super::place);

/// The same contract where the database has other defaults than PostgreSQL's own.
mod with_other_defaults {
    use super::*;

    async fn place() -> Option<Place> {
        let scratch = Scratch::create().await?;
        let name = &scratch.name;
        let settings = format!(
            "ALTER DATABASE {name} SET default_transaction_isolation = 'serializable';
             ALTER DATABASE {name} SET synchronous_commit = off;
             ALTER DATABASE {name} SET search_path = 'nowhere'"
        );
        sql(&scratch.server, &settings).await;
        let url = scratch.url();
        Some(Place { open: Box::new(move || connect(url.clone())), _kept: Box::new(scratch) })
    }

    contracts!(super::place);
}

async fn refused(url: &str) -> StoreError {
    match PostgresStore::connect(url).await {
        Ok(store) => panic!("{url} was taken: {store:?}"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_start_on_an_empty_database_at_the_same_time() {
    let Some(scratch) = Scratch::create().await else { return };
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let url = scratch.url();
        tasks.spawn(async move {
            begin(&PostgresStore::connect(&url).await.unwrap(), &format!("r{n}")).await;
        });
    }
    tasks.join_all().await;
    assert_eq!(number(&scratch.url(), "SELECT count(*) FROM contraflow.runs").await, 20);
    assert_eq!(number(&scratch.url(), "SELECT count(*) FROM contraflow.schema_version").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_only_looked_at_is_not_made() {
    let Some(scratch) = Scratch::create().await else { return };
    assert!(PostgresStore::look(&scratch.url()).await.unwrap().is_none());
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'contraflow'";
    assert_eq!(number(&scratch.url(), schemas).await, 0);
    begin(&PostgresStore::connect(&scratch.url()).await.unwrap(), "r").await;
    let looked = PostgresStore::look(&scratch.url()).await.unwrap().unwrap();
    assert_eq!(looked.find("r").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let Some(scratch) = Scratch::create().await else { return };
    PostgresStore::connect(&scratch.url()).await.unwrap();
    sql(&scratch.url(), "INSERT INTO contraflow.schema_version VALUES (99)").await;
    for error in [refused(&scratch.url()).await, PostgresStore::look(&scratch.url()).await.unwrap_err()] {
        assert!(error.message.starts_with("postgres://127.0.0.1:"), "{error}");
        assert!(error.message.ends_with(" was written by a newer version of Contraflow"), "{error}");
        assert_eq!(error.hints, ["use that version, or another store"]);
    }
    assert_eq!(number(&scratch.url(), "SELECT max(version) FROM contraflow.schema_version").await, 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_hold_every_text_is_refused() {
    let options = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let Some(scratch) = Scratch::create_with(options).await else { return };
    let error = refused(&scratch.url()).await;
    assert!(error.message.contains("LATIN1") && error.hints[0].contains("--encoding UTF8"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_rights_that_the_guide_lists_can_run_and_one_without_is_told() {
    let Some(scratch) = Scratch::create().await else { return };
    let (runner, viewer, name) =
        (format!("{}_runner", scratch.name), format!("{}_viewer", scratch.name), &scratch.name);
    sql(&scratch.server, &format!("CREATE ROLE {runner} LOGIN; CREATE ROLE {viewer} LOGIN")).await;
    // It may not make the tables …
    let error = refused(&scratch.url_as(&runner)).await;
    assert_eq!(
        (&*error.message, error.hints.len()),
        (&*format!("{}: permission denied for database {name}", shown(&scratch)), 1)
    );
    assert_eq!(error.next, [contraflow_runtime::error::NextStep::MigrateStore], "{error:?}");
    PostgresStore::connect(&scratch.url()).await.unwrap();
    let error = refused(&scratch.url_as(&runner)).await;
    assert!(error.message.contains("permission denied") && error.hints.len() == 1, "{error:?}");
    // … and needs no more than this to run.
    let blocks = GUIDE.split("\n```sql\n").skip(1).filter_map(|rest| rest.split_once("\n```\n"));
    let grants: String = blocks.map(|(block, _)| block).filter(|block| block.starts_with("GRANT")).collect();
    assert!(grants.contains("contraflow_runner") && grants.contains("contraflow_viewer"));
    let grants = grants.replace("contraflow_runner", &runner).replace("contraflow_viewer", &viewer);
    sql(&scratch.url(), &grants).await;
    let store = PostgresStore::connect(&scratch.url_as(&runner)).await.unwrap();
    begin(&store, "r").await;
    store.append("r", 1, &chain(1, 3), false).await.unwrap();
    assert_eq!(store.lock("r", 1, "production", "traffic/web").await, Ok(None));
    assert_eq!(store.acquire("r", 1, &Holder::this("bob@desk")).await, Ok(true));
    store.end("r", 2, RunStatus::Ended(RunOutcome::Succeeded), Timestamp::now()).await.unwrap();
    assert_eq!(store.check().await, Ok(vec![]));
    assert_eq!(store.prune(Timestamp::now()).await, Ok(1));
    begin(&store, "s").await;
    let looking = PostgresStore::look(&scratch.url_as(&viewer)).await.unwrap().unwrap();
    assert_eq!(looking.runs(5).await.unwrap().len(), 1);
    assert_eq!(looking.check().await, Ok(vec![]));
    assert_eq!(looking.records("s").await, Ok(vec![]));
    let error = looking.append("s", 1, &chain(1, 1), true).await.unwrap_err();
    assert!(error.message.contains("permission denied"), "{error}");
    sql(&scratch.url(), &format!("DROP OWNED BY {runner}; DROP OWNED BY {viewer}")).await;
    sql(&scratch.server, &format!("DROP ROLE {runner}; DROP ROLE {viewer}")).await;
}

fn shown(scratch: &Scratch) -> String {
    let (_, host) = scratch.server.split_once('@').unwrap();
    format!("postgres://{}/{}", host.rsplit_once('/').unwrap().0, scratch.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_told_at_once_and_without_the_password() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let begun = Instant::now();
    let error = refused(&format!("postgres://ann:s3cret@127.0.0.1:{port}/shop")).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(error.message, format!("postgres://127.0.0.1:{port}/shop: Connection refused (os error 111)"));
    assert_eq!(error.hints, ["check that PostgreSQL runs there and is reachable from here"]);
    // Somebody is there, who says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let error = refused(&format!("postgres://ann@127.0.0.1:{port}/shop?connect_timeout=1")).await;
    assert_eq!(error.message, format!("postgres://127.0.0.1:{port}/shop: no connection was made in time"));
    let Some(scratch) = Scratch::create().await else { return };
    let error = refused(&scratch.url().replace("/contraflow_store", "/no_such_contraflow_store")).await;
    assert!(error.message.contains("does not exist"), "{error}");
    assert!(error.hints[0].starts_with("create it first: `createdb no_such_contraflow_store_"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_altered_are_complained_of() {
    let Some(scratch) = Scratch::create().await else { return };
    let store = PostgresStore::connect(&scratch.url()).await.unwrap();
    begin(&store, "r").await;
    store.append("r", 1, &chain(1, 5), true).await.unwrap();
    sql(
        &scratch.url(),
        "INSERT INTO contraflow.records SELECT 'ghost', seq, v, at_ms, id, body, hash FROM contraflow.records",
    )
    .await;
    assert_eq!(
        store.check().await,
        Ok(vec!["records of 1 runs that are missing from the list of runs".to_owned()])
    );
    sql(&scratch.url(), "DELETE FROM contraflow.records WHERE seq = 5").await;
    let error = store.append("r", 1, &chain(6, 6), true).await.unwrap_err();
    assert!(error.message.ends_with("record 5 of r is missing"), "{error}");
    sql(&scratch.url(), "UPDATE contraflow.runs SET holder = 'nobody'").await;
    let error = store.runs(1).await.unwrap_err();
    assert!(error.message.contains("holder: ") && error.hints.len() == 1, "{error:?}");
    sql(&scratch.url(), "DROP TABLE contraflow.records").await;
    let error = store.records("r").await.unwrap_err();
    assert!(error.message.contains("\"contraflow.records\" does not exist"), "{error}");
    assert_eq!(error.hints, ["its tables were altered: compare them with a backup"]);
}

/// A server whose log of changes is written late, so that a crash loses whatever need not be durable.
async fn lazy_server() -> Option<Server> {
    Server::start(&["wal_writer_delay=10s", "wal_writer_flush_after=0"], |_| ()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_crash_of_a_server_loses_is_written_again() {
    let Some(mut server) = lazy_server().await else { return };
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let mut lost = 0;
    for round in 0..4 {
        let id = format!("r{round}");
        begin(&store, &id).await;
        store.append(&id, 1, &chain(1, 3), true).await.unwrap();
        for n in 4..=40 {
            store.append(&id, 1, &chain(n, n), false).await.unwrap();
        }
        assert_eq!(store.heartbeat(&id, 1).await, Ok(Heartbeat::Held(None)));
        server.kill();
        server.run().await;
        let there = number(&server.url(), "SELECT max(seq) FROM contraflow.records").await;
        lost += 40 - there;
        match round {
            0 => store.append(&id, 1, &chain(41, 45), false).await.unwrap(),
            1 => store.append(&id, 1, &chain(41, 45), true).await.unwrap(),
            2 => store.append(&id, 1, &[], true).await.unwrap(),
            _ => {
                let at = Timestamp::now();
                store.end(&id, 1, RunStatus::Ended(RunOutcome::Paused), at).await.unwrap();
                assert_eq!(store.acquire(&id, 1, &Holder::this("bob@desk")).await, Ok(true));
            }
        }
        holds(&store, &id, if round < 2 { 45 } else { 40 }).await;
        sql(&server.url(), "DELETE FROM contraflow.records").await;
    }
    assert!(lost > 0, "no crash lost anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_durable_outlives_the_crash_of_a_server_whatever_its_default_is() {
    let Some(mut server) = lazy_server().await else { return };
    sql(&server.url(), "ALTER DATABASE postgres SET synchronous_commit = off").await;
    // One that asks from outside, and so has nothing to write again.
    let fresh = async |server: &Server| PostgresStore::connect(&server.url()).await.unwrap();
    let mut kill = async || {
        server.kill();
        server.run().await;
        fresh(&server).await
    };
    let store = kill().await;
    begin(&store, "r").await;
    let store = kill().await;
    store.append("r", 1, &chain(1, 3), true).await.unwrap();
    let store = kill().await;
    holds(&store, "r", 3).await;
    store.append("r", 1, &chain(4, 9), false).await.unwrap();
    store.append("r", 1, &[], true).await.unwrap();
    let store = kill().await;
    holds(&store, "r", 9).await;
    store.append("r", 1, &chain(10, 12), false).await.unwrap();
    assert_eq!(store.lock("r", 1, "production", "traffic/web").await, Ok(None));
    let store = kill().await;
    holds(&store, "r", 12).await;
    assert_eq!(store.locks().await.unwrap().len(), 1);
    assert_eq!(store.acquire("r", 1, &Holder::this("bob@desk")).await, Ok(true));
    let store = kill().await;
    assert_eq!(store.heartbeat("r", 1).await, Ok(Heartbeat::Lost));
    store.end("r", 2, RunStatus::Ended(RunOutcome::Aborted), Timestamp::now()).await.unwrap();
    let store = kill().await;
    assert_eq!(store.runs(1).await.unwrap()[0].status, RunStatus::Ended(RunOutcome::Aborted));
    assert_eq!(store.locks().await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_killed_again_and_again_loses_nothing_and_writes_nothing_twice() {
    const RECORDS: u64 = 3000;
    let Some(mut server) = lazy_server().await else { return };
    let store = Arc::new(PostgresStore::connect(&server.url()).await.unwrap());
    let written = Arc::new(AtomicU64::new(0));
    let runs = ["a", "b", "c"].map(|id| {
        let (store, written) = (Arc::clone(&store), Arc::clone(&written));
        tokio::spawn(async move {
            begin(&*store, id).await;
            let (all, mut epoch) = (chain(1, RECORDS), 1);
            for (part, n) in all.chunks(3).zip(1..) {
                store.append(id, epoch, part, n % 5 == 0).await.unwrap();
                written.fetch_add(3, Ordering::SeqCst);
                if n % 50 == 0 {
                    assert_eq!(store.heartbeat(id, epoch).await, Ok(Heartbeat::Held(None)));
                    let target = format!("traffic/{id}{n}");
                    assert_eq!(store.lock(id, epoch, "production", &target).await, Ok(None));
                }
                if n % 200 == 0 {
                    assert_eq!(store.acquire(id, epoch, &Holder::this("ann@laptop")).await, Ok(true));
                    epoch += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            store.append(id, epoch, &[], true).await.unwrap();
            epoch
        })
    });
    let mut kills = 0;
    while runs.iter().any(|run| !run.is_finished()) {
        let before = written.load(Ordering::SeqCst);
        while written.load(Ordering::SeqCst) < before + 900 && runs.iter().any(|run| !run.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if runs.iter().any(|run| !run.is_finished()) {
            server.kill();
            kills += 1;
            tokio::time::sleep(Duration::from_millis(200 * (kills % 3))).await;
            server.run().await;
        }
    }
    for run in runs {
        assert_eq!(run.await.unwrap(), 6);
    }
    assert!(kills > 3, "{kills}");
    let fresh = PostgresStore::connect(&server.url()).await.unwrap();
    for id in ["a", "b", "c"] {
        holds(&fresh, id, RECORDS).await;
        assert_eq!(fresh.find(id).await.unwrap()[0].epoch, 6);
    }
    assert_eq!(fresh.locks().await.unwrap().len(), 60);
    assert_eq!(fresh.check().await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_server_ended_are_replaced_unnoticed() {
    let Some(scratch) = Scratch::create().await else { return };
    let store = PostgresStore::connect(&scratch.url()).await.unwrap();
    begin(&store, "r").await;
    for n in 1..=5 {
        let others = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'contraflow'",
            scratch.name
        );
        sql(&scratch.server, &others).await;
        let begun = Instant::now();
        store.append("r", 1, &chain(n, n), true).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    holds(&store, "r", 5).await;
}

/// What breaks a connection after its statement was carried out, so that the answer is lost.
async fn forwarder(to: String) -> (u16, Arc<AtomicU32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let breaks = Arc::new(AtomicU32::new(0));
    let all = Arc::clone(&breaks);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, breaks) = (to.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                let server = tokio::net::TcpStream::connect(to).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut buffer = vec![0; 65536];
                loop {
                    let n = tokio::io::AsyncReadExt::read(&mut from_server, &mut buffer).await.unwrap_or(0);
                    // `C` is "command complete", which follows a row: the statement was carried out.
                    let done = buffer[..n].windows(12).any(|bytes| {
                        bytes[0] == b'C' && bytes[5..].starts_with(b"SELECT ")
                            || bytes[5..].starts_with(b"INSERT ")
                            || bytes[5..].starts_with(b"UPDATE ")
                    });
                    let due = done
                        && breaks
                            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                            .is_ok();
                    if n == 0 || due {
                        // Time for the commit, which comes right behind.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        up.abort();
                        return;
                    }
                    if tokio::io::AsyncWriteExt::write_all(&mut to_client, &buffer[..n]).await.is_err() {
                        up.abort();
                        return;
                    }
                }
            });
        }
    });
    (port, breaks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_that_was_lost_on_the_way_is_found_out_and_nothing_is_done_twice() {
    let Some(scratch) = Scratch::create().await else { return };
    let (_, host) = scratch.server.split_once('@').unwrap();
    let (port, breaks) = forwarder(host.rsplit_once('/').unwrap().0.to_owned()).await;
    let direct = PostgresStore::connect(&scratch.url()).await.unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{port}/{}?sslmode=disable", scratch.name);
    let store = PostgresStore::connect(&url).await.unwrap();
    let break_next = |n| breaks.store(n, Ordering::SeqCst);
    let broke = |what: &str| assert_eq!(breaks.load(Ordering::SeqCst), 0, "{what}: the answer came through");

    break_next(1);
    begin(&store, "r").await;
    broke("create");
    for (n, durable) in [(1, false), (2, true), (3, false), (4, true)] {
        break_next(2);
        store.append("r", 1, &chain(n, n), durable).await.unwrap();
        broke("append");
    }
    holds(&direct, "r", 4).await;
    break_next(1);
    assert_eq!(store.acquire("r", 1, &Holder::this("ann@laptop")).await, Ok(true));
    broke("acquire");
    assert_eq!(direct.find("r").await.unwrap()[0].epoch, 2);
    // Another had it by then.
    assert_eq!(direct.acquire("r", 2, &Holder::this("ann@laptop")).await, Ok(true));
    break_next(1);
    assert_eq!(store.acquire("r", 2, &Holder::this("ann@laptop")).await, Ok(false));
    break_next(1);
    assert_eq!(store.lock("r", 3, "production", "traffic/web").await, Ok(None));
    broke("lock");
    let asked = contraflow_runtime::journal::Asked {
        run: "r".to_owned(),
        id: "w".into(),
        question: contraflow_runtime::effect::Question::new(
            contraflow_runtime::effect::QuestionKind::Confirm,
            "go on?".to_owned(),
        ),
        at: Timestamp::now(),
        until: None,
    };
    break_next(1);
    store.ask(3, &asked).await.unwrap();
    broke("question");
    let reply = contraflow_runtime::effect::Reply::new(true, "bob");
    break_next(1);
    assert_eq!(store.answer("r", "w", &reply).await, Ok(true));
    broke("answer");
    assert_eq!(direct.answers("r", "w").await, Ok(vec![reply]));
    break_next(1);
    store.end("r", 3, RunStatus::Ended(RunOutcome::Succeeded), Timestamp::now()).await.unwrap();
    broke("end");
    assert_eq!(direct.check().await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_is_an_error_after_a_while() {
    let Some(mut server) = Server::start(&[], |_| ()).await else { return };
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    begin(&store, "r").await;
    server.kill();
    // Nobody else gets the port meanwhile, and nobody listens there.
    let place = tokio::net::TcpSocket::new_v4().unwrap();
    place.set_reuseaddr(true).unwrap();
    place.bind(([127, 0, 0, 1], server.port).into()).unwrap();
    // The process behind an open connection outlives its server by a moment.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = Instant::now();
    let error = store.append("r", 1, &chain(1, 1), true).await.unwrap_err();
    drop(place);
    assert!((25..45).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(error.message.contains("Connection refused"), "{error:?}");
    assert_eq!(
        error.hints,
        ["check that PostgreSQL runs there and is reachable from here, then resume the run"]
    );
    server.run().await;
    store.append("r", 1, &chain(1, 1), true).await.unwrap();
    holds(&store, "r", 1).await;
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some(postgres) = nix::unistd::User::from_name("postgres").unwrap() {
        // Only root can give it away, and only then it has to be.
        let _ = nix::unistd::chown(path, Some(postgres.uid), Some(postgres.gid));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_for_its_certificate_and_a_user_for_the_password() {
    let mut ca = String::new();
    let server = Server::start(&["ssl=on"], |data| {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "ca.example.com");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &authority).unwrap();
        ca = authority.pem();
        private(&data.join("server.crt"), &certificate.pem());
        private(&data.join("server.key"), &key.serialize_pem());
        let hba = "hostssl all ann 127.0.0.1/32 scram-sha-256\nhostnossl all ann 127.0.0.1/32 reject\n\
                   local all all trust\nhost all postgres 127.0.0.1/32 trust\n";
        private(&data.join("pg_hba.conf"), hba);
    });
    let Some(server) = server.await else { return };
    fs::write(server.file("ca.pem"), &ca).unwrap();
    sql(&server.url(), "CREATE ROLE ann LOGIN SUPERUSER PASSWORD 's3cr/t@#'").await;
    let ca = server.file("ca.pem").display().to_string();
    let at = |host: &str, user: &str, more: &str| {
        format!("postgres://{user}@{host}:{}/postgres?{more}", server.port)
    };
    let password = "ann:s3cr%2Ft%40%23";

    let url = at("localhost", password, &format!("sslmode=verify-full&sslrootcert={ca}"));
    let store = PostgresStore::connect(&url).await.unwrap();
    begin(&store, "r").await;
    assert_eq!(store.describe(), format!("postgres://localhost:{}/postgres", server.port));
    let encrypted = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE s.ssl AND a.usename = 'ann'";
    assert_eq!(number(&server.url(), encrypted).await, 1);
    // By its address it has another name, which is looked at by `verify-full` only.
    let by_address = |mode: &str| at("127.0.0.1", password, &format!("sslmode={mode}&sslrootcert={ca}"));
    PostgresStore::connect(&by_address("verify-ca")).await.unwrap();
    let error = refused(&by_address("verify-full")).await;
    assert!(error.message.contains("the server's certificate cannot be trusted: "), "{error}");
    // An authority that nobody here knows.
    let error = refused(&at("localhost", password, "sslmode=verify-full")).await;
    let wanted = "the server's certificate cannot be trusted: it is not signed by a trusted authority";
    assert!(error.message.ends_with(wanted), "{error}");
    assert_eq!(error.hints, ["add the authority that signed it with `sslrootcert=FILE` in the URL"]);
    PostgresStore::connect(&at("localhost", password, "sslmode=require")).await.unwrap();
    let error = refused(&at("localhost", password, "sslmode=disable")).await;
    assert!(error.hints[0].starts_with("check user and password"), "{error:?}");
    for wrong in ["ann:wrong-s3cret", "ann"] {
        let error = refused(&at("localhost", wrong, "sslmode=require")).await;
        assert!(error.message.contains("password authentication failed for user \"ann\""), "{error}");
        assert!(!format!("{error:?}").contains("s3cr"), "{error:?}");
        assert_eq!(
            error.hints,
            ["check user and password in the URL, in PGPASSWORD or in the password file"]
        );
    }
    let error = refused(&at("localhost", password, "sslmode=verify-full&sslrootcert=/no/such/file")).await;
    assert!(error.message.contains("No such file"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_not_taken_where_tls_is_wanted() {
    let Some(scratch) = Scratch::create().await else { return };
    let error = refused(&format!("{}?sslmode=require", scratch.url())).await;
    assert!(error.message.ends_with("server does not support TLS"), "{error}");
    assert!(error.hints[0].starts_with("enable TLS in the server"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_only_be_read_says_so() {
    let Some(scratch) = Scratch::create().await else { return };
    PostgresStore::connect(&scratch.url()).await.unwrap();
    sql(&scratch.server, &format!("ALTER DATABASE {} SET default_transaction_read_only = on", scratch.name))
        .await;
    let empty = Scratch::create().await.unwrap();
    sql(&empty.server, &format!("ALTER DATABASE {} SET default_transaction_read_only = on", empty.name))
        .await;
    let error = refused(&empty.url()).await;
    assert!(error.message.contains("read-only transaction"), "{error}");
    assert_eq!(error.hints, ["this server is read-only: use the primary"]);
    let looking = PostgresStore::look(&scratch.url()).await.unwrap().unwrap();
    assert_eq!(looking.runs(5).await, Ok(vec![]));
}
