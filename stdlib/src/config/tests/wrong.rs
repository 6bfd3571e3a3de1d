use super::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(errors(text, &[]), [expected], "{text}");
}

#[test]
fn unknown_keys_are_named_with_the_closest_known_one() {
    check("defualt_env = \"a\"", "1:1 defualt_env: unknown key `defualt_env` (did you mean `default_env`?)");
    check(
        "\n  zzz = 1",
        "2:3 zzz: unknown key `zzz` (keys here: default_env, store, state_dir, limits, roles, env)",
    );
    check(
        "[env.a]\nprotectd = true",
        "2:1 env.a.protectd: unknown key `protectd` (did you mean `protected`?)",
    );
    check(
        "[limits]\nmax_memry = \"1MiB\"",
        "2:1 limits.max_memry: unknown key `max_memry` (did you mean `max_memory`?)",
    );
    check(
        "[roles.ops]\nmember = [\"ana\"]",
        "2:1 roles.ops.member: unknown key `member` (did you mean `members`?)",
    );
}

#[test]
fn an_unknown_noun_is_named_with_those_that_there_are() {
    check(
        "[env.a.trafic.web]\nprovider = \"haproxy\"",
        "1:8 env.a.trafic: unknown key `trafic` (did you mean `traffic`?)",
    );
    check(
        "[env.a]\n[env.a.queue.jobs]\nprovider = \"x\"",
        "2:8 env.a.queue: unknown key `queue` \
         (keys here: protected, approvers, approvals, params, exec, traffic, deploy, metrics, db, notify, secrets)",
    );
    check(
        "[traffic.web]\nprovider = \"haproxy\"",
        "1:2 traffic: `traffic` is outside an environment \
         (targets belong to an environment: [env.NAME.traffic.TARGET])",
    );
}

#[test]
fn where_there_are_roles_whoever_approves_is_one_or_has_one() {
    let roles = "[roles.managers]\nmembers = [\"ana\"]\n";
    check(
        &format!("[env.a]\napprovers = [\"ana\", \"manager\"]\n{roles}"),
        "2:13 env.a.approvers: `approvers`: \"manager\" is neither a role nor a member of one: did you mean \"managers\"?",
    );
    for right in ["[\"managers\", \"ana\"]", "[\"somebody-else\"]"] {
        parse(&format!("[env.a]\napprovers = {right}\n{roles}"));
    }
    // Without roles, that is a person.
    parse("[env.a]\napprovers = [\"ops\"]");
}

#[test]
fn a_value_of_the_wrong_type_is_shown_with_what_is_expected() {
    check(
        "store = 5",
        "1:9 store: `store`: the number `5`, expected text, { env = \"VARIABLE\" }, { file = \"path\" } or { secret = \"name\" }",
    );
    check("store = ''", "1:1 store: `store`: the text is empty");
    check("store = { fiel = 'x' }", "1:11 store.fiel: unknown key `store.fiel` (did you mean `file`?)");
    check("state_dir = \"\"", "1:13 state_dir: `state_dir`: the text is empty");
    check(
        "env = 1",
        "1:7 env: `env`: the number `1`, expected a table of environments, such as [env.production]",
    );
    check("[env]\na = \"x\"", "2:5 env.a: `a`: the text \"x\", expected a table");
    check(
        "[env.a]\nprotected = \"yes\"",
        "2:13 env.a.protected: `protected`: the text \"yes\", expected `true` or `false`",
    );
    check(
        "[env.a]\napprovers = []",
        "2:13 env.a.approvers: `approvers`: an array, expected an array of texts, such as [\"release-manager\"]",
    );
    check(
        "[env.a]\napprovals = 0",
        "2:13 env.a.approvals: `approvals`: the number `0`, expected a whole number from 1",
    );
    check("limits = []", "1:10 limits: `limits`: an array, expected a table");
    check(
        "[limits]\nmax_operations = \"x\"",
        "2:18 limits.max_operations: `max_operations`: the text \"x\", expected a whole number, 0 or more",
    );
    check(
        "[limits]\nmax_memory = \"lots\"",
        "2:14 limits.max_memory: `max_memory`: bad size \"lots\": expected a number with B, KiB, MiB or \
         GiB, such as \"1MiB\"",
    );
    check(
        "[limits]\nmax_operations = 0",
        "2:18 limits.max_operations: `max_operations`: 0 would stop every script",
    );
    check(
        "[env.a.params]\nx = { a = 1 }",
        "2:5 env.a.params.x: `x`: a table, expected text, a finite number, `true`, `false`, or an array of these",
    );
    check(
        "[env.a.params]\nx = [1, inf]",
        "2:5 env.a.params.x: `x`: an array, expected text, a finite number, `true`, `false`, or an array of these",
    );
    check("[env.a]\ntraffic = 1", "2:11 env.a.traffic: `traffic`: the number `1`, expected a table");
    check(
        "[env.a.db]\nmain = \"sqlite\"",
        "2:8 env.a.db.main: `main`: the text \"sqlite\", expected a table",
    );
    check(
        "[[env.a.db.main]]\nprovider = \"sqlite\"",
        "1:12 env.a.db.main: `main`: an array of tables, expected a table (write the header with single brackets)",
    );
}

