//! `traffic` through a real HAProxy, started here from the `PATH`.
//!
//! Where `haproxy` is not installed these tests do nothing, unless `CONTRAFLOW_TEST_SERVERS=1` says that it has to be there.

#[cfg(test)]
#[path = "support/pool.rs"]
mod pool;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        net::SocketAddr,
        path::PathBuf,
        process::{Child, Command, Stdio},
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use async_trait::async_trait;
    use contraflow_runtime::{
        Bundle, Runtime,
        effect::Progress,
        error::codes as runtime_codes,
        provider::{Provider as _, Providers},
        quantity::Span,
    };
    use contraflow_stdlib::{
        codes,
        traffic::{
            Traffic, Weights,
            haproxy::{HaProxy, Servers, Settings},
        },
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream, UnixStream},
    };

    use super::pool;
    use super::support::{eventually, get, the_shift_effect_works_on, traffic_contract, weights};

    /// Servers of the backend `web`, with the weights of a configuration that knows nothing of percent.
    const SERVERS: [(&str, &str, u32); 5] = [
        ("blue1", "blue", 10),
        ("blue2", "blue", 10),
        ("green1", "green", 0),
        ("green2", "green", 0),
        ("green3", "green", 0),
    ];

    struct Server {
        process: Child,
        folder: tempfile::TempDir,
        front: SocketAddr,
        stats: SocketAddr,
        operator: SocketAddr,
        backends: BTreeMap<&'static str, SocketAddr>,
        tasks: BTreeMap<&'static str, tokio::task::JoinHandle<()>>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    async fn free() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address")
    }

    impl Server {
        /// `None`: not installed, and need not be.
        async fn start() -> Option<Self> {
            Self::with("balance roundrobin", "none").await
        }

        /// With these lines in the backend, and with servers of that pool as backups.
        async fn with(backend: &str, backup: &str) -> Option<Self> {
            if Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
                assert!(
                    std::env::var_os("CONTRAFLOW_TEST_SERVERS").is_none_or(|wanted| wanted != "1"),
                    "haproxy is not installed and CONTRAFLOW_TEST_SERVERS=1 wants it"
                );
                eprintln!("haproxy is not installed: nothing is tested here");
                return None;
            }
            // Between choosing a port and binding it somebody else may take it; HAProxy ends then.
            for _ in 0..10 {
                if let Some(server) = Self::on_free_ports(backend, backup).await {
                    server.all_up().await;
                    return Some(server);
                }
            }
            panic!("haproxy did not start on ten choices of ports");
        }

        async fn on_free_ports(backend: &str, backup: &str) -> Option<Self> {
            let folder = tempfile::tempdir().expect("a folder");
            let (front, stats, operator) = (free().await, free().await, free().await);
            let (mut backends, mut tasks, mut servers) = (BTreeMap::new(), BTreeMap::new(), String::new());
            for (name, pool, weight) in SERVERS {
                let (address, task) = pool::serve(pool, Arc::default()).await;
                let spare = if pool == backup { " backup" } else { "" };
                servers.push_str(&format!(
                    "  server {name} {address} weight {weight} check inter 100ms fall 1 rise 1 cookie {name}{spare}\n"
                ));
                backends.insert(name, address);
                tasks.insert(name, task);
            }
            // Frontend and backend have one name, as in many installations.
            let config = format!(
                "global\n  stats socket {socket} mode 600 level admin\n  stats socket ipv4@{stats} level admin\n  \
                 stats socket ipv4@{operator} level operator\n\
                 defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n\
                 frontend web\n  bind {front}\n  default_backend web\n\
                 backend web\n  {backend}\n{servers}\
                 backend fixed\n  balance static-rr\n  server one 127.0.0.1:1 weight 2\n  server two 127.0.0.1:1 weight 2\n",
                socket = folder.path().join("h.sock").display(),
            );
            std::fs::write(folder.path().join("h.cfg"), config).expect("a config");
            let process = Command::new("haproxy")
                .args(["-db", "-q", "-f"])
                .arg(folder.path().join("h.cfg"))
                .stderr(Stdio::null())
                .spawn()
                .expect("haproxy starts");
            let mut server = Self { process, folder, front, stats, operator, backends, tasks };
            // The socket's final name is there once everything is bound.
            for _ in 0..500 {
                if server.process.try_wait().expect("a child").is_some() {
                    return None;
                }
                if UnixStream::connect(server.socket()).await.is_ok()
                    && TcpStream::connect(front).await.is_ok()
                {
                    return Some(server);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("haproxy did not listen within ten seconds");
        }

        /// Waits until all servers have passed a check.
        async fn all_up(&self) {
            eventually("all servers up", || async {
                let states = self.ask("show servers state web").await;
                let up = |name: &str| {
                    states
                        .lines()
                        .any(|l| l.split(' ').nth(3) == Some(name) && l.split(' ').nth(5) == Some("2"))
                };
                SERVERS.iter().all(|(name, _, _)| up(name)).then_some(())
            })
            .await;
        }

        fn unix(&self) -> String {
            format!("unix:{}", self.socket().display())
        }

        fn socket(&self) -> PathBuf {
            self.folder.path().join("h.sock")
        }

        fn settings(&self, socket: String) -> Settings {
            let many = |pool: &str| {
                Servers::Many(
                    SERVERS
                        .iter()
                        .filter(|(_, p, _)| *p == pool)
                        .map(|(name, _, _)| (*name).to_owned())
                        .collect(),
                )
            };
            Settings {
                socket,
                backend: "web".to_owned(),
                pools: ["blue", "green"].map(|pool| (pool.to_owned(), many(pool))).into(),
                url: Some(format!("http://{}/", self.front)),
                pool_urls: [("blue", "blue1"), ("green", "green1")]
                    .map(|(pool, server)| (pool.to_owned(), format!("http://{}", self.backends[server])))
                    .into(),
                drain_timeout: None,
                measure: Span::millis(200),
            }
        }

        fn route(&self, socket: String) -> Arc<HaProxy> {
            Arc::new(HaProxy::new("web", self.settings(socket)).expect("usable settings"))
        }

        async fn ask(&self, command: &str) -> String {
            let mut stream = UnixStream::connect(self.socket()).await.expect("the socket");
            stream.write_all(format!("{command}\n").as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            answer
        }

        async fn weight_of(&self, server: &str) -> String {
            self.ask(&format!("get weight web/{server}")).await.trim().to_owned()
        }
    }

    struct Fixture {
        server: Server,
        route: Arc<HaProxy>,
    }

    #[async_trait]
    impl traffic_contract::Fixture for Fixture {
        fn traffic(&self) -> Arc<dyn Traffic> {
            Arc::clone(&self.route) as _
        }

        async fn serve_pool(&self, pool: &str, up: bool) {
            for (name, _, _) in SERVERS.iter().filter(|(_, p, _)| *p == pool) {
                let state = if up { "ready" } else { "maint" };
                assert_eq!(self.server.ask(&format!("set server web/{name} state {state}")).await.trim(), "");
            }
            if up {
                self.server.all_up().await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract_of_a_route_through_a_unix_socket() {
        let Some(server) = Server::start().await else { return };
        let route = server.route(server.unix());
        let fixture = Fixture { server, route };
        traffic_contract::holds(&fixture).await;
        fixture.route.set_weights(&weights(100, 0)).await.expect("as at its start");
        the_shift_effect_works_on(fixture.route.clone()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract_of_a_route_through_a_tcp_socket() {
        let Some(server) = Server::start().await else { return };
        let route = server.route(format!("tcp:{}", server.stats));
        traffic_contract::holds(&Fixture { server, route }).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_weights_of_servers_are_exact_shares_of_the_pools() {
        let Some(server) = Server::start().await else { return };
        let route = server.route(server.socket().display().to_string());
        route.set_weights(&weights(70, 30)).await.expect("set");
        let mut sums = BTreeMap::from([("blue", 0), ("green", 0)]);
        for (name, pool, _) in SERVERS {
            let answer = server.weight_of(name).await;
            let weight: u32 = answer.split(' ').next().and_then(|w| w.parse().ok()).expect("a weight");
            *sums.entry(pool).or_default() += weight;
        }
        assert_eq!(sums["blue"] * 30, sums["green"] * 70, "{sums:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_unknown_backend_or_server_is_answered_with_the_closest_name() {
        let Some(server) = Server::start().await else { return };
        let settings = Settings { backend: "webb".to_owned(), ..server.settings(server.unix()) };
        let error =
            HaProxy::new("web", settings).expect("settings").weights().await.expect_err("no such backend");
        assert_eq!(error.code.as_str(), codes::TRAFFIC);
        assert!(error.message.contains("no backend named \"webb\""), "{error}");
        assert_eq!(error.hints, ["did you mean \"web\"?"]);
        let mut settings = server.settings(server.unix());
        settings.pools.insert("green".to_owned(), Servers::One("gren1".to_owned()));
        let error =
            HaProxy::new("web", settings).expect("settings").weights().await.expect_err("no such server");
        assert!(error.message.contains("no server named \"gren1\", which is in the pool green"), "{error}");
        assert_eq!(error.hints, ["did you mean \"green1\"?"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_socket_that_cannot_be_used_says_what_to_do() {
        let Some(server) = Server::start().await else { return };
        let missing = server.route("/nowhere/h.sock".to_owned()).weights().await.expect_err("no socket");
        assert_eq!(missing.code.as_str(), runtime_codes::UNREACHABLE);
        assert!(
            missing.hints[0].contains("stats socket /nowhere/h.sock mode 660 level admin"),
            "{missing:?}"
        );
        // Bound and not listening: nobody else can get the port meanwhile.
        let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
        closed.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let refused = server
            .route(format!("tcp:{}", closed.local_addr().expect("an address")))
            .weights()
            .await
            .expect_err("nobody there");
        assert_eq!(refused.code.as_str(), runtime_codes::UNREACHABLE);
        assert!(refused.hints[0].contains("nothing listens there"), "{refused:?}");
        // May look but not touch.
        let operator = server.route(format!("tcp:{}", server.operator));
        assert_eq!(operator.weights().await, Ok(weights(100, 0)));
        let denied = operator.set_weights(&weights(50, 50)).await.expect_err("not an admin");
        assert!(
            denied.message.contains("permission denied") && denied.hints[0].contains("level admin"),
            "{denied:?}"
        );
        assert_eq!(operator.weights().await, Ok(weights(100, 0)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backend_with_fixed_weights_is_refused_with_a_way_out() {
        let Some(server) = Server::start().await else { return };
        let settings = Settings {
            backend: "fixed".to_owned(),
            pools: [("blue", "one"), ("green", "two")]
                .map(|(p, s)| (p.to_owned(), Servers::One(s.to_owned())))
                .into(),
            ..server.settings(server.unix())
        };
        let route = HaProxy::new("web", settings).expect("settings");
        assert_eq!(route.weights().await, Ok(weights(50, 50)));
        let error = route.set_weights(&weights(75, 25)).await.expect_err("static");
        assert!(error.hints[0].contains("balance roundrobin"), "{error:?}");
        assert_eq!(route.weights().await, Ok(weights(50, 50)));
    }

    /// A relay to the runtime socket that cuts off the `fail`-th `set server`, after it was done or before.
    async fn relay(server: &Server, fail: usize, done: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, to) = (listener.local_addr().expect("an address"), server.stats);
        tokio::spawn(async move {
            let sets = AtomicUsize::new(0);
            while let Ok((mut from, _)) = listener.accept().await {
                let mut command = vec![0; 1000];
                let n = from.read(&mut command).await.expect("a command");
                let command = &command[..n];
                let cut = command.starts_with(b"set server") && sets.fetch_add(1, Ordering::Relaxed) == fail;
                if cut && !done {
                    continue;
                }
                let mut stream = TcpStream::connect(to).await.expect("haproxy");
                stream.write_all(command).await.expect("sent");
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.expect("an answer");
                if cut {
                    // Seen by the other side as a broken connection, not as an empty answer.
                    let _ = from.set_zero_linger();
                    continue;
                }
                from.write_all(&answer).await.expect("passed on");
            }
        });
        address
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn weights_are_set_all_or_none_when_a_command_fails_halfway() {
        let Some(server) = Server::start().await else { return };
        let direct = server.route(server.unix());
        direct.set_weights(&weights(60, 40)).await.expect("set");
        let mut before = Vec::new();
        for (name, _, _) in SERVERS {
            before.push(server.weight_of(name).await);
        }
        for fail in 0..SERVERS.len() {
            let relay = relay(&server, fail, true).await;
            let route = server.route(format!("tcp:{relay}"));
            let error = route.set_weights(&weights(10, 90)).await.expect_err("cut off");
            assert_eq!(error.code.as_str(), runtime_codes::UNREACHABLE, "{error:?}");
            for ((name, _, _), before) in SERVERS.iter().zip(&before) {
                assert_eq!(&server.weight_of(name).await, before, "{name} after failure {fail}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_that_is_lost_without_an_answer_is_noticed() {
        let Some(server) = Server::start().await else { return };
        let relay = relay(&server, 1, false).await;
        let route = server.route(format!("tcp:{relay}"));
        let error = route.set_weights(&weights(50, 50)).await.expect_err("not set");
        assert_eq!(error.code.as_str(), runtime_codes::UNREACHABLE, "{error:?}");
        assert_eq!(route.weights().await, Ok(weights(100, 0)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pool_whose_servers_fail_their_checks_gets_no_weight() {
        let Some(mut server) = Server::start().await else { return };
        let route = server.route(server.unix());
        for name in ["green1", "green2", "green3"] {
            server.tasks.remove(name).expect("running").abort();
        }
        let error = eventually("checks fail", || async {
            let refused = route.set_weights(&weights(90, 10)).await;
            if refused.is_ok() {
                route.set_weights(&weights(100, 0)).await.expect("set");
            }
            refused.err()
        })
        .await;
        assert_eq!(error.code.as_str(), codes::TRAFFIC);
        assert!(error.message.contains("green1 is DOWN, green2 is DOWN, green3 is DOWN"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_that_outlast_the_drain_timeout_are_an_error() {
        let Some(server) = Server::start().await else { return };
        let mut settings = server.settings(server.unix());
        settings.drain_timeout = Some(Span::millis(300));
        let route = HaProxy::new("web", settings).expect("settings");
        let url = format!("http://{}/slow?ms=2000", server.front);
        let open = tokio::spawn(async move { get(&url).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        route.set_weights(&weights(0, 100)).await.expect("set");
        assert!(matches!(route.settled(&weights(0, 100)).await, Ok(Progress::Waiting { .. })));
        tokio::time::sleep(Duration::from_millis(350)).await;
        let error = route.settled(&weights(0, 100)).await.expect_err("too long");
        assert_eq!(error.code.as_str(), runtime_codes::NOT_SETTLED);
        assert_eq!(error.message, "1 connection still on blue of web after 300ms");
        // The connection itself is left alone.
        assert_eq!(open.await.expect("not cancelled").expect("an answer").0, 200);
    }

    /// What `settled` says once it says something else than that it counts.
    async fn verdict(route: &HaProxy, want: &Weights) -> Progress {
        eventually("a verdict", || async {
            match route.settled(want).await.expect("an answer") {
                Progress::Waiting { message, .. } if message.starts_with("counting requests") => None,
                verdict => Some(verdict),
            }
        })
        .await
    }

    fn message(progress: Progress) -> String {
        match progress {
            Progress::Waiting { message, .. } => message,
            Progress::Settled => "settled".to_owned(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_share_that_leastconn_does_not_deal_is_told_and_does_not_settle() {
        let Some(server) = Server::with("balance leastconn", "none").await else { return };
        let route = server.route(server.unix());
        let check = route.check().await.expect("a check");
        assert!(check.contains("uses `balance leastconn`: weights count among busy servers only"), "{check}");
        let want = weights(95, 5);
        assert_eq!(route.would_take(&want).await, Ok(()));
        assert!(route.caveats(&want).await.expect("caveats")[0].contains("`balance leastconn`"));
        route.set_weights(&want).await.expect("set");
        // One request after another: no server is busy, and weights count for nothing.
        let front = format!("http://{}", server.front);
        for _ in 0..100 {
            get(&front).await.expect("an answer");
        }
        let verdict = message(verdict(&route, &want).await);
        assert!(
            verdict.starts_with("weights are blue 95, green 5, but the last 100 requests were split"),
            "{verdict}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backend_that_fills_the_first_server_is_not_split() {
        let Some(server) = Server::with("balance first", "none").await else { return };
        let route = server.route(server.unix());
        for result in [route.would_take(&weights(75, 25)).await, route.set_weights(&weights(75, 25)).await] {
            let error = result.expect_err("cannot be split");
            assert!(error.message.contains("web cannot be split as blue 75, green 25"), "{error}");
            assert!(error.hints[0].contains("balance roundrobin"), "{error:?}");
        }
        route.set_weights(&weights(0, 100)).await.expect("moved as a whole");
        assert_eq!(route.weights().await, Ok(weights(0, 100)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pool_of_backup_servers_gets_no_share_beside_others() {
        let Some(server) = Server::with("balance roundrobin", "green").await else { return };
        let route = server.route(server.unix());
        let check = route.check().await.expect("a check");
        assert!(check.contains("green has only backup servers"), "{check}");
        for result in [route.would_take(&weights(10, 90)).await, route.set_weights(&weights(10, 90)).await] {
            let error = result.expect_err("backups get nothing");
            assert_eq!(error.code.as_str(), codes::TRAFFIC);
            assert!(error.message.contains("all its servers are backup (green1, green2, green3)"), "{error}");
        }
        // Weights that somebody set there are not taken for a share.
        server.ask("set server web/green1 weight 200").await;
        assert_eq!(route.weights().await, Ok(weights(100, 0)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn users_that_stay_on_their_server_keep_its_pool_from_being_drained() {
        let sticky = "balance roundrobin\n  stick-table type ip size 1m\n  stick on src";
        let Some(server) = Server::with(sticky, "none").await else { return };
        let route = server.route(server.unix());
        let front = format!("http://{}", server.front);
        get(&front).await.expect("an answer");
        let caveats = route.caveats(&weights(0, 100)).await.expect("caveats").concat();
        assert!(caveats.contains("users stay on their server by a stick table"), "{caveats}");
        route.set_weights(&weights(0, 100)).await.expect("set");
        get(&front).await.expect("an answer");
        let verdict = message(verdict(&route, &weights(0, 100)).await);
        assert_eq!(
            verdict,
            "weights are blue 0, green 100, but the last 1 request was split blue 1, green 0"
        );
        let Some(server) = Server::with("cookie SRV insert", "none").await else { return };
        let check = server.route(server.unix()).check().await.expect("a check");
        assert!(check.contains("users stay on their server by the cookie SRV"), "{check}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_comes_back_from_maintenance_does_not_change_the_shares() {
        let Some(server) = Server::start().await else { return };
        let route = server.route(server.unix());
        server.ask("set server web/blue2 state maint").await;
        let caveats = route.caveats(&weights(50, 50)).await.expect("caveats").concat();
        assert!(
            caveats.starts_with("blue2 is in MAINT: servers that are out of service get no weight"),
            "{caveats}"
        );
        route.set_weights(&weights(50, 50)).await.expect("set");
        server.ask("set server web/blue2 state ready").await;
        server.all_up().await;
        assert_eq!(route.weights().await, Ok(weights(50, 50)));
        let got = traffic_contract::answered_by("green", &format!("http://{}", server.front), 100).await;
        assert!((48..=52).contains(&got), "{got}");
        // All of it on blue: every server of blue takes part again.
        route.set_weights(&weights(100, 0)).await.expect("set");
        assert_eq!(
            server.weight_of("blue1").await.split(' ').next(),
            server.weight_of("blue2").await.split(' ').next()
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn weights_count_once_they_are_measured() {
        let Some(server) = Server::start().await else { return };
        let mut settings = server.settings(server.unix());
        settings.measure = Span::secs(600);
        let route = HaProxy::new("web", settings).expect("settings");
        route.set_weights(&weights(80, 20)).await.expect("set");
        let waiting = message(route.settled(&weights(80, 20)).await.expect("an answer"));
        assert_eq!(waiting, "counting requests under the new weights, 0 so far");
        for _ in 0..50 {
            get(&format!("http://{}", server.front)).await.expect("an answer");
        }
        // The old weights are refuted and the new ones are not.
        assert_eq!(route.settled(&weights(80, 20)).await, Ok(Progress::Settled));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_plan_refuses_what_the_run_would_refuse_at_once() {
        let Some(server) = Server::start().await else { return };
        for name in ["green1", "green2", "green3"] {
            server.ask(&format!("set server web/{name} state maint")).await;
        }
        let route = server.route(server.unix());
        let check = route.check().await.expect("a check");
        assert!(check.contains("no server of green takes traffic: green1 is in MAINT"), "{check}");
        let plan = async |script: &str| {
            let mut providers = Providers::new("test");
            providers.bind::<dyn Traffic>("web", Arc::clone(&route) as _);
            let runtime =
                Runtime::builder().library(&contraflow_stdlib::library()).providers(providers).build();
            let text = format!("const RUNBOOK = #{{ name: \"test\" }}; {script}");
            runtime.plan(&Bundle::single("test.rhai", text), &BTreeMap::new()).await.expect("a plan")
        };
        let refused = plan("traffic::shift(\"web\", \"green\", 25);").await;
        let error = refused.error.expect("refused");
        assert!(
            error.message.contains("green of web would get 25%, but no server of it takes traffic"),
            "{error:?}"
        );
        // What came before may have made it ready: that is shown, and the plan goes on.
        let open = plan(
            "http::request(\"POST\", \"http://127.0.0.1:1/start\"); traffic::shift(\"web\", \"green\", 25);",
        )
        .await;
        assert_eq!((open.error, open.changes), (None, 1));
        assert_eq!(route.weights().await, Ok(weights(100, 0)));
    }
}
