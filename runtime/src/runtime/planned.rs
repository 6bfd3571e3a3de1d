//! Plans that are kept, and runs from them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{Execution, LoadErrors, Report, Runtime, new_id};
use crate::{
    effect::{Heard, Question, QuestionKind, Reply, Rule},
    error::{NextStep, RunError, codes},
    journal::{Holder, Used},
    kernel::enforcement::Enforcement,
    plan::{Binding, Course, Draft, Earlier, Foreseen, PLAN_VERSION, SavedPlan, compare},
    script::{Bundle, Given, Prepared},
    stop::Stop,
    world::{LiveWorld, PredictedWorld},
};

/// Who has to agree to a plan before it is run, and to what is outside it while it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approvals {
    /// Roles or names, as in `approve`. Empty: anybody.
    pub by: Vec<String>,
    /// How many different people have to agree to a plan. 0: nobody has to.
    pub at_least: u32,
}

/// A plan that was made, and what it foresees.
#[derive(Debug, Clone)]
pub struct Planned {
    /// How it ended.
    pub report: Report,
    /// What it foresees; as far as it got, if it did not succeed.
    pub foreseen: Foreseen,
    /// How it went, for people.
    course: Course,
    runbook: String,
    version: String,
    params: BTreeMap<String, Value>,
    created_at: Timestamp,
}

impl Runtime {
    /// [`Runtime::plan_until`], with what the plan foresees. With a store, earlier runs there say how long changes may take.
    ///
    /// # Errors
    /// As there.
    pub async fn foresee(
        &self,
        bundle: &Bundle,
        params: &BTreeMap<String, Given>,
        stop: &Stop,
    ) -> Result<Planned, LoadErrors> {
        let prepared = self.prepare(bundle, params)?;
        let (runbook, environment) = (&*prepared.header.name, self.inner.providers.environment());
        let earlier = match &self.inner.store {
            Some(store) => Earlier::learn(&**store, runbook, environment).await,
            None => Earlier::default(),
        };
        self.foresee_prepared(prepared, earlier, false, stop).await
    }

    async fn foresee_prepared(
        &self,
        prepared: Prepared,
        earlier: Earlier,
        silent: bool,
        stop: &Stop,
    ) -> Result<Planned, LoadErrors> {
        let (runbook, version) = (prepared.header.name.clone(), prepared.header.version.clone());
        let (params, created_at) = (prepared.params.clone(), self.inner.clock.now());
        let draft = Arc::<Draft>::default();
        let execution =
            Execution { draft: Some(Arc::clone(&draft)), silent, ..Execution::new(new_id(&runbook)) };
        let world = Arc::new(PredictedWorld::knowing(earlier));
        let report = self.execute(prepared, world, execution, stop).await;
        let (foreseen, course) = draft.take(report.elapsed_ms, report.estimate_ms)?;
        Ok(Planned { report, foreseen, course, runbook, version, params, created_at })
    }

    /// A plan as it is kept, to be run within `lasts`.
    ///
    /// # Errors
    /// It did not succeed: what comes behind the place where it stopped is not known.
    pub fn save(&self, planned: &Planned, bundle: &Bundle, lasts: Duration) -> Result<SavedPlan, RunError> {
        if let Some(error) = &planned.report.error {
            let message = format!("the plan is incomplete: {}", error.message);
            return Err(RunError { message, ..error.clone() }.hint("only a complete plan can be saved"));
        }
        let Planned { foreseen, course, runbook, version, params, created_at, .. } = planned.clone();
        let expires_at = created_at
            .checked_add(lasts)
            .map_err(|_| RunError::new(codes::ARGUMENT, "the plan would expire too far in the future"))?;
        let plan = SavedPlan {
            v: PLAN_VERSION,
            id: String::new(),
            created_at,
            created_by: self.inner.started_by.clone(),
            expires_at,
            runbook,
            version,
            environment: self.inner.providers.environment().to_owned(),
            params,
            foreseen,
            course,
            bundle_hash: bundle.hash(),
            bundle: bundle.clone(),
        };
        Ok(plan.sealed())
    }

