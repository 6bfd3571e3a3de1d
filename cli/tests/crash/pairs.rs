//! Two who take up the same run at the same moment.

use std::{sync::Barrier, thread};

use crate::lab::contraflow::{Contraflow, Done};

const TINY: &str = r#"
const RUNBOOK = #{ name: "tiny" };
step("shift", || traffic::shift("web", "green", 5));
sleep("30ms");
traffic::shift("web", "green", 10);
"#;

/// How often.
const TIMES: u32 = 100;

#[test]
fn a_dead_run_that_two_take_up_at_the_same_moment_goes_on_in_one_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let contraflow = Contraflow::new(folder.path()).set("CONTRAFLOW_ENV", "sandbox");
    contraflow.write("tiny.rhai", TINY);
    let dying = contraflow.clone().set("CONTRAFLOW_CRASH", "apply-after:1");
    let mut why = std::collections::BTreeMap::<&str, u32>::new();
    for _ in 0..TIMES {
        dying.run(&["run", "tiny.rhai"]).exits(128 + 9);
        let together = Barrier::new(2);
        let take_up = || {
            together.wait();
            contraflow.run(&["resume", "last"])
        };
        let [one, other] = thread::scope(|scope| {
            [scope.spawn(take_up), scope.spawn(take_up)].map(|thread| thread.join().expect("an end"))
        });
        let (went_on, refused): (Vec<Done>, Vec<Done>) =
            [one, other].into_iter().partition(|done| done.code == 0);
        assert_eq!(went_on.len(), 1, "{went_on:?} {refused:?}");
        refused[0].says(&["[not-resumable]"]);
        let reasons = ["was just taken over by another runner", "is running", "has ended: succeeded"];
        let reason = reasons.into_iter().find(|reason| refused[0].err.contains(reason));
        assert_eq!(refused[0].code, 1, "{}", refused[0].text());
        *why.entry(reason.unwrap_or_else(|| panic!("{}", refused[0].text()))).or_default() += 1;
        let records = contraflow.run(&["show", "last", "--records", "--output", "json"]).exits(0).events();
        let resumed = records.iter().filter(|record| record["entry"]["resumed"].is_object()).count();
        assert_eq!(resumed, 1, "one epoch more");
        contraflow.run(&["verify", "last"]).exits(0);
    }
    println!("of {TIMES} that came second: {why:?}");
}
