//! Random small runbooks with random faults: what must hold for each of them.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use contraflow_runtime::{
    Report, Stop, Takeover,
    effect::Reply,
    error::RunError,
    event::{Event, RunOutcome},
    journal::{RunStatus, record::verify},
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    lab::{Fault, Lab},
    resume::{Death, Kill, mortal},
};

const LAMPS: [&str; 3] = ["a", "b", "c"];

/// A piece of a script.
#[derive(Debug, Clone)]
enum Piece {
    Set(usize, i64),
    Ring { undoable: bool, broken: bool },
    Look(usize),
    Expect(usize, i64),
    Step(Vec<Piece>),
    Parallel(Vec<Vec<Piece>>),
    Try(Vec<Piece>, Vec<Piece>),
    Loop(u8, Vec<Piece>),
    OnRollback(usize),
    Fail,
    Rethrow(Vec<Piece>),
}

fn piece() -> impl Strategy<Value = Piece> {
    let leaf = prop_oneof![
        6 => (0..3_usize, 0..6_i64).prop_map(|(lamp, level)| Piece::Set(lamp, level)),
        2 => (any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(undoable, broken)| Piece::Ring { undoable, broken }),
        2 => (0..3_usize).prop_map(Piece::Look),
        1 => (0..3_usize, 0..3_i64).prop_map(|(lamp, level)| Piece::Expect(lamp, level)),
        2 => (0..3_usize).prop_map(Piece::OnRollback),
        1 => Just(Piece::Fail),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let some = prop::collection::vec(inner, 0..4);
        prop_oneof![
            4 => some.clone().prop_map(Piece::Step),
            3 => prop::collection::vec(some.clone(), 1..4).prop_map(Piece::Parallel),
            2 => (some.clone(), some.clone()).prop_map(|(body, caught)| Piece::Try(body, caught)),
            1 => (1..4_u8, some.clone()).prop_map(|(times, body)| Piece::Loop(times, body)),
            1 => some.prop_map(Piece::Rethrow),
        ]
    })
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        10 => Just(None),
        2 => Just(Some(Fault::Terminal)),
        3 => Just(Some(Fault::Retryable)),
        2 => Just(Some(Fault::LostAnswer)),
        2 => (10..20_i64).prop_map(|level| Some(Fault::HalfDone(level))),
        1 => Just(Some(Fault::DoesItAndPanics)),
    ]
}

/// A script. What a closure of a rollback does to a lamp is undone by what comes after it only if it left the lamp as the run
/// found it, so those closures only ring and look.
fn write(pieces: &[Piece], text: &mut String, depth: usize) {
    let pad = "  ".repeat(depth);
    for piece in pieces {
        match piece {
            Piece::Set(lamp, level) => writeln!(text, "{pad}lab::set(\"{}\", {level});", LAMPS[*lamp]),
            Piece::Ring { undoable, broken } => {
                let bell = if *broken { "broken" } else { "bell" };
                writeln!(text, "{pad}lab::ring(\"{bell}\", #{{ undoable: {undoable} }});")
            }
            Piece::Look(lamp) => writeln!(
                text,
                "{pad}if lab::look(\"{0}\") > 3 {{ note(\"{0} is bright\"); lab::look(\"{0}\"); }}",
                LAMPS[*lamp]
            ),
            Piece::Expect(lamp, level) => writeln!(text, "{pad}lab::expect(\"{}\", {level});", LAMPS[*lamp]),
            Piece::Step(body) => {
                writeln!(text, "{pad}step(\"part\", || {{").unwrap();
                write(body, text, depth + 1);
                writeln!(text, "{pad}}});")
            }
            Piece::Parallel(branches) => {
                writeln!(text, "{pad}parallel([").unwrap();
                for branch in branches {
                    writeln!(text, "{pad} || {{").unwrap();
                    write(branch, text, depth + 1);
                    writeln!(text, "{pad} }},").unwrap();
                }
                writeln!(text, "{pad}]);")
            }
            Piece::Try(body, caught) => {
                writeln!(text, "{pad}try {{").unwrap();
                write(body, text, depth + 1);
                writeln!(text, "{pad}}} catch (e) {{ note(`caught ${{e}}`);").unwrap();
                write(caught, text, depth + 1);
                writeln!(text, "{pad}}}")
            }
            Piece::Rethrow(body) => {
                writeln!(text, "{pad}try {{").unwrap();
                write(body, text, depth + 1);
                writeln!(text, "{pad}}} catch (e) {{ throw e; }}")
            }
            Piece::Loop(times, body) => {
                writeln!(text, "{pad}for i in 0..{times} {{").unwrap();
                write(body, text, depth + 1);
                writeln!(text, "{pad}}}")
            }
            Piece::OnRollback(lamp) => writeln!(
                text,
                "{pad}{{ let n = lab::look(\"{0}\"); on_rollback(|| step(\"back\", || {{ lab::look(\"{0}\"); lab::ring(`was ${{n}}`); }})); }}",
                LAMPS[*lamp]
            ),
            Piece::Fail => writeln!(text, "{pad}fail(\"by chance\");"),
        }
        .unwrap();
    }
}

