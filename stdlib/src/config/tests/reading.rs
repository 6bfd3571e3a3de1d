use std::path::Path;

use super::*;

fn targets(config: &Config, environment: &str) -> Vec<String> {
    let environment = config.environment(environment).expect("environment");
    environment.targets().iter().map(|t| format!("{} {} = {}", t.noun, t.name, t.provider)).collect()
}

#[test]
fn who_approves_is_read_and_one_of_somebody_else_is_enough_where_nothing_is_said() {
    let config = parse(
        "[env.a]\n[env.b]\napprovals = 2\n[env.c]\napprovers = [\"ops\", \"ana\"]\n[env.d]\napprovers = [\"ops\"]\napprovals = 3\n",
    );
    let wanted = |name: &str| {
        let environment = config.environment(name).expect("there");
        (environment.approvers.join(" "), environment.approvals)
    };
    assert_eq!(wanted("a"), (String::new(), 0));
    assert_eq!(wanted("b"), ("somebody-else".to_owned(), 2));
    assert_eq!(wanted("c"), ("ops ana".to_owned(), 1));
    assert_eq!(wanted("d"), ("ops".to_owned(), 3));
}

#[test]
fn two_environments_are_read_with_all_they_hold() {
    let config = parse(FULL);
    let names: Vec<_> = config.environments().iter().map(|e| &*e.name).collect();
    assert_eq!(names, ["staging", "production", "sandbox"]);
    assert_eq!(targets(&config, "staging"), ["traffic web = haproxy"]);
    assert_eq!(targets(&config, "production"), ["traffic web = haproxy", "notify ops = console"]);

    let production = config.environment("production").expect("production");
    assert!(production.protected && !config.environment("staging").expect("staging").protected);
    let params = serde_json::to_value(&production.params).expect("json");
    assert_eq!(
        params,
        serde_json::json!({"hold": "15m", "replicas": 3, "share": 0.5, "strict": true, "since": "2024-05-01"})
    );
    let staging = &config.environment("staging").expect("staging").params;
    assert_eq!(staging["weights"], serde_json::json!([5, 50, 100]));

    assert_eq!(config.default_env(), Some("staging"));
    assert_eq!(config.limits().max_operations, Some(5_000_000));
    assert_eq!(config.limits().max_memory, Some(Size(256 << 20)));
    assert_eq!(config.limits().max_wall_time, Some(Span::secs(7200)));
    assert_eq!(config.source("conf/contraflow.toml").as_deref(), Some(FULL));
    assert_eq!(config.source("contraflow.toml"), None);
}

#[test]
fn an_environments_commands_are_handed_on_as_they_stand() {
    let config = parse("[env.a.exec]\nallow = [\"git\"]\n[env.b]");
    let policy =
        |name: &str| config.providers(name).expect("providers").extension::<crate::exec::ExecPolicy>();
    assert_eq!(policy("a").expect("a policy").allow[0].to_string(), "git");
    assert!(policy("b").is_none());
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let config = parse(FULL);
    assert_eq!(store(&config), "conf/runs.db");
    assert_eq!(config.state_dir(), Some(Path::new("conf/.state")));
    let web = &config.environment("staging").expect("staging").targets()[0];
    assert_eq!(web.path("x.sock"), Path::new("conf/x.sock"));
    assert_eq!(web.path("/run/x.sock"), Path::new("/run/x.sock"));

    for url in ["postgres://db.example.com/contraflow", "sqlite:runs.db", "/var/lib/runs.db"] {
        assert_eq!(store(&parse(&format!("store = '{url}'"))), url);
    }
}

#[test]
fn the_sandbox_is_always_there_and_may_have_parameters() {
    let config = Config::sandbox();
    let names: Vec<_> = config.environments().iter().map(|e| &*e.name).collect();
    assert_eq!((names, config.default_env()), (vec!["sandbox"], Some("sandbox")));
    let providers = config.providers("sandbox").expect("providers");
    assert_eq!((providers.environment(), providers.bindings().len()), ("sandbox", 0));

    let config = parse("[env.sandbox.params]\nhold = \"1s\"");
    assert_eq!(config.environments().len(), 1);
    assert_eq!(config.environment("sandbox").expect("sandbox").params["hold"], "1s");
    assert_eq!(config.default_env(), None);
    assert_eq!(config.path(), Some(Path::new("conf/contraflow.toml")));
}

#[test]
fn an_environment_without_targets_binds_nothing() {
    let providers = parse("[env.empty]").providers("empty").expect("providers");
    assert_eq!((providers.environment(), providers.bindings().len()), ("empty", 0));
}

#[test]
fn every_target_that_cannot_be_bound_is_reported_at_its_provider() {
    let config = parse(
        "[env.a.traffic.web]\nprovider = \"nosuch\"\n[env.a]\nnotify.ops = { provider = \"nosuch\" }\n\
         [env.b.traffic.web]\nprovider = \"also-not\"",
    );
    let errors = all(&config.providers("a").expect_err("no such providers"));
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with("2:12 env.a.traffic.web.provider: no traffic provider named \"nosuch\""));
    assert!(errors[1].starts_with("4:27 env.a.notify.ops.provider: no notify provider named \"nosuch\""));
}

#[test]
fn the_file_is_found_in_the_nearest_folder_above() {
    let (_dir, top) = folder();
    let deep = top.join("a/b/c");
    std::fs::create_dir_all(&deep).expect("folders");
    std::fs::write(top.join("contraflow.toml"), "").expect("write");
    assert_eq!(Config::find(&deep), Some(top.join("contraflow.toml")));
    std::fs::write(top.join("a/contraflow.toml"), "").expect("write");
    assert_eq!(Config::find(&deep), Some(top.join("a/contraflow.toml")));
    assert_eq!(Config::find(&top), Some(top.join("contraflow.toml")));
    // A relative start is taken from the working directory; what is found above it depends on the machine.
    assert_eq!(Config::find("."), Config::find(std::env::current_dir().expect("here")));
}

#[test]
fn a_file_with_crlf_and_a_byte_order_mark_is_read() {
    let config = parse("\u{feff}default_env = \"sandbox\"\r\n[env.a]\r\nprotected = true\r\n");
    assert!(config.environment("a").expect("a").protected);
}

#[test]
fn a_key_can_be_asked_for_its_place() {
    let config = parsed("conf/contraflow.toml", FULL, [("CONTRAFLOW__ENV__PRODUCTION__PARAMS__HOLD", "1m")])
        .expect("ok");
    let place = |keys: &[&str]| config.place(keys).map(|at| (at.source, at.line, at.column));
    let file = "conf/contraflow.toml".to_owned();
    assert_eq!(place(&["env", "production", "params", "replicas"]), Some((file.clone(), 23, 1)));
    assert_eq!(place(&["env", "staging", "params", "weights"]), Some((file, 11, 26)));
    let variable = "environment variable CONTRAFLOW__ENV__PRODUCTION__PARAMS__HOLD".to_owned();
    assert_eq!(place(&["env", "production", "params", "hold"]), Some((variable, 0, 0)));
    assert_eq!(place(&["env", "production", "params", "nope"]), None);
}

#[test]
fn roles_have_members_and_say_whether_the_starter_may_answer() {
    let config = parse(
        "[roles.release-manager]\nmembers = [\"ana\", \"bo\"]\n[roles.ops]\nmembers = [\"cy\"]\nmay_be_starter = true",
    );
    let roles = config.roles();
    assert_eq!(roles["release-manager"].members, ["ana", "bo"]);
    assert!(!roles["release-manager"].may_be_starter && roles["ops"].may_be_starter);
}
