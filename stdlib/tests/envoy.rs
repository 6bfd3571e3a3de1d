//! `traffic` through a real Envoy, started here from the `PATH`.
//!
//! Where `envoy` is not installed these tests do nothing, unless `CONTRAFLOW_TEST_SERVERS=1` says that it has to be there.

#[cfg(test)]
#[path = "support/pool.rs"]
mod pool;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs::Permissions,
        net::SocketAddr,
        os::unix::fs::PermissionsExt as _,
        path::PathBuf,
        process::{Child, Command, Stdio},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use async_trait::async_trait;
    use contraflow_provider::contract::traffic::answered_by;
    use contraflow_runtime::{
        effect::Progress, error::codes as runtime_codes, provider::Provider as _, quantity::Span,
    };
    use contraflow_stdlib::{
        codes,
        traffic::{
            Traffic,
            envoy::{Admin, Envoy, Settings},
        },
    };
    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::pool;
    use super::support::{eventually, get, the_shift_effect_works_on, traffic_contract, weights};

    const PREFIX: &str = "routing.traffic.web";

    /// Whether Envoy is there. Panics where it has to be and is not.
    fn installed() -> bool {
        let found = Command::new("envoy").arg("--version").stdout(Stdio::null()).status().is_ok();
        let wanted = std::env::var_os("CONTRAFLOW_TEST_SERVERS").is_some_and(|wanted| wanted == "1");
        assert!(
            found || !wanted,
            "envoy is not installed and CONTRAFLOW_TEST_SERVERS=1 wants it: run tests/servers/install"
        );
        if !found {
            eprintln!("envoy is not installed: nothing is tested here");
        }
        found
    }

    /// Two pools of one server each, whatever stands before them.
    struct Pools {
        addresses: BTreeMap<&'static str, SocketAddr>,
        ill: BTreeMap<&'static str, Arc<AtomicBool>>,
    }

    impl Pools {
        async fn start() -> Self {
            let mut pools = Self { addresses: BTreeMap::new(), ill: BTreeMap::new() };
            for pool in ["blue", "green"] {
                let ill = Arc::<AtomicBool>::default();
                let (address, _) = pool::serve(pool, Arc::clone(&ill)).await;
                pools.addresses.insert(pool, address);
                pools.ill.insert(pool, ill);
            }
            pools
        }
    }

    /// An Envoy. Its listener and its admin interface choose their ports themselves.
    struct Server {
        process: Child,
        folder: tempfile::TempDir,
        front: SocketAddr,
        direct: SocketAddr,
        admin: String,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    fn address(to: SocketAddr) -> Value {
        json!({ "socket_address": { "address": to.ip().to_string(), "port_value": to.port() } })
    }

    fn any_port() -> Value {
        address(([127, 0, 0, 1], 0).into())
    }

    /// A route that splits traffic over the clusters of both pools, weights 100 and 0.
    fn split(prefix: Option<&str>) -> Value {
        let clusters = json!([{ "name": "web_blue", "weight": 100 }, { "name": "web_green", "weight": 0 }]);
        let mut split = json!({ "clusters": clusters });
        if let Some(prefix) = prefix {
            split["runtime_key_prefix"] = prefix.into();
        }
        json!({ "match": { "prefix": "/" }, "route": { "weighted_clusters": split } })
    }

    fn routes(routes: Vec<Value>) -> Value {
        json!({ "name": "edge", "virtual_hosts": [{ "name": "web", "domains": ["*"], "routes": routes }] })
    }

    fn file(routes: Value) -> Value {
        let mut resource = routes;
        resource["@type"] = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".into();
        json!({ "version_info": "1", "resources": [resource] })
    }

    /// What a bootstrap says of routes and runtime.
    struct Setup {
        /// An inline route configuration; without it, the one in the file `routes.json`.
        inline: Option<Value>,
        file: Value,
        layers: Value,
    }

    impl Setup {
        fn runtime(route: Value) -> Self {
            let layers = json!([{ "name": "admin", "admin_layer": {} }]);
            Self { inline: Some(routes(vec![route])), file: Value::Null, layers }
        }

        fn file(route: Value) -> Self {
            Self { inline: None, file: file(routes(vec![route])), ..Self::runtime(Value::Null) }
        }

        fn bootstrap(&self, pools: &Pools, rds: &str) -> Value {
            let typed = |kind: &str, mut fields: Value| {
                fields["@type"] = format!("type.googleapis.com/envoy.extensions.filters.{kind}").into();
                fields
            };
            let router = json!({
                "name": "envoy.filters.http.router", "typed_config": typed("http.router.v3.Router", json!({})),
            });
            let mut http = json!({ "stat_prefix": "web", "http_filters": [router] });
            match &self.inline {
                Some(routes) => http["route_config"] = routes.clone(),
                None => {
                    let source = json!({ "path_config_source": { "path": rds } });
                    http["rds"] = json!({ "route_config_name": "edge", "config_source": source });
                }
            }
            let http = typed("network.http_connection_manager.v3.HttpConnectionManager", http);
            let tcp = typed(
                "network.tcp_proxy.v3.TcpProxy",
                json!({ "stat_prefix": "direct", "cluster": "web_blue" }),
            );
            let listener = |name: &str, filter: &str, config: Value| {
                let filters = json!([{ "name": filter, "typed_config": config }]);
                json!({ "name": name, "address": any_port(), "filter_chains": [{ "filters": filters }] })
            };
            let clusters: Vec<Value> = pools
                .addresses
                .iter()
                .map(|(pool, to)| {
                    let name = format!("web_{pool}");
                    let endpoint = json!({ "endpoint": { "address": address(*to) } });
                    let endpoints = json!([{ "lb_endpoints": [endpoint] }]);
                    json!({
                        "name": name, "type": "STATIC", "connect_timeout": "1s",
                        "load_assignment": { "cluster_name": name, "endpoints": endpoints },
                        "health_checks": [{
                            "timeout": "2s", "interval": "0.1s", "no_traffic_interval": "0.1s",
                            "unhealthy_threshold": 1, "healthy_threshold": 1,
                            "http_health_check": { "path": "/health" },
                        }],
                    })
                })
                .collect();
            json!({
                "node": { "id": "test", "cluster": "test" },
                "admin": { "address": any_port() },
                "layered_runtime": { "layers": self.layers },
                "static_resources": {
                    "listeners": [
                        listener("front", "envoy.filters.network.http_connection_manager", http),
                        listener("direct", "envoy.filters.network.tcp_proxy", tcp),
                    ],
                    "clusters": clusters,
                },
            })
        }
    }

    impl Server {
        async fn start(pools: &Pools, setup: &Setup) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = |name: &str| folder.path().join(name);
            std::fs::write(path("routes.json"), setup.file.to_string()).expect("written");
            let rds = path("routes.json").display().to_string();
            std::fs::write(path("envoy.json"), setup.bootstrap(pools, &rds).to_string()).expect("written");
            let log = std::fs::File::create(path("log")).expect("a log");
            let process = Command::new("envoy")
                .args(["--use-dynamic-base-id", "--concurrency", "2", "--config-path"])
                .arg(path("envoy.json"))
                .arg("--admin-address-path")
                .arg(path("admin"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("envoy starts");
            let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
            let mut server = Self { process, folder, front: nobody, direct: nobody, admin: String::new() };
            server.admin = eventually("envoy's admin interface", || async {
                let address = std::fs::read_to_string(server.folder.path().join("admin")).ok()?;
                address.contains(':').then(|| format!("http://{}", address.trim()))
            })
            .await;
            let listener = |name: &'static str| {
                let url = format!("{}/listeners", server.admin);
                eventually("a listener", move || {
                    let url = url.clone();
                    async move {
                        let (_, _, body) = get(&url).await.ok()?;
                        body.lines()
                            .find_map(|line| line.strip_prefix(name)?.strip_prefix("::")?.parse().ok())
                    }
                })
            };
            let (front, direct) = (listener("front").await, listener("direct").await);
            (server.front, server.direct) = (front, direct);
            for pool in ["blue", "green"] {
                server.healthy(pool, true).await;
            }
            server
        }

        /// Waits until Envoy knows that a pool has healthy hosts, or none.
        async fn healthy(&self, pool: &str, up: bool) {
            let stat = format!("cluster.web_{pool}.membership_healthy");
            eventually("a health check", || async {
                let body = self.ask(&format!("/stats?filter=^{stat}$")).await;
                (body.trim() == format!("{stat}: {}", u8::from(up))).then_some(())
            })
            .await;
        }

        async fn ask(&self, path: &str) -> String {
            get(&format!("{}{path}", self.admin)).await.expect("an answer").2
        }

        /// The values of the runtime.
        async fn runtime(&self) -> Value {
            serde_json::from_str(&self.ask("/runtime").await).expect("JSON")
        }

        async fn post(&self, path: &str) {
            let client = contraflow_stdlib::net::client(&self.admin).expect("a client");
            let response = client.post(format!("{}{path}", self.admin)).send().await.expect("an answer");
            assert_eq!(response.status().as_u16(), 200);
        }

        fn rds_file(&self) -> PathBuf {
            self.folder.path().join("routes.json")
        }

        fn settings(&self, pools: &Pools) -> Settings {
            Settings {
                admin: Admin::One(self.admin.clone()),
                pools: ["blue", "green"].map(|pool| (pool.to_owned(), format!("web_{pool}"))).into(),
                runtime_key_prefix: Some(PREFIX.to_owned()),
                rds_file: None,
                url: Some(format!("http://{}/", self.front)),
                pool_urls: pools
                    .addresses
                    .iter()
                    .map(|(pool, to)| ((*pool).to_owned(), format!("http://{to}")))
                    .collect(),
                drain_timeout: None,
                measure: Span::millis(200),
                ca: None,
                proxy: None,
            }
        }

        fn by_file(&self, pools: &Pools) -> Settings {
            let rds_file = Some(self.rds_file());
            Settings { runtime_key_prefix: None, rds_file, ..self.settings(pools) }
        }
    }

    fn route(settings: Settings) -> Arc<Envoy> {
        Arc::new(
            Envoy::new("web", settings, &contraflow_provider::config::Detached::default())
                .expect("usable settings"),
        )
    }

    struct Fixture {
        server: Server,
        pools: Pools,
        route: Arc<Envoy>,
    }

    #[async_trait]
    impl traffic_contract::Fixture for Fixture {
        fn traffic(&self) -> Arc<dyn Traffic> {
            Arc::clone(&self.route) as _
        }

        async fn serve_pool(&self, pool: &str, up: bool) {
            self.pools.ill[pool].store(!up, Ordering::SeqCst);
            self.server.healthy(pool, up).await;
        }

        fn tolerance(&self, n: usize, share: f64) -> f64 {
            // Envoy draws: five standard deviations, which by chance is too little once in a million.
            5.0 * (n as f64 * share * (1.0 - share)).sqrt()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract_of_a_route_through_the_runtime() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::runtime(split(Some(PREFIX)))).await;
        let route = route(server.settings(&pools));
        let fixture = Fixture { server, pools, route: Arc::clone(&route) };
        traffic_contract::holds(&fixture).await;
        route.set_weights(&weights(100, 0)).await.expect("as at the start");
        the_shift_effect_works_on(route).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract_of_a_route_through_a_file() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::file(split(None))).await;
        let route = route(server.by_file(&pools));
        traffic_contract::holds(&Fixture { server, pools, route }).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn runtime_values_that_no_route_reads_are_found_before_they_are_set() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::runtime(split(None))).await;
        let error = route(server.settings(&pools)).weights().await.expect_err("no prefix");
        assert_eq!(error.code.as_str(), codes::TRAFFIC);
        assert!(error.message.contains("would change nothing"), "{error}");
        assert!(error.hints[0].contains(&format!("add `runtime_key_prefix: {PREFIX}`")), "{error:?}");

        let server = Server::start(&pools, &Setup::runtime(split(Some("routing.trafic.web")))).await;
        let error = route(server.settings(&pools)).weights().await.expect_err("another prefix");
        assert_eq!(error.hints, ["did you mean \"routing.trafic.web\"?"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_runtime_layer_that_overrules_what_is_set_is_named() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let mut setup = Setup::runtime(split(Some(PREFIX)));
        setup.layers = json!([
            { "name": "admin", "admin_layer": {} },
            { "name": "pinned", "static_layer": { format!("{PREFIX}.web_green"): 25 } },
        ]);
        let server = Server::start(&pools, &setup).await;
        let route = route(server.settings(&pools));
        // 100 as the route says, 25 as the layer says.
        assert_eq!(route.weights().await, Ok(weights(80, 20)));
        let error = route.set_weights(&weights(50, 50)).await.expect_err("overruled");
        let layer = format!("the runtime layer pinned sets {PREFIX}.web_green to 25");
        assert!(error.message.contains(&layer), "{error}");
        assert!(route.check().await.expect("there").contains(&layer));
        assert_eq!(route.weights().await, Ok(weights(80, 20)));
        assert!(!server.ask("/runtime").await.contains("5000"), "nothing was set");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_runtime_without_an_admin_layer_is_refused_with_a_way_out() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        for layers in [json!([]), json!([{ "name": "base", "static_layer": {} }])] {
            let setup = Setup { layers, ..Setup::runtime(split(Some(PREFIX))) };
            let server = Server::start(&pools, &setup).await;
            let error = route(server.settings(&pools)).weights().await.expect_err("cannot be set");
            assert!(error.message.contains("has no admin layer in its runtime"), "{error}");
            assert!(error.hints[0].contains("admin_layer: {}"), "{error:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_runtime_value_that_overrules_the_file_is_named() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::file(split(Some(PREFIX)))).await;
        server.post(&format!("/runtime_modify?{PREFIX}.web_green=300")).await;
        let route = route(server.by_file(&pools));
        assert_eq!(route.weights().await, Ok(weights(25, 75)));
        let before = std::fs::read_to_string(server.rds_file()).expect("the file");
        let error = route.set_weights(&weights(50, 50)).await.expect_err("overruled");
        assert!(error.message.contains("the runtime layer admin sets"), "{error}");
        assert!(error.hints[0].contains("`runtime_key_prefix` in place of `rds_file`"), "{error:?}");
        assert_eq!(std::fs::read_to_string(server.rds_file()).expect("the file"), before);
        server.post(&format!("/runtime_modify?{PREFIX}.web_green=")).await;
        route.set_weights(&weights(50, 50)).await.expect("set");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cluster_that_the_route_does_not_have_is_answered_with_the_closest_name() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::runtime(split(Some(PREFIX)))).await;
        let mut settings = server.settings(&pools);
        settings.pools.insert("green".to_owned(), "web_gren".to_owned());
        let error = route(settings).weights().await.expect_err("no such cluster");
        assert!(error.message.contains("no cluster named \"web_gren\", which is the pool green"), "{error}");
        assert_eq!(error.hints, ["did you mean \"web_green\"?"]);

        let mut settings = server.settings(&pools);
        settings.pools.remove("green");
        settings.pool_urls.clear();
        let error = route(settings).weights().await.expect_err("a cluster is left over");
        assert!(error.message.contains("to the cluster web_green, which is not a pool of web"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_admin_interface_that_is_not_there_says_what_to_do() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::runtime(split(Some(PREFIX)))).await;
        // Bound and not listening: nobody else can get the port meanwhile.
        let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
        closed.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let nobody = format!("http://{}", closed.local_addr().expect("an address"));
        let refused = route(Settings { admin: Admin::One(nobody), ..server.settings(&pools) });
        let error = refused.weights().await.expect_err("nobody there");
        assert_eq!(error.code.as_str(), runtime_codes::UNREACHABLE);
        assert!(error.hints[0].contains("admin interface"), "{error:?}");
        // The listener in place of the admin interface.
        let listener = format!("http://{}", server.front);
        let wrong = route(Settings { admin: Admin::One(listener), ..server.settings(&pools) });
        let error = wrong.weights().await.expect_err("not the admin interface");
        assert!(error.hints[0].contains("and not of a listener"), "{error:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_envoy_does_not_read_is_found_and_left_as_it_was() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::file(split(None))).await;
        let copy = server.folder.path().join("copy.json");
        std::fs::copy(server.rds_file(), &copy).expect("copied");
        let before = std::fs::read_to_string(&copy).expect("the copy");
        let other = route(Settings { rds_file: Some(copy.clone()), ..server.by_file(&pools) });
        let error = other.set_weights(&weights(50, 50)).await.expect_err("not loaded");
        assert!(
            error.message.contains("still uses blue 100, green 0")
                && error.hints[0].contains("`path_config_source` of the route's `rds`"),
            "{error:?}"
        );
        assert_eq!(std::fs::read_to_string(&copy).expect("the copy"), before);

        std::fs::write(&copy, "resources:\n- name: edge\n").expect("written");
        let error = other.weights().await.expect_err("YAML");
        assert!(error.message.contains("not JSON") && error.hints[0].contains("JSON"), "{error:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_file_says_besides_weights_is_kept() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let mut setup = Setup::file(split(None));
        let direct = json!({ "match": { "prefix": "/direct" }, "route": { "cluster": "web_green" } });
        setup.file["resources"][0]["virtual_hosts"][0]["routes"]
            .as_array_mut()
            .expect("routes")
            .insert(0, direct);
        let server = Server::start(&pools, &setup).await;
        std::fs::set_permissions(server.rds_file(), Permissions::from_mode(0o640)).expect("set");
        let route = route(server.by_file(&pools));
        route.set_weights(&weights(70, 30)).await.expect("set");
        let text = std::fs::read_to_string(server.rds_file()).expect("the file");
        let mut expected = setup.file;
        let clusters = &mut expected["resources"][0]["virtual_hosts"][0]["routes"][1]["route"]["weighted_clusters"]
            ["clusters"];
        (clusters[0]["weight"], clusters[1]["weight"]) = (7000.into(), 3000.into());
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), expected);
        let mode = std::fs::metadata(server.rds_file()).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        // Another route uses a cluster: counts say nothing then.
        let check = route.check().await.expect("there");
        assert!(check.contains("requests are not counted"), "{check}");
        assert_eq!(route.settled(&weights(70, 30)).await, Ok(Progress::Settled));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn weights_are_in_effect_when_requests_say_so() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::runtime(split(Some(PREFIX)))).await;
        let route = route(Settings { measure: Span::secs(600), ..server.settings(&pools) });
        let want = weights(20, 80);
        route.set_weights(&want).await.expect("set");
        match route.settled(&want).await.expect("an answer") {
            Progress::Waiting { message, .. } => {
                assert_eq!(message, "counting requests under the new weights, 0 so far");
            }
            Progress::Settled => panic!("nothing was counted yet"),
        }
        answered_by("green", &format!("http://{}", server.front), 100).await;
        assert_eq!(route.settled(&want).await, Ok(Progress::Settled));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_to_a_pool_without_weight_are_noticed() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::runtime(split(Some(PREFIX)))).await;
        let route = route(server.settings(&pools));
        let want = weights(0, 100);
        route.set_weights(&want).await.expect("set");
        // Past the route: a listener that passes connections on to blue.
        for _ in 0..3 {
            let mut stream = TcpStream::connect(server.direct).await.expect("connected");
            let request = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.expect("sent");
            stream.read_to_string(&mut String::new()).await.expect("an answer");
        }
        let message = eventually("the drain", || async {
            match route.settled(&want).await.expect("an answer") {
                Progress::Waiting { message, .. } if message.contains("still on") => None,
                Progress::Waiting { message, .. } => Some(message),
                Progress::Settled => panic!("settled, and blue has requests"),
            }
        })
        .await;
        assert_eq!(
            message,
            "weights are blue 0, green 100, but the last 3 requests were split blue 3, green 0"
        );
        eventually("settled once they are over", || async {
            (route.settled(&want).await == Ok(Progress::Settled)).then_some(())
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn several_envoys_get_the_same_weights_or_none_of_them() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let setup = Setup::runtime(split(Some(PREFIX)));
        let (one, mut two) = (Server::start(&pools, &setup).await, Server::start(&pools, &setup).await);
        let both = Admin::Many(vec![one.admin.clone(), two.admin.clone()]);
        let route = route(Settings { admin: both, ..one.settings(&pools) });
        route.set_weights(&weights(60, 40)).await.expect("set");
        eventually("settled", || async {
            (route.settled(&weights(60, 40)).await == Ok(Progress::Settled)).then_some(())
        })
        .await;
        for server in [&one, &two] {
            let got = answered_by("green", &format!("http://{}", server.front), 100).await;
            assert!((15..=65).contains(&got), "40 percent of 100 requests: {got}");
        }
        let check = route.check().await.expect("there");
        assert!(check.starts_with("2 × Envoy 1.") && check.ends_with("blue 60, green 40"), "{check}");

        one.post(&format!("/runtime_modify?{PREFIX}.web_blue=1&{PREFIX}.web_green=1")).await;
        let error = route.weights().await.expect_err("different");
        assert!(
            error.message.contains("blue 50, green 50 at") && error.message.contains("blue 60, green 40 at")
        );
        let by_hand = format!("{PREFIX}.web_blue=5000&{PREFIX}.web_green=5000'");
        assert!(error.hints[0].ends_with(&by_hand), "{error:?}");
        route.set_weights(&weights(60, 40)).await.expect("aligned");

        let before = one.runtime().await;
        // The second one answers what it is asked, and takes nothing.
        let admins = vec![one.admin.clone(), deaf(&two.admin).await];
        let settings = Settings { admin: Admin::Many(admins), ..one.settings(&pools) };
        let half = Envoy::new("web", settings, &contraflow_provider::config::Detached::default());
        let error = half.expect("usable settings").set_weights(&weights(10, 90)).await.expect_err("cut off");
        assert_eq!(error.code.as_str(), runtime_codes::UNREACHABLE, "{error:?}");
        assert_eq!(one.runtime().await, before);

        two.process.kill().expect("killed");
        two.process.wait().expect("gone");
        let error = route.set_weights(&weights(10, 90)).await.expect_err("one is gone");
        assert_eq!(error.code.as_str(), runtime_codes::UNREACHABLE);
        assert_eq!(one.runtime().await, before);
    }

    /// A relay to an admin interface that closes each connection on which something is posted.
    async fn deaf(admin: &str) -> String {
        let to = admin.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&to).await.expect("envoy");
                let (mut asked, mut answers) = client.into_split();
                let (mut answered, mut asks) = server.into_split();
                tokio::spawn(async move {
                    let mut request = vec![0; 4000];
                    while let Ok(n @ 1..) = asked.read(&mut request).await {
                        if request.starts_with(b"POST") || asks.write_all(&request[..n]).await.is_err() {
                            break;
                        }
                    }
                });
                tokio::spawn(async move { tokio::io::copy(&mut answered, &mut answers).await });
            }
        });
        format!("http://{address}")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_that_outlast_the_drain_timeout_are_an_error() {
        if !installed() {
            return;
        }
        let pools = Pools::start().await;
        let server = Server::start(&pools, &Setup::runtime(split(Some(PREFIX)))).await;
        let route = route(Settings { drain_timeout: Some(Span::millis(300)), ..server.settings(&pools) });
        let url = format!("http://{}/slow?ms=2000", server.front);
        let open = tokio::spawn(async move { get(&url).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        route.set_weights(&weights(0, 100)).await.expect("set");
        assert!(matches!(route.settled(&weights(0, 100)).await, Ok(Progress::Waiting { .. })));
        tokio::time::sleep(Duration::from_millis(350)).await;
        let error = route.settled(&weights(0, 100)).await.expect_err("too long");
        assert_eq!(error.code.as_str(), runtime_codes::NOT_SETTLED);
        assert_eq!(error.message, "1 request still on blue of web after 300ms");
        // The request itself is left alone.
        assert_eq!(open.await.expect("not cancelled").expect("an answer").0, 200);
    }

    #[tokio::test]
    async fn settings_that_cannot_work_are_refused() {
        let usable = |change: &dyn Fn(&mut Settings)| {
            let mut settings = Settings {
                admin: Admin::One("http://127.0.0.1:9901".to_owned()),
                pools: [("blue", "web_blue"), ("green", "web_green")]
                    .map(|(p, c)| (p.into(), c.into()))
                    .into(),
                runtime_key_prefix: Some(PREFIX.to_owned()),
                rds_file: None,
                url: None,
                pool_urls: BTreeMap::new(),
                drain_timeout: None,
                measure: Span::secs(2),
                ca: None,
                proxy: None,
            };
            change(&mut settings);
            Envoy::new("web", settings, &contraflow_provider::config::Detached::default())
                .map_err(|bad| bad.to_string())
        };
        let web = usable(&|_| ()).expect("usable");
        assert_eq!(web.describe(), format!("http://127.0.0.1:9901, {PREFIX}"));
        let error = web.address(None).await.expect_err("no address");
        assert!(error.hints[0].contains("add `url`"), "{error:?}");
        let refused: [(&str, &dyn Fn(&mut Settings)); 7] = [
            ("`admin`: expected at least one URL", &|s| s.admin = Admin::Many(Vec::new())),
            ("`admin`: expected a URL with http or https", &|s| {
                s.admin = Admin::One("unix:/run/envoy".into())
            }),
            ("`admin`: expected a base URL", &|s| s.admin = Admin::One("http://e:9901/?a=b".into())),
            ("expected either `runtime_key_prefix` or `rds_file`: ", &|s| s.runtime_key_prefix = None),
            ("or `rds_file`, not both", &|s| s.rds_file = Some("routes.json".into())),
            ("`pools`: the cluster web_blue is listed twice: in blue and in red", &|s| {
                s.pools.insert("red".into(), "web_blue".into());
            }),
            ("`pool_urls`: there is no pool named \"gren\", did you mean \"green\"?", &|s| {
                s.pool_urls.insert("gren".into(), "http://e".into());
            }),
        ];
        for (why, change) in refused {
            let error = usable(change).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
