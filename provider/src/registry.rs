//! What a configuration can hold for an environment: nouns, the kinds of providers behind them, and tables of settings.
//!
//! A library declares what it brings; a [`Registry`] is all of it, from all libraries. Nothing else lists names: which keys a
//! configuration may have, what *did you mean* suggests, what is documented and what is tested all come from here.

use std::{any::Any, fmt, sync::Arc};

use serde::de::DeserializeOwned;

use crate::{
    config::{self, BadSetting, Building, Config, ConfigError, FILE_NAME},
    provider::{Binding, Capability},
    schema::{self, JsonSchema, OptionSchema, Schema},
};

/// One kind of provider: how a target `[env.NAME.NOUN.TARGET]` with `provider = "KIND"` is made.
///
/// It stands in the provider's own file, and one line of its library names it.
pub trait Factory: 'static {
    /// What it is made as, such as `dyn Traffic`.
    type Capability: Capability + ?Sized;

    /// The settings of one target, all but `provider`. They deny unknown fields. Documentation and editors read their schema.
    type Settings: DeserializeOwned + JsonSchema;

    /// The value of `provider`, such as `haproxy`.
    const KIND: &'static str;

    /// What it is, in one paragraph of Markdown.
    const ABOUT: &'static str;

    /// What it can do that not every provider of its noun can, in a few words each, such as `waits until drained`.
    const CAPABILITIES: &'static [&'static str] = &[];

    /// A target with its settings as it stands in a file: TOML with the header `[env.production.NOUN.NAME]`, and what else of
    /// the environment it needs. A test binds it.
    const EXAMPLE: &'static str;

    /// Makes it from its settings. Nothing is asked and nothing connected: that is for the first use. So a target that nobody
    /// uses costs nothing, and one that is down does not keep others from being used.
    ///
    /// # Errors
    /// The setting that cannot be used.
    fn build(at: &Building<'_>, settings: Self::Settings) -> Result<Arc<Self::Capability>, BadSetting>;
}

/// One table of settings of an environment, `[env.NAME.TABLE]`, that is no target, such as what commands may be run.
///
/// The value is kept where effects find it: [`Providers::extension`](crate::provider::Providers::extension).
pub trait Section: Any + Send + Sync + Sized {
    /// The settings. They deny unknown fields. Documentation and editors read their schema.
    type Settings: DeserializeOwned + JsonSchema;

    /// The name of the table, such as `exec`.
    const NAME: &'static str;

    /// What it is, in one paragraph of Markdown.
    const ABOUT: &'static str;

    /// The table as it stands in a file: TOML with the header `[env.production.NAME]`. A test binds it.
    const EXAMPLE: &'static str;

    /// Makes the value from its settings.
    ///
    /// # Errors
    /// The setting that cannot be used.
    fn build(at: &Building<'_>, settings: Self::Settings) -> Result<Self, BadSetting>;
}

type Bind = fn(&Building<'_>) -> Result<(), ConfigError>;

/// A noun of the configuration: the targets `[env.NAME.NOUN.TARGET]`.
#[derive(Debug, Clone, Copy)]
pub struct Noun {
    /// Its name, such as `traffic`.
    pub name: &'static str,
    /// What its targets are, in one sentence.
    pub about: &'static str,
    /// Whether scripts do not name these targets: other targets refer to them, such as to an account.
    pub shared: bool,
}

impl Noun {
    /// The noun of a capability that scripts use by name.
    pub const fn of<T: Capability + ?Sized>(about: &'static str) -> Self {
        Self { name: T::NOUN, about, shared: false }
    }

    /// The noun of something that targets share and refer to by name, such as an account or a cluster; scripts do not see it.
    pub const fn shared<T: Capability + ?Sized>(about: &'static str) -> Self {
        Self { name: T::NOUN, about, shared: true }
    }
}

/// A kind of provider, as a registry knows it.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The noun whose targets it can stand behind.
    pub noun: &'static str,
    /// The value of `provider`.
    pub name: &'static str,
    /// What it is. Empty where this build leaves it out.
    pub about: &'static str,
    /// What it can do that not every provider of its noun can.
    pub capabilities: &'static [&'static str],
    /// A target of this kind in TOML. Empty where this build leaves it out.
    pub example: &'static str,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    Present { bind: Bind, schema: fn() -> Schema },
    Absent { feature: &'static str },
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.noun, self.name)
    }
}

impl Kind {
    /// The kind that a factory declares.
    pub const fn of<F: Factory>() -> Self {
        Self {
            noun: <F::Capability as Capability>::NOUN,
            name: F::KIND,
            about: F::ABOUT,
            capabilities: F::CAPABILITIES,
            example: F::EXAMPLE,
            how: How::Present { bind: bind::<F>, schema: schema::of::<F::Settings> },
        }
    }

    /// A kind that this build leaves out, and the feature that brings it.
    pub const fn absent(noun: &'static str, name: &'static str, feature: &'static str) -> Self {
        Self { noun, name, about: "", capabilities: &[], example: "", how: How::Absent { feature } }
    }

    /// What its settings look like. `None`: this build leaves it out.
    pub fn schema(&self) -> Option<Schema> {
        match self.how {
            How::Present { schema, .. } => Some(schema()),
            How::Absent { .. } => None,
        }
    }

    /// Its settings, by name, without `provider`. Empty if there are none, or if this build leaves it out.
    pub fn settings(&self) -> Vec<OptionSchema> {
        self.schema().map_or_else(Vec::new, |schema| OptionSchema::list(&schema))
    }

