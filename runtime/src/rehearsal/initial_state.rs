//! What a rehearsal starts from: the states of targets and the answers of reads, written down or looked at for real, once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use rhai::{
    AST, Dynamic, Engine, Scope,
    packages::{Package as _, StandardPackage},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;

use super::simulation::States;
use crate::{
    clock::BoxFuture,
    effect::{AnyChange, AnyRead, AnyWait, On, Polled},
    error::{Code, NextStep, codes},
    lock::lock,
    provider::{ProviderError, Providers, Retry},
    script::convert,
    secret::Vault,
};

/// A scenario file: what is there at the beginning, and what reads answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitialStateFile {
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
    /// Its whole input, as in a snapshot: this is what is found at the beginning. What follows from a state that the run has changed
    /// goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// With `input`: what is found once the target is in that state, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
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
    /// Code of the error that it fails with, where it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
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

/// An answer of a scenario file that cannot be used.
pub(crate) struct Unusable {
    /// Which, counted from 0.
    pub(crate) answer: usize,
    pub(crate) why: String,
}

fn unusable(answer: usize, key: &str, why: &impl std::fmt::Display) -> Unusable {
    Unusable { answer, why: format!("answers[{answer}].{key}: {why}") }
}

struct Rule {
    answer: Answer,
    value: Option<Value>,
    when: Option<AST>,
    passes_while: Option<AST>,
}

/// What is known at the beginning of each scenario.
pub(crate) struct InitialState {
    /// States that the file gives.
    pub(crate) given: States,
    states: Mutex<BTreeMap<String, Result<Value, ProviderError>>>,
    /// By effect and input.
    answers: Mutex<BTreeMap<(String, String), Result<Value, ProviderError>>>,
    polls: Mutex<BTreeMap<(String, String), Result<Option<Value>, ProviderError>>>,
    /// By effect, input and state: what follows from a state and cannot be told without looking.
    after: Mutex<BTreeMap<(String, String, String), Option<Value>>>,
    /// Reaches nothing.
    nowhere: On,
    rules: Vec<Rule>,
    engine: Engine,
    observer: Option<Observer>,
    /// For a plan: what nobody knows is not known, whatever an effect would assume where all is well.
    pub(crate) plans: bool,
}

/// Looks at the real targets; changes nothing.
pub(crate) struct Observer {
    pub(crate) handle: Handle,
    pub(crate) on: On,
}

/// The name under which a state is kept: its target, with its subresource and the noun of the change where they say more.
pub(super) fn key(change: &dyn AnyChange) -> String {
    named(change.target().as_str(), change.effect(), &change.subresource())
}

/// The key of the state that a read's first target may be in.
pub(super) fn read_key(target: &crate::target::Target, read: &dyn AnyRead) -> String {
    named(target.as_str(), read.effect(), &read.subresource())
}

fn named(target: &str, effect: &str, subresource: &str) -> String {
    let family = effect.split_once('.').map_or(effect, |(noun, _)| noun);
    let noun = target.split_once('/').map_or("", |(noun, _)| noun);
    let mut key = target.to_owned();
    if !subresource.is_empty() {
        key.push('#');
        key.push_str(subresource);
    }
    if family != noun {
        key.push('@');
        key.push_str(family);
    }
    key
}

