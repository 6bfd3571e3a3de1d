//! Hand-made runs for the tests of the reporters.

use std::{
    io,
    sync::{Arc, Mutex},
};

use contraflow_runtime::{
    effect::{EffectId, Question, QuestionKind, Reply, Undo},
    error::RunError,
    event::{
        EffectResult, Envelope, Event, Grade, Kind, LeftOver, Mode, NoteLevel, RunOutcome, SCHEMA_VERSION,
        Stream, WaitsFor,
    },
    plan::{Basis, Estimate},
    target::Target,
};
use jiff::{Timestamp, ToSpan};
use serde_json::json;

/// Keeps what a reporter writes.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("buffer").clone()).expect("UTF-8")
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("buffer").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Collects events under a clock that a test sets.
pub(crate) struct Story {
    events: Vec<Envelope>,
    grade: Grade,
    replayed: bool,
}

impl Story {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { events: Vec::new(), grade: Grade::Observed, replayed: false }.with(Event::RunStarted {
            runbook: "blue-green".into(),
            version: "1.0.0".into(),
            environment: "sandbox".into(),
            mode,
            plan: None,
            params: json!({"service": "web", "to": "green", "hold": "15s"}),
        })
    }

    pub(crate) fn with(mut self, event: Event) -> Self {
        let at = Timestamp::from_second(1_772_366_400).expect("time")
            + i64::try_from(self.events.len()).expect("few").seconds();
        self.events.push(Envelope { v: SCHEMA_VERSION, run: "01K3".into(), at, event });
        self
    }

    pub(crate) fn end(
        self,
        outcome: RunOutcome,
        error: Option<RunError>,
        ms: u64,
        changes: usize,
    ) -> Vec<Envelope> {
        self.with(Event::RunEnded { outcome, error, elapsed_ms: ms, estimate_ms: None, changes }).events
    }

    /// The end of a plan that knows how long some of its changes may take.
    pub(crate) fn estimated(self, ms: u64, estimate_ms: u64, changes: usize) -> Vec<Envelope> {
        let (outcome, estimate_ms) = (RunOutcome::Succeeded, Some(estimate_ms));
        self.with(Event::RunEnded { outcome, error: None, elapsed_ms: ms, estimate_ms, changes }).events
    }

    pub(crate) fn open(self, id: &str) -> Self {
        let replayed = self.replayed;
        self.with(Event::StepStarted { id: id.into(), name: name(id), replayed })
    }

    pub(crate) fn close(self, id: &str, ok: bool, elapsed_ms: u64) -> Self {
        let replayed = self.replayed;
        self.with(Event::StepEnded { id: id.into(), name: name(id), ok, elapsed_ms, replayed })
    }

    pub(crate) fn graded(mut self, grade: Grade) -> Self {
        self.grade = grade;
        self
    }

    pub(crate) fn replayed(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }

    pub(crate) fn begin(self, kind: Kind, id: &str, target: Option<&str>, text: &str) -> Self {
        let target = target.map(|t| t.split_once('/').map(|(n, t)| Target::new(n, t)).expect("target"));
        self.with(Event::EffectStarted {
            id: id.into(),
            kind,
            effect: effect(id),
            target,
            text: text.into(),
            waits_for: waits_for(kind, id),
        })
    }

    pub(crate) fn finish(
        self,
        kind: Kind,
        id: &str,
        target: Option<&str>,
        took: (u32, u64),
        result: EffectResult,
    ) -> Self {
        let target = target.map(|t| t.split_once('/').map(|(n, t)| Target::new(n, t)).expect("target"));
        let (grade, replayed) = (self.grade, self.replayed);
        self.with(Event::EffectEnded {
            id: id.into(),
            kind,
            effect: effect(id),
            target,
            about: String::new(),
            waits_for: waits_for(kind, id),
            grade,
            attempts: took.0,
            elapsed_ms: took.1,
            replayed,
            result,
        })
    }

    pub(crate) fn shift(self, id: &str, from: u32, to: u32) -> Self {
        let weights = |green: u32| format!("blue {}, green {green}", 100 - green);
        self.begin(Kind::Change, id, Some("traffic/web"), "")
            .with(Event::Applying { id: id.into(), from_text: weights(from), to_text: weights(to) })
            .finish(
                Kind::Change,
                id,
                Some("traffic/web"),
                (1, 40),
                changed(&weights(from), &weights(to), None),
            )
    }

    pub(crate) fn probe(self, id: &str, text: &str) -> Self {
        self.begin(Kind::Read, id, None, "web/green/health").finish(
            Kind::Read,
            id,
            None,
            (1, 12),
            EffectResult::Answered { text: text.into() },
        )
    }

    pub(crate) fn hold(self, id: &str) -> Self {
        self.begin(Kind::Wait, id, None, "web 15s")
            .with(Event::Progress { id: id.into(), done: 5, total: 15, message: "error_rate 0.02%".into() })
            .finish(
                Kind::Wait,
                id,
                None,
                (1, 15_000),
                EffectResult::Answered { text: "error_rate 0.02% (< 0.1%)".into() },
            )
    }

    pub(crate) fn notify(self, id: &str, text: &str) -> Self {
        self.begin(Kind::Action, id, None, &format!("ops: {text}")).finish(
            Kind::Action,
            id,
            None,
            (1, 3),
            EffectResult::Performed { text: format!("ops: {text}") },
        )
    }
}

