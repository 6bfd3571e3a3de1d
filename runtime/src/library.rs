//! What a library brings: script modules, error codes, checks, and what a configuration can hold.

use std::{borrow::Cow, fmt, sync::Arc};

use contraflow_provider::{
    error::{RunError, codes},
    registry::{Factory, Kind, Noun, Registry, Section, Table},
};
use rhai::Module;

use crate::{lint::Lint, rehearsal::Invariant};

/// An error code with its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The code, such as `probe-failed`.
    pub code: &'static str,
    /// The page in Markdown: the code as its title, one sentence on what it means, then `Cause`, `Example` and `What to do`.
    pub text: &'static str,
}

/// Everything that a library brings, declared in one place and installed at once: in a program with
/// [`Builder::library`](crate::Builder::library), in the configuration with [`Library::registry`].
///
/// ```
/// # use contraflow_runtime::Library;
/// # use rhai::Module;
/// let library = Library::new("flags").module("flag", Module::new());
/// assert_eq!(library.modules().len(), 1);
/// ```
#[derive(Clone)]
pub struct Library {
    name: Cow<'static, str>,
    modules: Vec<(&'static str, Arc<Module>)>,
    words: Vec<Module>,
    pages: Vec<Page>,
    lints: Vec<Arc<dyn Lint>>,
    invariants: Vec<Arc<dyn Invariant>>,
    registry: Registry,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Library({})", self.name)
    }
}

impl Library {
    /// A library that brings nothing yet.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            modules: Vec::new(),
            words: Vec::new(),
            pages: Vec::new(),
            lints: Vec::new(),
            invariants: Vec::new(),
            registry: Registry::default(),
        }
    }

    /// The codes and lints of the runtime itself. They are always there; this is for those who list them.
    pub fn of_runtime() -> Self {
        let mut library = Self::new("runtime");
        library.pages = pages::ALL.to_vec();
        library.lints = crate::lint::lints();
        library
    }

    /// Adds a script module: `traffic` in `traffic::shift`.
    #[must_use]
    pub fn module(mut self, name: &'static str, module: impl Into<Arc<Module>>) -> Self {
        self.modules.push((name, module.into()));
        self
    }

    /// Adds functions that scripts call without a module name.
    #[must_use]
    pub fn words(mut self, words: Module) -> Self {
        self.words.push(words);
        self
    }

    /// Adds an error code with its page.
    #[must_use]
    pub fn page(mut self, code: &'static str, text: &'static str) -> Self {
        self.pages.push(Page { code, text });
        self
    }

    /// Adds what looks for one kind of defect in runbooks.
    #[must_use]
    pub fn lint(mut self, lint: impl Lint + 'static) -> Self {
        self.lints.push(Arc::new(lint));
        self
    }

    /// Adds what must hold at every moment of a rehearsal.
    #[must_use]
    pub fn invariant(mut self, invariant: impl Invariant + 'static) -> Self {
        self.invariants.push(Arc::new(invariant));
        self
    }

    /// Adds a noun of the configuration.
    #[must_use]
    pub fn noun(mut self, noun: Noun) -> Self {
        self.registry.add_noun(noun);
        self
    }

    /// Adds a kind of provider, for a noun of this library or of another.
    #[must_use]
    pub fn provider<F: Factory>(mut self) -> Self {
        self.registry.add_kind(Kind::of::<F>());
        self
    }

    /// Says of a kind of provider that this build leaves it out, and which feature brings it.
    #[must_use]
    pub fn absent(mut self, noun: &'static str, kind: &'static str, feature: &'static str) -> Self {
        self.registry.add_kind(Kind::absent(noun, kind, feature));
        self
    }

    /// Adds a table of settings of an environment.
    #[must_use]
    pub fn section<S: Section>(mut self) -> Self {
        self.registry.add_table(Table::of::<S>());
        self
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its script modules.
    pub fn modules(&self) -> &[(&'static str, Arc<Module>)] {
        &self.modules
    }

    /// Functions that scripts call without a module name.
    pub fn global_words(&self) -> &[Module] {
        &self.words
    }

    /// Its error codes with their pages.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// Its lints.
    pub fn lints(&self) -> &[Arc<dyn Lint>] {
        &self.lints
    }

    /// What must hold at every moment of a rehearsal.
    pub fn invariants(&self) -> &[Arc<dyn Invariant>] {
        &self.invariants
    }

    /// What it brings for the configuration.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What several libraries bring for the configuration. A provider of a later one replaces one of the same name.
    pub fn registry_of<'l>(libraries: impl IntoIterator<Item = &'l Self>) -> Registry {
        let mut all = Registry::default();
        for library in libraries {
            all.extend(&library.registry);
        }
        all
    }

    /// Whether pages and codes of the library are in order, for a test: each page is that of its code and says what it should.
    ///
    /// # Errors
    /// The first page that is not, and what it lacks.
    pub fn check_pages(&self) -> Result<(), RunError> {
        for page in &self.pages {
            let title = format!("# {}\n", page.code);
            for part in [&*title, "\n## Cause\n", "\n## Example\n", "\n## What to do\n"] {
                if !page.text.contains(part) {
                    let message = format!("the page of {} has no {:?}", page.code, part.trim());
                    return Err(RunError::new(codes::INTERNAL, message));
                }
            }
        }
        Ok(())
    }
}

/// The pages of the runtime's own codes.
mod pages {
    use super::Page;

    macro_rules! pages {
        ($($code:literal),+ $(,)?) => {
            pub(super) const ALL: &[Page] =
                &[$(Page { code: $code, text: include_str!(concat!("../errors/", $code, ".md")) }),+];
        };
    }

    pages! {
        "syntax", "unknown-function", "unknown-variable", "ambiguous-name", "loop-capture", "header",
        "import", "parameter", "argument", "script", "failed", "limit", "unknown-target", "unreachable",
        "provider", "timeout", "not-settled", "denied-by-policy", "denied", "no-answer", "cancelled",
        "paused", "aborted", "lost", "stopped", "guard-breached", "locked", "in-doubt", "not-resumable",
        "diverged", "journal", "secret", "unknown-in-plan", "saved-plan", "outside-plan", "undo-failed",
        "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_runtime_has_a_page() {
        let library = Library::of_runtime();
        assert_eq!(library.check_pages(), Ok(()));
        let codes: Vec<&str> = library.pages().iter().map(|page| page.code).collect();
        assert_eq!(codes, codes::ALL);
    }
}
