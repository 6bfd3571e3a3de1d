use std::path::Path;

use super::*;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Web {
    socket: String,
    pools: BTreeMap<String, String>,
    weight: i64,
    drain: bool,
    shares: Vec<f64>,
}

fn web(vars: &[(&str, &str)]) -> Result<Web, String> {
    let config = parsed("conf/contraflow.toml", FULL, vars.iter().copied()).map_err(|e| e.to_string())?;
    config.environment("production").expect("there").targets()[0].settings().map_err(|e| shown(&e))
}

#[test]
fn three_short_variables_stand_over_the_file() {
    let vars = [
        ("CONTRAFLOW_ENV", "production"),
        ("CONTRAFLOW_STORE", "elsewhere.db"),
        ("CONTRAFLOW_STATE_DIR", "there"),
        ("CONTRAFLOW_LOG", "debug"),
    ];
    let config = parsed("conf/contraflow.toml", FULL, vars).expect("config");
    assert_eq!(config.default_env(), Some("production"));
    assert_eq!(store(&config), "elsewhere.db");
    assert_eq!(config.state_dir(), Some(Path::new("there")));

    let vars = [("CONTRAFLOW_STORE", "short.db"), ("CONTRAFLOW__STORE", "long.db")];
    assert_eq!(store(&parsed("c", FULL, vars).expect("config")), "short.db");
    assert_eq!(store(&parsed("c", FULL, vars[1..].iter().copied()).expect("config")), "long.db");

    let vars = [("CONTRAFLOW_ENV", ""), ("CONTRAFLOW_STORE", ""), ("CONTRAFLOW_STATE_DIR", "")];
    let config = parsed("conf/contraflow.toml", FULL, vars).expect("config");
    assert_eq!((config.default_env(), &*store(&config)), (Some("staging"), "conf/runs.db"));
    assert_eq!(config.state_dir(), Some(Path::new("conf/.state")));
}

#[test]
fn variables_count_without_a_file() {
    let vars = [("CONTRAFLOW_STORE", "runs.db"), ("CONTRAFLOW__LIMITS__MAX_OPERATIONS", "1000")];
    let config = without_file(vars).expect("config");
    assert_eq!((config.default_env(), &*store(&config)), (Some("sandbox"), "runs.db"));
    assert_eq!(config.limits().max_operations, Some(1000));
    assert_eq!(config.path(), None);

    let errors = without_file([("CONTRAFLOW__ENV__A__PROTECTED", "true")]).expect_err("no environment");
    assert_eq!(
        all(&errors),
        ["environment variable CONTRAFLOW__ENV__A__PROTECTED env.a.protected: no `env` in the file \
          (a variable can change environments and targets of the file, but cannot add one)"]
    );
}

#[test]
fn a_variable_takes_the_type_of_the_value_it_stands_over() {
    let web = web(&[
        ("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__SOCKET", "12"),
        ("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__WEIGHT", "9"),
        ("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__POOLS__GREEN", "other"),
    ])
    .expect("settings");
    assert_eq!((&*web.socket, web.weight), ("12", 9));
    assert_eq!((&*web.pools["blue"], &*web.pools["green"]), ("b", "other"));

    let vars = [
        ("CONTRAFLOW__ENV__PRODUCTION__PROTECTED", "true"),
        ("CONTRAFLOW__ENV__PRODUCTION__PARAMS__REPLICAS", "5"),
        ("CONTRAFLOW__ENV__PRODUCTION__PARAMS__HOLD", "1m"),
        ("CONTRAFLOW__ENV__PRODUCTION__PARAMS__NEW", "7"),
        ("CONTRAFLOW__ENV__STAGING__PARAMS__WEIGHTS", "[10, 100]"),
        ("CONTRAFLOW__LIMITS__MAX_WALL_TIME", "1m"),
    ];
    let config = parsed("conf/contraflow.toml", FULL, vars).expect("config");
    let production = config.environment("production").expect("production");
    assert!(production.protected);
    assert_eq!(production.params["replicas"], 5);
    assert_eq!(production.params["hold"], "1m");
    assert_eq!(production.params["new"], "7");
    assert_eq!(config.environment("staging").expect("there").params["weights"], serde_json::json!([10, 100]));
    assert_eq!(config.limits().max_wall_time, Some(Span::secs(60)));
}