fn name(id: &str) -> String {
    EffectId::from(id).name().to_owned()
}

/// Waits of samples are gates of 15 seconds, or questions.
fn waits_for(kind: Kind, id: &str) -> Option<WaitsFor> {
    let question =
        [".confirm", ".approve", ".manual", ".checklist"].iter().any(|verb| name(id).ends_with(verb));
    match kind {
        Kind::Wait if question => Some(WaitsFor::People),
        Kind::Wait => Some(WaitsFor::Condition { at_least_ms: 15_000 }),
        _ => None,
    }
}

fn effect(id: &str) -> String {
    name(id)
}

pub(crate) fn changed(from: &str, to: &str, undo: Option<&str>) -> EffectResult {
    EffectResult::Changed {
        from: json!(from),
        to: json!(to),
        from_text: from.into(),
        to_text: to.into(),
        undo: undo.map_or(Undo::Possible, |why| Undo::Impossible(why.into())),
        note: None,
        estimate: None,
    }
}

fn gate() -> RunError {
    RunError::new("gate-failed", "error_rate of web was 3.1%, wanted < 0.1%")
        .hint("look at the error log of green")
}

/// A blue/green run that succeeds.
pub(crate) fn success() -> Vec<Envelope> {
    let busy = RunError::new("unreachable", "web/green refused the connection");
    let again = Event::Retrying {
        id: "preflight/2:probe.http".into(),
        attempt: 1,
        attempts: 4,
        wait_ms: 200,
        error: busy,
    };
    Story::new(Mode::Live)
        .open("preflight")
        .probe("preflight/1:probe.http", "200 in 12ms")
        .begin(Kind::Read, "preflight/2:probe.http", None, "web/green/ready")
        .with(again)
        .finish(
            Kind::Read,
            "preflight/2:probe.http",
            None,
            (2, 230),
            EffectResult::Answered { text: "200 in 9ms".into() },
        )
        .close("preflight", true, 245)
        .open("migrate")
        .begin(Kind::Action, "migrate/1:exec.run", None, "./backup.sh")
        .with(line("migrate/1:exec.run", "dumping main"))
        .with(line("migrate/1:exec.run", "42 rows"))
        .finish(
            Kind::Action,
            "migrate/1:exec.run",
            None,
            (1, 1800),
            EffectResult::Performed { text: "./backup.sh: exit 0".into() },
        )
        .begin(Kind::Change, "migrate/2:db.migrate", Some("db/main"), "")
        .finish(
            Kind::Change,
            "migrate/2:db.migrate",
            Some("db/main"),
            (1, 80),
            changed("2 applied", "3 applied", Some("0003_x has no down file")),
        )
        .close("migrate", true, 1890)
        .open("shift 5%")
        .shift("shift 5%/1:traffic.shift", 0, 5)
        .hold("shift 5%/2:metrics.hold")
        .close("shift 5%", true, 15_060)
        .open("shift 100%")
        .shift("shift 100%/1:traffic.shift", 5, 100)
        .begin(Kind::Change, "shift 100%/2:traffic.shift", Some("traffic/web"), "")
        .finish(
            Kind::Change,
            "shift 100%/2:traffic.shift",
            Some("traffic/web"),
            (1, 2),
            EffectResult::Unchanged { state: json!({}), text: "blue 0, green 100".into() },
        )
        .with(Event::Note {
            id: "shift 100%".into(),
            level: NoteLevel::Note,
            text: "all on green".into(),
            replayed: false,
        })
        .with(Event::Note {
            id: "shift 100%".into(),
            level: NoteLevel::Log,
            text: "two lines\nof detail".into(),
            replayed: false,
        })
        .close("shift 100%", true, 50)
        .notify("4:notify.send", "cutover to green done")
        .end(RunOutcome::Succeeded, None, 31_204, 3)
}

