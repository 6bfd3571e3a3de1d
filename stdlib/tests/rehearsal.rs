//! The runbooks that ship survive everything that a rehearsal tries; those with a known defect are found out.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        path::{Path, PathBuf},
        sync::Arc,
    };

    use cutover_runtime::{
        Beginning, Bundle, Given, Runtime,
        provider::Providers,
        rehearsal::{End, Explore, Findings},
    };
    use cutover_stdlib::sandbox::{Sandbox, SandboxOptions};

    fn root(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    async fn rehearse(file: &Path, params: &[(&str, &str)]) -> Findings {
        let sandbox = Sandbox::new(SandboxOptions { load: 50, ..SandboxOptions::default() });
        let mut providers = Providers::new("sandbox");
        sandbox.bind(&mut providers);
        let runtime = Runtime::builder()
            .modules(cutover_stdlib::modules())
            .global(cutover_stdlib::words())
            .invariants(cutover_stdlib::invariants())
            .providers(providers)
            .build();
        let bundle = Bundle::load(file).expect("a runbook");
        let params: BTreeMap<String, Given> =
            params.iter().map(|(name, text)| ((*name).to_owned(), Given::Text((*text).to_owned()))).collect();
        let beginning = Beginning { look: true, ..Beginning::default() };
        let started = std::time::Instant::now();
        let (findings, _) = runtime
            .rehearse(&bundle, &params, &beginning, Explore::default())
            .await
            .unwrap_or_else(|errors| panic!("{}: {errors}", file.display()));
        println!("{}: {} scenarios in {:?}", file.display(), findings.tried.len(), started.elapsed());
        findings
    }

    fn violations(findings: &Findings) -> Vec<String> {
        let told = |tried: &cutover_runtime::rehearsal::Tried| {
            let scenario = tried.scenario.to_string();
            tried
                .violations
                .iter()
                .map(move |v| format!("{scenario}: {}: {}", v.invariant, v.why))
                .collect::<Vec<_>>()
        };
        findings.violated().flat_map(told).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_runbooks_that_ship_survive_everything_that_is_tried() {
        for name in ["blue-green", "rollback"] {
            let findings = rehearse(&root(&format!("runbooks/{name}.rhai")), &[("hold", "15m")]).await;
            assert_eq!(violations(&findings), Vec::<String>::new(), "{name}");
            for tried in &findings.tried {
                println!("{} {:?} {:?}", tried.scenario, tried.end, tried.why);
            }
            assert!(findings.tried.iter().all(|tried| tried.end != End::Unknown), "{name}");
        }
    }
}