impl InitialState {
    /// The initial state that a file describes. Without an `observer`, what it does not say is not known.
    ///
    /// # Errors
    /// The answer that cannot be used, and why.
    pub(crate) fn new(file: &InitialStateFile, observer: Option<Observer>) -> Result<Self, Unusable> {
        let mut engine = Engine::new_raw();
        engine.register_global_module(StandardPackage::new().as_shared_module());
        engine.set_max_operations(100_000);
        let compile = |n: usize, name: &str, text: &Option<String>| {
            text.as_ref()
                .map(|text| engine.compile_expression(text).map_err(|e| unusable(n, name, &e)))
                .transpose()
        };
        let mut rules = Vec::new();
        let (mut answers, mut polls, mut after) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (n, answer) in file.answers.iter().enumerate() {
            let ways = [
                answer.value.is_some(),
                answer.json.is_some(),
                answer.fails.is_some(),
                answer.passes_while.is_some(),
            ];
            if ways.iter().filter(|way| **way).count() != 1 {
                let why =
                    format!("answers[{n}]: expected one of `value`, `json`, `fails` and `passes_while`");
                return Err(Unusable { answer: n, why });
            }
            let json = answer.json.as_ref().map(|text| serde_json::from_str(text));
            let json = json.transpose().map_err(|e| unusable(n, "json", &e))?;
            if let (Some(input), None, None) = (&answer.input, &answer.when, &answer.passes_while) {
                let key = (answer.effect.clone(), input.clone());
                if let Some(state) = &answer.state {
                    after.insert((key.0, key.1, state.clone()), answer.value.clone().or(json));
                    continue;
                }
                match &answer.fails {
                    Some(why) => {
                        let error = ProviderError::terminal(
                            answer.code.clone().unwrap_or(codes::PROVIDER.into()),
                            why,
                        );
                        polls.insert(key.clone(), Err(error.clone()));
                        answers.insert(key, Err(error));
                    }
                    None => {
                        answers.insert(key, Ok(answer.value.clone().or(json).unwrap_or_default()));
                    }
                }
                continue;
            }
            rules.push(Rule {
                when: compile(n, "when", &answer.when)?,
                passes_while: compile(n, "passes_while", &answer.passes_while)?,
                value: answer.value.clone().or(json),
                answer: answer.clone(),
            });
        }
        let states = file.states.iter().map(|(key, state)| (key.clone(), Ok(state.clone()))).collect();
        let (answers, polls, after) = (Mutex::new(answers), Mutex::new(polls), Mutex::new(after));
        let nowhere = On::detached(Arc::new(Providers::new("")));
        let given = file.states.clone();
        let states = Mutex::new(states);
        let plans = false;
        Ok(Self { given, states, answers, polls, after, nowhere, rules, engine, observer, plans })
    }

    /// The state of a target before anything was done.
    pub(super) fn state(&self, change: &dyn AnyChange, key: &str) -> Result<Value, ProviderError> {
        if let Some(known) = lock(&self.states).get(key) {
            return known.clone();
        }
        let found = match &self.observer {
            Some(observer) => observer.look(|on| change.observe(on)),
            None => Err(ProviderError::terminal(
                codes::UNKNOWN_IN_PLAN,
                format!("the scenario file has no initial state for {}", change.target()),
            )
            .hint(format!("add it under [states]: \"{key}\" = …"))
            .next_step(NextStep::TakeSnapshot)),
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
                format!("a condition of the scenario file cannot be evaluated: {e}"),
            )
        })
    }

    /// What a read answers before anything was done. `None`: nobody knows.
    pub(super) fn answer(&self, read: &dyn AnyRead) -> Result<Option<Value>, ProviderError> {
        let look = |observer: &Observer| observer.look(|on| read.read(on));
        self.looked(&self.answers, read.effect(), read.input(), look)
    }

    /// What the file says that an effect of exactly this input answers.
    pub(super) fn written(
        &self,
        effect: &'static str,
        input: String,
    ) -> Result<Option<Value>, ProviderError> {
        lock(&self.answers).get(&(effect.to_owned(), input)).cloned().transpose()
    }

    /// What a read answers once its target is in a state. `None`: nobody knows.
    ///
    /// Most follows from the state alone. What does not is looked for once, outside of simulated time.
    pub(super) fn answer_after(&self, read: &dyn AnyRead, state: &Value) -> Option<Value> {
        let mut alone = read.read_after(&self.nowhere, state);
        if let Poll::Ready(Ok(Some(value))) = alone.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(value);
        }
        drop(alone);
        let key = (read.effect().to_owned(), read.input(), state.to_string());
        if let Some(known) = lock(&self.after).get(&key) {
            return known.clone();
        }
        let found = self.observer.as_ref()?.look_after(read, state);
        lock(&self.after).entry(key).or_insert(found).clone()
    }

    /// What a polled wait finds at first: its answer, if it is over by then.
    pub(super) fn polled(&self, wait: &dyn AnyWait) -> Result<Option<Value>, ProviderError> {
        let look = |observer: &Observer| observer.poll(wait);
        self.looked(&self.polls, wait.effect(), wait.input(), look).map(Option::flatten)
    }

    fn looked<T: Clone>(
        &self,
        known: &Mutex<BTreeMap<(String, String), Result<T, ProviderError>>>,
        effect: &str,
        input: String,
        look: impl FnOnce(&Observer) -> Result<T, ProviderError>,
    ) -> Result<Option<T>, ProviderError> {
        let key = (effect.to_owned(), input);
        if let Some(known) = lock(known).get(&key) {
            return known.clone().map(Some);
        }
        let Some(observer) = &self.observer else { return Ok(None) };
        let found = look(observer);
        lock(known).entry(key).or_insert(found).clone().map(Some)
    }

    /// The states at the beginning, as far as they are known.
    pub(crate) fn states(&self) -> BTreeMap<String, Value> {
        lock(&self.states)
            .iter()
            .filter_map(|(key, state)| Some((key.clone(), state.clone().ok()?)))
            .collect()
    }

    /// Everything that was looked at, as a file from which the same rehearsal can be repeated, without the bytes of secrets: also of
    /// those that were read after they had been seen.
    pub(crate) fn snapshot(&self, params: BTreeMap<String, Value>, vault: &Vault) -> InitialStateFile {
        let told = |(effect, input): &(String, String)| Answer {
            effect: effect.clone(),
            input: Some(input.clone()),
            ..Answer::default()
        };
        let fails = |key, error: &ProviderError| Answer {
            fails: Some(error.message.clone()),
            code: Some(error.code.clone()),
            ..told(key)
        };
        let valued = |value: &Value, told: Answer| {
            let mut value = value.clone();
            vault.scrub_json(&mut value);
            match has_null(&value) {
                // TOML has no null.
                true => Answer { json: Some(value.to_string()), ..told },
                false => Answer { value: Some(value), ..told },
            }
        };
        let (reads, polls, after) = (lock(&self.answers), lock(&self.polls), lock(&self.after));
        let reads = reads.iter().map(|(key, answer)| match answer {
            Ok(value) => valued(value, told(key)),
            Err(error) => fails(key, error),
        });
        let polls = polls.iter().filter_map(|(key, found)| Some(fails(key, found.as_ref().err()?)));
        let after = after.iter().filter_map(|((effect, input, state), value)| {
            let told = Answer { state: Some(state.clone()), ..told(&(effect.clone(), input.clone())) };
            Some(valued(value.as_ref()?, told))
        });
        let mut answers: Vec<Answer> = reads.chain(polls).chain(after).collect();
        answers.dedup();
        InitialStateFile { states: self.states(), answers, params }.scrubbed(vault)
    }

    /// The states that could not be looked at, by key, and why.
    pub(crate) fn unseen(&self) -> BTreeMap<String, String> {
        let states = lock(&self.states);
        let failed = states.iter().filter_map(|(key, state)| Some((key, state.as_ref().err()?)));
        failed.map(|(key, error)| (key.clone(), error.message.clone())).collect()
    }
}

