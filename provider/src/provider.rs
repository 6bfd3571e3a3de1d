//! Providers: what stands behind a target, and the errors they answer with.

use std::{
    any::{Any, TypeId},
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::Duration,
};

/// For the implementations of [`Provider`] and of capability traits.
pub use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Code, NextStep, codes, did_you_mean},
    secret::Vault,
};

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Repeating would not help, or could do harm.
    Never,
    /// Safe to repeat; not before `after` where the receiver said so (`Retry-After`).
    Safe {
        /// Shortest wait that the receiver asked for.
        after: Option<Duration>,
    },
}

/// What a provider answers when it could not do what was asked.
///
/// The message is a lowercase fragment that says what happened and names the address or object; it never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// Stable code with a documentation page of its own.
    pub code: Code,
    /// What happened, for a person.
    pub message: String,
    /// What the message begins with and the effect's description says as well, see [`ProviderError::about`].
    pub subject: Option<String>,
    /// Whether the kernel may send the request again.
    pub retry: Retry,
    /// What to do next, most useful first.
    pub hints: Vec<String>,
    /// The same as data, where a program can say how.
    pub next: Vec<NextStep>,
    /// Structured facts for programs, such as what was expected and what came.
    pub detail: Option<serde_json::Value>,
}

impl ProviderError {
    /// The same without the bytes of secrets.
    #[must_use]
    pub fn scrubbed(mut self, vault: &Vault) -> Self {
        let clean = |text: &str| vault.scrub(text).into_owned();
        self.message = clean(&self.message);
        self.subject = self.subject.as_deref().map(clean);
        self.hints.iter_mut().for_each(|hint| *hint = clean(hint));
        if let Some(detail) = &mut self.detail {
            vault.scrub_json(detail);
        }
        self
    }

    /// An error that repeating will not cure.
    pub fn terminal(code: impl Into<Code>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            subject: None,
            retry: Retry::Never,
            hints: Vec::new(),
            next: Vec::new(),
            detail: None,
        }
    }

    /// An error after which the same request may be sent again.
    pub fn retryable(code: impl Into<Code>, message: impl Into<String>) -> Self {
        Self { retry: Retry::Safe { after: None }, ..Self::terminal(code, message) }
    }

    /// The receiver could not be reached; nothing was done there. Retryable.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::retryable(codes::UNREACHABLE, message)
    }

    /// Puts what the error is about before the message: `error_rate was 3%` becomes `web: error_rate was 3%`. It is what the
    /// description of the effect names too, so whoever shows both leaves it out here.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        let subject = subject.into();
        self.message = format!("{subject}: {}", self.message);
        self.subject = Some(subject);
        self
    }

    /// Adds what to do next, as data.
    #[must_use]
    pub fn next_step(mut self, step: NextStep) -> Self {
        self.next.push(step);
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Not to be repeated before `wait` has passed.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry = Retry::Safe { after: Some(wait) };
        self
    }

    /// Adds structured facts.
    #[must_use]
    pub fn detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = Some(detail);
        self
    }
}

/// What every provider can say about itself, whatever it provides.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name used behind `provider =` in the configuration, such as `haproxy`.
    fn kind(&self) -> &'static str;

    /// Where it points, for `contraflow targets`: an address, a path. Never a secret.
    fn describe(&self) -> String;

    /// Reaches it without changing anything and says what answered, such as `HAProxy 2.6.12, 2 pools`.
    ///
    /// # Errors
    /// Why it cannot be used now.
    async fn check(&self) -> Result<String, ProviderError>;
}

/// A capability that targets can have, such as `dyn Traffic`. Implemented for the trait object of each capability trait, with
/// [`capability!`](crate::capability).
pub trait Capability: Any + Send + Sync {
    /// The noun of the script module and of the configuration table, such as `traffic`.
    const NOUN: &'static str;

    /// The same provider, as what it says about itself. It is always `self`.
    fn as_provider(self: Arc<Self>) -> Arc<dyn Provider>;
}