/// Whether each lamp that is not as it was is among what is left.
fn named(report: &Report, levels: [i64; 3]) -> Result<(), TestCaseError> {
    prop_assert!(!report.left.is_empty());
    for (lamp, level) in LAMPS.iter().zip(levels) {
        let named = report.left.iter().any(|left| left.what.contains(&format!("lab/{lamp}")));
        prop_assert!(level == 0 || named, "{lamp} is {level}: {:?}", report.left);
    }
    Ok(())
}

type Faults = [Vec<Option<Fault>>; 3];

fn check(pieces: &[Piece], faults: &Faults) -> Result<(), TestCaseError> {
    let mut script = String::new();
    write(pieces, &mut script, 0);
    let lab = Lab::new();

    let _ = lab.plan(&script);
    prop_assert!(lab.log().is_empty() && lab.lamps.board().rings.is_empty(), "a plan wrote: {:?}", lab.log());
    prop_assert!(LAMPS.iter().all(|lamp| lab.level(lamp) == 0));

    for (lamp, faults) in LAMPS.iter().zip(faults) {
        let faults = faults.iter().map(|fault| fault.clone().unwrap_or(Fault::None));
        lab.fault(lamp, faults);
    }
    let report = lab.run(&script);
    let levels = LAMPS.map(|lamp| lab.level(lamp));
    match report.outcome {
        RunOutcome::Succeeded => prop_assert!(report.error.is_none() && report.left.is_empty()),
        RunOutcome::RolledBack => prop_assert_eq!(levels, [0, 0, 0], "log: {:?}", lab.log()),
        RunOutcome::Failed => {
            prop_assert_eq!(levels, [0, 0, 0], "log: {:?}", lab.log());
            prop_assert_eq!(report.changes, 0);
        }
        RunOutcome::RollbackIncomplete => named(&report, levels)?,
        other => prop_assert!(false, "unexpected outcome: {other}"),
    }

    let records = lab.tokio.block_on(lab.store.records(&report.run)).unwrap();
    prop_assert!(verify(&records).is_ok());
    let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    prop_assert_eq!(run.status, RunStatus::Ended(report.outcome));

    let before = (lab.log(), lab.lamps.board().rings.clone());
    lab.lamps.board().lamps.clear();
    let again = lab.tokio.block_on(lab.runtime().replay(&run)).unwrap();
    let told = |error: &Option<RunError>| error.as_ref().map(|e| (e.code.clone(), e.message.clone()));
    prop_assert_eq!(
        (again.outcome, told(&again.error)),
        (report.outcome, told(&report.error)),
        "replay differs"
    );
    prop_assert_eq!(again.changes, report.changes);
    prop_assert_eq!((lab.log(), lab.lamps.board().rings.clone()), before, "a replay asked a provider");
    Ok(())
}