impl InitialStateFile {
    fn scrubbed(mut self, vault: &Vault) -> Self {
        let text = |text: &mut String| *text = vault.scrub(text).into_owned();
        let names = |map: BTreeMap<String, Value>| {
            let clean = |(name, mut value): (String, Value)| {
                vault.scrub_json(&mut value);
                (vault.scrub(&name).into_owned(), value)
            };
            map.into_iter().map(clean).collect()
        };
        self.states = names(self.states);
        self.params = names(self.params);
        for Answer { effect: _, of, input, state, when, value, json, fails, code: _, passes_while } in
            &mut self.answers
        {
            text(of);
            [input, state, when, json, fails, passes_while].into_iter().flatten().for_each(text);
            value.iter_mut().for_each(|value| vault.scrub_json(value));
        }
        self
    }
}

impl Observer {
    fn clean(&self, mut value: Value) -> Value {
        self.on.vault().scrub_json(&mut value);
        value
    }

    fn failed(&self, error: ProviderError) -> ProviderError {
        once(error.scrubbed(self.on.vault()))
    }

    /// **Invariant:** what is looked at is scrubbed before anybody has it: rehearsed states, reports and snapshots are made of it.
    fn look<'a>(
        &'a self,
        at: impl FnOnce(&'a On) -> BoxFuture<'a, Result<Value, ProviderError>>,
    ) -> Result<Value, ProviderError> {
        let found = self.handle.block_on(at(&self.on));
        found.map(|value| self.clean(value)).map_err(|error| self.failed(error))
    }

    fn look_after(&self, read: &dyn AnyRead, state: &Value) -> Option<Value> {
        let found = self.handle.block_on(read.read_after(&self.on, state)).ok().flatten();
        found.map(|value| self.clean(value))
    }

    fn poll(&self, wait: &dyn AnyWait) -> Result<Option<Value>, ProviderError> {
        let mut memory = wait.memory(None);
        let poll = wait.poll(&self.on, &mut memory, std::time::Duration::ZERO);
        match self.handle.block_on(poll) {
            Ok(Polled::Over(answer)) => Ok(Some(self.clean(answer))),
            Ok(Polled::Waiting(_)) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }
}

/// What is found is kept: to ask again would find the same.
fn once(error: ProviderError) -> ProviderError {
    ProviderError { retry: Retry::Never, ..error }
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