fn line(id: &str, line: &str) -> Event {
    Event::Output { id: id.into(), stream: Stream::Stdout, line: line.into() }
}

fn breached() -> Story {
    Story::new(Mode::Live)
        .open("shift 5%")
        .shift("shift 5%/1:traffic.shift", 0, 5)
        .close("shift 5%", true, 60)
        .open("shift 25%")
        .shift("shift 25%/1:traffic.shift", 5, 25)
        .begin(Kind::Wait, "shift 25%/2:metrics.hold", None, "web 15s")
        .finish(
            Kind::Wait,
            "shift 25%/2:metrics.hold",
            None,
            (1, 4000),
            EffectResult::Failed { error: gate() },
        )
        .close("shift 25%", false, 4050)
        .with(Event::RollbackStarted { error: gate(), entries: 2 })
        .shift("shift 25%/1:traffic.shift", 25, 5)
}

/// A gate fails and all is undone.
pub(crate) fn rollback() -> Vec<Envelope> {
    breached().shift("shift 5%/1:traffic.shift", 5, 0).with(Event::RollbackEnded { left: vec![] }).end(
        RunOutcome::RolledBack,
        Some(gate()),
        4_300,
        0,
    )
}

/// A gate fails and one thing cannot be undone.
pub(crate) fn incomplete() -> Vec<Envelope> {
    let down = RunError::new("unreachable", "127.0.0.1:9999 refused the connection");
    let left = LeftOver {
        id: "shift 5%/1:traffic.shift".into(),
        what: "traffic.shift traffic/web is \"blue 95, green 5\"".into(),
        by_hand: "set the weights of web to blue 100, green 0".into(),
        why: down.message.clone(),
    };
    breached()
        .begin(Kind::Change, "shift 5%/1:traffic.shift", Some("traffic/web"), "")
        .finish(
            Kind::Change,
            "shift 5%/1:traffic.shift",
            Some("traffic/web"),
            (4, 1400),
            EffectResult::Failed { error: down },
        )
        .with(Event::RollbackEnded { left: vec![left] })
        .end(RunOutcome::RollbackIncomplete, Some(gate()), 5_700, 1)
}

/// Two branches at once, with a step in one of them.
pub(crate) fn parallel() -> Vec<Envelope> {
    let (a, b) = ("warm/1:par[0]/1:exec.run", "warm/1:par[1]/verify/1:probe.http");
    Story::new(Mode::Live)
        .open("warm")
        .begin(Kind::Action, a, None, "./warm.sh blue")
        .open("warm/1:par[1]/verify")
        .begin(Kind::Read, b, None, "web/green/health")
        .with(line(a, "warming"))
        .finish(Kind::Read, b, None, (1, 12), EffectResult::Answered { text: "200 in 12ms".into() })
        .with(line(a, "warm"))
        .close("warm/1:par[1]/verify", true, 13)
        .finish(
            Kind::Action,
            a,
            None,
            (1, 90),
            EffectResult::Performed { text: "./warm.sh blue: exit 0".into() },
        )
        .close("warm", true, 95)
        .end(RunOutcome::Succeeded, None, 96, 0)
}