#[test]
fn what_must_hold_holds_for_random_runbooks_and_faults() {
    let config = Config { cases: cases(64), failure_persistence: None, ..Config::default() };
    // The same cases each time: a failure here is a failure everywhere.
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed(7); 32]));
    let faults = || prop::collection::vec(fault(), 0..6);
    let cases = (prop::collection::vec(piece(), 1..6), [faults(), faults(), faults()]);
    if let Err(error) = runner.run(&cases, |(pieces, faults)| {
        let mut script = String::new();
        write(&pieces, &mut script, 0);
        check(&pieces, &faults).map_err(|e| match e {
            TestCaseError::Fail(why) => TestCaseError::fail(format!("{why}\n{script}")),
            reject => reject,
        })
    }) {
        panic!("{error}");
    }
}

/// Stops the run after some time, at any await it may be in.
fn check_stopped(
    pieces: &[Piece],
    faults: &Faults,
    after: Duration,
    abort: bool,
) -> Result<(), TestCaseError> {
    let mut script = String::new();
    write(pieces, &mut script, 0);
    let lab = Lab::new();
    for (lamp, faults) in LAMPS.iter().zip(faults) {
        // Where nothing else goes wrong, it takes its time.
        let faults = faults.iter().map(|fault| fault.clone().unwrap_or(Fault::Hangs));
        lab.fault(lamp, faults);
    }
    let stop = lab.stop.clone();
    let report = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(after);
            if abort { stop.abort() } else { stop.cancel() }
        });
        lab.run(&format!("step(\"all\", || {{ {script} sleep(\"30s\"); }});"))
    });
    let levels = LAMPS.map(|lamp| lab.level(lamp));
    match report.outcome {
        RunOutcome::RollbackIncomplete => named(&report, levels)?,
        RunOutcome::RolledBack | RunOutcome::Failed | RunOutcome::Aborted => {
            prop_assert_eq!(levels, [0, 0, 0], "log: {:?}", lab.log());
        }
        other => prop_assert!(false, "unexpected outcome: {other}"),
    }
    let records = lab.tokio.block_on(lab.store.records(&report.run)).unwrap();
    prop_assert!(verify(&records).is_ok());
    let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    prop_assert_eq!(run.status, RunStatus::Ended(report.outcome));
    let events = lab.events.lock().unwrap();
    let count = |test: fn(&Event) -> bool| events.iter().filter(|e| test(&e.event)).count();
    prop_assert_eq!(
        count(|e| matches!(e, Event::EffectStarted { .. })),
        count(|e| matches!(e, Event::EffectEnded { .. }))
    );
    prop_assert_eq!(
        count(|e| matches!(e, Event::StepStarted { .. })),
        count(|e| matches!(e, Event::StepEnded { .. }))
    );
    Ok(())
}

#[test]
fn a_run_that_is_stopped_at_any_moment_leaves_nothing_that_it_does_not_name() {
    let config = Config { cases: cases(24), failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed(3); 32]));
    let faults = || prop::collection::vec(fault(), 0..3);
    let cases = (
        prop::collection::vec(piece(), 1..6),
        [faults(), faults(), faults()],
        (0..120_u64, prop::bool::weighted(0.3)),
    );
    if let Err(error) = runner.run(&cases, |(pieces, faults, (after, abort))| {
        check_stopped(&pieces, &faults, Duration::from_millis(after), abort)
    }) {
        panic!("{error}");
    }
}

/// How many cases to try: as many as `CASES` says, else so many.
fn cases(usual: u32) -> u32 {
    std::env::var("CASES").map_or(usual, |n| n.parse().unwrap())
}

/// Which ones: those of `SEED`, else the same each time.
fn seed(usual: u8) -> u8 {
    std::env::var("SEED").map_or(usual, |n| n.parse().unwrap())
}

