//! From the tables of an environment to its providers.

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::Deref,
    sync::Arc,
};

use crate::{
    codes,
    error::{RunError, did_you_mean},
    provider::{Capability, ProviderError, Providers},
    registry::{Kind, Registry},
};

use super::{ConfigError, Entry, file::File};

/// Why a setting cannot be used. It holds nothing of a value that may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {message}")]
pub struct BadSetting {
    /// The setting; one in a table of the settings is written with dots, such as `pools.green`.
    pub key: String,
    /// What is wrong with it, as a lowercase fragment.
    pub message: String,
    /// What to do next, most useful first.
    pub hints: Vec<String>,
    /// It is the consequence of an error that is reported where it arose.
    follows: bool,
}

impl BadSetting {
    /// What is wrong with the setting `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hints: Vec::new(), follows: false }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds *did you mean*, or else all names that are known.
    #[must_use]
    pub fn names<'n>(self, wrong: &str, what: &str, known: impl Iterator<Item = &'n str> + Clone) -> Self {
        let all: Vec<&str> = known.clone().collect();
        match did_you_mean(wrong, known) {
            Some(close) => self.hint(format!("did you mean \"{close}\"?")),
            None if all.is_empty() => self,
            None => self.hint(format!("{what}: {}", all.join(", "))),
        }
    }
}

/// A setting that turns out to be unusable when it is used.
impl From<BadSetting> for ProviderError {
    fn from(bad: BadSetting) -> Self {
        let error = Self::terminal(codes::CONFIG, bad.to_string());
        Self { hints: bad.hints, ..error }
    }
}

/// How far an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Begun,
    Bound,
    Failed,
}

/// Binds the entries of one environment. One that refers to another is bound after it, in whichever order the file has them.
pub(super) struct Binder<'c> {
    registry: &'c Registry,
    entries: &'c [Entry],
    states: Vec<Cell<State>>,
    providers: RefCell<Providers>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'c> Binder<'c> {
    pub(super) fn new(environment: &str, registry: &'c Registry, entries: &'c [Entry]) -> Self {
        Self {
            registry,
            entries,
            states: entries.iter().map(|_| Cell::new(State::Waits)).collect(),
            providers: RefCell::new(Providers::new(environment.to_owned())),
            errors: RefCell::default(),
        }
    }

    /// Binds all of them.
    pub(super) fn finish(self) -> Result<Providers, Vec<ConfigError>> {
        for index in 0..self.entries.len() {
            self.bind(index);
        }
        let errors = self.errors.into_inner();
        if errors.is_empty() { Ok(self.providers.into_inner()) } else { Err(errors) }
    }

    /// Binds one entry, unless that was tried before. Answers where it stands then.
    fn bind(&self, index: usize) -> State {
        let (Some(entry), Some(state)) = (self.entries.get(index), self.states.get(index)) else {
            return State::Failed;
        };
        if state.get() != State::Waits {
            return state.get();
        }
        state.set(State::Begun);
        let at = Building { entry, binder: self, follows: Cell::new(false) };
        let bound = match self.registry.table(&entry.noun).filter(|_| entry.name.is_empty()) {
            Some(table) => table.bind(&at),
            None => {
                self.kind(entry).and_then(|kind| kind.bind(&at).unwrap_or_else(|| Err(left_out(entry, kind))))
            }
        };
        state.set(match bound {
            Ok(()) => State::Bound,
            Err(error) => {
                if !at.follows.get() {
                    self.errors.borrow_mut().push(entry.placed(error));
                }
                State::Failed
            }
        });
        state.get()
    }

    fn kind(&self, entry: &Entry) -> Result<&'c Kind, ConfigError> {
        let kinds = self.registry.kinds(&entry.noun);
        kinds.clone().find(|kind| kind.name == entry.provider).ok_or_else(|| {
            let here: Vec<&str> =
                kinds.clone().filter(|kind| kind.left_out().is_none()).map(|kind| kind.name).collect();
            entry.unknown_provider(&here)
        })
    }

    fn find(&self, noun: &str, name: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.noun == noun && entry.name == name)
    }
}

fn left_out(entry: &Entry, kind: &Kind) -> ConfigError {
    let feature = kind.left_out().unwrap_or_default();
    let message =
        format!("this build of Contraflow does not include the {} provider \"{}\"", kind.noun, kind.name);
    entry.at_provider(
        RunError::new(codes::CONFIG, message).hint(format!("build it with the feature `{feature}`")),
    )
}

/// What is at hand while one table of the configuration becomes a provider: its [`Entry`], and what else the environment has.
pub struct Building<'b> {
    entry: &'b Entry,
    binder: &'b Binder<'b>,
    follows: Cell<bool>,
}

impl fmt::Debug for Building<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}

impl Deref for Building<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        self.entry
    }
}

impl Building<'_> {
    /// What another table of this environment made, such as the account that the setting `key` names: one for all targets that
    /// name it, whichever stands first in the file.
    ///
    /// # Errors
    /// There is none of that name, it is of another kind than `T`, or it refers to itself.
    pub fn shared<T: Capability + ?Sized>(&self, key: &str, name: &str) -> Result<Arc<T>, BadSetting> {
        let noun = T::NOUN;
        let environment = &self.entry.environment;
        let Some(index) = self.binder.find(noun, name) else {
            let known = self.binder.entries.iter().filter(|entry| entry.noun == noun);
            let bad = BadSetting::new(key, format!("there is no \"{name}\" in [env.{environment}.{noun}]"));
            let bad = bad.names(name, noun, known.clone().map(|entry| &*entry.name));
            return Err(match known.count() {
                0 => bad.hint(format!("add [env.{environment}.{noun}.{name}]")),
                _ => bad,
            });
        };
        match self.binder.bind(index) {
            State::Bound => {}
            State::Begun => {
                return Err(BadSetting::new(
                    key,
                    format!("\"{name}\" in [env.{environment}.{noun}] refers to itself"),
                ));
            }
            State::Waits | State::Failed => {
                let message = format!("\"{name}\" in [env.{environment}.{noun}] cannot be used");
                return Err(BadSetting { follows: true, ..BadSetting::new(key, message) });
            }
        }
        self.binder.providers.borrow().get::<T>(name).map_err(|_| {
            let kind = self.binder.entries.get(index).map_or("", |entry| &entry.provider);
            BadSetting::new(
                key,
                format!("\"{name}\" in [env.{environment}.{noun}] is of the kind \"{kind}\""),
            )
            .hint(format!("the provider \"{}\" needs another kind", self.entry.provider))
        })
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.entry.file
    }

    /// The error at the place of a setting. One that only follows from another is not reported again.
    pub(crate) fn bad_setting(&self, bad: BadSetting) -> ConfigError {
        self.follows.set(bad.follows);
        self.entry.placed_setting(bad)
    }

    pub(crate) fn bind<T: Capability + ?Sized>(&self, made: Arc<T>) {
        self.binder.providers.borrow_mut().bind(self.entry.name.clone(), made);
    }

    pub(crate) fn extend<T: std::any::Any + Send + Sync>(&self, value: Arc<T>) {
        self.binder.providers.borrow_mut().extend(value);
    }
}