#[test]
fn a_long_text_in_an_error_is_cut() {
    let text = format!("[env]\na = \"{}\"", "é".repeat(100));
    check(&text, &format!("2:5 env.a: `a`: the text \"{}…\", expected a table", "é".repeat(60)));
}

#[test]
fn a_target_must_say_its_provider() {
    check(
        "[env.a.db.main]\nurl = \"x\"",
        "1:11 env.a.db.main: the db target `main` has no `provider` \
         (add `provider = \"…\"`: the kind of server or service behind this target)",
    );
    check(
        "[env.a.db.main]\nprovidr = \"sqlite\"",
        "1:11 env.a.db.main: the db target `main` has no `provider` (did you mean `provider` instead of \
         `providr`?)",
    );
    check(
        "[env.a.db.main]\nprovider = 1",
        "2:12 env.a.db.main.provider: `provider`: the number `1`, expected text",
    );
}

#[test]
fn names_are_plain() {
    let hint = "(a name starts with a letter or digit and consists of letters, digits, `-`, `_` and `.`)";
    check(
        "[env.\"a b\"]",
        &format!("1:6 env.\"a b\": \"a b\" is not a valid name for an environment {hint}"),
    );
    check(
        "[env.a.deploy.\"web/blue\"]\nprovider = \"x\"",
        &format!("1:15 env.a.deploy.\"web/blue\": \"web/blue\" is not a valid name for a target {hint}"),
    );
    check("[env.\"\"]", &format!("1:6 env.\"\": \"\" is not a valid name for an environment {hint}"));
    check("[env.\"..\"]", &format!("1:6 env.\"..\": \"..\" is not a valid name for an environment {hint}"));
}

#[test]
fn the_sandbox_takes_no_targets() {
    check(
        "[env.sandbox.traffic.web]\nprovider = \"haproxy\"",
        "1:14 env.sandbox.traffic: the environment `sandbox` has its own targets and takes no others \
         (put them in another environment)",
    );
}

#[test]
fn the_default_environment_must_exist() {
    check(
        "default_env = \"prodution\"\n[env.production]",
        "1:15 default_env: no environment \"prodution\" in conf/contraflow.toml \
         (did you mean \"production\"?; environments: production, sandbox)",
    );
    assert_eq!(parse("default_env = \"sandbox\"").default_env(), Some("sandbox"));
}

#[test]
fn the_store_is_in_no_secret_of_an_environment() {
    check(
        "\nstore = { secret = \"url\" }\n[env.production.secrets.url]\nprovider = \"env\"\nvariable = \"URL\"",
        "2:1 store: `store`: the secret url belongs to an environment, and the run store to none (name a \
         variable or a file: { env = \"VARIABLE\" } or { file = \"path\" })",
    );
}