/// Lets the run die again and again, and takes it up each time.
fn check_killed(pieces: &[Piece], faults: &Faults, deaths: &[Kill]) -> Result<(), TestCaseError> {
    let mut script = String::new();
    write(pieces, &mut script, 0);
    let lab = Lab::new();
    for (lamp, faults) in LAMPS.iter().zip(faults) {
        let faults = faults.iter().map(|fault| fault.clone().unwrap_or(Fault::None));
        lab.fault(lamp, faults);
    }
    let mut deaths = deaths.iter().copied();
    let first = deaths.next().map_or_else(Death::default, Death::at);
    let store = mortal(&lab, &first);
    let begun = lab.tokio.block_on(lab.runtime_on(store).run(&Lab::bundle(&script), &BTreeMap::new()));
    let mut report = begun.unwrap();
    let mut struck = first.struck();
    // A person that is asked whether something happened lets it fail.
    let mut rounds = 0;
    while struck || report.outcome == RunOutcome::Paused {
        rounds += 1;
        prop_assert!(rounds < 20, "it never ends: {:?}", report.error);
        for asked in lab.tokio.block_on(lab.store.asked(Some(&report.run))).unwrap() {
            let fail = Reply { choice: Some("fail".into()), ..Reply::new(true, "ana") };
            lab.tokio.block_on(lab.store.answer(&report.run, &asked.id, &fail)).unwrap();
        }
        let death = deaths.next().map_or_else(Death::default, Death::at);
        let runtime = lab.runtime_on(mortal(&lab, &death));
        let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
        let how = Takeover { take_over: true, ..Takeover::default() };
        report = match run.status {
            RunStatus::Ended(RunOutcome::Paused) | RunStatus::Running => {
                lab.tokio.block_on(runtime.resume(&run, how, &Stop::default())).unwrap()
            }
            // It died when all was written.
            RunStatus::Ended(outcome) => {
                report.outcome = outcome;
                break;
            }
        };
        struck = death.struck();
    }
    lab.lamps.board().after = None;
    let levels = LAMPS.map(|lamp| lab.level(lamp));
    match report.outcome {
        RunOutcome::Succeeded => {}
        RunOutcome::RolledBack | RunOutcome::Failed => {
            prop_assert_eq!(levels, [0, 0, 0], "{} log: {:?}", report.outcome, lab.log());
        }
        RunOutcome::RollbackIncomplete => {
            if !report.left.is_empty() {
                named(&report, levels)?;
            }
        }
        other => prop_assert!(false, "unexpected outcome: {other}: {:?}", report.error),
    }
    let records = lab.tokio.block_on(lab.store.records(&report.run)).unwrap();
    prop_assert!(verify(&records).is_ok());
    let mut moved: Vec<&str> = records
        .iter()
        .filter(|record| record.body.starts_with("{\"outcome\":") && record.body.contains("{\"changed\":"))
        .map(|record| &*record.id)
        .collect();
    let all = moved.len();
    moved.sort_unstable();
    moved.dedup();
    prop_assert_eq!(moved.len(), all, "an effect was performed twice");
    Ok(())
}

#[test]
fn a_run_that_dies_again_and_again_comes_to_an_end_that_holds_what_must_hold() {
    let config = Config { cases: cases(96), failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed(5); 32]));
    let faults = || prop::collection::vec(fault(), 0..4);
    let kill = (0..3_u8, 0..12_usize).prop_map(|(kind, n)| match kind {
        0 => Kill::BeforeAppend(n),
        1 => Kill::AfterAppend(n),
        _ => Kill::AfterApply(n),
    });
    let cases = (
        prop::collection::vec(piece(), 1..6),
        [faults(), faults(), faults()],
        prop::collection::vec(kill, 1..4),
    );
    if let Err(error) = runner.run(&cases, |(pieces, faults, deaths)| {
        let mut script = String::new();
        write(&pieces, &mut script, 0);
        check_killed(&pieces, &faults, &deaths).map_err(|e| match e {
            TestCaseError::Fail(why) => {
                TestCaseError::fail(format!("{why}\n{deaths:?} {faults:?}\n{script}"))
            }
            reject => reject,
        })
    }) {
        panic!("{error}");
    }
}
