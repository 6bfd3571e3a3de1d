//! What must hold of every verdict, over thousands of made-up series.

use fastrand::Rng;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const METRICS: [&str; 2] = ["error_rate", "p95"];

/// One look: when, and what was seen of each metric.
type Look = (Duration, BTreeMap<String, Seen>);

fn rules(rng: &mut Rng) -> Rules {
    let bound: Comparison = "< 1".parse().expect("bound");
    Rules {
        bounds: METRICS.iter().map(|name| ((*name).to_owned(), bound)).collect(),
        min_samples: rng.u64(1..3),
        failure_limit: rng.u32(0..3),
        sustained: SECOND * rng.u32(0..10),
        inconclusive_limit: rng.u32(0..4),
    }
}

fn length(rng: &mut Rng) -> Length {
    let hold = SECOND * rng.u32(0..30);
    let coverage = f64::from(rng.u32(1..=100)) / 100.0;
    Length { hold, wait_for_data: rng.bool(), coverage, timeout: hold + SECOND * rng.u32(0..60) }
}

fn read(value: f64) -> Seen {
    Seen::Read(Reading { value: Some(value), samples: Some(10) })
}

/// Something that is no data, or not enough, in one of all the ways there are.
fn dark(rng: &mut Rng) -> Option<Seen> {
    let value = |value, samples| Some(Seen::Read(Reading { value, samples }));
    match rng.u8(0..6) {
        0 => None,
        1 => value(None, Some(50)),
        2 => value(Some(f64::NAN), Some(50)),
        3 => value(Some(f64::NAN), None),
        4 => value(Some(0.0), Some(0)),
        _ => Some(Seen::Unreachable("down".to_owned())),
    }
}

/// Looks at uneven times; mostly good, sometimes broken or dark.
fn series(rng: &mut Rng) -> Vec<Look> {
    let mut at = Duration::ZERO;
    let (broken, silent) = (rng.f64() * 0.3, rng.f64() * 0.5);
    (0..rng.usize(1..150))
        .map(|_| {
            let mut seen = BTreeMap::new();
            for name in METRICS {
                let dice = rng.f64();
                let one = if dice < broken {
                    Some(read(2.0))
                } else if dice < broken + silent {
                    dark(rng)
                } else {
                    Some(read(0.5))
                };
                seen.extend(one.map(|one| (name.to_owned(), one)));
            }
            let look = (at, seen);
            at += Duration::from_millis(rng.u64(1..3000));
            look
        })
        .collect()
}

/// The verdict at the end, and at which look it came.
fn judge(rules: &Rules, length: &Length, series: &[Look]) -> Option<(Verdict, usize)> {
    let mut watch = Watch::default();
    series.iter().enumerate().find_map(|(i, (at, seen))| {
        watch.look(rules, *at, seen);
        watch.over(rules, length).map(|verdict| (verdict, i))
    })
}

fn is_pass(verdict: Option<&(Verdict, usize)>) -> bool {
    matches!(verdict, Some((Verdict::Pass, _)))
}

