//! Everything together: two pools behind HAProxy, a database, metrics of what users get, a receiver of messages, and users.

use std::{collections::BTreeMap, sync::Arc};

use tempfile::TempDir;

use super::{
    contraflow::{Contraflow, exchanged, from_guide},
    database::Database,
    haproxy::HaProxy,
    http::{Behaviour, Receiver, Server, Users, pool_server},
    installed,
    prometheus::Prometheus,
};

/// All servers of one service. They end in this order, so that users are gone before what they use.
pub(crate) struct World {
    pub(crate) users: Users,
    pub(crate) contraflow: Contraflow,
    _prometheus: Prometheus,
    pub(crate) haproxy: HaProxy,
    pub(crate) receiver: Receiver,
    pub(crate) database: Database,
    pub(crate) blue: Arc<Behaviour>,
    pub(crate) green: Arc<Behaviour>,
    _servers: BTreeMap<&'static str, Server>,
    _folder: TempDir,
}

/// What the database holds before.
const BEFORE: &str = "CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL); \
                      INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 500) n";

/// The migrations: each with a file that takes it back.
pub(crate) const MIGRATIONS: [(&str, &str); 4] = [
    (
        "0001_orders.up.sql",
        "CREATE TABLE orders (id bigint PRIMARY KEY, customer int REFERENCES customers);\n",
    ),
    ("0001_orders.down.sql", "DROP TABLE orders;\n"),
    (
        "0002_email.up.sql",
        "ALTER TABLE customers ADD COLUMN email text;\nCREATE INDEX customers_email ON customers (email);\n",
    ),
    ("0002_email.down.sql", "ALTER TABLE customers DROP COLUMN email;\n"),
];

impl World {
    /// Starts all of it; all traffic is on blue. `None`: something is not installed, and need not be.
    pub(crate) fn start() -> Option<Self> {
        if !installed(&["haproxy", "prometheus"]) {
            return None;
        }
        let database = Database::create()?;
        database.ask(BEFORE);
        let folder = tempfile::tempdir().expect("a folder");
        let (blue, green) = <(Arc<Behaviour>, Arc<Behaviour>)>::default();
        let server = |name: &'static str, pool, behaviour| (name, pool_server(pool, Arc::clone(behaviour)));
        let servers = BTreeMap::from([
            server("blue1", "blue", &blue),
            server("blue2", "blue", &blue),
            server("green1", "green", &green),
            server("green2", "green", &green),
        ]);
        let at = |name: &str| servers[name].address.to_string();
        let haproxy = HaProxy::start(folder.path(), |front, exporter, socket| {
            exchanged(
                from_guide("haproxy"),
                &[
                    ("/run/haproxy/admin.sock", &socket.display().to_string()),
                    ("bind :80", &format!("bind {front}")),
                    ("bind :8405", &format!("bind {exporter}")),
                    ("inter 2s", "inter 500ms"),
                    ("10.0.0.11:8080", &at("blue1")),
                    ("10.0.0.12:8080", &at("blue2")),
                    ("10.0.0.21:8080", &at("green1")),
                    ("10.0.0.22:8080", &at("green2")),
                ],
            )
        });
        let users = Users::start(haproxy.front);
        let prometheus = Prometheus::start(
            folder.path(),
            &exchanged(
                from_guide("yaml"),
                &[
                    ("scrape_interval: 5s", "scrape_interval: 250ms\n  scrape_timeout: 250ms"),
                    ("10.0.0.10:8405", &haproxy.exporter.to_string()),
                    ("10.0.0.11:8080", &at("blue1")),
                    ("10.0.0.12:8080", &at("blue2")),
                    ("10.0.0.21:8080", &at("green1")),
                    ("10.0.0.22:8080", &at("green2")),
                ],
            ),
        );
        let receiver = Receiver::start();
        let pool_urls =
            format!("{{ blue = \"http://{}\", green = \"http://{}\" }}", at("blue1"), at("green1"));
        let contraflow = Contraflow::new(folder.path())
            .set(
                "CONTRAFLOW__ENV__STAGING__TRAFFIC__WEB__SOCKET",
                format!("unix:{}", haproxy.socket().display()),
            )
            .set("CONTRAFLOW__ENV__STAGING__TRAFFIC__WEB__URL", format!("http://{}", haproxy.front))
            .set("CONTRAFLOW__ENV__STAGING__TRAFFIC__WEB__POOL_URLS", pool_urls)
            .set("CONTRAFLOW__ENV__STAGING__METRICS__WEB__URL", format!("http://{}", prometheus.address))
            .set("DATABASE_URL", database.url())
            .set("OPS_WEBHOOK_URL", format!("http://{}/hooks/ops", receiver.server.address));
        for (name, sql) in MIGRATIONS {
            contraflow.write(&format!("migrations/{name}"), sql);
        }
        // The first answers come some seconds after the start.
        let config: toml::Table = from_guide("toml").parse().expect("TOML");
        let metrics = &config["env"]["staging"]["metrics"]["web"]["metrics"];
        for metric in ["error_rate", "p95"] {
            prometheus.answers(metrics[metric]["query"].as_str().expect("a query"));
        }
        Some(Self {
            users,
            contraflow,
            _prometheus: prometheus,
            haproxy,
            receiver,
            database,
            blue,
            green,
            _servers: servers,
            _folder: folder,
        })
    }

    /// Puts traffic and schema back to where they were at the start, without Contraflow.
    pub(crate) fn back(&mut self) {
        self.haproxy.restart();
        self.database
            .ask("DROP TABLE orders, _contraflow_migrations; ALTER TABLE customers DROP COLUMN email");
    }
}
