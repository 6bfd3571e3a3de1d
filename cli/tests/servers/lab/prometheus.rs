//! A real Prometheus.

use std::{net::SocketAddr, path::Path, time::Duration};

use super::{Process, eventually, free, http::get, listening, on_free_ports};

/// A Prometheus with the configuration of the guide.
pub(crate) struct Prometheus {
    _process: Process,
    pub(crate) address: SocketAddr,
}

impl Prometheus {
    /// Starts it.
    pub(crate) fn start(folder: &Path, config: &str) -> Self {
        std::fs::write(folder.join("prometheus.yml"), config).expect("written");
        on_free_ports("prometheus", || {
            let [address] = free();
            let listen = format!("--web.listen-address={address}");
            let arguments = ["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus-data", &listen];
            let mut process = Process::start("prometheus", folder, &arguments);
            let ready = || get(address, "/-/ready").is_some_and(|(status, _)| status == 200);
            listening(&mut process, folder, "prometheus", ready)?;
            Ok(Self { _process: process, address })
        })
    }

    /// Waits until a query answers a number.
    pub(crate) fn answers(&self, query: &str) {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        eventually(query, Duration::from_secs(40), || {
            let (_, body) = get(self.address, &format!("/api/v1/query?query={encoded}"))?;
            // Chunked or not: the answer is one line of JSON in it.
            let line = body.lines().find(|line| line.starts_with('{'))?;
            let answer: serde_json::Value = serde_json::from_str(line).ok()?;
            let value = answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()?;
            value.is_finite().then_some(())
        });
    }
}
