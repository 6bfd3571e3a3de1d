use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use contraflow_runtime::{
    Bundle, Report, Runtime,
    error::codes as core,
    event::{Envelope, Event, RunOutcome, Sink, heard_by},
    provider::Providers,
    secret::SecretText,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::{codes, exec::ExecPolicy};

const SECRET: &str = "hunter2-hunter2";

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn event(&self, event: &Envelope) {
        if let Event::Output { line, .. } = &event.event {
            self.0.lock().expect("lock").push(line.clone());
        }
    }
}

/// An environment with a policy and one secret that the vault holds.
fn on(policy: Value) -> On {
    let mut providers = Providers::new("test");
    let policy: ExecPolicy = serde_json::from_value(policy).expect("policy");
    providers.extend(Arc::new(policy.with_variables(|name| std::env::var_os(name))));
    let on = On::detached(Arc::new(providers));
    on.vault().keep("token", Zeroizing::new(SECRET.to_owned()));
    on
}

fn shell() -> On {
    on(json!({ "shell": true }))
}

fn decoded(argv: Value, options: Value) -> Result<Effect, (&'static str, String)> {
    effect(serde_json::from_value(argv).expect("argv"), serde_json::from_value(options).expect("options"))
}

fn command(argv: Value, options: Value) -> Run {
    match decoded(argv, options).expect("options that go together") {
        Effect::Run(run) => run,
        Effect::Look(_) => panic!("an action was expected"),
    }
}

fn script(text: &str, options: Value) -> Run {
    command(json!(["sh", "-c", text]), options)
}

async fn run(text: &str, options: Value) -> Result<Output, ProviderError> {
    script(text, options).perform(&shell()).await
}

fn token() -> Value {
    serde_json::to_value(SecretText::named("token")).expect("json")
}

/// Whether the process is still doing something. One that has ended but that nobody has asked about is not.
fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']))
}

