//! What a rehearsal starts from: the states of targets and the answers of reads, written down or looked at for real, once.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rhai::{
    AST, Dynamic, Engine, Scope,
    packages::{Package as _, StandardPackage},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::{
    effect::On,
    error::codes,
    kernel::{AnyChange, AnyRead, AnyWait},
    provider::ProviderError,
    script::convert,
};

/// A scenario file: what is there at the beginning, and what reads answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SceneFile {
    /// States by target, such as `"traffic/web" = { blue = 100, green = 0 }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub states: BTreeMap<String, Value>,
    /// What effects answer; the first that fits counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// Values of parameters, unless the command line says otherwise.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
}

/// What some effects answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Name of the effect, such as `probe.http`; `probe.*` for all of a noun.
    pub effect: String,
    /// Part of what it looks at, as plans show it. Empty: anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// Its whole input, as in a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// An expression over `world`, the states by noun and name: it counts only while that holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The same as JSON text, for what TOML cannot say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
    /// It fails, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<String>,
    /// It passes while that expression over `world` holds, and fails otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passes_while: Option<String>,
}

/// What an answer came to.
pub(super) enum Told {
    Value(Value),
    /// All is well; what exactly is answered is not said.
    Passes,
    Fails(String),
}

struct Rule {
    answer: Answer,
    value: Option<Value>,
    when: Option<AST>,
    passes_while: Option<AST>,
}

/// What is known at the beginning of each scenario.
pub(crate) struct Scene {
    states: Mutex<BTreeMap<String, Result<Value, ProviderError>>>,
    answers: Mutex<BTreeMap<(String, String), Result<Value, ProviderError>>>,
    rules: Vec<Rule>,
    engine: Engine,
    looker: Option<Looker>,
}

/// Looks at the real targets; changes nothing.
pub(crate) struct Looker {
    pub(crate) handle: Handle,
    pub(crate) on: On,
}

/// The name under which a state is kept: its target, with the part of it and the noun of the change where they say more.
pub(super) fn key(change: &dyn AnyChange) -> String {
    named(change.target().as_str(), change.effect(), &change.part())
}

/// The key of the state that a read's first target may be in.
pub(super) fn read_key(target: &crate::target::Target, read: &dyn AnyRead) -> String {
    named(target.as_str(), read.effect(), &read.part())
}

fn named(target: &str, effect: &str, part: &str) -> String {
    let family = effect.split_once('.').map_or(effect, |(noun, _)| noun);
    let noun = target.split_once('/').map_or("", |(noun, _)| noun);
    let mut key = target.to_owned();
    if !part.is_empty() {
        key.push('#');
        key.push_str(part);
    }
    if family != noun {
        key.push('@');
        key.push_str(family);
    }
    key
}

impl Scene {
    /// The scene of a file. Without a `looker`, what it does not say is not known.
    ///
    /// # Errors
    /// The key that cannot be used, and why.
    pub(crate) fn new(file: &SceneFile, looker: Option<Looker>) -> Result<Self, String> {
        let mut engine = Engine::new_raw();
        engine.register_global_module(StandardPackage::new().as_shared_module());
        engine.set_max_operations(100_000);
        let compile = |n: usize, name: &str, text: &Option<String>| {
            text.as_ref()
                .map(|text| engine.compile_expression(text).map_err(|e| format!("answers[{n}].{name}: {e}")))
                .transpose()
        };
        let mut rules = Vec::new();
        for (n, answer) in file.answers.iter().enumerate() {
            let ways = [
                answer.value.is_some(),
                answer.json.is_some(),
                answer.fails.is_some(),
                answer.passes_while.is_some(),
            ];
            if ways.iter().filter(|way| **way).count() != 1 {
                return Err(format!("answers[{n}]: want one of `value`, `json`, `fails` and `passes_while`"));
            }
            let json = answer.json.as_ref().map(|text| serde_json::from_str(text));
            let json = json.transpose().map_err(|e| format!("answers[{n}].json: {e}"))?;
            rules.push(Rule {
                when: compile(n, "when", &answer.when)?,
                passes_while: compile(n, "passes_while", &answer.passes_while)?,
                value: answer.value.clone().or(json),
                answer: answer.clone(),
            });
        }
        let states = file.states.iter().map(|(key, state)| (key.clone(), Ok(state.clone()))).collect();
        Ok(Self { states: Mutex::new(states), answers: Mutex::default(), rules, engine, looker })
    }

    /// The state of a target before anything was done.
    pub(super) fn state(&self, change: &dyn AnyChange, key: &str) -> Result<Value, ProviderError> {
        if let Some(known) = lock(&self.states).get(key) {
            return known.clone();
        }
        let found = match &self.looker {
            Some(Looker { handle, on }) => handle.block_on(change.observe(on)),
            None => Err(ProviderError::terminal(
                codes::UNKNOWN_TARGET,
                format!("the scenario does not say how {} stands at the beginning", change.target()),
            )
            .hint(format!("add it under [states]: \"{key}\" = …"))
            .hint("or write down what is there now: cutover snapshot")),
        };
        lock(&self.states).entry(key.to_owned()).or_insert(found).clone()
    }

