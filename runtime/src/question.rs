//! Questions to people, their answers, and who may give them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use contraflow_provider::config::{Role, SOMEBODY_ELSE};

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What kind of answer is wanted.
    pub kind: QuestionKind,
    /// The question, or what to do by hand.
    pub text: String,
    /// Points to tick off, for a checklist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
    /// What can be chosen, where yes and no are not enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// Who may answer.
    #[serde(default)]
    pub rule: Rule,
}

/// One thing to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The word to answer with.
    pub name: String,
    /// What it means.
    pub text: String,
}

/// Who may answer a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The role or the names that were asked for, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Names of those who may answer. `None`: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub among: Option<Vec<String>>,
    /// Names of those who may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not: Vec<String>,
    /// How many different people must say yes.
    pub at_least: u32,
}

impl Rule {
    /// The rule for answers `by` roles or people.
    pub fn new(by: &[String], at_least: u32, roles: &BTreeMap<String, Role>, started_by: &str) -> Self {
        let mut rule = Self { by: by.join(" or "), at_least, ..Self::default() };
        let mut starter_too = true;
        for one in by {
            if one == SOMEBODY_ELSE {
                rule.not = vec![started_by.to_owned()];
                continue;
            }
            let among = rule.among.get_or_insert_default();
            match roles.get(one) {
                Some(role) => {
                    let may = |member: &&String| role.may_be_starter || name(member) != name(started_by);
                    starter_too &= role.may_be_starter;
                    among.extend(role.members.iter().filter(may).cloned());
                }
                None => among.push(one.clone()),
            }
        }
        let named = |among: &Vec<String>| among.iter().any(|one| name(one) == name(started_by));
        if !starter_too && !rule.among.as_ref().is_some_and(named) {
            rule.not = vec![started_by.to_owned()];
        }
        rule
    }
}

impl Rule {
    /// Who was asked for, in words that keep roles and people apart: a role that is not configured reads as the person that it is
    /// taken for. Empty: everybody.
    pub fn told(&self) -> String {
        let is_person = |one: &&str| self.among.iter().flatten().any(|known| known == one);
        let named = self.by.split(" or ").filter(|one| !one.is_empty());
        let (people, mut told): (Vec<&str>, Vec<&str>) = named.partition(is_person);
        let people = match *people.as_slice() {
            [] => String::new(),
            [one] => format!("the person {one}"),
            _ => format!("the people {}", people.join(" or ")),
        };
        told.extend(Some(&*people).filter(|people| !people.is_empty()));
        told.join(" or ")
    }
}

impl Default for Rule {
    fn default() -> Self {
        Self { by: String::new(), among: None, not: Vec::new(), at_least: 1 }
    }
}

/// What kind of answer a question wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// Yes or no.
    Confirm,
    /// Yes or no, by those who may.
    Approve,
    /// Do something by hand, then say that it is done.
    Manual,
    /// Tick off a list of points.
    Checklist,
    /// Nobody knows whether an effect happened: decide.
    Doubt,
    /// Whether something is done that the plan of the run does not have.
    OutsidePlan,
}

/// A person's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Yes, or done.
    pub yes: bool,
    /// Who answered.
    pub by: String,
    /// What they added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What was chosen, where there is something to choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<String>,
    /// What shows that it was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// Something that shows that a thing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Words.
    Text(String),
    /// An address to look at.
    Link(String),
    /// A file, by its name, size and content.
    File {
        /// Its path as it was given.
        path: String,
        /// Bytes.
        size: u64,
        /// SHA-256 of its content, in hex.
        sha256: String,
    },
}

impl Reply {
    /// An answer without anything added.
    pub fn new(yes: bool, by: impl Into<String>) -> Self {
        Self { yes, by: by.into(), comment: None, choice: None, evidence: Vec::new(), at: None }
    }
}