fn pids(file: &Path) -> Vec<String> {
    fs::read_to_string(file)
        .expect("the command wrote its ids")
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gives_exit_code_and_both_streams() {
    let output =
        run("echo out; echo; echo err >&2; exit 3", json!({ "status": [0, 3] })).await.expect("allowed");
    assert_eq!((output.exit_code, &*output.stdout, &*output.stderr), (3, "out", "err"));
    assert!(!output.stdout_truncated && !output.stderr_truncated);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_exit_code_is_an_error_with_the_last_lines() {
    let error = run("echo no; for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; exit 128", json!({}))
        .await
        .expect_err("exit code");
    assert_eq!(error.code.as_str(), codes::EXEC);
    let (first, rest) = error.message.split_once(":\n").expect("lines");
    assert!(first.starts_with("`sh -c 'echo no;") && first.ends_with("` exited with 128"), "{first}");
    assert_eq!(rest, "  line 3\n  line 4\n  line 5\n  line 6\n  line 7");
    assert_eq!(error.hints, ["if 128 is not a failure, add `status: [0, 128]`"]);
    assert_eq!(error.detail.expect("detail")["exit_code"], 128);
    let quiet = run("echo only out; exit 1", json!({})).await.expect_err("exit code");
    assert!(quiet.message.ends_with(":\n  only out"), "{quiet}");
    assert!(
        run("exit 1", json!({}))
            .await
            .expect_err("exit code")
            .message
            .ends_with("exited with 1 and printed nothing")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_named() {
    let error = run("echo working >&2; kill -9 $$", json!({})).await.expect_err("killed");
    assert!(error.message.ends_with("was killed by SIGKILL:\n  working"), "{error}");
    assert!(error.hints[0].contains("memory"), "{error:?}");
    let error = run("kill -SEGV $$", json!({ "status": [0, 139] })).await.expect_err("crashed");
    assert!(error.message.contains("SIGSEGV"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_configured_and_given_is_in_the_environment() {
    let names = ["PATH", "CARGO_PKG_NAME"];
    let on = on(json!({ "allow": ["env"], "env": names, "set_env": ["CARGO_PKG_NAME", "P*"] }));
    let effect =
        command(json!(["env"]), json!({ "env": { "POOL": "green $HOME", "CARGO_PKG_NAME": "other" } }));
    let output = effect.perform(&on).await.expect("allowed");
    let mut names: Vec<_> = output.stdout.lines().collect();
    names.sort_unstable();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[0], "CARGO_PKG_NAME=other");
    assert!(names[1].starts_with("PATH=/"), "{names:?}");
    assert_eq!(names[2], "POOL=green $HOME");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_passed_on_as_they_are() {
    let on = on(json!({ "allow": ["printf *"] }));
    let words = ["a b", "$HOME", "*", "'; rm -rf x", "", "ü\n"];
    let mut argv = vec!["printf", "[%s]"];
    argv.extend(words);
    let output = command(json!(argv), json!({})).perform(&on).await.expect("allowed");
    assert_eq!(output.stdout, "[a b][$HOME][*]['; rm -rf x][][ü\n]");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_taken_from_that_of_the_configuration() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path().canonicalize().expect("path");
    fs::create_dir(folder.join("work")).expect("created");
    let policy: ExecPolicy =
        serde_json::from_value(json!({ "allow": ["pwd"], "dir": "work" })).expect("policy");
    let mut providers = Providers::new("test");
    providers.extend(Arc::new(policy.in_folder(&folder)));
    let on = On::detached(Arc::new(providers));
    let pwd = async |options| command(json!(["pwd"]), options).perform(&on).await;
    assert_eq!(Path::new(&pwd(json!({})).await.expect("there").stdout), folder.join("work"));
    assert_eq!(Path::new(&pwd(json!({ "dir": "." })).await.expect("there").stdout), folder);
    let error = pwd(json!({ "dir": "nope" })).await.expect_err("not there");
    assert!(error.message.starts_with("no such folder: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_written_while_output_is_read_and_need_not_be_read() {
    let text = "0123456789abcdef\n".repeat(100_000);
    let output = run("cat", json!({ "stdin": text, "keep": "2MiB" })).await.expect("cat");
    assert_eq!(output.stdout, text.trim_end());
    assert_eq!(run("exec true", json!({ "stdin": text })).await.expect("true").stdout, "");
    assert_eq!(run("cat", json!({})).await.expect("no input").stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sees_its_secrets_and_nobody_else_does() {
    let lines = Arc::new(Lines::default());
    let on = heard_by(lines.clone(), &shell());
    let effect = command(
        json!([
            "sh",
            "-c",
            // Printed in two pieces, as JSON would be, and on the error stream.
            format!(
                "test \"$1$TOKEN$(cat)\" = {SECRET}{SECRET}{SECRET} || exit 9; \
                     printf 'a %s' \"${{TOKEN%-*}}\"; sleep 0.2; printf -- '-%s b\\n' \"${{TOKEN#*-}}\"; echo $1 >&2"
            ),
            "name",
            token(),
        ]),
        json!({ "env": { "TOKEN": token() }, "stdin": token() }),
    );
    let output = effect.perform(&on).await.expect("the command got its secrets");
    assert_eq!((&*output.stdout, &*output.stderr), ("a <secret token> b", "<secret token>"));
    let mut lines = lines.0.lock().expect("lock").clone();
    lines.sort();
    assert_eq!(lines, ["<secret token>", "a <secret token> b"]);

    let effect = command(json!(["sh", "-c", "echo bad $1; exit 1", "name", token()]), json!({}));
    assert!(effect.describe().ends_with("name <secret token>"), "{}", effect.describe());
    let error = effect.perform(&on).await.expect_err("exit code");
    assert!(error.message.contains("bad <secret token>"), "{error}");
    assert!(!format!("{error:?}{}", serde_json::to_string(&effect).expect("json")).contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_ended_with_all_it_started() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("pids");
    // Neither it nor its children listen to a polite request.
    let text = format!(
        "trap '' TERM; sleep 300 & a=$!; (sleep 300 & echo $! $a $$ > {0}.new; mv {0}.new {0}; wait) & echo waiting; wait",
        file.display()
    );
    let start = Instant::now();
    let error = run(&text, json!({ "timeout": "500ms", "grace": "300ms" })).await.expect_err("timeout");
    assert_eq!(error.code.as_str(), core::TIMEOUT);
    assert!(error.message.contains("did not end within 500ms and was stopped:\n  waiting"), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(800) && start.elapsed() < Duration::from_secs(5));
    let pids = pids(&file);
    assert_eq!(pids.len(), 3);
    for pid in pids {
        wait_for("a process survived", || !is_alive(&pid)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_listens_has_the_grace_time_to_end() {
    let start = Instant::now();
    let error = run(
        "trap 'echo cleaning up; sleep 0.3; echo done; exit 0' TERM; exec 2>&1; echo waiting; while :; do sleep 0.05; done",
        json!({ "timeout": "300ms", "grace": "30s" }),
    )
    .await
    .expect_err("timeout");
    // The shell may also say that its `sleep` was terminated.
    assert!(error.message.contains("  waiting\n"), "{error}");
    assert!(error.message.ends_with("  cleaning up\n  done"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_stops_ends_the_command() {
    let on = shell();
    let cancel = on.cancelled().clone();
    let effect = script("sleep 300", json!({}));
    let (result, ()) = tokio::join!(effect.perform(&on), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    });
    let error = result.expect_err("cancelled");
    assert_eq!(error.code.as_str(), core::CANCELLED);
    assert!(error.message.contains("was stopped with the run"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_future_is_dropped_is_ended_all_the_same() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("pids");
    let text =
        format!("trap '' TERM; sleep 300 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", file.display());
    let task = tokio::spawn(async move { run(&text, json!({ "grace": "300ms" })).await });
    wait_for("it did not start", || file.exists()).await;
    task.abort();
    for pid in pids(&file) {
        wait_for("a process survived", || !is_alive(&pid)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_left_behind_do_not_hold_up_the_run() {
    // It holds the streams: ended.
    let start = Instant::now();
    let output = run("sleep 300 & echo $!", json!({})).await.expect("the command itself ended");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    wait_for("it survived", || !is_alive(&output.stdout)).await;
    // It gave them up: left alone, and not waited for.
    let start = Instant::now();
    let output =
        run("sleep 30 >/dev/null 2>&1 & echo $!", json!({})).await.expect("the command itself ended");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(is_alive(&output.stdout));
    let pid = output.stdout.parse().expect("a process id");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("killed");
}

/// Memory of this process that is in use, in bytes.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

/// Runs a command that prints much; answers lines passed on, the result and how much more memory was in use at the most.
async fn flood(text: &str) -> (Vec<String>, Output, u64) {
    let lines = Arc::new(Lines::default());
    let on = heard_by(lines.clone(), &shell());
    let before = memory();
    let mut most = before;
    let effect = script(text, json!({ "timeout": "2m" }));
    let mut result = std::pin::pin!(effect.perform(&on));
    let output = loop {
        tokio::select! {
            output = &mut result => break output.expect("it ended by itself"),
            () = tokio::time::sleep(Duration::from_millis(20)) => most = most.max(memory()),
        }
    };
    let lines = lines.0.lock().expect("lock").clone();
    (lines, output, most - before)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_in_one_line_takes_neither_memory_nor_time() {
    let start = Instant::now();
    let (lines, output, memory) = flood("head -c 1073741824 /dev/zero | tr '\\0' x").await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].trim_start_matches('x'), "… 1024.0MiB more");
    assert_eq!(lines[0].find('…'), Some(4096));
    assert!(output.stdout_truncated);
    let (head, tail) = output.stdout.split_once("\n… 1023.9MiB not kept …\n").expect("a mark");
    assert_eq!((head.len(), tail.len()), (32 << 10, 32 << 10));
    assert!(memory < 64 << 20, "{memory} bytes");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_million_lines_take_neither_memory_nor_time() {
    let start = Instant::now();
    let (lines, output, memory) = flood("yes | head -n 100000000; echo the end").await;
    assert!(output.stdout.ends_with("y\nthe end"));
    assert_eq!(lines.last().expect("lines"), "the end");
    let took = start.elapsed();
    // 200 at once; then 50 and a summary with the last one for each second.
    assert!(lines.len() as u64 <= 202 + 52 * (took.as_secs() + 1), "{} lines in {took:?}", lines.len());
    let hidden: u64 = lines
        .iter()
        .filter_map(|line| line.strip_prefix("… ")?.strip_suffix(" lines not shown")?.parse::<u64>().ok())
        .sum();
    let summaries = lines.iter().filter(|line| line.starts_with("… ")).count() as u64;
    assert_eq!(hidden + lines.len() as u64 - summaries, 100_000_001, "every line is shown or counted");
    assert!(memory < 64 << 20, "{memory} bytes");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_held_back_is_shown_when_nothing_follows() {
    let lines = Arc::new(Lines::default());
    let on = heard_by(lines.clone(), &shell());
    let effect = script("seq 1 1000; sleep 300", json!({ "timeout": "30s", "grace": "0ms" }));
    let mut result = std::pin::pin!(effect.perform(&on));
    tokio::select! {
        _ = &mut result => panic!("it hangs"),
        () = wait_for("the last line", || lines.0.lock().expect("lock").last().is_some_and(|l| l == "1000")) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_runs_the_other_command() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("flag").display().to_string();
    let on = on(json!({ "allow": ["touch *", "rm *"] }));
    let effect = command(json!(["touch", file]), json!({ "undo": ["rm", file], "stdin": "unused" }));
    assert!(effect.undoable());
    let output = effect.perform(&on).await.expect("allowed");
    assert!(Path::new(&file).exists());
    effect.undo(&on, Some(&output)).await.expect("undone");
    assert!(!Path::new(&file).exists());
    let error = effect.undo(&on, Some(&output)).await.expect_err("nothing there any more");
    assert!(error.message.contains("exited with 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_that_a_command_or_its_undo_would_be_refused() {
    let on = on(json!({ "allow": ["touch *"] }));
    let good = command(json!(["touch", "x"]), json!({}));
    assert_eq!(good.rehearse(&on).await, Ok(()));
    assert!(!Path::new("x").exists());
    let bad = command(json!(["touch", "x"]), json!({ "undo": ["rm", "x"] }));
    let error = bad.rehearse(&on).await.expect_err("not allowed");
    assert_eq!(error.message, "`undo`: `rm x` is not allowed in environment \"test\"");
    assert_eq!(bad.perform(&on).await.expect_err("not allowed").message, error.message);
    assert!(!Path::new("x").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_nothing_is_allowed() {
    let on = On::detached(Arc::new(Providers::new("prod")));
    let error = command(json!(["true"]), json!({})).perform(&on).await.expect_err("no policy");
    assert_eq!(error.message, "no command is allowed in environment \"prod\"");
    assert!(error.hints[0].contains("[env.prod.exec] allow = ["), "{error:?}");
}

#[test]
fn what_a_plan_and_the_journal_see_follows_from_the_options() {
    let assumed = command(json!(["x"]), json!({ "assume": { "stdout": "3" } }));
    assert_eq!(
        assumed.planned().expect("assumed"),
        json!({ "exit_code": 0, "stdout": "3", "stderr": "", "stdout_truncated": false,
                "stderr_truncated": false, "duration_ms": 0 })
    );
    let plain = command(json!(["x", "a b"]), json!({}));
    assert_eq!(plain.planned(), None);
    assert_eq!(plain.in_doubt(), InDoubt::Ask);
    assert_eq!(plain.describe(), "x 'a b'");
    assert_eq!(
        serde_json::to_value(&plain).expect("json"),
        json!({ "argv": ["x", "a b"], "status": [0], "timeout": "10m", "grace": "5s", "keep": "64KiB",
                "touches": [], "idempotent": false })
    );
    let limits = plain.limits();
    assert_eq!((limits.timeout, limits.attempts), (Duration::from_secs(610), 1));
    let other = command(json!(["x"]), json!({ "touches": ["deploy/web/blue"], "idempotent": true }));
    assert_eq!(other.touches(), [Target::new("deploy", "web/blue")]);
    assert_eq!(other.in_doubt(), InDoubt::Repeat);
    let Ok(Effect::Look(look)) =
        decoded(json!(["x"]), json!({ "read_only": true, "check": true, "depends_on": ["deploy/web"] }))
    else {
        panic!("a read was expected")
    };
    assert!(look.is_check());
    assert_eq!(look.depends_on(), [Target::new("deploy", "web")]);
}

#[test]
fn options_that_do_not_go_together_are_refused_by_name() {
    for (argv, options, name) in [
        (json!([]), json!({}), "argv"),
        (json!(["x"]), json!({ "status": [] }), "status"),
        (json!(["x"]), json!({ "keep": "1GiB" }), "keep"),
        (json!(["x"]), json!({ "env": { "A=B": "" } }), "env"),
        (json!(["x"]), json!({ "check": true }), "check"),
        (json!(["x"]), json!({ "depends_on": ["a/b"] }), "depends_on"),
        (json!(["x"]), json!({ "read_only": true, "undo": ["y"] }), "undo"),
        (json!(["x"]), json!({ "read_only": true, "assume": {} }), "assume"),
        (json!(["x"]), json!({ "read_only": true, "touches": ["a/b"] }), "touches"),
        (json!(["x"]), json!({ "read_only": true, "idempotent": true }), "idempotent"),
    ] {
        assert_eq!(decoded(argv, options).expect_err(name).0, name);
    }
    assert!(serde_json::from_value::<Options>(json!({ "touches": ["web"] })).is_err());
    assert!(serde_json::from_value::<Options>(json!({ "timout": "1s" })).is_err());
}

/// Runs or plans a script that may run `touch`, `rm`, `cat`, `echo`, `false` and shells in `folder`.
fn execute(script: &str, folder: &Path, plan: bool) -> Report {
    let policy = json!({ "allow": ["touch", "rm", "cat", "echo", "false"], "shell": true });
    let policy: ExecPolicy = serde_json::from_value(policy).expect("policy");
    let mut providers = Providers::new("test");
    providers.extend(Arc::new(policy.in_folder(folder)));
    let runtime = Runtime::builder()
        .modules([("exec", Arc::new(crate::exec::module())), ("secrets", Arc::new(crate::secrets::module()))])
        .providers(providers)
        .build();
    let bundle = Bundle::single("test.rhai", format!("const RUNBOOK = #{{ name: \"test\" }}; {script}"));
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let none = std::collections::BTreeMap::new();
    tokio
        .block_on(async {
            if plan { runtime.plan(&bundle, &none).await } else { runtime.run(&bundle, &none).await }
        })
        .expect("a script that loads")
}

#[test]
fn scripts_run_commands_and_a_rollback_takes_them_back() {
    let folder = tempfile::tempdir().expect("folder");
    let examples = r##"
        if exec::run(["echo", "green"]).stdout != "green" { fail("run") }
        let result = exec::run(["cat"], #{ stdin: "green", timeout: "10s", read_only: true });
        if result.exit_code != 0 || result.stdout != "green" { fail("run with options") }
        if exec::shell("echo green | tr a-z A-Z").stdout != "GREEN" { fail("shell") }
        if exec::shell("echo \"$POOL\"", #{ env: #{ POOL: "green; rm x" } }).stdout != "green; rm x" { fail("shell with options") }
        try { exec::run(["false"]); fail("no error"); } catch (e) { if e.code != "exec" { throw e } }
    "##;
    let report = execute(examples, folder.path(), false);
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);

    let report = execute(
        r#"exec::run(["touch", "kept"]); exec::run(["touch", "flag"], #{ undo: ["rm", "flag"] }); exec::run(["cat", "flag"]); fail("later");"#,
        folder.path(),
        false,
    );
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{report:?}");
    assert_eq!(report.error.expect("why").message, "later");
    assert!(folder.path().join("kept").exists() && !folder.path().join("flag").exists());
}

#[test]
fn a_plan_runs_what_only_looks_assumes_what_it_may_and_stops_at_the_rest() {
    let folder = tempfile::tempdir().expect("folder");
    let plan =
        |script: &str| execute(script, folder.path(), true).error.map(|e| (e.code.to_string(), e.message));
    assert_eq!(
        plan(r#"exec::run(["touch", "x"]); exec::run(["touch", "y"], #{ undo: ["rm", "y"] });"#),
        None
    );
    assert!(fs::read_dir(folder.path()).expect("folder").next().is_none(), "nothing was run");
    assert_eq!(
        plan(r#"if exec::run(["echo", "3"], #{ read_only: true }).stdout != "3" { fail("x") }"#),
        None
    );
    assert_eq!(
        plan(r#"if exec::run(["echo", "3"], #{ assume: #{ stdout: "4" } }).stdout != "4" { fail("x") }"#),
        None
    );
    let unknown = plan(r#"if exec::run(["echo", "3"]).stdout == "3" { }"#).expect("it depends on the result");
    assert_eq!(unknown.0, core::UNKNOWN_IN_PLAN);
    let refused = plan(r#"exec::run(["rm-rf", "/"])"#).expect("not allowed");
    assert_eq!(
        refused,
        (codes::EXEC.to_owned(), "`rm-rf /` is not allowed in environment \"test\"".to_owned())
    );
    let wrong = plan(r#"exec::run("git push")"#).expect("no array");
    assert_eq!(wrong.0, core::ARGUMENT);
    assert!(wrong.1.starts_with("`argv`: "), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_make_an_allowed_command_run_others_are_refused_in_plans_too() {
    let on = on(json!({ "allow": ["git status"] }));
    let env = json!({ "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": "id; false" });
    let effect = command(json!(["git", "status"]), json!({ "env": env }));
    let refused = effect.perform(&on).await.expect_err("refused");
    assert!(refused.message.contains("may not set the variable `GIT_CONFIG_COUNT`"), "{}", refused.message);
    assert_eq!(effect.rehearse(&on).await.expect_err("a plan says so"), refused);
}
