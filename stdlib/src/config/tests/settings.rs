use std::path::Path;

use super::*;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Web {
    socket: String,
    weight: u16,
    timeout: Option<Span>,
    pools: BTreeMap<String, Pool>,
    list: Vec<i64>,
    mode: Mode,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Drain,
    Cut,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    address: String,
    #[serde(default)]
    port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Database {
    url: Setting,
}

fn entry(settings: &str, vars: &[(&str, &str)]) -> Entry {
    let text = format!("[env.a.traffic.web]\nprovider = \"haproxy\"\n{settings}");
    let config = parsed("conf/contraflow.toml", &text, vars.iter().copied());
    config.unwrap_or_else(|e| panic!("{e}")).environments()[0].targets()[0].clone()
}

#[track_caller]
fn check(settings: &str, expected: &str) {
    let error = entry(settings, &[]).settings::<Web>().expect_err(settings);
    assert_eq!(shown(&error), expected, "{settings}");
}

#[test]
fn settings_are_decoded_without_the_provider() {
    let web: Web = entry(
        "socket = \"s\"\nweight = 3\ntimeout = \"5s\"\nmode = \"cut\"\npools.blue = { address = \"b\", port = 80 }",
        &[],
    )
    .settings()
    .expect("settings");
    assert_eq!((&*web.socket, web.weight, web.timeout), ("s", 3, Some(Span::secs(5))));
    assert!(matches!(web.mode, Mode::Cut));
    assert_eq!((&*web.pools["blue"].address, web.pools["blue"].port), ("b", Some(80)));
}

#[test]
fn a_target_may_be_written_inline() {
    let config = parse("[env.a]\ntraffic = { web = { provider = \"haproxy\", socket = \"s\", wieght = 1 } }");
    let entry = &config.environments()[0].targets()[0];
    let error = entry.settings::<Web>().expect_err("unknown key");
    assert_eq!(shown(&error), "2:57 env.a.traffic.web.wieght: unknown key `wieght` (did you mean `weight`?)");
}

#[test]
fn an_unknown_setting_is_shown_at_its_key() {
    check("  sockt = \"s\"", "3:3 env.a.traffic.web.sockt: unknown key `sockt` (did you mean `socket`?)");
    check(
        "zzz = 1",
        "3:1 env.a.traffic.web.zzz: unknown key `zzz` (keys here: socket, weight, timeout, pools, list, mode)",
    );
    check(
        "pools = { blue = { adress = \"b\" } }",
        "3:20 env.a.traffic.web.pools.blue.adress: unknown key `pools.blue.adress` (did you mean `address`?)",
    );
    check(
        "[env.a.traffic.web.pools.blue]\naddress = \"b\"\nprot = 1",
        "5:1 env.a.traffic.web.pools.blue.prot: unknown key `pools.blue.prot` (did you mean `port`?)",
    );
}

#[test]
fn a_wrong_setting_is_shown_at_its_value() {
    check(
        "weight = \"x\"",
        "3:10 env.a.traffic.web.weight: `weight`: the text \"x\", expected a whole number from 0 to 65535",
    );
    check(
        "weight = 70000",
        "3:10 env.a.traffic.web.weight: `weight`: the number `70000`, expected a whole number from 0 to 65535",
    );
    check(
        "weight = 1.5",
        "3:10 env.a.traffic.web.weight: `weight`: the number `1.5`, expected a whole number from 0 to 65535",
    );
    check("socket = true", "3:10 env.a.traffic.web.socket: `socket`: `true`, expected text");
    check("socket = [1]", "3:10 env.a.traffic.web.socket: `socket`: an array, expected text");
    check(
        "timeout = \"5x\"",
        "3:11 env.a.traffic.web.timeout: `timeout`: bad duration \"5x\": \
         expected a number with ms, s, m, h or d, such as \"90s\" or \"1h30m\"",
    );
    check(
        "timeout = 5",
        "3:11 env.a.traffic.web.timeout: `timeout`: 5 has no unit: expected a duration string such as \
         \"90s\"",
    );
    check(
        "list = [1,\n  2, \"x\"]",
        "4:6 env.a.traffic.web.list: `list[2]`: the text \"x\", expected a whole number",
    );
    check(
        "mode = \"drian\"",
        "3:8 env.a.traffic.web.mode: `mode`: unknown value `drian`, expected `drain` or `cut` (did you mean `drain`?)",
    );
    check(
        "pools = { blue = { address = \"b\", port = \"x\" } }",
        "3:42 env.a.traffic.web.pools.blue.port: `pools.blue.port`: the text \"x\", expected a whole number from 0 to 65535",
    );
    check("pools = 1", "3:9 env.a.traffic.web.pools: `pools`: the number `1`, expected a map");
}

#[test]
fn a_missing_setting_is_shown_at_the_table_it_belongs_in() {
    let error = entry("", &[]).settings::<Database>().expect_err("missing");
    assert_eq!(shown(&error), "1:16 env.a.traffic.web: `url` is missing");
    check(
        "pools = { blue = { port = 1 } }",
        "3:18 env.a.traffic.web.pools.blue: `pools.blue.address` is missing",
    );
}

#[test]
fn a_provider_can_refuse_a_setting_at_its_place() {
    let entry = entry("weight = 3\npools = { green = \"g\" }\nlist = [1]", &[]);
    let at = |key: &str| shown(&entry.bad_setting(key, "no good"));
    assert_eq!(at("weight"), "3:1 env.a.traffic.web.weight: `weight`: no good");
    assert_eq!(at("pools.green"), "4:11 env.a.traffic.web.pools.green: `pools.green`: no good");
    assert_eq!(at("pools.blue"), "4:1 env.a.traffic.web.pools.blue: `pools.blue`: no good");
    assert_eq!(at("list[0]"), "5:1 env.a.traffic.web.\"list[0]\": `list[0]`: no good");
    assert_eq!(at("absent"), "1:16 env.a.traffic.web.absent: `absent`: no good");
}

#[test]
fn an_unknown_provider_is_answered_with_the_closest() {
    let entry = entry("", &[]);
    assert_eq!(
        shown(&entry.unknown_provider(&["haproxi", "nginx"])),
        "2:12 env.a.traffic.web.provider: no traffic provider named \"haproxy\" (did you mean \"haproxi\"?)"
    );
    assert_eq!(
        shown(&entry.unknown_provider(&["nginx", "alb"])),
        "2:12 env.a.traffic.web.provider: no traffic provider named \"haproxy\" (traffic providers: nginx, alb)"
    );
    assert_eq!(
        shown(&entry.unknown_provider(&[])),
        "2:12 env.a.traffic.web.provider: no traffic provider named \"haproxy\" \
         (there are none for traffic yet; the environment sandbox has its own)"
    );
}

#[test]
fn keys_behind_flatten_keep_their_place() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(flatten)]
        inner: Inner,
    }
    #[derive(Debug, Deserialize)]
    struct Inner {
        socket: String,
    }
    let ok: Outer = entry("socket = \"s\"", &[]).settings().expect("settings");
    assert_eq!(ok.inner.socket, "s");
    let error = entry("socket = \"s\"\nsockt = 1", &[]).settings::<Outer>().expect_err("unknown");
    assert!(
        shown(&error).starts_with("4:1 env.a.traffic.web.sockt: unknown key `sockt`"),
        "{}",
        shown(&error)
    );
}

