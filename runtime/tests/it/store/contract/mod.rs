//! The contract of stores, part by part.

pub(super) mod locks;
pub(super) mod maintenance;
pub(super) mod plans;
pub(super) mod questions;
pub(super) mod records;
pub(super) mod runs;

use contraflow_runtime::{
    effect::{Question, QuestionKind, Reply},
    event::RunOutcome,
    journal::{Asked, Run, RunStatus, Store, StoreError},
};
use jiff::Timestamp;

/// Tests of all of it, on places that `$place` makes: each part of a store has a contract of its own.
macro_rules! contracts {
    ($place:path) => {
        contracts! { $place:
            runs:
                a_run_is_found_as_it_was_begun_by_its_id_or_an_end_of_it,
                names_of_any_kind_are_kept_as_they_are,
                runs_are_listed_newest_first,
                whoever_has_an_old_epoch_can_do_nothing,
                of_a_hundred_that_acquire_a_run_at_the_same_time_one_gets_it,
                once_a_run_is_acquired_nothing_of_its_old_holder_arrives,
                a_holder_is_alive_as_long_as_it_sends_heartbeats,
                other_scripts_take_the_place_of_the_first_for_whoever_holds_the_run,
                a_request_is_told_to_the_holder_and_forgotten_once_it_is_acquired,
                a_run_that_ended_has_no_holder_and_one_that_paused_can_be_acquired;
            records:
                records_come_back_in_order_whether_they_were_durable_or_not,
                records_of_a_mebibyte_come_back_as_they_were,
                many_runners_write_at_the_same_time;
            locks:
                a_target_is_locked_for_one_run_and_freed_with_its_end,
                of_many_that_lock_a_target_at_the_same_time_one_gets_it;
            questions:
                a_question_is_shown_answered_and_closed,
                an_answer_that_comes_too_late_is_refused,
                every_answer_is_kept_once_and_in_order;
            plans:
                a_plan_is_used_by_one_run_which_is_bound_to_it,
                of_many_runs_from_one_plan_at_the_same_time_one_is_created,
                what_is_said_to_a_plan_is_kept_in_order,
                a_plan_is_forgotten_once_it_has_expired_and_its_run_is_gone;
            maintenance:
                old_runs_go_with_their_records_and_scripts_unless_they_can_go_on,
                a_healthy_store_has_nothing_to_complain_of,
                what_is_told_about_a_store_holds_no_password;
        }
    };
    ($place:path: $($part:ident: $($name:ident),+;)+) => {$(mod $part {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $name() {
            if let Some(place) = $place().await {
                crate::store::contract::$part::$name(&place).await;
            }
        }
    )+})+};
}
pub(super) use contracts;

fn lost<T: std::fmt::Debug>(what: &str, result: Result<T, StoreError>) {
    let error = result.err().unwrap_or_else(|| panic!("{what} was taken"));
    assert!(error.lost, "{what}: {error}");
}

async fn found(store: &dyn Store, id: &str) -> Run {
    let mut found = store.find(id).await.unwrap();
    assert_eq!(found.len(), 1, "{id}: {found:?}");
    found.remove(0)
}

fn succeeded() -> RunStatus {
    RunStatus::Ended(RunOutcome::Succeeded)
}

fn question(run: &str, id: &str, until: Option<Timestamp>) -> Asked {
    Asked {
        run: run.to_owned(),
        id: id.into(),
        question: Question::new(QuestionKind::Confirm, format!("go on with \"{id}\"?")),
        at: Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap(),
        until,
    }
}

fn reply(yes: bool, comment: Option<&str>) -> Reply {
    Reply { comment: comment.map(str::to_owned), ..Reply::new(yes, "bob@desk") }
}
