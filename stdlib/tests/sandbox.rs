//! The built-in environment, through the same traits and sockets as everything else.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use async_trait::async_trait;
    use contraflow_provider::contract;
    use contraflow_runtime::{
        effect::{On, Progress, Read},
        error::codes as runtime_codes,
        provider::Providers,
    };
    use contraflow_stdlib::{
        codes,
        db::Database,
        deploy::{Deploy, PoolName, Replicas, replicas::ReadReplicas},
        metrics::{Metrics, Reading},
        notify::{Message, Notify, Severity},
        sandbox::{Sandbox, SandboxOptions},
        secrets::Secrets,
        traffic::{Traffic, weights::ReadWeights},
    };
    use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, sqlite::SqliteConnectOptions};

    use super::support::{eventually, get, the_shift_effect_works_on, traffic_contract, weights};

    struct World {
        sandbox: Arc<Sandbox>,
        providers: Arc<Providers>,
    }

    fn world(load: u32, faults: &[&str]) -> World {
        let faults = faults.iter().map(|text| text.parse().expect(text)).collect();
        let sandbox = Sandbox::new(SandboxOptions { faults, load, ..SandboxOptions::default() });
        let mut providers = Providers::new("sandbox");
        sandbox.bind(&mut providers);
        World { sandbox, providers: Arc::new(providers) }
    }

    impl World {
        fn traffic(&self) -> Arc<dyn Traffic> {
            self.providers.get("web").expect("bound")
        }

        fn deploy(&self) -> Arc<dyn Deploy> {
            self.providers.get("web").expect("bound")
        }

        async fn metric(&self, name: &str) -> Reading {
            self.providers.get::<dyn Metrics>("web").expect("bound").query(name).await.expect("a metric")
        }

        async fn value(&self, name: &str) -> f64 {
            self.metric(name).await.value.expect("data")
        }

        fn fault(&self, text: &str) {
            self.sandbox.set_fault(text.parse().expect(text));
        }

        async fn scale(&self, pool: &str, n: u32) {
            let deploy = self.deploy();
            deploy.scale(pool, Replicas(n)).await.expect("scaled");
            eventually("replicas", || async { (deploy.ready(pool).await == Ok(n)).then_some(()) }).await;
        }
    }

    #[async_trait]
    impl traffic_contract::Fixture for World {
        fn traffic(&self) -> Arc<dyn Traffic> {
            self.traffic()
        }

        async fn serve_pool(&self, pool: &str, up: bool) {
            self.scale(pool, if up { 3 } else { 0 }).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn its_route_keeps_the_contract_of_a_route() {
        let world = world(0, &[]);
        traffic_contract::holds(&world).await;
        world.traffic().set_weights(&weights(100, 0)).await.expect("as at its start");
        the_shift_effect_works_on(world.traffic()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn its_deployment_keeps_the_contract_of_a_deployment() {
        contract::deploy::holds(world(0, &[]).deploy()).await;
    }

    /// One receiver of the sandbox.
    struct Ops(World, Arc<dyn Notify>);

    #[async_trait]
    impl contract::notify::Fixture for Ops {
        fn notify(&self) -> &dyn Notify {
            &*self.1
        }

        async fn arrived(&self) -> Vec<String> {
            self.0.sandbox.messages().into_iter().map(|received| received.message.text).collect()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn its_receivers_keep_the_contract_of_receivers() {
        let world = world(0, &[]);
        let ops = world.providers.get::<dyn Notify>("ops").expect("bound");
        contract::notify::holds(&Ops(world, ops)).await;
    }

    /// The database of a sandbox, and a folder besides.
    struct Main(World, tempfile::TempDir);

    impl Main {
        async fn fresh() -> Self {
            Self(world(0, &[]), tempfile::tempdir().expect("folder"))
        }
    }

    #[async_trait]
    impl contract::db::Fixture for Main {
        fn database(&self) -> Arc<dyn Database> {
            self.0.providers.get("main").expect("bound")
        }

        fn folder(&self) -> &Path {
            self.1.path()
        }

        async fn run(&self, sql: &str) {
            let options = SqliteConnectOptions::new().filename(self.0.sandbox.database_path());
            let mut connection = options.create_if_missing(true).connect().await.expect("open");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect(sql);
            connection.close().await.expect("closed");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn its_database_keeps_the_contract_of_a_database() {
        contract::db::migrations::holds(Main::fresh).await;
        contract::db::queries::holds(Main::fresh).await;
        contract::db::backups::holds(Main::fresh).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_target_is_bound_and_can_be_checked() {
        let world = world(0, &[]);
        let bound: Vec<String> =
            world.providers.bindings().iter().map(|b| format!("{}/{}", b.noun, b.name)).collect();
        let all = [
            "traffic/web",
            "deploy/web",
            "metrics/web",
            "notify/ops",
            "notify/oncall",
            "db/main",
            "secrets/deploy-token",
        ];
        assert_eq!(bound, all);
        for binding in world.providers.bindings() {
            assert_eq!(binding.provider.kind(), "sandbox");
            assert!(!binding.provider.describe().is_empty());
            assert!(!binding.provider.check().await.expect("usable").is_empty(), "{binding:?}");
        }
        let token = world.providers.get::<dyn Secrets>("deploy-token").expect("bound");
        assert_eq!(token.value().await.expect("a value").as_str(), "sandbox-deploy-token");
        assert!(world.providers.extension::<Sandbox>().is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn replicas_are_real_servers_with_health_and_security_headers() {
        let world = world(0, &[]);
        let address = world.traffic().address(Some("green")).await.expect("an address");
        let url = format!("{address}/health");
        let response = contraflow_stdlib::net::client(&url)
            .expect("a client")
            .get(&url)
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200);
        for header in ["strict-transport-security", "content-security-policy", "x-content-type-options"] {
            assert!(response.headers().contains_key(header), "{header}");
        }
        let body: serde_json::Value = response.json().await.expect("json");
        assert_eq!(
            (&body["status"], &body["pool"], &body["version"]),
            (&"ok".into(), &"green".into(), &"1.1.0".into())
        );
        assert_eq!(get(&format!("{address}/nothing")).await.expect("an answer").0, 404);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dead_pool_refuses_connections_and_its_requests_fail() {
        let world = world(0, &[]);
        let (traffic, route) = (world.traffic(), world.sandbox.route_url().await.expect("a route"));
        traffic.set_weights(&weights(50, 50)).await.expect("set");
        world.fault("green.dead");
        eventually("dead", || async { (world.deploy().ready("green").await == Ok(0)).then_some(()) }).await;
        let address = traffic.address(Some("green")).await.expect("an address");
        assert!(get(&address).await.expect_err("refused").is_connect());
        let mut failed = 0;
        for _ in 0..100 {
            let (status, _, body) = get(&route).await.expect("an answer");
            failed += usize::from(status == 503 && body == "no replica of green is ready\n");
        }
        assert_eq!(failed, 50);
        assert!((world.value("error_rate").await - 0.5).abs() < 1e-9);
        assert!((world.value("green.error_rate").await - 1.0).abs() < 1e-9);
        assert!(world.value("blue.error_rate").await.abs() < 1e-9);
        // The deployment still wants its replicas and gets them back.
        assert_eq!(world.deploy().replicas("green").await, Ok(Replicas(3)));
        world.sandbox.clear_faults();
        eventually("back", || async { (world.deploy().ready("green").await == Ok(3)).then_some(()) }).await;
        assert_eq!(traffic_contract::answered_by("green", &route, 100).await, 50);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn errors_and_delays_hit_real_answers_but_leave_health_alone() {
        let world = world(0, &["green.error_rate=20%@weight>=50", "green.latency=60ms"]);
        let (traffic, route) = (world.traffic(), world.sandbox.route_url().await.expect("a route"));
        traffic.set_weights(&weights(60, 40)).await.expect("set");
        for _ in 0..50 {
            assert_eq!(get(&route).await.expect("an answer").0, 200);
        }
        traffic.set_weights(&weights(0, 100)).await.expect("set");
        let mut failed = 0;
        for _ in 0..50 {
            failed += usize::from(get(&route).await.expect("an answer").0 == 500);
        }
        assert_eq!(failed, 10);
        assert_eq!(get(&format!("{route}/health")).await.expect("an answer").0, 200);
        assert!(world.value("green.p50").await >= 0.06);
        assert!(world.value("blue.p95").await < 0.06);
        world.fault("green.error_rate=0%");
        for _ in 0..20 {
            assert_eq!(get(&route).await.expect("an answer").0, 200);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_router_that_is_down_refuses_connections_and_comes_back_at_the_same_address() {
        let world = world(0, &["router.down"]);
        let route = world.sandbox.route_url().await.expect("a route");
        eventually("down", || async { get(&route).await.err().filter(reqwest::Error::is_connect) }).await;
        world.sandbox.clear_faults();
        eventually("up", || async { get(&route).await.ok() }).await;
        assert_eq!(world.sandbox.route_url().await.expect("a route"), route);
        world.fault("router.down");
        eventually("down again", || async { get(&route).await.err() }).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_fault_with_a_time_begins_then() {
        let world = world(0, &["blue.error_rate=100%@400ms"]);
        let route = world.sandbox.route_url().await.expect("a route");
        assert_eq!(get(&route).await.expect("an answer").0, 200);
        eventually("the fault", || async { get(&route).await.ok().filter(|(status, ..)| *status == 500) })
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pool_is_scaled_to_0_and_back_with_real_servers() {
        let world = world(0, &[]);
        let (traffic, deploy) = (world.traffic(), world.deploy());
        let before = traffic.address(Some("green")).await.expect("an address");
        world.scale("green", 0).await;
        eventually("closed", || async { get(&before).await.err().filter(reqwest::Error::is_connect) }).await;
        let address = traffic.address(Some("green")).await.expect("an address");
        assert!(get(&address).await.expect_err("nobody there").is_connect());
        // Not at once: a server takes a moment to start.
        deploy.scale("green", Replicas(2)).await.expect("scaled");
        let read = ReadReplicas { pool: PoolName::try_from("web/green").expect("a pool") };
        let on = On::detached(Arc::clone(&world.providers));
        let count = read.read(&on).await.expect("a count");
        assert_eq!((count.desired, count.ready, &*read.show(&count)), (2, 0, "0 of 2 ready"));
        world.scale("green", 2).await;
        let address = traffic.address(Some("green")).await.expect("an address");
        assert_eq!(get(&address).await.expect("an answer").1, "green");
        let error = deploy.scale("green", Replicas(1000)).await.expect_err("too many");
        assert_eq!(error.code.as_str(), codes::DEPLOY);
        let error = deploy.replicas("gren").await.expect_err("no such pool");
        assert_eq!(error.hints, ["did you mean \"green\"?"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_replica_that_is_stopped_finishes_its_open_requests() {
        let world = world(0, &[]);
        let route = world.sandbox.route_url().await.expect("a route");
        let slow: Vec<_> = (0..3)
            .map(|_| {
                let url = format!("{route}/slow?ms=800");
                tokio::spawn(async move { get(&url).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(250)).await;
        world.traffic().set_weights(&weights(0, 100)).await.expect("set");
        world.scale("blue", 0).await;
        match world.traffic().settled(&weights(0, 100)).await.expect("an answer") {
            Progress::Waiting { message, .. } => assert_eq!(message, "3 connections still on blue"),
            Progress::Settled => panic!("settled with connections open"),
        }
        for request in slow {
            let (status, pool, _) = request.await.expect("not cancelled").expect("an answer");
            assert_eq!((status, &*pool), (200, "blue"));
        }
        assert_eq!(world.traffic().settled(&weights(0, 100)).await, Ok(Progress::Settled));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn there_is_no_data_before_the_first_request() {
        let world = world(0, &[]);
        for name in ["error_rate", "p50", "p95", "rps", "green.p95"] {
            assert_eq!(world.metric(name).await, Reading { value: None, samples: Some(0) }, "{name}");
        }
        let route = world.sandbox.route_url().await.expect("a route");
        for _ in 0..10 {
            get(&route).await.expect("an answer");
        }
        let p95 = world.metric("p95").await;
        assert!(p95.value.is_some_and(|p95| p95 > 0.0 && p95 < 1.0) && p95.samples == Some(10), "{p95:?}");
        assert_eq!(world.metric("green.error_rate").await.value, None);
        let source = world.providers.get::<dyn Metrics>("web").expect("bound");
        let error = source.query("green.eror_rate").await.expect_err("no such metric");
        assert_eq!(error.code.as_str(), runtime_codes::UNKNOWN_TARGET);
        assert_eq!(error.hints, ["did you mean \"green.error_rate\"?"]);
        assert_eq!(source.names().len(), 18);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn load_gives_every_metric_data_at_once_and_keeps_coming() {
        let world = world(100, &[]);
        for name in ["error_rate", "p50", "p95", "rps", "cpu", "memory", "blue.cpu", "green.memory"] {
            assert!(world.value(name).await.is_finite(), "{name}");
        }
        assert!(world.value("error_rate").await.abs() < f64::EPSILON);
        let sent = world.sandbox.load_sent();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let more = world.sandbox.load_sent() - sent;
        assert!((100..=220).contains(&more), "{more} requests in 2 s at 100 a second");
        let cpu = world.value("blue.cpu").await;
        assert!(cpu > world.value("green.cpu").await && cpu < 1.0, "{cpu}");
        world.scale("green", 0).await;
        assert_eq!(world.metric("green.cpu").await.value, None);
        world.sandbox.set_load(0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn metrics_can_be_scraped() {
        let world = world(0, &[]);
        let route = world.sandbox.route_url().await.expect("a route");
        for _ in 0..4 {
            get(&route).await.expect("an answer");
        }
        let url = world.sandbox.metrics_url().await.expect("a page");
        let (status, _, text) = get(&url).await.expect("an answer");
        assert_eq!(status, 200);
        for line in [
            "# TYPE sandbox_requests_total counter",
            "sandbox_requests_total{pool=\"blue\",code=\"2xx\"} 4",
            "# TYPE sandbox_request_duration_seconds histogram",
            "sandbox_request_duration_seconds_bucket{pool=\"blue\",le=\"+Inf\"} 4",
            "sandbox_request_duration_seconds_count{pool=\"blue\"} 4",
            "sandbox_weight_percent{pool=\"blue\"} 100",
            "sandbox_replicas_ready{pool=\"green\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_sent_twice_is_kept_once_and_a_refused_one_not_at_all() {
        let world = world(0, &["sink.status=503"]);
        let on = On::detached(Arc::clone(&world.providers));
        let ops = world.providers.get::<dyn Notify>("ops").expect("bound");
        let oncall = world.providers.get::<dyn Notify>("oncall").expect("bound");
        assert!(ops.is_idempotent());
        let message = Message { text: "cutover to green".to_owned(), severity: Severity::Warning };
        let error = ops.send(&on, &message).await.expect_err("refused");
        assert_eq!(error.code.as_str(), codes::NOTIFY);
        assert!(error.message.contains("503"), "{error}");
        assert!(world.sandbox.messages().is_empty());
        world.sandbox.clear_faults();
        for _ in 0..2 {
            ops.send(&on, &message).await.expect("taken");
        }
        oncall.send(&on, &message).await.expect("taken");
        let got = world.sandbox.messages();
        let sinks: Vec<&str> = got.iter().map(|received| &*received.sink).collect();
        assert_eq!(sinks, ["ops", "oncall"]);
        assert_eq!((&got[0].message, got[0].key.as_deref()), (&message, Some(on.idempotency_key())));
        world.fault("sink.down");
        let error = eventually("down", || async { ops.send(&on, &message).await.err() }).await;
        assert_eq!(error.code.as_str(), runtime_codes::UNREACHABLE);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_database_has_data_and_its_migrations_go_up_and_down() {
        let sandbox = world(0, &[]).sandbox;
        assert!(!sandbox.database_path().exists());
        sandbox.ready().await.expect("ready");
        sandbox.ready().await.expect("ready twice");
        let url = format!("sqlite://{}", sandbox.database_path().display());
        let mut db = sqlx::SqliteConnection::connect(&url).await.expect("a database");
        async fn schema(db: &mut sqlx::SqliteConnection) -> Vec<String> {
            let rows = sqlx::query(
                "SELECT name || ': ' || sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name",
            );
            rows.fetch_all(db).await.expect("a schema").iter().map(|row| row.get(0)).collect()
        }
        let before = schema(&mut db).await;
        let mut files: Vec<_> = std::fs::read_dir(sandbox.migrations_dir())
            .expect("migrations")
            .map(|entry| entry.expect("a file").path())
            .collect();
        files.sort();
        let (up, down): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|f| f.to_string_lossy().ends_with(".up.sql"));
        assert_eq!((up.len(), down.len()), (3, 3));
        for file in up.iter().chain(down.iter().rev()) {
            let sql = std::fs::read_to_string(file).expect("sql");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut db).await.expect("it applies");
            if file == &up[2] {
                let invoices =
                    sqlx::query("SELECT count(*) FROM invoices").fetch_one(&mut db).await.expect("rows");
                assert_eq!(invoices.get::<i64, _>(0), 2);
                assert_ne!(schema(&mut db).await, before);
            }
        }
        assert_eq!(schema(&mut db).await, before);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_left_behind_when_the_sandbox_is_dropped() {
        let World { sandbox, providers } = world(50, &[]);
        sandbox.ready().await.expect("ready");
        let folder = sandbox.database_path().parent().expect("a folder").to_owned();
        let urls = [
            sandbox.route_url().await.expect("a url"),
            sandbox.metrics_url().await.expect("a url"),
            sandbox.sink_url("ops").await.expect("a url"),
            providers.get::<dyn Traffic>("web").expect("bound").address(Some("blue")).await.expect("a url"),
        ];
        assert!(folder.exists());
        for url in &urls {
            get(url).await.expect("an answer");
        }
        drop(providers);
        drop(sandbox);
        assert!(!folder.exists());
        for url in &urls {
            eventually("closed", || async { get(url).await.err().filter(reqwest::Error::is_connect) }).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reads_show_what_they_found() {
        let world = world(0, &[]);
        let on = On::detached(Arc::clone(&world.providers));
        let read = ReadWeights { route: "web".to_owned() };
        let found = read.read(&on).await.expect("weights");
        assert_eq!(read.show(&found), "blue 100, green 0");
        assert_eq!(serde_json::to_string(&found).expect("json"), r#"{"blue":100,"green":0}"#);
    }
}