/// A run that was killed in its second step and goes on.
pub(crate) fn resumed() -> Vec<Envelope> {
    Story::new(Mode::Live)
        .replayed(true)
        .open("shift 5%")
        .finish(
            Kind::Change,
            "shift 5%/1:traffic.shift",
            Some("traffic/web"),
            (1, 40),
            changed("blue 100, green 0", "blue 95, green 5", None),
        )
        .close("shift 5%", true, 0)
        .replayed(false)
        .open("shift 25%")
        .shift("shift 25%/1:traffic.shift", 5, 25)
        .close("shift 25%", true, 45)
        .end(RunOutcome::Succeeded, None, 61_000, 2)
}

/// A run is taken up again behind so many steps, of which each left four lines, and while one is open.
pub(crate) fn resumed_late(steps: u32) -> Vec<Envelope> {
    let begun = Story::new(Mode::Live)
        .with(Event::Resumed { by: "alice".into(), epoch: 2, rollback: false })
        .replayed(true);
    let before = (1..=steps).fold(begun, |story, n| {
        let step = format!("wave {n}");
        story
            .open(&step)
            .finish(
                Kind::Read,
                &format!("{step}/1:probe.http"),
                None,
                (1, 12),
                EffectResult::Answered { text: "200 in 12ms".into() },
            )
            .with(Event::Note {
                id: format!("{step}/2:note").into(),
                level: NoteLevel::Note,
                text: format!("{n} is well"),
                replayed: true,
            })
            .close(&step, true, 20)
    });
    before
        .replayed(false)
        .open("last wave")
        .shift("last wave/1:traffic.shift", 5, 25)
        .close("last wave", true, 45)
        .end(RunOutcome::Succeeded, None, 61_000, 1)
}

/// A person is asked to confirm, to do something, and says no.
pub(crate) fn questions() -> Vec<Envelope> {
    let ask = |story: Story, id: &str, kind, text: &str, yes, comment: Option<&str>| {
        story
            .begin(Kind::Wait, id, None, text)
            .with(Event::Asked { id: id.into(), question: Question::new(kind, text) })
            .with(Event::Replied {
                id: id.into(),
                reply: Reply { comment: comment.map(Into::into), ..Reply::new(yes, "alice") },
            })
    };
    let answered = || EffectResult::Answered { text: String::new() };
    let no = RunError::new("denied", "alice said no: too late today");
    let (confirm, manual, last) = ("1:core.confirm", "2:core.manual", "3:core.confirm");
    let story = Story::new(Mode::Live);
    let story = ask(story, confirm, QuestionKind::Confirm, "retire the old pool?", true, None).finish(
        Kind::Wait,
        confirm,
        None,
        (1, 45_000),
        answered(),
    );
    let story = ask(story, manual, QuestionKind::Manual, "tell support", true, Some("done by phone")).finish(
        Kind::Wait,
        manual,
        None,
        (1, 300),
        answered(),
    );
    ask(story, last, QuestionKind::Confirm, "drop the old table?", false, Some("too late today"))
        .finish(Kind::Wait, last, None, (1, 300), EffectResult::Failed { error: no.clone() })
        .end(RunOutcome::Failed, Some(no), 46_000, 0)
}

