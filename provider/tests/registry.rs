//! A library outside the project: a noun of its own, accounts that targets share, a table, and what is said about mistakes.

#![expect(clippy::expect_used, reason = "helpers of tests: what is missing fails the test")]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use contraflow_provider::{
    config::{BadSetting, Building, Config, Resolve, Setting, Source},
    provider::{Provider, ProviderError, Providers},
    registry::{Factory, Kind, Noun, Registry, Section, Table},
    schema::JsonSchema,
};
use serde::Deserialize;
use tokio::sync::OnceCell;

/// An account: its client is made once, at the first use, whoever uses it.
struct Account {
    name: String,
    region: String,
    token: Option<Source>,
    client: OnceCell<Arc<Client>>,
    made: AtomicU32,
}

struct Client {
    token: String,
}

impl Account {
    async fn client(&self) -> Result<Arc<Client>, ProviderError> {
        let made = self.client.get_or_try_init(|| async {
            self.made.fetch_add(1, Ordering::SeqCst);
            let token = match &self.token {
                Some(source) => source.read().await?.as_str().to_owned(),
                None => String::new(),
            };
            Ok::<_, ProviderError>(Arc::new(Client { token }))
        });
        made.await.cloned()
    }
}

contraflow_provider::capability!(Account, "accounts");

#[async_trait]
impl Provider for Account {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        format!("{} in {}", self.name, self.region)
    }

    async fn check(&self) -> Result<String, ProviderError> {
        self.client().await.map(|_| "ready".to_owned())
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AccountSettings {
    region: String,
    token: Option<Setting>,
}

impl Factory for Account {
    type Capability = Self;
    type Settings = AccountSettings;

    const KIND: &'static str = "cloud";
    const ABOUT: &'static str = "An account of a cloud.";
    const EXAMPLE: &'static str =
        "[env.production.accounts.main]\nprovider = \"cloud\"\nregion = \"north\"\n";

    fn build(at: &Building<'_>, settings: AccountSettings) -> Result<Arc<Self>, BadSetting> {
        Ok(Arc::new(Self {
            name: at.name.clone(),
            region: settings.region,
            token: settings.token.map(|token| at.source("token", &token)).transpose()?,
            client: OnceCell::new(),
            made: AtomicU32::new(0),
        }))
    }
}

/// A second kind of the same noun, which is something else.
struct Other;

contraflow_provider::capability!(Other, "accounts");

#[async_trait]
impl Provider for Other {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        String::new()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        Ok(String::new())
    }
}

impl Factory for Other {
    type Capability = Self;
    type Settings = std::collections::BTreeMap<String, String>;

    const KIND: &'static str = "other";
    const ABOUT: &'static str = "Another cloud.";
    const EXAMPLE: &'static str = "[env.production.accounts.main]\nprovider = \"other\"\n";

    fn build(_: &Building<'_>, _: Self::Settings) -> Result<Arc<Self>, BadSetting> {
        Ok(Arc::new(Self))
    }
}

/// Feature flags, kept in an account.
#[async_trait]
trait Flags: Provider {
    async fn token(&self) -> Result<String, ProviderError>;
}

contraflow_provider::capability!(dyn Flags, "flags");

struct Board(Arc<Account>);

#[async_trait]
impl Provider for Board {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        self.0.check().await
    }
}

#[async_trait]
impl Flags for Board {
    async fn token(&self) -> Result<String, ProviderError> {
        Ok(self.0.client().await?.token.clone())
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BoardSettings {
    account: String,
}

impl Factory for Board {
    type Capability = dyn Flags;
    type Settings = BoardSettings;

    const KIND: &'static str = "board";
    const ABOUT: &'static str = "Flags on a board.";
    const EXAMPLE: &'static str = "[env.production.flags.web]\nprovider = \"board\"\naccount = \"main\"\n\n\
        [env.production.accounts.main]\nprovider = \"cloud\"\nregion = \"north\"\n";

    fn build(at: &Building<'_>, settings: BoardSettings) -> Result<Arc<dyn Flags>, BadSetting> {
        Ok(Arc::new(Self(at.shared("account", &settings.account)?)))
    }
}

/// A table of an environment.
#[derive(Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Windows {
    days: Vec<String>,
}

impl Section for Windows {
    type Settings = Self;