fn resolve(settings: &str, vars: &[(&str, &str)]) -> Result<Resolved, String> {
    let entry = entry(settings, vars);
    let database: Database = entry.settings().map_err(|e| shown(&e))?;
    database.url.resolve(&entry, "url").map_err(|e| shown(&e))
}

#[test]
fn a_setting_can_stand_in_the_file_or_in_a_variable() {
    let plain = resolve("url = \"postgres://x\"", &[]).expect("plain");
    assert_eq!((plain.as_str(), &*plain.to_string()), ("postgres://x", "postgres://x"));
    let hidden = resolve("url = { env = \"DB\" }", &[("DB", "s3cret")]).expect("variable");
    assert_eq!(hidden.as_str(), "s3cret");
    assert_eq!(format!("{hidden} {hidden:?}"), "<env DB> <env DB>");
}

#[test]
fn a_setting_can_stand_in_a_file_of_its_own() {
    let (_dir, top) = folder();
    let config = top.join("contraflow.toml");
    std::fs::write(&config, "[env.a.db.main]\nprovider = \"x\"\nurl.file = \"url\"").expect("write");
    let config = loaded(&config, NO_VARS).expect("config");
    let entry = &config.environments()[0].targets()[0];
    let url = entry.settings::<Database>().expect("settings").url;
    let read = || url.resolve(entry, "url").map_err(|e| e.to_string());

    let path = top.join("url");
    let error = |what: &str| format!("`url`: the file {} {what}", path.display());
    assert_eq!(read().expect_err("absent"), error("does not exist"));
    std::fs::write(&path, "s3cret\r\n").expect("write");
    let value = read().expect("value");
    assert_eq!((value.as_str(), &*format!("{value:?}")), ("s3cret", "<file url>"));
    std::fs::write(&path, "rotated").expect("write");
    assert_eq!(read().expect("value").as_str(), "rotated");
    std::fs::write(&path, "\n").expect("write");
    assert_eq!(read().expect_err("empty"), error("is empty"));
    std::fs::write(&path, b"\xff").expect("write");
    assert_eq!(read().expect_err("bytes"), error("is not UTF-8"));
    std::fs::write(&path, "x".repeat((64 << 10) + 1)).expect("write");
    assert_eq!(read().expect_err("large"), error("is larger than 64KiB, too large for a setting"));
    std::fs::remove_file(&path).expect("remove");
    std::fs::create_dir(&path).expect("folder");
    assert_eq!(read().expect_err("folder"), error("is a folder"));
    assert!(Path::new("url").is_relative());
}

