//! A run as a person follows it.
//!
//! Each thing that ends leaves one line on standard output, indented by its steps and marked with its branch; on a terminal,
//! what is going on is shown below that with the time that is left.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use contraflow_runtime::event::{Envelope, Event, Kind, Sink, WaitsFor};
use jiff::Timestamp;

use super::{
    Out,
    effect::Begun,
    format::{clean, span},
    live::Live,
    narrator::Narrator,
    theme::Theme,
};
use crate::screen;

/// Shows a run to a person.
pub(crate) struct Human {
    state: Mutex<State>,
}

struct State {
    narrator: Narrator,
    theme: Theme,
    out: Out,
    live: Option<Live>,
}

impl Human {
    /// Writes to `out`, in the way of `theme`. A live region needs `out` to be the terminal on standard output.
    pub(crate) fn new(out: Out, theme: Theme) -> Self {
        let live = theme.live.then(|| Live::new(theme));
        if let Some(live) = live.as_ref().filter(|_| out.is_stdout()) {
            live.makes_room();
        }
        Self { state: Mutex::new(State { narrator: Narrator::new(theme), theme, out, live }) }
    }
}

impl Sink for Human {
    fn event(&self, envelope: &Envelope) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { narrator, theme, out, live } = &mut *state;
        if narrator.shelve(&envelope.event) {
            return;
        }
        narrator.fit(theme.resized());
        if let (Some(live), Event::EffectEnded { id, .. }) = (live.as_mut(), &envelope.event) {
            live.end(id);
        }
        if let (Some(live), Event::RunEnded { .. }) = (live.as_mut(), &envelope.event) {
            live.clear();
        }
        let mut text = narrator.event(envelope).join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        if out.is_stdout() && matches!(envelope.event, Event::RunEnded { .. }) {
            screen::over();
        }
        if !text.is_empty() {
            let is_shared = out.is_stdout();
            let mut write = || match live {
                Some(live) => live.above(|| out.write(&text)),
                None => out.write(&text),
            };
            if is_shared { screen::lines(&text, write) } else { write() }
        }
        if let Some(live) = live {
            show(live, narrator, envelope);
        }
    }
}

/// Brings the live region up to date.
fn show(live: &mut Live, narrator: &Narrator, envelope: &Envelope) {
    match &envelope.event {
        Event::EffectStarted { id, .. } => {
            if let Some(begun) = narrator.running().get(id) {
                live.begin(id, &narrator.margin(id), &clean(&begun.label), expected(begun));
            }
        }
        Event::Applying { id, to_text, .. } => live.tell(id, format!("-> {}", clean(to_text)), None),
        Event::Progress { id, done, total, message } => {
            let begun = narrator.running().get(id);
            let timed = begun.is_some_and(|b| b.kind == Kind::Wait);
            let left = begun.filter(|_| timed).and_then(|b| time_left(b.at, envelope.at, *done, *total));
            live.tell(id, told(if timed { 0 } else { *total }, *done, &clean(message)), left);
        }
        Event::Retrying { id, attempt, attempts, wait_ms, .. } => {
            live.tell(id, format!("try {} of {attempts} in {}", attempt + 1, span(*wait_ms)), None);
        }
        _ => {}
    }
}

/// How far an effect is, in words.
fn told(total: u64, done: u64, message: &str) -> String {
    match (total, message) {
        (0, message) => message.to_owned(),
        (total, "") => format!("{done} of {total}"),
        (total, message) => format!("{message} ({done} of {total})"),
    }
}