#[test]
fn a_key_that_the_file_does_not_have_takes_the_type_that_is_wanted() {
    let web = web(&[
        ("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__DRAIN", "true"),
        ("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__SHARES", "[0.5, 1]"),
        ("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__POOLS__TEAL", "3"),
    ])
    .expect("settings");
    assert!(web.drain);
    assert_eq!(web.shares, [0.5, 1.0]);
    assert_eq!(web.pools["teal"], "3");
    let vars = [("CONTRAFLOW__ENV__STAGING__PROTECTED", "true")];
    assert!(parsed("c", FULL, vars).expect("config").environment("staging").expect("there").protected);
}

#[test]
fn names_are_matched_without_regard_to_case_and_dashes() {
    let file = "[env.eu-West.secrets.deploy-token]\nprovider = \"a\"\nkey = \"k\"\n[env.eu-West.secrets.Deploy_Other]\nprovider = \"b\"";
    let vars = [("CONTRAFLOW__ENV__EU_WEST__SECRETS__DEPLOY_TOKEN__PROVIDER", "c")];
    let config = parsed("c", file, vars).expect("config");
    let providers: Vec<_> = config.environments()[0].targets().iter().map(|t| &*t.provider).collect();
    assert_eq!(providers, ["c", "b"]);

    let file = "[env.a-b]\n[env.a_b]\n";
    assert_eq!(
        errors(file, &[("CONTRAFLOW__ENV__A_B__PROTECTED", "true")]),
        ["environment variable CONTRAFLOW__ENV__A_B__PROTECTED env.a_b.protected: \
          `A_B` could be a-b or a_b: a variable name cannot tell them apart"]
    );
}

#[test]
fn an_error_in_a_variable_names_it_and_hides_its_value() {
    let error = |name: &str, value: &str| web(&[(name, value)]).expect_err(name);
    assert_eq!(
        error("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__WEIGHT", "hunter2"),
        "environment variable CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__WEIGHT env.production.traffic.web.weight: \
         `weight`: the text \"…\", expected a whole number"
    );
    assert_eq!(
        error("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__DRAIN", "hunter2"),
        "environment variable CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__DRAIN env.production.traffic.web.drain: \
         `drain`: the text \"…\", expected a boolean"
    );
    assert_eq!(
        error("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__SOCKT", "x"),
        "environment variable CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__SOCKT env.production.traffic.web.sockt: \
         unknown key `sockt` (did you mean `socket`?)"
    );
    // Text was tried first and is what the error is about, not the second try.
    assert_eq!(
        error("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__DRAIN", "5"),
        "environment variable CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__DRAIN env.production.traffic.web.drain: \
         `drain`: the text \"…\", expected a boolean"
    );
}

#[test]
fn a_value_that_the_configuration_itself_refuses_is_hidden_too() {
    assert_eq!(
        errors(FULL, &[("CONTRAFLOW__ENV__PRODUCTION__PROTECTED", "hunter2")]),
        ["environment variable CONTRAFLOW__ENV__PRODUCTION__PROTECTED env.production.protected: \
          `protected`: the text \"…\", expected `true` or `false`"]
    );
    let long = "s".repeat(80);
    let errors = errors(FULL, &[("CONTRAFLOW__ENV__PRODUCTION__PROTECTED", &long)]);
    assert!(!errors[0].contains("sss"), "{errors:?}");
}

