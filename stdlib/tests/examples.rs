//! Every example that the documentation shows does what it says: those at the functions, and those in the book.
//!
//! An example is a script whose last expression is `true`, or a whole runbook with a header. Behind the fence stands what is done
//! with it: `rhai` is planned and run in a sandbox of its own, `rhai,no_run` is checked, `rhai,ignore` is left alone.

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        path::{Path, PathBuf},
        sync::{Arc, Mutex},
    };

    use contraflow_runtime::{
        Bundle, Report, Runtime,
        error::codes,
        event::{Envelope, Event, Kind as EffectKind, RunOutcome, Sink},
        provider::Providers,
        script::{EffectClass, FunctionDoc},
        world::YesToAll,
    };
    use contraflow_stdlib::{
        deploy::Deploy,
        exec::ExecPolicy,
        sandbox::{Sandbox, SandboxOptions},
        traffic::Traffic,
    };
    use futures_util::StreamExt as _;

    /// How many examples run at the same time. Most of their time they wait for samples.
    const AT_ONCE: usize = 6;

    #[derive(Debug, Clone)]
    struct Example {
        place: String,
        kind: Kind,
        text: String,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Run,
        Check,
        Ignore,
    }

    impl Kind {
        /// What is done with a block with `info` behind its fence. `None`: it is no script.
        fn of(info: &str) -> Option<Self> {
            match info {
                "rhai" => Some(Self::Run),
                "rhai,no_run" => Some(Self::Check),
                "rhai,ignore" => Some(Self::Ignore),
                other if other.starts_with("rhai") => panic!("`{other}` is not known"),
                _ => None,
            }
        }
    }

    impl Example {
        fn bundle(&self) -> Bundle {
            if self.text.contains("const RUNBOOK") {
                return Bundle::single("runbook.rhai", &self.text);
            }
            Bundle::single(
                "example.rhai",
                format!(
                    "const RUNBOOK = #{{ name: \"example\" }};\nlet holds = {{\n{}\n}};\n\
                     if holds != true {{ fail(\"its last expression is not true, but \" + holds); }}\n",
                    self.text
                ),
            )
        }
    }

    /// The scripts in a text in Markdown.
    fn examples(place: &str, text: &str) -> Vec<Example> {
        let mut found = Vec::new();
        let mut open: Option<(usize, &str, Vec<&str>)> = None;
        for (number, line) in text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(info), None) => open = Some((number + 1, info, Vec::new())),
                (Some(_), Some(_)) => {
                    let Some((number, info, lines)) = open.take() else { continue };
                    if let Some(kind) = Kind::of(info) {
                        found.push(Example {
                            place: format!("{place}:{number}"),
                            kind,
                            text: lines.join("\n"),
                        });
                    }
                }
                (None, Some((_, _, lines))) => lines.push(line),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{place}: a block is not closed");
        found
    }

    struct World {
        sandbox: Arc<Sandbox>,
        runtime: Runtime,
    }

    fn world() -> World {
        world_heard_by(Arc::new(|_: &Envelope| {}))
    }

    fn world_heard_by(sink: Arc<dyn Sink>) -> World {
        let sandbox = Sandbox::new(SandboxOptions::default());
        let mut providers = Providers::new("sandbox");
        sandbox.bind(&mut providers);
        let policy = serde_json::json!({ "allow": ["echo", "cat", "sh -c *"], "shell": true });
        let policy: ExecPolicy = serde_json::from_value(policy).expect("a policy");
        let policy = policy.with_variables(|name| std::env::var_os(name));
        providers.extend(Arc::new(policy));
        let runtime = Runtime::builder()
            .library(&contraflow_stdlib::library())
            .providers(providers)
            .people(Arc::new(YesToAll { by: "tester".to_owned() }))
            .sink(sink)
            .build();
        World { sandbox, runtime }
    }

    /// All that a plan could have changed: weights, replicas, messages, and every byte of the database and its folder.
    async fn state(world: &World) -> BTreeMap<String, Vec<u8>> {
        fn files(folder: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    files(&path, into);
                } else {
                    into.insert(path.display().to_string(), fs::read(&path).expect("a file"));
                }
            }
        }
        let mut state = BTreeMap::new();
        let database = world.sandbox.database_path();
        files(database.parent().expect("its folder"), &mut state);
        // What a reader leaves behind is no change.
        state.retain(|path, bytes| !path.ends_with("-shm") && !bytes.is_empty());
        let providers = world.runtime.providers();
        let traffic = providers.get::<dyn Traffic>("web").expect("bound");
        let weights = traffic.weights().await.expect("weights");
        state.insert("weights".to_owned(), format!("{weights:?}").into());
        let deploy = providers.get::<dyn Deploy>("web").expect("bound");
        for pool in ["blue", "green"] {
            let replicas = deploy.replicas(pool).await.expect("replicas");
            state.insert(format!("replicas of {pool}"), format!("{replicas:?}").into());
        }
        state.insert("messages".to_owned(), format!("{:?}", world.sandbox.messages()).into());
        state
    }

    fn told(report: &Report) -> String {
        let error = report.error.as_ref().map_or_else(String::new, |e| format!("{}: {}", e.code, e.message));
        format!("{} {error}", report.outcome)
    }

    /// What is wrong with an example, if anything.
    async fn wrong(example: Example) -> Option<String> {
        let world = world();
        let bundle = example.bundle();
        let complain = |what: String| Some(format!("{}: {what}\n{}\n", example.place, example.text));
        if let Err(errors) = world.runtime.check(&bundle) {
            return complain(format!("does not check: {errors}"));
        }
        if example.kind == Kind::Check {
            return None;
        }
        world.sandbox.ready().await.expect("a database");
        let none = BTreeMap::new();

        let before = state(&world).await;
        let plan = world.runtime.plan(&bundle, &none).await.expect("it has been checked");
        let unknown = plan.error.as_ref().is_some_and(|error| error.is(codes::UNKNOWN_IN_PLAN));
        if plan.outcome != RunOutcome::Succeeded && !unknown {
            return complain(format!("its plan: {}", told(&plan)));
        }
        let after = state(&world).await;
        if before != after {
            let changed: BTreeSet<_> = before
                .iter()
                .filter(|item| after.get(item.0) != Some(item.1))
                .chain(after.iter().filter(|item| !before.contains_key(item.0)))
                .map(|(name, _)| name)
                .collect();
            return complain(format!("its plan changed {changed:?}"));
        }

        let run = world.runtime.run(&bundle, &none).await.expect("it has been checked");
        if run.outcome != RunOutcome::Succeeded {
            return complain(format!("its run: {}", told(&run)));
        }
        // A complete plan says how much would be changed.
        if plan.outcome == RunOutcome::Succeeded && plan.changes != run.changes {
            return complain(format!("planned {} changes, did {}", plan.changes, run.changes));
        }
        None
    }

    async fn all_hold(examples: Vec<Example>) {
        let wrong: Vec<String> = futures_util::stream::iter(examples)
            .filter(|example| std::future::ready(example.kind != Kind::Ignore))
            .map(wrong)
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    fn functions() -> Vec<FunctionDoc> {
        Runtime::builder().library(&contraflow_stdlib::library()).build().functions().docs()
    }

    fn shown(function: &FunctionDoc) -> String {
        let colons = if function.module.is_empty() { "" } else { "::" };
        format!("{}{colons}{}/{}", function.module, function.name, function.arity)
    }

    #[test]
    fn every_map_that_a_function_takes_is_declared() {
        let mut declared = 0;
        for function in functions() {
            for param in &function.params {
                let (name, kind) = param.split_once(':').expect("a name and a type");
                // What branches and the values of a text are called is up to the script.
                if kind.trim() != "Map" || ["branches", "values"].contains(&name) {
                    continue;
                }
                let argument = function.arguments.iter().find(|argument| argument.name == name);
                let argument = argument.unwrap_or_else(|| {
                    panic!(
                        "{} does not declare the type of `{name}`: contraflow_runtime::script::options",
                        shown(&function)
                    )
                });
                if name == "options" {
                    assert!(!argument.options.is_empty(), "{} has no options", shown(&function));
                    declared += 1;
                }
                for option in &argument.options {
                    assert!(
                        option.doc.ends_with(['.', ':']),
                        "the option `{}` of {} is not described: {:?}",
                        option.name,
                        shown(&function),
                        option.doc
                    );
                }
            }
        }
        assert!(declared >= 20, "{declared}");
    }

    /// A script with one more option in the map that it passes to `function`, added where no check before a run sees it.
    fn with_unknown_option(function: &FunctionDoc, text: &str) -> Option<String> {
        let colons = if function.module.is_empty() { "" } else { "::" };
        let call = text.find(&format!("{}{colons}{}(", function.module, function.name))?;
        let at = function.params.iter().position(|param| param.starts_with("options"))?;
        let first = text[call..].find('(')? + call + 1;
        let (mut depth, mut argument, mut quoted) = (0, 0, false);
        for (i, letter) in text[first..].char_indices() {
            match letter {
                '"' if !text[..first + i].ends_with('\\') => quoted = !quoted,
                _ if quoted => {}
                '(' | '[' | '{' => depth += 1,
                ',' if depth == 0 => argument += 1,
                ')' | ']' | '}' => {
                    depth -= 1;
                    if depth == 0 && letter == '}' && argument == at {
                        let (before, after) = text.split_at(first + i + 1);
                        return Some(format!("{before} + #{{ unheard_of: 1 }}{after}"));
                    }
                }
                _ => {}
            }
        }
        None
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_function_takes_the_options_that_it_declares_and_no_others() {
        let mut tried = 0;
        for function in functions() {
            let Some(options) = function.arguments.iter().find(|argument| argument.name == "options") else {
                continue;
            };
            let all = examples(&shown(&function), &function.doc);
            let script = all.iter().find_map(|example| with_unknown_option(&function, &example.text));
            let script =
                script.unwrap_or_else(|| panic!("no example of {} passes options", shown(&function)));
            let script = script.replace("catch (e) {", "catch (e) { throw e;");
            let example = Example { place: shown(&function), kind: Kind::Run, text: script };
            let world = world();
            world.sandbox.ready().await.expect("a database");
            let plan = world.runtime.plan(&example.bundle(), &BTreeMap::new()).await.expect("it loads");
            let message = plan.error.map(|error| error.message).unwrap_or_default();
            let told: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
            let declared: BTreeSet<&str> = options.options.iter().map(|option| &*option.name).collect();
            assert_eq!(told.first(), Some(&"unheard_of"), "{}: {message}", example.text);
            assert_eq!(told[1..].iter().copied().collect::<BTreeSet<_>>(), declared, "{}", example.place);
            tried += 1;
        }
        assert!(tried >= 20, "{tried}");
    }

    #[test]
    fn every_function_is_described_and_has_an_example() {
        let functions = functions();
        assert!(functions.len() >= 50, "{}", functions.len());
        for word in
            ["step/2", "parallel/1", "confirm/1", "sleep/1", "known/1", "traffic::shift/3", "db::migrate/2"]
        {
            assert!(functions.iter().any(|function| shown(function) == word), "{word} is not listed");
        }
        let missing: Vec<String> = functions
            .iter()
            .filter(|function| examples("", &function.doc).iter().all(|example| example.kind == Kind::Ignore))
            .map(shown)
            .collect();
        assert!(missing.is_empty(), "no example: {missing:?}");
        // Forms of a function are described together: the first says what they have in common, once.
        for forms in functions.chunk_by(|a, b| (&a.module, &a.name) == (&b.module, &b.name)) {
            let described =
                |form: &&FunctionDoc| form.doc.starts_with(|c: char| c == '`' || c.is_alphabetic());
            let told: Vec<&FunctionDoc> =
                forms.iter().filter(described).filter(|f| !f.doc.starts_with("```")).collect();
            assert!(!told.is_empty(), "{} is not described", shown(&forms[0]));
            let mut firsts: Vec<&str> =
                told.iter().filter_map(|form| form.doc.split("\n\n").next()).collect();
            firsts.retain(|first| !first.starts_with("Refuses "));
            let all = firsts.len();
            firsts.dedup();
            assert_eq!(firsts.len(), all, "forms of {} say the same", shown(&forms[0]));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_example_of_a_function_holds_and_its_plan_changes_nothing() {
        let all = functions()
            .iter()
            // A function for several types has the same text at each of them.
            .flat_map(|function| examples(&shown(function), &function.doc))
            .map(|example| (example.text.clone(), example))
            .collect::<BTreeMap<_, _>>();
        assert!(all.len() >= 50, "{}", all.len());
        all_hold(all.into_values().collect()).await;
    }

    /// What an example of a function does when it is planned: a plan looks for real and performs every effect that a run does. An
    /// effect that does not bear the function's name counts if none does.
    async fn performs(function: &FunctionDoc, example: &Example) -> BTreeSet<&'static str> {
        let heard = Arc::new(Mutex::new(BTreeSet::new()));
        let effects = Arc::clone(&heard);
        let world = world_heard_by(Arc::new(move |envelope: &Envelope| {
            if let Event::EffectStarted { kind, effect, .. } = &envelope.event {
                let kind = match kind {
                    EffectKind::Change => "changes",
                    EffectKind::Action => "acts",
                    EffectKind::Read | EffectKind::Wait => "looks",
                };
                effects.lock().expect("not poisoned").insert((effect.clone(), kind));
            }
        }));
        world.sandbox.ready().await.expect("a database");
        world.runtime.plan(&example.bundle(), &BTreeMap::new()).await.expect("it has been checked");
        let heard = heard.lock().expect("not poisoned");
        let of = |wanted: &str| -> BTreeSet<&'static str> {
            let such = heard.iter().filter(|(effect, _)| effect.starts_with(wanted));
            such.map(|(_, kind)| *kind).collect()
        };
        let own = of(&format!("{}.{}", function.module, function.name));
        if own.is_empty() { of(&format!("{}.", function.module)) } else { own }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_function_does_what_its_result_type_says() {
        let mut wrong = Vec::new();
        for function in functions().iter().filter(|function| !function.module.is_empty()) {
            let Some(class) = function.class else {
                wrong.push(format!("{} does not say what it does", shown(function)));
                continue;
            };
            for example in examples(&shown(function), &function.doc).iter().filter(|e| e.kind == Kind::Run) {
                let done = performs(function, example).await;
                let holds = match class {
                    EffectClass::Change => done.contains("changes") && !done.contains("acts"),
                    // With `read_only` an action only looks.
                    EffectClass::Action | EffectClass::Message => {
                        done.contains("acts") && !done.contains("changes")
                            || example.text.contains("read_only: true") && !done.is_empty()
                    }
                    EffectClass::Read | EffectClass::Check => done == BTreeSet::from(["looks"]),
                    EffectClass::Nothing => !done.contains("changes") && !done.contains("acts"),
                };
                if !holds {
                    wrong.push(format!(
                        "{} says {class:?} and does {done:?}: {}",
                        shown(function),
                        example.text
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_script_in_the_book_holds_and_its_plan_changes_nothing() {
        fn pages(folder: &Path, into: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    pages(&path, into);
                } else if path.extension().is_some_and(|ending| ending == "md") {
                    into.push(path);
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut paths = vec![root.join("README.md")];
        pages(&root.join("docs/src"), &mut paths);
        // The reference shows the examples of the functions, which have a test of their own.
        paths.retain(|path| !path.starts_with(root.join("docs/src/reference")));
        paths.sort();
        let all: Vec<Example> = paths
            .iter()
            .flat_map(|path| {
                let name = path.strip_prefix(&root).expect("below it").display().to_string();
                examples(&name, &fs::read_to_string(path).expect("a page"))
            })
            .collect();
        assert!(all.iter().filter(|example| example.kind == Kind::Run).count() >= 10);
        all_hold(all).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn in_a_plan_later_reads_see_what_earlier_changes_would_have_done() {
        let script = r#"
            const RUNBOOK = #{ name: "reads" };
            traffic::shift("web", "green", 10);
            deploy::scale("web/green", 5);
            db::migrate("main", #{ table: "other", to: 2 });
            let other = db::status("main", #{ table: "other" });
            if traffic::weights("web") != #{ blue: 90, green: 10 }
                || deploy::replicas("web/green") != #{ desired: 5, ready: 5 }
                || other.applied.len() != 2 || other.pending.len() != 1 || other.latest != "0002"
                || !db::status("main").applied.is_empty()
            { fail(`${traffic::weights("web")} ${deploy::replicas("web/green")} ${other} ${db::status("main")}`); }
        "#;
        let world = world();
        let bundle = Bundle::single("reads.rhai", script);
        let plan = world.runtime.plan(&bundle, &BTreeMap::new()).await.expect("it loads");
        assert_eq!(plan.outcome, RunOutcome::Succeeded, "{}", told(&plan));
    }
}