/// Says under which noun targets have a capability: `capability!(dyn Traffic, "traffic");`
#[macro_export]
macro_rules! capability {
    ($capability:ty, $noun:literal) => {
        impl $crate::provider::Capability for $capability {
            const NOUN: &'static str = $noun;

            fn as_provider(self: ::std::sync::Arc<Self>) -> ::std::sync::Arc<dyn $crate::provider::Provider> {
                self
            }
        }
    };
}

/// One bound target.
#[derive(Clone)]
pub struct Binding {
    /// Capability, such as `traffic`.
    pub noun: &'static str,
    /// Name in scripts, such as `web`.
    pub name: String,
    /// What stands behind it.
    pub provider: Arc<dyn Provider>,
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.noun, self.name, self.provider.kind())
    }
}

/// The targets of one environment.
///
/// Built once before a run; effects look their target up by capability and name:
/// `on.get::<dyn Traffic>("web")`.
#[derive(Default)]
pub struct Providers {
    environment: Cow<'static, str>,
    capabilities: BTreeMap<(&'static str, String), (TypeId, Box<dyn Any + Send + Sync>)>,
    bindings: Vec<Binding>,
    extensions: Vec<(TypeId, Arc<dyn Any + Send + Sync>)>,
    ephemeral: bool,
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers")
            .field("environment", &self.environment)
            .field("bindings", &self.bindings)
            .finish()
    }
}

impl Providers {
    /// No targets yet, in the environment of that name.
    pub fn new(environment: impl Into<Cow<'static, str>>) -> Self {
        Self { environment: environment.into(), ..Self::default() }
    }

    /// Says that the targets live and die with this process, like those of the sandbox: no other run can reach them, and a
    /// resumed run finds them new.
    pub fn live_in_this_process(&mut self) {
        self.ephemeral = true;
    }

    /// Whether the targets live and die with this process.
    pub fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// The environment these targets belong to.
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// Binds `name` to a provider of capability `T`: `providers.bind::<dyn Traffic>("web", haproxy)`. A second binding of the same
    /// name replaces the first.
    pub fn bind<T: Capability + ?Sized>(&mut self, name: impl Into<String>, capability: Arc<T>) {
        let name = name.into();
        let provider = Arc::clone(&capability).as_provider();
        self.bindings.retain(|b| !(b.noun == T::NOUN && b.name == name));
        self.bindings.push(Binding { noun: T::NOUN, name: name.clone(), provider });
        self.capabilities.insert((T::NOUN, name), (TypeId::of::<T>(), Box::new(capability)));
    }

    /// The provider of capability `T` that is bound to `name`.
    ///
    /// # Errors
    /// `unknown-target` with what is bound and the closest name.
    pub fn get<T: Capability + ?Sized>(&self, name: &str) -> Result<Arc<T>, ProviderError> {
        self.capabilities
            .get(&(T::NOUN, name.to_owned()))
            .filter(|(id, _)| *id == TypeId::of::<T>())
            .and_then(|(_, capability)| capability.downcast_ref::<Arc<T>>())
            .cloned()
            .ok_or_else(|| self.unknown(T::NOUN, name))
    }

    /// Everything that is bound, in the order of binding.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Keeps a value of an embedding program or a library where effects find it by its type, such as an HTTP client.
    pub fn extend<T: Any + Send + Sync>(&mut self, value: Arc<T>) {
        self.extensions.retain(|(id, _)| *id != TypeId::of::<T>());
        self.extensions.push((TypeId::of::<T>(), value));
    }

    /// The value kept with [`Providers::extend`].
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let (_, value) = self.extensions.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        Arc::clone(value).downcast().ok()
    }

    fn unknown(&self, noun: &str, name: &str) -> ProviderError {
        let known: Vec<&str> = self.bindings.iter().filter(|b| b.noun == noun).map(|b| &*b.name).collect();
        let environment = &self.environment;
        let error = ProviderError::terminal(
            codes::UNKNOWN_TARGET,
            format!("no {noun} target named \"{name}\" in environment \"{environment}\""),
        );
        let error = match did_you_mean(name, known.iter().copied()) {
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error,
        };
        if known.is_empty() {
            error.hint(format!("bind one in contraflow.toml: [env.{environment}.{noun}.{name}]"))
        } else {
            error.hint(format!("{noun} targets here: {}", known.join(", ")))
        }
    }
}