impl Question {
    /// A question that anybody may answer.
    pub fn new(kind: QuestionKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), items: Vec::new(), choices: Vec::new(), rule: Rule::default() }
    }

    /// Whether a reply counts, given those before it.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, reply: &Reply, before: &[Reply]) -> Result<(), String> {
        let Rule { among, not, .. } = &self.rule;
        let name = name(&reply.by);
        if not.iter().any(|other| self::name(other) == name) {
            return Err(format!("{name} started the run: somebody else must answer"));
        }
        if let Some(among) = among
            && !among.iter().any(|one| self::name(one) == name)
        {
            return Err(format!("{name} may not answer; these may: {}", self.rule.told()));
        }
        if reply.yes && before.iter().any(|one| one.yes && self::name(&one.by) == name) {
            return Err(format!("{name} has already said yes: {} different people must", self.rule.at_least));
        }
        // A no needs no choice.
        if reply.yes
            && !self.choices.is_empty()
            && !reply.choice.as_ref().is_some_and(|choice| self.choices.iter().any(|c| c.name == *choice))
        {
            let known: Vec<&str> = self.choices.iter().map(|choice| &*choice.name).collect();
            return Err(format!("choose one of {}", known.join(", ")));
        }
        Ok(())
    }

    /// What replies come to that were given one after the other.
    pub fn hear(&self, replies: &[Reply]) -> Heard {
        let (mut counted, mut refused) = (Vec::new(), Vec::new());
        for reply in replies {
            match self.admits(reply, &counted) {
                Ok(()) => counted.push(reply.clone()),
                Err(why) => refused.push(why),
            }
        }
        Heard { verdict: self.verdict(&counted), counted, refused }
    }

    /// What the replies so far come to: yes, no, or `None` while more are wanted.
    pub fn verdict(&self, replies: &[Reply]) -> Option<bool> {
        if replies.iter().any(|reply| !reply.yes) {
            return Some(false);
        }
        let wanted = usize::try_from(self.rule.at_least.max(1)).unwrap_or(usize::MAX);
        (replies.len() >= wanted).then_some(true)
    }
}

/// What replies to a question come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Those that count.
    pub counted: Vec<Reply>,
    /// Why the others do not.
    pub refused: Vec<String>,
    /// Yes, no, or `None` while more are wanted.
    pub verdict: Option<bool>,
}

impl Heard {
    /// Whose replies count, by name.
    pub fn people(&self) -> Vec<&str> {
        self.counted.iter().map(|reply| &*reply.by).collect()
    }
}

/// The person without the machine: `ana` of `ana@host`.
fn name(who: &str) -> &str {
    who.split_once('@').map_or(who, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(rule: Rule) -> Question {
        Question { rule, ..Question::new(QuestionKind::Approve, "go on?") }
    }

    #[test]
    fn only_those_who_may_answer_are_heard() {
        let question = approval(Rule {
            by: "release-manager".into(),
            among: Some(vec!["ana".into(), "bo".into()]),
            not: vec!["bo@laptop".into()],
            at_least: 1,
        });
        assert_eq!(question.admits(&Reply::new(true, "ana@desk"), &[]), Ok(()));
        assert!(question.admits(&Reply::new(true, "bo"), &[]).unwrap_err().contains("started the run"));
        assert!(question.admits(&Reply::new(true, "cy"), &[]).unwrap_err().contains("release-manager"));
    }

    #[test]
    fn what_is_taken_for_a_person_reads_like_one() {
        let roles = BTreeMap::from([(
            "ops".to_owned(),
            Role { members: vec!["ana".into(), "bo".into()], may_be_starter: true },
        )]);
        let none = BTreeMap::new();
        let told = |by: &[&str], roles| {
            let by: Vec<String> = by.iter().map(|one| (*one).to_owned()).collect();
            Rule::new(&by, 1, roles, "cy").told()
        };
        assert_eq!(told(&["ops"], &roles), "ops");
        assert_eq!(told(&["ops"], &none), "the person ops");
        assert_eq!(told(&["ana", "bo"], &roles), "the people ana or bo");
        assert_eq!(told(&["dan", "ops"], &roles), "ops or the person dan");
        assert_eq!(told(&["somebody-else"], &none), "somebody-else");
        assert_eq!(told(&[], &roles), "");
    }

    #[test]
    fn only_replies_that_count_come_to_a_verdict() {
        let question = approval(Rule { at_least: 2, not: vec!["ana".into()], ..Rule::default() });
        let replies = ["ana", "bo", "bo", "cy"].map(|who| Reply::new(true, who));
        let heard = question.hear(&replies[..3]);
        assert_eq!((heard.people(), heard.refused.len(), heard.verdict), (vec!["bo"], 2, None));
        let heard = question.hear(&replies);
        assert_eq!((heard.people(), heard.verdict), (vec!["bo", "cy"], Some(true)));
    }

    #[test]
    fn two_people_are_two_different_people_and_one_no_is_enough() {
        let question = approval(Rule { at_least: 2, ..Rule::default() });
        let ana = Reply::new(true, "ana");
        assert_eq!(question.verdict(std::slice::from_ref(&ana)), None);
        assert!(question.admits(&Reply::new(true, "ana@other"), std::slice::from_ref(&ana)).is_err());
        assert_eq!(question.verdict(&[ana.clone(), Reply::new(true, "bo")]), Some(true));
        assert_eq!(question.verdict(&[ana, Reply::new(false, "bo")]), Some(false));
    }
}