#[test]
fn what_is_no_toml_is_shown_where_it_stands() {
    for (text, at) in [
        ("a = ", "1:5"),
        ("\n\nstore = \"x", "3:11"),
        ("[env.a\nprotected = true", "1:7"),
        ("store = 'a'\nmax = = 2", "2:7"),
        ("ä = 1", "1:1"),
        ("store = \"ä\" x", "1:13"),
        ("[[[", "1:3"),
        ("[]", "1:2"),
    ] {
        let errors = errors(text, &[]);
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(errors[0].starts_with(&format!("{at} the file: not valid TOML: ")), "{text}: {errors:?}");
    }
}

#[test]
fn a_key_that_stands_twice_is_shown_the_second_time() {
    check("store = \"a\"\nstore = \"b\"", "2:1 the file: `store` is defined twice");
    check("[env.a]\n[env.a]", "2:6 the file: `a` is defined twice");
    check("[env.a]\nexec = { dir = \"a\", dir = \"b\" }", "2:21 the file: `dir` is defined twice");
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    assert_eq!(
        errors("sotre = \"x\"\n[env.a]\nprotected = 1\n[env.a.db.main]\n[env.b]\ndbs = 1\n", &[]),
        [
            "1:1 sotre: unknown key `sotre` (did you mean `store`?)",
            "3:13 env.a.protected: `protected`: the number `1`, expected `true` or `false`",
            "4:11 env.a.db.main: the db target `main` has no `provider` \
             (add `provider = \"…\"`: the kind of server or service behind this target)",
            "6:1 env.b.dbs: unknown key `dbs` (did you mean `db`?)",
        ]
    );
}

#[test]
fn an_unknown_environment_is_answered_with_the_closest() {
    let error = |config: &Config, name: &str| shown(&config.providers(name).expect_err("unknown")[0]);
    assert_eq!(
        error(&parse(FULL), "prod"),
        "nowhere: no environment \"prod\" in conf/contraflow.toml \
         (did you mean \"production\"?; environments: staging, production, sandbox)"
    );
    assert_eq!(
        error(&Config::sandbox(), "staging"),
        "nowhere: no environment \"staging\": no contraflow.toml was found in this folder or a parent folder \
         (environments: sandbox)"
    );
}

#[test]
fn a_file_that_cannot_be_text_says_why() {
    let (_dir, top) = folder();
    let load = |name: &str| {
        let path = top.join(name);
        let errors = loaded(&path, NO_VARS).expect_err("too large for a configuration");
        assert_eq!(errors.len(), 1);
        assert!(errors.text().is_none());
        let at = &errors[0].frames[0];
        assert_eq!(at.source, path.display().to_string());
        format!("{}:{} {}", at.line, at.column, errors[0])
    };
    assert_eq!(load("absent.toml"), "0:0 there is no such file");

    std::fs::create_dir(top.join("folder.toml")).expect("folder");
    assert_eq!(load("folder.toml"), "0:0 this is a folder, expected a file");

    std::fs::write(top.join("latin.toml"), b"store = \"x\"\n# caf\xe9\n").expect("write");
    assert_eq!(load("latin.toml"), "2:6 the file is not UTF-8: byte 0xe9 is not valid in UTF-8");

    std::fs::write(top.join("large.toml"), " ".repeat((1 << 20) + 1)).expect("write");
    assert_eq!(load("large.toml"), "0:0 the file is larger than 1MiB, too large for a configuration");
    std::fs::write(top.join("fits.toml"), " ".repeat(1 << 20)).expect("write");
    assert!(loaded(top.join("fits.toml"), NO_VARS).is_ok());
}

#[test]
fn all_errors_print_as_lines_with_their_place() {
    let errors = parsed("c.toml", "a = 1\nstore = 2", NO_VARS).expect_err("wrong");
    assert_eq!(
        errors.to_string(),
        "c.toml:1:1: unknown key `a`\nc.toml:2:9: `store`: the number `2`, expected text, { env = \"VARIABLE\" }, \
         { file = \"path\" } or { secret = \"name\" }"
    );
}