    const NAME: &'static str = "windows";
    const ABOUT: &'static str = "When changes are welcome.";
    const EXAMPLE: &'static str = "[env.production.windows]\ndays = [\"monday\"]\n";

    fn build(_: &Building<'_>, settings: Self) -> Result<Self, BadSetting> {
        match settings.days.iter().find(|day| !day.ends_with("day")) {
            Some(day) => Err(BadSetting::new("days", format!("\"{day}\" is not a day of the week"))),
            None => Ok(settings),
        }
    }
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add_noun(Noun::of::<dyn Flags>("Feature flags"));
    registry.add_noun(Noun::shared::<Account>("Accounts"));
    registry.add_kind(Kind::of::<Board>());
    registry.add_kind(Kind::of::<Account>());
    registry.add_kind(Kind::of::<Other>());
    registry.add_kind(Kind::absent("flags", "vendor", "vendor-flags"));
    registry.add_table(Table::of::<Windows>());
    registry
}

fn bound(text: &str, vars: &[(&str, &str)]) -> Result<Providers, String> {
    let config = Config::parse("contraflow.toml", text, vars.iter().copied(), &registry());
    let shown = |errors: contraflow_provider::config::ConfigErrors| {
        let hints: Vec<String> = errors.iter().flat_map(|error| error.hints.clone()).collect();
        if hints.is_empty() { errors.to_string() } else { format!("{errors} ({})", hints.join("; ")) }
    };
    config.map_err(shown)?.providers("a").map_err(shown)
}

fn refused(text: &str) -> String {
    bound(text, &[]).map(drop).expect_err(text)
}

const TWO: &str = "[env.a.flags]\nweb = { provider = \"board\", account = \"main\" }\n\
    api = { provider = \"board\", account = \"main\" }\n\
    [env.a.accounts.main]\nprovider = \"cloud\"\nregion = \"north\"\ntoken = { env = \"TOKEN\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_name_an_account_share_one_client_made_at_its_first_use() {
    let providers = bound(TWO, &[("TOKEN", "t0ken")]).expect("bound");
    let account = providers.get::<Account>("main").expect("bound");
    assert_eq!(account.made.load(Ordering::SeqCst), 0);
    for name in ["web", "api"] {
        let flags = providers.get::<dyn Flags>(name).expect("bound");
        assert_eq!(flags.token().await.as_deref(), Ok("t0ken"));
        assert_eq!(flags.describe(), "main in north");
    }
    assert_eq!(account.made.load(Ordering::SeqCst), 1);
    assert_eq!(providers.bindings().len(), 3, "an account can be checked like a target");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_missing_is_told_when_it_is_used() {
    let providers = bound(TWO, &[]).expect("bound");
    let error = providers.get::<dyn Flags>("web").expect("bound").check().await.expect_err("no token");
    assert_eq!(error.message, "`token`: the environment variable TOKEN is not set");
    assert_eq!(error.code.as_str(), "config");
}

#[test]
fn an_account_that_is_not_there_is_an_error_at_the_setting() {
    let text = "[env.a.flags.web]\nprovider = \"board\"\naccount = \"mian\"\n\
        [env.a.accounts.main]\nprovider = \"cloud\"\nregion = \"north\"\n";
    assert_eq!(
        refused(text),
        "contraflow.toml:3:1: `account`: there is no \"mian\" in [env.a.accounts] (did you mean \"main\"?)"
    );
    assert_eq!(
        refused("[env.a.flags.web]\nprovider = \"board\"\naccount = \"main\"\n"),
        "contraflow.toml:3:1: `account`: there is no \"main\" in [env.a.accounts] (add [env.a.accounts.main])"
    );
}

#[test]
fn an_account_of_another_kind_is_refused() {
    let text = "[env.a.flags.web]\nprovider = \"board\"\naccount = \"main\"\n\
        [env.a.accounts.main]\nprovider = \"other\"\n";
    assert_eq!(
        refused(text),
        "contraflow.toml:3:1: `account`: \"main\" in [env.a.accounts] is of the kind \"other\" (the \
         provider \"board\" needs another kind)"
    );
}

#[test]
fn what_is_wrong_with_an_account_is_said_once() {
    let text = "[env.a.flags]\nweb = { provider = \"board\", account = \"main\" }\n\
        api = { provider = \"board\", account = \"main\" }\n\
        [env.a.accounts.main]\nprovider = \"cloud\"\nregoin = \"north\"\n";
    assert_eq!(refused(text), "contraflow.toml:6:1: unknown key `regoin` (did you mean `region`?)");
}

#[test]
fn kinds_nouns_and_tables_that_are_misspelt_are_answered_with_the_closest() {
    assert_eq!(
        refused("[env.a.flags.web]\nprovider = \"bord\"\n"),
        "contraflow.toml:2:12: no flags provider named \"bord\" (did you mean \"board\"?)"
    );
    assert_eq!(
        refused("[env.a.flgas.web]\nprovider = \"board\"\n"),
        "contraflow.toml:1:8: unknown key `flgas` (did you mean `flags`?)"
    );
    assert_eq!(
        refused("[env.a.windows]\ndays = [\"may\"]\n"),
        "contraflow.toml:2:1: `days`: \"may\" is not a day of the week"
    );
}

#[test]
fn a_kind_that_this_build_leaves_out_says_which_feature_brings_it() {
    let said = refused("[env.a.flags.web]\nprovider = \"vendor\"\n");
    assert!(said.starts_with("contraflow.toml:2:12: this build of Contraflow does not include"), "{said}");
    assert!(said.contains("`vendor-flags`"), "{said}");
}

#[test]
fn a_library_brings_what_another_one_leaves_out_and_not_the_other_way_round() {
    let mut registry = registry();
    registry.add_kind(Kind::absent("flags", "board", "board"));
    let kinds = |registry: &Registry| -> Vec<(&'static str, bool)> {
        registry.kinds("flags").map(|kind| (kind.name, kind.left_out().is_some())).collect()
    };
    assert_eq!(kinds(&registry), [("board", false), ("vendor", true)]);
    // The light library is installed first, the one that brings the provider later.
    let mut light = Registry::default();
    light.add_kind(Kind::absent("flags", "board", "board"));
    light.extend(&registry);
    assert_eq!(kinds(&light), [("board", false), ("vendor", true)]);
}

#[test]
fn a_table_is_kept_where_effects_find_it() {
    let providers = bound("[env.a.windows]\ndays = [\"friday\"]\n", &[]).expect("bound");
    let windows = providers.extension::<Windows>().expect("kept");
    assert_eq!(windows.days, ["friday"]);
    let vars = [("CONTRAFLOW__ENV__A__WINDOWS__DAYS", "[\"sunday\"]")];
    let providers = bound("[env.a]\n", &vars).expect("a variable may bring it");
    assert_eq!(providers.extension::<Windows>().expect("kept").days, ["sunday"]);
}

#[test]
fn every_example_can_be_bound() {
    assert_eq!(registry().check_examples(), Ok(()));
}

/// What a provider is written against compiles beside the runtime, not after it.
#[test]
fn neither_the_engine_nor_a_store_nor_a_server_is_behind_this_crate() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).expect("the lock file");
    let mut needs: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for package in lock.split("[[package]]").skip(1) {
        let name = package.split("name = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a name");
        let listed = package.split("dependencies = [").nth(1).and_then(|rest| rest.split(']').next());
        let names = listed.unwrap_or_default().split('"').skip(1).step_by(2);
        let names = names.filter_map(|text| text.split(' ').next()).map(str::to_owned);
        needs.entry(name.to_owned()).or_default().extend(names);
    }
    let mut found = std::collections::BTreeSet::new();
    let mut open = vec!["contraflow-provider".to_owned()];
    while let Some(name) = open.pop() {
        if found.insert(name.clone()) {
            open.extend(needs.get(&name).into_iter().flatten().cloned());
        }
    }
    assert!(found.contains("toml_edit") && found.contains("reqwest"), "{found:?}");
    let heavy = |name: &&String| {
        ["rhai", "sqlx", "hickory", "contraflow-runtime"].iter().any(|no| name.starts_with(no))
    };
    assert_eq!(found.iter().filter(heavy).collect::<Vec<_>>(), Vec::<&String>::new());
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    let hyper = manifest.lines().find(|line| line.starts_with("hyper = ")).expect("hyper");
    assert!(!hyper.contains("\"server\""), "{hyper}");
}