/// One run for each outcome that the other samples do not have.
pub(crate) fn endings() -> Vec<Envelope> {
    let stop = RunError::new("cancelled", "stopped by a signal");
    [
        Story::new(Mode::Live).end(RunOutcome::Succeeded, None, 900, 1),
        Story::new(Mode::Replay).replayed(true).probe("1:probe.http", "200 in 12ms").end(
            RunOutcome::Succeeded,
            None,
            0,
            0,
        ),
        Story::new(Mode::Live).end(RunOutcome::Failed, Some(gate()), 3_000, 0),
        Story::new(Mode::Live).end(RunOutcome::Paused, Some(stop.clone()), 125_000, 2),
        Story::new(Mode::Live).end(RunOutcome::Aborted, Some(stop), 3_000, 0),
    ]
    .concat()
}

/// Text from outside that tries to look like something else.
pub(crate) fn hostile() -> Vec<Envelope> {
    let id = "1:exec.run";
    Story::new(Mode::Live)
        .begin(Kind::Action, id, None, "./x\u{1b}[2J")
        .with(line(id, "\u{1b}[1A\u{1b}[2K✓ probe.http web: 200"))
        .with(line(id, "50%\r100%"))
        .with(line(id, "line\nbreak"))
        .finish(
            Kind::Action,
            id,
            None,
            (1, 1),
            EffectResult::Failed {
                error: RunError::new("exec", "exit 1\n✓ all good\n\u{1b}]0;owned\u{7}")
            },
        )
        .end(RunOutcome::Failed, None, 1, 0)
}

/// A plan with everything that a plan can have.
pub(crate) fn plan() -> Vec<Envelope> {
    let noted = EffectResult::Changed {
        from: json!(2),
        to: json!(3),
        from_text: "2 applied".into(),
        to_text: "3 applied".into(),
        undo: Undo::Impossible("0003_x has no down file".into()),
        note: Some("tried in a transaction that was rolled back".into()),
        estimate: Some(Estimate { ms: 40_000, basis: Basis::EarlierRuns }),
    };
    let answered = |text: &str| EffectResult::Answered { text: text.into() };
    let branch = |n: u32| format!("warm/1:par[{n}]/1:probe.http");
    Story::new(Mode::Plan)
        .open("preflight")
        .probe("preflight/1:probe.http", "200 in 12ms")
        .close("preflight", true, 0)
        .open("warm")
        .begin(Kind::Read, &branch(1), None, "web/green/health")
        .begin(Kind::Read, &branch(0), None, "web/blue/health")
        .finish(Kind::Read, &branch(1), None, (1, 0), answered("200 in 9ms"))
        .finish(Kind::Read, &branch(0), None, (1, 0), answered("200 in 8ms"))
        .close("warm", true, 0)
        .open("migrate")
        .begin(Kind::Change, "migrate/1:db.migrate", Some("db/main"), "")
        .finish(Kind::Change, "migrate/1:db.migrate", Some("db/main"), (1, 0), noted)
        .close("migrate", true, 0)
        .open("shift 25%")
        .shift("shift 25%/1:traffic.shift", 0, 25)
        .graded(Grade::Assumed)
        .hold("shift 25%/2:metrics.hold")
        .probe("shift 25%/3:probe.http", "")
        .graded(Grade::Stale)
        .begin(Kind::Read, "shift 25%/4:traffic.weights", None, "web")
        .finish(Kind::Read, "shift 25%/4:traffic.weights", None, (1, 0), answered("blue 100, green 0"))
        .graded(Grade::Assumed)
        .shift("shift 25%/5:traffic.shift", 25, 100)
        .close("shift 25%", true, 900_000)
        .begin(Kind::Wait, "5:core.confirm", None, "retire the old pool?")
        .finish(Kind::Wait, "5:core.confirm", None, (1, 0), answered(""))
        .graded(Grade::Unknown)
        .begin(Kind::Action, "6:exec.run", None, "./retire.sh")
        .finish(
            Kind::Action,
            "6:exec.run",
            None,
            (1, 0),
            EffectResult::Performed { text: "./retire.sh".into() },
        )
        .graded(Grade::Observed)
        .notify("7:notify.send", "cutover to green done")
        .estimated(900_000, 40_000, 3)
}