/// How long a wait takes at least, where it is time that it waits for or a condition that takes time.
fn expected(begun: &Begun) -> Option<Duration> {
    let ms = match begun.waits_for? {
        WaitsFor::Time { ms } => ms,
        WaitsFor::Condition { at_least_ms } => at_least_ms,
        WaitsFor::People => return None,
    };
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// What is left of a wait that goes on as evenly as it did so far.
fn time_left(began: Timestamp, now: Timestamp, done: u64, total: u64) -> Option<Duration> {
    if done == 0 || total == 0 {
        return None;
    }
    let passed = Duration::try_from(now.duration_since(began)).ok()?;
    let left = total.saturating_sub(done);
    Duration::try_from_secs_f64(passed.as_secs_f64() * left as f64 / done as f64).ok()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use contraflow_runtime::{
        error::RunError,
        event::{Mode, RunOutcome},
    };

    use super::*;
    use crate::report::samples::{self, Buffer, Story};

    fn shown(events: &[Envelope]) -> String {
        let buffer = Buffer::default();
        let human = Human::new(Out::new(buffer.clone()), Theme::PLAIN);
        events.iter().for_each(|event| human.event(event));
        buffer.text()
    }

    #[test]
    fn a_successful_run() {
        assert_snapshot!(shown(&samples::success()), @r#"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ▸ preflight
          ✓ probe.http web/green/health: 200 in 12ms
          ↻ probe.http web/green/ready: web/green refused the connection (try 1 of 4, next in 200ms)
          ✓ probe.http web/green/ready: 200 in 9ms (2 tries)
        ✓ preflight (245ms)
        ▸ migrate
          … exec.run ./backup.sh
            │ dumping main
            │ 42 rows
          > exec.run ./backup.sh: exit 0 (2s)
          ~ db.migrate main: 2 applied -> 3 applied
            ! point of no return: 0003_x has no down file
        ✓ migrate (2s)
        ▸ shift 5%
          ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5
          … metrics.hold web 15s
          ✓ metrics.hold web 15s: error_rate 0.02% (< 0.1%) (15s)
        ✓ shift 5% (15s)
        ▸ shift 100%
          ~ traffic.shift web: blue 95, green 5 -> blue 0, green 100
          = traffic.shift web: blue 0, green 100 (unchanged)
          • all on green
          · two lines
            │ of detail
        ✓ shift 100% (50ms)
        > notify.send ops: cutover to green done

        succeeded in 31s: 3 changes
        "#);
    }

    #[test]
    fn a_rollback_lists_each_undo() {
        assert_snapshot!(shown(&samples::rollback()), @"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ▸ shift 5%
          ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5
        ✓ shift 5% (60ms)
        ▸ shift 25%
          ~ traffic.shift web: blue 95, green 5 -> blue 75, green 25
          … metrics.hold web 15s
          ✗ metrics.hold web 15s: error_rate of web was 3.1%, wanted < 0.1% (4s)
        ✗ shift 25% (4s)

        ↩ rolling back, 2 to undo
          ~ traffic.shift web: blue 75, green 25 -> blue 95, green 5
          ~ traffic.shift web: blue 95, green 5 -> blue 100, green 0

        rolled back after 4s, 2 undone
        ");
    }

    #[test]
    fn an_incomplete_rollback_says_what_is_left_and_how_to_undo_it_by_hand() {
        assert_snapshot!(shown(&samples::incomplete()), @r#"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ▸ shift 5%
          ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5
        ✓ shift 5% (60ms)
        ▸ shift 25%
          ~ traffic.shift web: blue 95, green 5 -> blue 75, green 25
          … metrics.hold web 15s
          ✗ metrics.hold web 15s: error_rate of web was 3.1%, wanted < 0.1% (4s)
        ✗ shift 25% (4s)

        ↩ rolling back, 2 to undo
          ~ traffic.shift web: blue 75, green 25 -> blue 95, green 5
          ✗ traffic.shift web: 127.0.0.1:9999 refused the connection (4 tries, 1s)

        rollback incomplete after 6s, 1 left to undo by hand
          1. traffic.shift traffic/web is "blue 95, green 5" (shift 5%/1:traffic.shift)
             by hand: set the weights of web to blue 100, green 0
             why: 127.0.0.1:9999 refused the connection
        "#);
    }

    #[test]
    fn branches_that_interleave_are_told_apart() {
        assert_snapshot!(shown(&samples::parallel()), @r#"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ▸ warm
          [1] ▸ verify
          [0] … exec.run ./warm.sh blue
          [0]   │ warming
          [1]   ✓ probe.http web/green/health: 200 in 12ms
          [0]   │ warm
          [1] ✓ verify (13ms)
          [0] > exec.run ./warm.sh blue: exit 0
        ✓ warm (95ms)

        succeeded in 96ms: no changes
        "#);
    }

    #[test]
    fn a_resumed_run_marks_what_was_done_before() {
        assert_snapshot!(shown(&samples::resumed()), @r#"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ▸ shift 5%
          ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5 (from the journal)
        ✓ shift 5% (0s)
        ▸ shift 25%
          ~ traffic.shift web: blue 95, green 5 -> blue 75, green 25
        ✓ shift 25% (45ms)

        succeeded in 1m1s: 2 changes
        "#);
    }

    #[test]
    fn of_what_the_journal_had_the_last_lines_are_shown_and_the_others_counted() {
        assert_snapshot!(shown(&samples::resumed_late(40)), @"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ▶ resumed by alice, runner 2
        │  148 more lines from the journal
        ▸ wave 38
          ✓ probe.http: 200 in 12ms (from the journal)
          • 38 is well
        ✓ wave 38 (20ms)
        ▸ wave 39
          ✓ probe.http: 200 in 12ms (from the journal)
          • 39 is well
        ✓ wave 39 (20ms)
        ▸ wave 40
          ✓ probe.http: 200 in 12ms (from the journal)
          • 40 is well
        ✓ wave 40 (20ms)
        ▸ last wave
          ~ traffic.shift web: blue 95, green 5 -> blue 75, green 25
        ✓ last wave (45ms)

        succeeded in 1m1s: 1 change
        ");
    }

    #[test]
    fn as_many_lines_as_are_shown_leave_nothing_to_count() {
        let text = shown(&samples::resumed_late(3));
        assert!(!text.contains("more lines from the journal") && text.contains("wave 1"), "{text}");
        assert!(shown(&samples::resumed_late(4)).contains("\n│  4 more lines from the journal\n"));
    }

    #[test]
    fn questions_and_their_answers() {
        assert_snapshot!(shown(&samples::questions()), @"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ? retire the old pool?
        ✓ core.confirm retire the old pool?: yes, by alice (45s)
        ? by hand: tell support
        ✓ core.manual tell support: yes, by alice: done by phone
        ? drop the old table?
        ✗ core.confirm drop the old table?: alice said no: too late today

        failed after 46s, nothing to undo
        ");
    }

    #[test]
    fn each_way_a_run_can_end_has_its_line() {
        assert_snapshot!(shown(&samples::endings()), @r#"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green

        succeeded in 900ms: 1 change
        ▶ replay of blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ✓ probe.http web/green/health: 200 in 12ms

        succeeded in 0s: no changes
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green

        failed after 3s, nothing to undo: error_rate of web was 3.1%, wanted < 0.1%
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green

        paused after 2m5s: run 01K3 can be resumed: stopped by a signal
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green

        aborted after 3s: stopped by a signal
        "#);
    }

    #[test]
    fn a_terminal_gets_colours_but_the_same_words() {
        let buffer = Buffer::default();
        let human = Human::new(Out::new(buffer.clone()), Theme { colour: true, ..Theme::PLAIN });
        samples::rollback().iter().for_each(|event| human.event(event));
        let coloured = buffer.text();
        assert!(coloured.contains("\u{1b}[33m~\u{1b}[0m traffic.shift web: "), "{coloured}");
        assert_eq!(clean(&coloured), clean(&shown(&samples::rollback())));
    }

    #[test]
    fn what_the_script_or_a_child_prints_cannot_forge_lines() {
        let text = shown(&samples::hostile());
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
        assert_snapshot!(text, @r#"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        … exec.run ./x
          │ ✓ probe.http web: 200
          │ 100%
          │ line
          │ break
        ✗ exec.run ./x: exit 1
          │ ✓ all good

        failed after 1ms, nothing to undo
        "#);
    }

    #[test]
    fn in_a_terminal_long_lines_are_folded() {
        let buffer = Buffer::default();
        let human = Human::new(Out::new(buffer.clone()), Theme { width: Some(50), ..Theme::PLAIN });
        samples::incomplete().iter().for_each(|event| human.event(event));
        assert_snapshot!(buffer.text(), @r#"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ▸ shift 5%
          ~ traffic.shift web: blue 100, green 0 -> blue
              95, green 5
        ✓ shift 5% (60ms)
        ▸ shift 25%
          ~ traffic.shift web: blue 95, green 5 -> blue
              75, green 25
          … metrics.hold web 15s
          ✗ metrics.hold web 15s: error_rate of web was
              3.1%, wanted < 0.1% (4s)
        ✗ shift 25% (4s)

        ↩ rolling back, 2 to undo
          ~ traffic.shift web: blue 75, green 25 -> blue
              95, green 5
          ✗ traffic.shift web: 127.0.0.1:9999 refused the
              connection (4 tries, 1s)

        rollback incomplete after 6s, 1 left to undo by
            hand
          1. traffic.shift traffic/web is "blue 95, green
              5" (shift 5%/1:traffic.shift)
             by hand: set the weights of web to blue 100,
                 green 0
             why: 127.0.0.1:9999 refused the connection
        "#);
    }

    #[test]
    fn an_error_that_no_effect_told_is_told_once() {
        let why = RunError::new("script", "weights do not add up");
        let events = Story::new(Mode::Live)
            .shift("1:traffic.shift", 0, 5)
            .with(Event::RollbackStarted { error: why.clone(), entries: 1 })
            .shift("1:traffic.shift", 5, 0)
            .with(Event::RollbackEnded { left: Vec::new() })
            .end(RunOutcome::RolledBack, Some(why), 60, 0);
        assert_snapshot!(shown(&events), @"
        ▶ blue-green 1.0.0 in sandbox, run 01K3
          hold = 15s, service = web, to = green
        ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5

        ↩ rolling back, 1 to undo: weights do not add up
          ~ traffic.shift web: blue 95, green 5 -> blue 100, green 0

        rolled back after 60ms, 1 undone
        ");
    }

    #[test]
    fn what_is_left_of_a_wait_follows_from_its_pace() {
        let at = |s: i64| Timestamp::from_second(s).expect("time");
        assert_eq!(time_left(at(0), at(5), 5_000, 15_000), Some(Duration::from_secs(10)));
        assert_eq!(time_left(at(0), at(5), 5, 15), Some(Duration::from_secs(10)), "whatever the unit is");
        assert_eq!(time_left(at(0), at(15), 15, 15), Some(Duration::ZERO));
        assert_eq!(time_left(at(0), at(5), 0, 15), None);
        assert_eq!(time_left(at(0), at(5), 5, 0), None);
        assert_eq!(time_left(at(5), at(0), 5, 15), None, "a clock that went back");
    }

    #[test]
    fn a_wait_is_expected_to_take_as_long_as_it_says() {
        let begun = |waits_for| Begun {
            kind: Kind::Wait,
            label: "x.y 15s".to_owned(),
            waits_for,
            at: Timestamp::UNIX_EPOCH,
            shown: false,
        };
        assert_eq!(
            expected(&begun(Some(WaitsFor::Condition { at_least_ms: 15_000 }))),
            Some(Duration::from_secs(15))
        );
        assert_eq!(expected(&begun(Some(WaitsFor::People))), None);
        assert_eq!(expected(&begun(None)), None);
    }

    #[test]
    fn a_live_region_is_kept_through_a_whole_run_and_gone_after_it() {
        let buffer = Buffer::default();
        let human = Human::new(Out::new(buffer.clone()), Theme { live: true, ..Theme::PLAIN });
        for events in [samples::success(), samples::questions(), samples::parallel()] {
            events.iter().for_each(|event| human.event(event));
        }
        // Nothing announces a wait here: the live region does.
        assert!(!buffer.text().contains("… metrics.hold"), "{}", buffer.text());
    }
}