    /// What a rule says.
    pub(super) fn told(
        &self,
        effect: &str,
        of: &str,
        input: impl Fn() -> String,
        world: impl Fn() -> Dynamic,
    ) -> Result<Option<Told>, ProviderError> {
        for rule in &self.rules {
            let Rule { answer, value, when, passes_while } = rule;
            let fits = match answer.effect.strip_suffix(".*") {
                Some(noun) => effect.split_once('.').is_some_and(|(of, _)| of == noun),
                None => answer.effect == effect,
            };
            if !fits
                || !of.contains(&*answer.of)
                || answer.input.as_ref().is_some_and(|wanted| *wanted != input())
                || !when.as_ref().map_or(Ok(true), |when| self.holds(when, world()))?
            {
                continue;
            }
            return Ok(Some(match (value, passes_while, &answer.fails) {
                (Some(value), ..) => Told::Value(value.clone()),
                (_, Some(passes), _) => match self.holds(passes, world())? {
                    true => Told::Passes,
                    false => Told::Fails(format!(
                        "not while {}",
                        answer.passes_while.as_deref().unwrap_or_default()
                    )),
                },
                (_, _, fails) => Told::Fails(fails.clone().unwrap_or_default()),
            }));
        }
        Ok(None)
    }

    fn holds(&self, expression: &AST, world: Dynamic) -> Result<bool, ProviderError> {
        let mut scope = Scope::new();
        scope.push_constant_dynamic("world", world);
        self.engine.eval_ast_with_scope::<bool>(&mut scope, expression).map_err(|e| {
            ProviderError::terminal(
                codes::SCRIPT,
                format!("a condition of the scenario cannot be evaluated: {e}"),
            )
        })
    }

    /// What a read answers before anything was done. `None`: nobody knows.
    pub(super) fn answer(&self, read: &dyn AnyRead) -> Result<Option<Value>, ProviderError> {
        let look = |looker: &Looker| looker.handle.block_on(read.read(&looker.on));
        self.looked(read.effect(), read.input(), look)
    }

    /// What a polled wait finds at first. `None`: nobody knows.
    pub(super) fn polled(&self, wait: &dyn AnyWait) -> Result<(), ProviderError> {
        let look = |looker: &Looker| {
            let mut memory = wait.memory(None);
            let poll = wait.poll(&looker.on, &mut memory, std::time::Duration::ZERO);
            looker.handle.block_on(poll).map(|_| Value::Null)
        };
        self.looked(wait.effect(), wait.input(), look).map(drop)
    }

    fn looked(
        &self,
        effect: &str,
        input: String,
        look: impl FnOnce(&Looker) -> Result<Value, ProviderError>,
    ) -> Result<Option<Value>, ProviderError> {
        let key = (effect.to_owned(), input);
        if let Some(known) = lock(&self.answers).get(&key) {
            return known.clone().map(Some);
        }
        let Some(looker) = &self.looker else { return Ok(None) };
        let found = look(looker);
        lock(&self.answers).entry(key).or_insert(found).clone().map(Some)
    }

    /// The states at the beginning, as far as they are known.
    pub(crate) fn states(&self) -> BTreeMap<String, Value> {
        lock(&self.states)
            .iter()
            .filter_map(|(key, state)| Some((key.clone(), state.clone().ok()?)))
            .collect()
    }

    /// Everything that was looked at, as a file from which the same rehearsal can be repeated.
    pub(crate) fn snapshot(&self) -> SceneFile {
        let answers = lock(&self.answers);
        let answers = answers.iter().filter_map(|((effect, input), answer)| {
            let value = answer.as_ref().ok().filter(|value| !value.is_null())?;
            let mut told = Answer { effect: effect.clone(), input: Some(input.clone()), ..Answer::default() };
            // TOML has no null.
            match has_null(value) {
                true => told.json = Some(value.to_string()),
                false => told.value = Some(value.clone()),
            }
            Some(told)
        });
        SceneFile { states: self.states(), answers: answers.collect(), params: BTreeMap::new() }
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// States by noun and name, as scripts see them.
pub(crate) fn view(states: &BTreeMap<String, Value>) -> Dynamic {
    let mut nouns: BTreeMap<&str, rhai::Map> = BTreeMap::new();
    for (key, state) in states {
        let (noun, name) = key.split_once('/').unwrap_or(("", key));
        nouns.entry(noun).or_default().insert(name.into(), convert::from_json(state.clone()));
    }
    Dynamic::from_map(
        nouns.into_iter().map(|(noun, names)| (noun.into(), Dynamic::from_map(names))).collect(),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