    /// Runs what a plan says, once. Before anything is changed, it is planned again, and refused if it has become another. While it
    /// runs, it asks before it does anything that the plan does not have.
    ///
    /// # Errors
    /// `saved-plan`: it has expired, is for another environment, was used, or no longer holds. `denied-by-policy`: not enough people
    /// have approved it. Else as [`Runtime::run_until`].
    pub async fn run_plan(&self, plan: &SavedPlan, stop: &Stop) -> Result<Report, LoadErrors> {
        let now = self.inner.clock.now();
        plan.usable(self.inner.providers.environment(), now)?;
        let store = self.store()?;
        let used = store.plan_used(&plan.id).await.map_err(RunError::from)?;
        used.map_or(Ok(()), |run| Err(used_before(&run)))?;
        let given = store.approvals(&plan.id).await.map_err(RunError::from)?;
        self.approved(&given)?;
        let again = self.prepare(&plan.bundle, &plan.given())?;
        let again = self.foresee_prepared(again, Earlier::default(), true, stop).await?;
        if let Some(error) = again.report.error {
            let message = format!("the plan no longer holds: {}", error.message);
            return Err(RunError { message, ..error }.hint("nothing was changed").into());
        }
        if let Err(error) = compare(&plan.foreseen, &again.foreseen) {
            if given.is_empty() {
                return Err(error.into());
            }
            // Should what has moved move back: they agreed to it as it was then.
            store.void_approvals(&plan.id).await.map_err(RunError::from)?;
            return Err(error.hint("approvals of this plan no longer count").into());
        }
        let prepared = self.prepare(&plan.bundle, &plan.given())?;
        let run = new_id(&prepared.header.name);
        let row = self.row(&prepared, &run);
        let binding = Binding::of(plan);
        let used = Used {
            plan: plan.id.clone(),
            until: plan.expires_at,
            binding: serde_json::to_string(&binding).map_err(|e| {
                RunError::new(codes::INTERNAL, format!("a plan cannot be written as JSON: {e}"))
            })?,
        };
        let holder = Holder::this(&self.inner.started_by);
        let other = store.create_planned(&row, &plan.bundle, &holder, &used).await.map_err(RunError::from)?;
        other.map_or(Ok(()), |run| Err(used_before(&run)))?;
        let execution = Execution {
            store: Some(store),
            enforcement: Some(self.enforcement(binding, &self.inner.started_by)),
            ..Execution::new(run)
        };
        let world = Arc::new(LiveWorld::new(Arc::clone(&self.inner.people)));
        Ok(self.execute(prepared, world, execution, stop).await)
    }

    /// Whether enough people have approved a plan for whoever runs it here.
    ///
    /// # Errors
    /// `denied`: somebody said no. `denied-by-policy`: more have to say yes.
    fn approved(&self, given: &[Reply]) -> Result<(), RunError> {
        let wanted = &self.inner.approvals;
        if let Some(no) = given.iter().find(|reply| !reply.yes) {
            let why = no.comment.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            return Err(RunError::new(codes::DENIED, format!("{} denied the plan{why}", no.by)));
        }
        if wanted.at_least == 0 {
            return Ok(());
        }
        let Heard { counted, refused, verdict } = self.question(&self.inner.started_by).hear(given);
        if verdict == Some(true) {
            return Ok(());
        }
        let by = if wanted.by.is_empty() { String::new() } else { format!(" by {}", wanted.by.join(" or ")) };
        let message = format!(
            "the plan has {} of the {} approvals{by} that this environment requires",
            counted.len(),
            wanted.at_least
        );
        let error = RunError::new(codes::DENIED_BY_POLICY, message);
        let error = refused.into_iter().fold(error, |error, why| error.hint(format!("not counted: {why}")));
        Err(error.next_step(NextStep::ApprovePlan))
    }

    /// What those who approve a plan are asked, if `starter` is to run it.
    pub fn question(&self, starter: &str) -> Question {
        let Approvals { by, at_least } = &self.inner.approvals;
        let rule = Rule::new(by, (*at_least).max(1), &self.inner.roles, starter);
        Question { rule, ..Question::new(QuestionKind::Approve, "run this plan?") }
    }

    /// Who decides about what is outside the plan, and what is in it.
    pub(super) fn enforcement(&self, binding: Binding, starter: &str) -> Enforcement {
        let rule = match self.inner.approvals.at_least {
            0 => Rule::default(),
            _ => self.question(starter).rule,
        };
        Enforcement { binding, rule }
    }
}

fn used_before(run: &str) -> RunError {
    RunError::new(codes::SAVED_PLAN, format!("the plan was already used by run {run}"))
        .next_step(NextStep::ShowRun { run: run.to_owned() })
        .next_step(NextStep::MakePlan)
}
