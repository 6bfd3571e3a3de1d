//! The runbooks that ship survive everything that a rehearsal tries; those with a known defect are found out.

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        path::{Path, PathBuf},
    };

    use contraflow_runtime::{
        Beginning, Bundle, Given, Runtime,
        provider::Providers,
        rehearsal::{End, Explore, Findings, InitialStateFile},
    };
    use contraflow_stdlib::sandbox::{Sandbox, SandboxOptions};

    fn root(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    async fn rehearse(file: &Path, params: &[(&str, &str)]) -> Findings {
        let sandbox = Sandbox::new(SandboxOptions { load: 50, ..SandboxOptions::default() });
        sandbox.ready().await.expect("a database");
        irreversible(&sandbox);
        let mut providers = Providers::new("sandbox");
        sandbox.bind(&mut providers);
        let runtime = Runtime::builder().library(&contraflow_stdlib::library()).providers(providers).build();
        let bundle = Bundle::load(file).expect("a runbook");
        let params: BTreeMap<String, Given> =
            params.iter().map(|(name, text)| ((*name).to_owned(), Given::Text((*text).to_owned()))).collect();
        // As the command does: a scenario next to the runbook is what it starts from.
        let scenario = fs::read_to_string(file.with_extension("scenario.toml"));
        let scenario =
            scenario.map(|text| toml_edit::de::from_str::<InitialStateFile>(&text).expect("a scenario"));
        let beginning = Beginning { file: scenario.unwrap_or_default(), look: true };
        let rehearsal = runtime
            .rehearsal(&bundle, &params, &beginning)
            .unwrap_or_else(|errors| panic!("{}: {errors}", file.display()));
        rehearsal.explore(Explore::default()).await.expect("a thread")
    }

    /// A folder of migrations next to the usual one, of which the last has no way back.
    fn irreversible(sandbox: &Sandbox) {
        let usual = sandbox.migrations_dir();
        let folder = usual.with_file_name("irreversible");
        fs::create_dir(&folder).expect("a folder");
        for entry in fs::read_dir(usual).expect("migrations") {
            let entry = entry.expect("a migration");
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
        }
        fs::write(folder.join("0004_forget.up.sql"), "DELETE FROM orders;").expect("written");
    }

    fn runbooks(folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(root(folder)).expect("the folder");
        let files = entries.map(|entry| entry.expect("an entry").path());
        let mut files: Vec<PathBuf> =
            files.filter(|file| file.extension().is_some_and(|end| end == "rhai")).collect();
        files.sort();
        files
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_runbooks_that_ship_survive_everything_that_is_tried() {
        let files = runbooks("runbooks");
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            let findings = rehearse(&file, &[]).await;
            assert_eq!(findings.violations(), Vec::<String>::new(), "{}", file.display());
            assert!(findings.tried.iter().all(|tried| tried.end != End::Unknown), "{}", file.display());
        }
    }

    /// What the head of a runbook says that is found in it.
    fn expected(file: &Path) -> String {
        let text = fs::read_to_string(file).expect("a runbook");
        let line = text.lines().find_map(|line| line.strip_prefix("//! finds: "));
        line.unwrap_or_else(|| panic!("{} says what is wrong with it", file.display())).to_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn runbooks_with_a_defect_are_found_out_by_name_and_for_nothing_else() {
        let files = runbooks("tests/rehearsal/bad");
        assert!(files.len() >= 15, "{}", files.len());
        let mut wrong = Vec::new();
        for file in files {
            let findings = rehearse(&file, &[]).await;
            let names: BTreeSet<&str> = findings
                .violated()
                .flat_map(|tried| tried.violations.iter().map(|violation| &*violation.invariant))
                .collect();
            if names != BTreeSet::from([&*expected(&file)]) {
                let first: Vec<String> = findings.violations().into_iter().take(6).collect();
                wrong.push(format!("{}: found {names:?}\n    {}", file.display(), first.join("\n    ")));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