/// Runs a property on many seeds, and names the seed that breaks it.
fn for_all(property: impl Fn(&mut Rng)) {
    for seed in 0..1500 {
        let run = std::panic::AssertUnwindSafe(|| property(&mut Rng::with_seed(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("the property does not hold for seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn no_data_never_passes() {
    for_all(|rng| {
        let (rules, length, mut series) = (rules(rng), length(rng), series(rng));
        for (_, seen) in &mut series {
            seen.remove("p95");
            seen.extend(dark(rng).map(|dark| ("p95".to_owned(), dark)));
        }
        assert!(!is_pass(judge(&rules, &length, &series).as_ref()));
    });
}

#[test]
fn a_breach_beyond_the_limits_never_passes() {
    for_all(|rng| {
        let (mut rules, length, mut series) = (rules(rng), length(rng), series(rng));
        (rules.failure_limit, rules.sustained) = (0, Duration::ZERO);
        let clean = judge(&rules, &length, &series);
        let broken = rng.usize(0..series.len());
        series[broken].1.insert("p95".to_owned(), read(1.0));
        match (clean, judge(&rules, &length, &series)) {
            // It was over before the breach.
            (Some((verdict, i)), after) if i < broken => assert_eq!(after, Some((verdict, i))),
            (_, after) => {
                let (verdict, i) = after.expect("a breach ends it");
                assert!(
                    matches!(verdict, Verdict::Fail(_)) && i <= broken,
                    "{verdict:?} at {i}, not {broken}"
                );
            }
        }
    });
}

#[test]
fn a_pass_is_only_given_at_a_look_that_shows_every_bound_kept() {
    let mut passes = 0;
    for seed in 0..1500 {
        let rng = &mut Rng::with_seed(seed);
        let (rules, length, series) = (rules(rng), length(rng), series(rng));
        if let Some((Verdict::Pass, i)) = judge(&rules, &length, &series) {
            passes += 1;
            assert!(METRICS.iter().all(|name| series[i].1.get(*name) == Some(&read(0.5))), "seed {seed}");
            assert!(series[i].0 >= length.hold, "seed {seed}");
        }
    }
    assert!(passes > 100, "only {passes} of the series pass: the test shows nothing");
}

#[test]
fn losing_good_readings_never_turns_another_verdict_into_a_pass() {
    for_all(|rng| {
        let (rules, length, mut series) = (rules(rng), length(rng), series(rng));
        if is_pass(judge(&rules, &length, &series).as_ref()) {
            return;
        }
        for (_, seen) in &mut series {
            if seen.get("p95") == Some(&read(0.5)) && rng.bool() {
                seen.remove("p95");
                seen.extend(dark(rng).map(|dark| ("p95".to_owned(), dark)));
            }
        }
        assert!(!is_pass(judge(&rules, &length, &series).as_ref()));
    });
}

#[test]
fn the_verdict_does_not_depend_on_how_often_one_looks() {
    for_all(|rng| {
        let (mut rules, length) = (rules(rng), length(rng));
        // These two count looks: that is what they are for.
        (rules.failure_limit, rules.inconclusive_limit) = (0, u32::MAX);
        // The same thing all the time, at any pace.
        let constant = match rng.u8(0..3) {
            0 => Some(read(0.5)),
            1 => Some(read(2.0)),
            _ => dark(rng),
        };
        let seen: BTreeMap<String, Seen> =
            METRICS.iter().filter_map(|name| Some(((*name).to_owned(), constant.clone()?))).collect();
        let paced = |millis: u64| -> Vec<Look> {
            let end = (length.timeout + rules.sustained + SECOND * 2).as_millis() as u64;
            (0..=end / millis + 1).map(|n| (Duration::from_millis(n * millis), seen.clone())).collect()
        };
        let name = |series: &[Look]| judge(&rules, &length, series).expect("it ends").0.name();
        assert_eq!(name(&paced(1000)), name(&paced(rng.u64(100..900))));
        // Each look made twice at the same moment.
        let once = series(rng);
        let twice: Vec<Look> = once.iter().flat_map(|look| [look.clone(), look.clone()]).collect();
        let name = |series: &[Look]| judge(&rules, &length, series).map(|(verdict, _)| verdict.name());
        assert_eq!(name(&once), name(&twice));
    });
}

#[test]
fn it_does_not_matter_when_the_clock_started() {
    for_all(|rng| {
        let (rules, length, series) = (rules(rng), length(rng), series(rng));
        let late: Vec<Look> = series.iter().map(|(at, seen)| (*at + SECOND * 3600, seen.clone())).collect();
        assert_eq!(judge(&rules, &length, &series), judge(&rules, &length, &late));
    });
}

#[test]
fn a_hold_ends_when_its_timeout_is_over() {
    for_all(|rng| {
        let (rules, length, series) = (rules(rng), length(rng), series(rng));
        let ended = judge(&rules, &length, &series);
        let late = series.iter().position(|(at, _)| *at >= length.timeout);
        if let Some(late) = late {
            let (verdict, i) = ended.expect("it ended");
            assert!(i <= late, "{verdict:?} at {i}, timeout at {late}");
        }
    });
}

#[test]
fn nothing_to_watch_is_no_pass() {
    let rng = &mut Rng::with_seed(1);
    let (mut rules, length) = (rules(rng), length(rng));
    rules.bounds.clear();
    let verdict =
        judge(&rules, &length, &[(Duration::ZERO, BTreeMap::new()), (SECOND * 100, BTreeMap::new())]);
    assert_eq!(verdict.expect("it ends").0.name(), "no_data");
}

#[test]
fn silence_does_not_end_a_breach_and_a_good_look_does() {
    let bound: Comparison = "< 1".parse().expect("bound");
    let rules = Rules {
        bounds: [("cpu".to_owned(), bound)].into(),
        min_samples: 1,
        failure_limit: 0,
        sustained: SECOND * 10,
        inconclusive_limit: 3,
    };
    let play = |looks: &[Option<f64>]| {
        let mut watch = Watch::default();
        let verdicts = looks.iter().enumerate().map(|(i, value)| {
            let seen = value.map(|value| ("cpu".to_owned(), read(value)));
            watch.look(&rules, SECOND * 5 * i as u32, &seen.into_iter().collect()).name()
        });
        verdicts.collect::<Vec<_>>()
    };
    assert_eq!(play(&[Some(2.0), None, Some(2.0)]), ["inconclusive", "no_data", "fail"]);
    assert_eq!(play(&[Some(2.0), Some(0.5), Some(2.0)]), ["inconclusive", "pass", "inconclusive"]);
}

#[test]
fn a_value_just_past_its_bound_is_not_shown_as_equal_to_it() {
    let bound: Comparison = "< 0.1%".parse().expect("bound");
    assert_eq!(show_against(&bound, 0.023), "2.3%");
    assert_eq!(show_against(&bound, 0.001), "exactly 0.1%");
    assert_eq!(show_against(&bound, 0.001_000_4), "0.10004%");
    let bound: Comparison = "<= 200ms".parse().expect("bound");
    assert_eq!(show_against(&bound, 0.200_000_04), "200.00004ms");
    let bound: Comparison = "> 3".parse().expect("bound");
    assert_eq!(show_against(&bound, 2.999_98), "2.99998");
    // As near as a number can be.
    let bound: Comparison = "< 1%".parse().expect("bound");
    let next = f64::from_bits(bound.bound.to_bits() + 1);
    assert_ne!(show_against(&bound, next), bound.show(bound.bound));
}

#[test]
fn infinitely_many_errors_break_a_bound_at_the_first_look() {
    let rules = Rules {
        bounds: [("ratio".to_owned(), "< 1%".parse().expect("a bound"))].into(),
        min_samples: 0,
        failure_limit: 0,
        sustained: Duration::ZERO,
        inconclusive_limit: 0,
    };
    let mut watch = Watch::default();
    let seen = [("ratio".to_owned(), read(f64::INFINITY))].into();
    let Verdict::Fail(breaches) = watch.look(&rules, Duration::ZERO, &seen) else { panic!("not broken") };
    assert!(breaches[0].to_string().starts_with("ratio was +Inf, expected < 1%"), "{}", breaches[0]);
    // It is kept in the journal like any other.
    let kept = serde_json::to_string(&watch).expect("json");
    assert!(serde_json::from_str::<Watch>(&kept).is_ok(), "{kept}");
}