#[test]
fn no_variable_switches_off_who_must_agree_to_a_run() {
    let file = "[roles.ops]\nmembers = [\"ann\"]\n[env.a]\nprotected = true\napprovers = [\"ops\"]\napprovals = 2\n[env.b]\n";
    for (name, value) in [
        ("CONTRAFLOW__ENV__A__PROTECTED", "false"),
        ("CONTRAFLOW__env__a__Protected", " false "),
        ("CONTRAFLOW__ENV__A__APPROVALS", "0"),
        ("CONTRAFLOW__ENV__A__APPROVALS", "1"),
        ("CONTRAFLOW__ENV__A__APPROVERS", "[]"),
        ("CONTRAFLOW__ENV__B__APPROVERS", "[\"eve\"]"),
        ("CONTRAFLOW__ROLES__OPS__MEMBERS", "[\"eve\"]"),
        ("CONTRAFLOW__ROLES__NEW", "x"),
    ] {
        let errors = errors(file, &[(name, value)]);
        assert!(
            errors[0].contains("stands only in the file: whoever starts a run must not"),
            "{name}: {errors:?}"
        );
    }
    let vars = [("CONTRAFLOW__ENV__A__PROTECTED", "true"), ("CONTRAFLOW__ENV__B__PROTECTED", "true")];
    assert!(
        parsed("c", "[env.a]\nprotected = true\n[env.b]\n", vars)
            .expect("config")
            .environment("b")
            .expect("b")
            .protected
    );
}

#[test]
fn a_variable_that_fits_nowhere_is_an_error() {
    let error = |name: &str| errors(FULL, &[(name, "x")]).join("\n");
    assert_eq!(
        error("CONTRAFLOW__ENV__PRODUCTON__PROTECTED"),
        "environment variable CONTRAFLOW__ENV__PRODUCTON__PROTECTED env.producton.protected: \
         no `producton` in `env` (did you mean `production`?)"
    );
    assert_eq!(
        error("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__API__PROVIDER"),
        "environment variable CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__API__PROVIDER env.production.traffic.api.provider: \
         no `api` in `env.production.traffic` (keys there: web)"
    );
    assert_eq!(
        error("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB"),
        "environment variable CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB env.production.traffic.web: \
         `env.production.traffic.web` is a table (name a key in it: CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__KEY)"
    );
    assert_eq!(
        error("CONTRAFLOW__STORE__PATH"),
        "environment variable CONTRAFLOW__STORE__PATH store.path: `store` is not a table: it has no keys to \
         set"
    );
    assert_eq!(
        error("CONTRAFLOW__ENV____X"),
        "environment variable CONTRAFLOW__ENV____X env..x: a key between two `__` is empty \
         (write one `__` between keys: CONTRAFLOW__ENV__PRODUCTION__PROTECTED)"
    );
    assert_eq!(
        error("CONTRAFLOW__SOTRE"),
        "environment variable CONTRAFLOW__SOTRE sotre: unknown key `sotre` (did you mean `store`?)"
    );
    assert_eq!(
        error("CONTRAFLOW__DEFAULT_ENV"),
        "environment variable CONTRAFLOW__DEFAULT_ENV default_env: no environment \"…\" in conf/contraflow.toml \
         (environments: staging, production, sandbox)"
    );
}

#[test]
fn debug_output_holds_no_variable() {
    let vars = [
        ("DB", "hunter2"),
        ("CONTRAFLOW_STORE", "postgres://x:hunter4@y"),
        ("CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__SOCKET", "hunter3"),
    ];
    let config = parsed("c", FULL, vars).expect("config");
    let entry = &config.environment("production").expect("there").targets()[0];
    let text = format!("{config:?} {entry:?}");
    assert!(!text.contains("hunter"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_an_error_only_if_it_is_ours() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};
    let bytes = || OsString::from_vec(vec![0xff]);
    assert!(parsed("c", FULL, [(OsString::from("OTHER"), bytes()), (bytes(), bytes())]).is_ok());
    for name in ["CONTRAFLOW_ENV", "CONTRAFLOW__STORE"] {
        let errors = parsed("c", FULL, [(OsString::from(name), bytes())]).expect_err(name);
        assert!(shown(&errors[0]).ends_with("the value is not UTF-8"), "{errors:?}");
    }
    let config = parsed("c", FULL, [(OsString::from("CONTRAFLOW_STATE_DIR"), bytes())]).expect("a path");
    assert_eq!(config.state_dir().map(Path::as_os_str), Some(&*bytes()));
}
