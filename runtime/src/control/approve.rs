//! `approve` waits until those who may have said yes.

use std::{collections::BTreeMap, time::Duration};

use rhai::{Map, NativeCallContext, plugin::*};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::confirm::yes;
use crate::{
    effect::{Question, QuestionKind, Reply, Role, Rule, Until, Wait},
    error::codes,
    provider::ProviderError,
    quantity::Span,
    script::{ScriptContext as _, ScriptResult, Session},
    vocabulary::SANDBOX,
};

/// Options of `approve`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    /// Roles of `[roles]` in the configuration, names of people, or `"somebody-else"` for everybody except the person
    /// who started the run. If no roles are configured, each is taken as a person's name; otherwise a name that is
    /// neither a role nor a member of one is refused. In the sandbox everybody may approve.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "Names")]
    by: Vec<String>,
    /// So many different people must say yes; one no is enough for a no.
    at_least: u32,
    /// How long to wait.
    timeout: Option<Span>,
    /// What it means when the time is over.
    on_timeout: OnTimeout,
}

impl Default for Options {
    fn default() -> Self {
        Self { by: Vec::new(), at_least: 1, timeout: None, on_timeout: OnTimeout::Deny }
    }
}

/// What it means when nobody answers in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnTimeout {
    /// A no.
    Deny,
    /// The script continues, and `approved` is `false`.
    Approve,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a name or a list of names")]
enum Names {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    Ok(match Names::deserialize(input)? {
        Names::One(name) => vec![name],
        Names::Many(names) => names,
    })
}

/// A question that only some may answer.
#[derive(Debug, Serialize)]
pub(super) struct Approve {
    text: String,
    #[serde(flatten)]
    options: Options,
    /// Follows from the options and the configuration, which may have changed by the time a run is resumed.
    #[serde(skip)]
    rule: Rule,
}

/// Who approved.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Approved {
    approved: bool,
    by: Vec<String>,
    comments: Vec<String>,
}

impl Approve {
    /// The question for this run.
    ///
    /// # Errors
    /// The option that cannot be used, and why.
    pub(super) fn new(
        text: &str,
        options: Options,
        roles: &BTreeMap<String, Role>,
        started_by: &str,
        environment: &str,
    ) -> Result<Self, (&'static str, String)> {
        if options.at_least == 0 {
            return Err(("at_least", "expected 1 or more".to_owned()));
        }
        if options.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            return Err(("timeout", "expected more than 0s".to_owned()));
        }
        contraflow_provider::config::check_approvers(&options.by, roles).map_err(|why| ("by", why))?;
        // In the sandbox there is nobody but whoever tries it.
        let rule = if environment == SANDBOX {
            Rule { by: options.by.join(" or "), at_least: 1, ..Rule::default() }
        } else {
            Rule::new(&options.by, options.at_least, roles, started_by)
        };
        if let Some(among) = &rule.among
            && among.len() < usize::try_from(options.at_least).unwrap_or(usize::MAX)
        {
            let why = match among.len() {
                0 => "nobody may answer: the role has no members other than the person who started the run"
                    .to_owned(),
                few => format!("only {few} may answer, but {} must", options.at_least),
            };
            return Err(("by", why));
        }
        Ok(Self { text: text.to_owned(), options, rule })
    }
}

impl Wait for Approve {
    const ID: &'static str = "approve";
    type Answer = Approved;
    type Memory = ();

    fn describe(&self) -> String {
        let mut text = self.text.clone();
        let wanted = match (self.options.at_least, &*self.rule.told()) {
            (1, "") => String::new(),
            (1, by) => format!("by {by}"),
            (n, "") => format!("by {n} people"),
            (n, by) => format!("by {n} of {by}"),
        };
        let within = self.options.timeout.map(|span| format!("within {span}")).unwrap_or_default();
        let terms =
            [wanted, within].into_iter().filter(|term| !term.is_empty()).collect::<Vec<_>>().join(", ");
        if !terms.is_empty() {
            text.push_str(&format!(" ({terms})"));
        }
        text
    }

    fn until(&self) -> Until {
        let question = Question::new(QuestionKind::Approve, &*self.text);
        Until::Answered(Question { rule: self.rule.clone(), ..question })
    }

    fn deadline(&self) -> Option<Duration> {
        self.options.timeout.map(|timeout| timeout.0)
    }

    fn answer(&self, replies: &[Reply]) -> Result<Approved, ProviderError> {
        yes(replies, |reply| format!("{} denied \"{}\"", reply.by, self.text))?;
        Ok(Approved {
            approved: true,
            by: replies.iter().map(|reply| reply.by.clone()).collect(),
            comments: replies.iter().filter_map(|reply| reply.comment.clone()).collect(),
        })
    }

    fn on_timeout(&self) -> Result<Approved, ProviderError> {
        match self.options.on_timeout {
            OnTimeout::Approve => Ok(Approved { approved: false, by: Vec::new(), comments: Vec::new() }),
            OnTimeout::Deny => {
                let within = self.options.timeout.map(|span| format!(" within {span}")).unwrap_or_default();
                Err(ProviderError::terminal(
                    codes::DENIED,
                    format!("nobody approved \"{}\"{within}", self.text),
                ))
            }
        }
    }

    fn show(&self, answer: &Approved) -> String {
        if !answer.approved {
            return "nobody answered in time; continuing, as the script says".to_owned();
        }
        let comments: String = answer.comments.iter().map(|comment| format!(" ({comment})")).collect();
        format!("approved by {}{comments}", answer.by.join(", "))
    }
}

#[export_module]
pub(super) mod script {
    /// Waits until somebody approves; returns `#{ approved, by, comments }`. A no throws `denied`.
    ///
    /// Answered at the terminal, with `contraflow approve RUN` or `contraflow deny RUN` from any machine that reaches
    /// the store, or by the embedding program. A run without a terminal waits.
    ///
    /// ```rhai
    /// approve("retire the old pool?").approved
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn approve(cx: NativeCallContext<'_>, question: &str) -> ScriptResult {
        super::ask(&cx, question, super::Options::default())
    }

    /// ```rhai
    /// approve("retire the old pool?", #{ by: "release-manager", timeout: "30m" }).approved
    /// ```
    #[rhai_fn(name = "approve", return_raw, volatile)]
    pub fn approve_with(cx: NativeCallContext<'_>, question: &str, options: Map) -> ScriptResult {
        let options = cx.options(options)?;
        super::ask(&cx, question, options)
    }
}

fn ask(cx: &NativeCallContext<'_>, question: &str, options: Options) -> ScriptResult {
    let session = Session::of(cx)?;
    let kernel = &session.kernel;
    match Approve::new(
        question,
        options,
        &kernel.facts.roles,
        &kernel.facts.started_by,
        &kernel.facts.environment,
    ) {
        Ok(effect) => cx.wait(effect),
        Err((option, why)) => Err(cx.bad_argument(option, &why)),
    }
}