    /// The feature that brings it, if this build leaves it out.
    pub const fn left_out(&self) -> Option<&'static str> {
        match self.how {
            How::Absent { feature } => Some(feature),
            How::Present { .. } => None,
        }
    }

    /// Makes a provider of this kind and binds it. `None`: this build leaves it out.
    pub(crate) fn bind(&self, at: &Building<'_>) -> Option<Result<(), ConfigError>> {
        match self.how {
            How::Present { bind, .. } => Some(bind(at)),
            How::Absent { .. } => None,
        }
    }
}

fn bind<F: Factory>(at: &Building<'_>) -> Result<(), ConfigError> {
    let settings = at.settings::<F::Settings>()?;
    let made = F::build(at, settings).map_err(|bad| at.bad_setting(bad))?;
    at.bind::<F::Capability>(made);
    Ok(())
}

/// A table of settings of an environment, as a registry knows it.
#[derive(Clone, Copy)]
pub struct Table {
    /// Its name, such as `exec`.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The table in TOML.
    pub example: &'static str,
    schema: fn() -> Schema,
    bind: Bind,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Table {
    /// What its settings look like.
    pub fn schema(&self) -> Schema {
        (self.schema)()
    }

    /// Its settings, by name.
    pub fn settings(&self) -> Vec<OptionSchema> {
        OptionSchema::list(&self.schema())
    }

    /// The table that a section declares.
    pub const fn of<S: Section>() -> Self {
        Self {
            name: S::NAME,
            about: S::ABOUT,
            example: S::EXAMPLE,
            schema: schema::of::<S::Settings>,
            bind: keep::<S>,
        }
    }

    /// Makes the value and keeps it.
    pub(crate) fn bind(&self, at: &Building<'_>) -> Result<(), ConfigError> {
        (self.bind)(at)
    }
}

fn keep<S: Section>(at: &Building<'_>) -> Result<(), ConfigError> {
    let settings = at.settings::<S::Settings>()?;
    let made = S::build(at, settings).map_err(|bad| at.bad_setting(bad))?;
    at.extend(Arc::new(made));
    Ok(())
}

/// Everything that a configuration can hold for an environment.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    nouns: Vec<Noun>,
    kinds: Vec<Kind>,
    tables: Vec<Table>,
}

impl Registry {
    /// Adds a noun. One of the same name that is there already stays.
    pub fn add_noun(&mut self, noun: Noun) {
        if self.noun(noun.name).is_none() {
            self.nouns.push(noun);
        }
    }

    /// Adds a kind of provider. It replaces one of the same noun and name, so that a library can bring what another one declares
    /// as left out; what is there is not replaced by what is left out.
    pub fn add_kind(&mut self, kind: Kind) {
        match self.kinds.iter_mut().find(|known| known.noun == kind.noun && known.name == kind.name) {
            Some(_) if kind.left_out().is_some() => {}
            Some(known) => *known = kind,
            None => self.kinds.push(kind),
        }
    }

    /// Adds a table. One of the same name is replaced.
    pub fn add_table(&mut self, table: Table) {
        match self.tables.iter_mut().find(|known| known.name == table.name) {
            Some(known) => *known = table,
            None => self.tables.push(table),
        }
    }

    /// Adds all of another registry.
    pub fn extend(&mut self, other: &Self) {
        other.nouns.iter().for_each(|noun| self.add_noun(*noun));
        other.kinds.iter().for_each(|kind| self.add_kind(*kind));
        other.tables.iter().for_each(|table| self.add_table(*table));
    }

    /// A JSON Schema of configuration files, for editors: completion, descriptions, and what is misspelt.
    pub fn json_schema(&self) -> serde_json::Value {
        config::json_schema(self)
    }

    /// All nouns, in the order in which they were added.
    pub fn nouns(&self) -> &[Noun] {
        &self.nouns
    }

    /// The noun of that name.
    pub fn noun(&self, name: &str) -> Option<&Noun> {
        self.nouns.iter().find(|noun| noun.name == name)
    }

    /// The kinds of providers of a noun, those included that this build leaves out.
    pub fn kinds(&self, noun: &str) -> impl Iterator<Item = &Kind> + Clone {
        self.kinds.iter().filter(move |kind| kind.noun == noun)
    }

    /// All kinds of providers of all nouns.
    pub fn all_kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Whether the example of each kind and table can be bound, for a test: `production` is its environment, and what it shows is in
    /// it. It asks nobody, since nothing is connected before its first use.
    ///
    /// # Errors
    /// What is wrong with the first that cannot, with the name of the kind or table.
    pub fn check_examples(&self) -> Result<(), String> {
        let nothing: [(String, String); 0] = [];
        let kinds = self.kinds.iter().filter(|kind| kind.left_out().is_none());
        let kinds = kinds.map(|kind| (kind.noun, Some(kind.name), kind.example));
        let tables = self.tables.iter().map(|table| (table.name, None, table.example));
        for (noun, kind, example) in kinds.chain(tables) {
            let shown = kind.map_or_else(|| noun.to_owned(), |kind| format!("{noun}/{kind}"));
            let failed = |why: String| format!("the example of {shown}: {why}");
            let config = Config::parse(FILE_NAME, example, nothing.clone(), self);
            let config = config.map_err(|errors| failed(errors.to_string()))?;
            let providers = config.providers("production").map_err(|errors| failed(errors.to_string()))?;
            let is_it = |binding: &Binding| binding.noun == noun && Some(binding.provider.kind()) == kind;
            if kind.is_some() && !providers.bindings().iter().any(is_it) {
                return Err(failed("it shows no target of this kind".to_owned()));
            }
            if kind.is_some() && self.noun(noun).is_none() {
                return Err(failed(format!("no library declares the noun {noun}")));
            }
        }
        Ok(())
    }

    /// All tables.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }
}