#[test]
fn a_setting_that_cannot_be_fetched_names_its_source_and_its_key() {
    assert_eq!(
        resolve("url = { env = \"DB\" }", &[]).expect_err("not set"),
        "3:1 env.a.traffic.web.url: `url`: the environment variable DB is not set (set DB where contraflow \
         is started, or set `url` another way)"
    );
    assert_eq!(
        resolve("url = { env = \"DB\" }", &[("DB", "")]).expect_err("empty"),
        "3:1 env.a.traffic.web.url: `url`: the environment variable DB is empty"
    );
}

#[test]
fn a_setting_has_one_source() {
    let wrong = |settings: &str| resolve(settings, &[]).expect_err(settings);
    assert_eq!(
        wrong("url = 5"),
        "3:7 env.a.traffic.web.url: `url`: the number `5`, expected text, { env = \"VARIABLE\" }, { file = \"path\" } or { secret = \"name\" }"
    );
    for settings in ["url = {}", "url = { env = \"A\", file = \"b\" }"] {
        assert_eq!(
            wrong(settings),
            "3:7 env.a.traffic.web.url: `url`: expected one of `env`, `file` and `secret`"
        );
    }
    assert_eq!(
        wrong("url = { fiel = \"A\" }"),
        "3:9 env.a.traffic.web.url.fiel: unknown key `url.fiel` (did you mean `file`?)"
    );
    assert_eq!(
        wrong("url = { env = 1 }"),
        "3:15 env.a.traffic.web.url.env: `url.env`: the number `1`, expected text"
    );
    assert_eq!(
        wrong("url = { env = \"A=B\" }"),
        "3:7 env.a.traffic.web.url: `url`: \"A=B\" is not a valid name of an environment variable"
    );
}

#[test]
fn the_store_may_be_named_by_a_variable_or_a_file_and_is_fetched_when_it_is_needed() {
    let (_dir, folder) = folder();
    let path = folder.join("contraflow.toml");
    let at = |text: &str, vars: &[(&str, &str)]| {
        parsed(&path, text, vars.iter().copied()).unwrap_or_else(|e| panic!("{text}: {e}"))
    };
    let url = "postgres://ann:s3cret@db/contraflow";
    assert_eq!(store(&at("store = { env = 'STORE_URL' }", &[("STORE_URL", url)])), url);
    let config = at("store = { file = 'secret/url' }", &[]);
    let error = config.store().expect_err("no such file");
    let missing = format!("`store`: the file {} does not exist", folder.join("secret/url").display());
    assert_eq!((&*error.message, error.frames[0].line), (&*missing, 1));
    std::fs::create_dir(folder.join("secret")).expect("a folder");
    std::fs::write(folder.join("secret/url"), format!("{url}\n")).expect("written");
    assert_eq!(store(&config), url);
    let error = at("\nstore = { env = 'STORE_URL' }", &[]).store().expect_err("not set");
    assert_eq!(error.message, "`store`: the environment variable STORE_URL is not set");
    assert_eq!(error.hints, ["set STORE_URL where contraflow is started, or set `store` another way"]);
    assert_eq!((error.frames[0].line, error.frames[0].column), (2, 1));
    // A variable over the file is the whole of it.
    assert_eq!(store(&at("store = { env = 'STORE_URL' }", &[("CONTRAFLOW_STORE", "runs")])), "runs");
    assert!(!format!("{:?}", at(&format!("store = '{url}'"), &[])).contains("s3cret"));
}

#[test]
fn an_entry_can_be_kept_by_a_provider() {
    fn kept<T: Send + Sync + Clone + 'static>(_: &T) {}
    kept(&entry("", &[]));
}
