//! Plays the ways on which decisions go another way.

use super::{
    Asks, Bounds, Branch, Decision, Paths,
    way::{Point, Turn, Way},
};
use crate::rehearsal::{
    explorer::DEEPEST,
    oracle,
    scenario::{Fault, Scenario},
    trial::TrialSetup,
    worker_pool::WorkerPool,
};

/// Finds the paths of a runbook.
pub(crate) struct Pathfinder<'s> {
    setup: &'s TrialSetup,
    bounds: Bounds,
    worker_pool: WorkerPool<'s>,
    played: usize,
    not_played: usize,
    too_deep: usize,
}

/// A way on which decisions are found, and the scenario that leads there.
struct Base {
    way: Way,
    scenario: Scenario,
}

impl<'s> Pathfinder<'s> {
    pub(crate) fn new(setup: &'s TrialSetup, bounds: Bounds) -> Self {
        Self { setup, bounds, worker_pool: WorkerPool::new(setup), played: 0, not_played: 0, too_deep: 0 }
    }

    /// Explores.
    pub(crate) fn find(mut self) -> Paths {
        let trunk = self.base(Scenario::default());
        let points = trunk.way.points();
        let decisions = self.decide(points, Some(&trunk), 1);
        let Way { trial, events, effects, .. } = trunk.way;
        Paths {
            end: oracle::end(&trial),
            why: trial.error.map(|error| error.message),
            trunk: effects,
            decisions,
            played: self.played,
            not_played: self.not_played,
            too_deep: self.too_deep,
            events,
        }
    }

    fn base(&self, scenario: Scenario) -> Base {
        Base { way: Way::play(self.setup, &scenario, &mut self.setup.engine()), scenario }
    }

    /// Whether another way may be played.
    fn may(&self, more: usize) -> bool {
        self.played + more < self.bounds.paths && !self.bounds.progress.is_stopped()
    }

    /// Plays what follows from decisions that go another way. Without a `base` to come from, none is played.
    fn decide(&mut self, points: Vec<Point>, base: Option<&Base>, depth: usize) -> Vec<Decision> {
        // A guard can be breached anywhere: the others come first.
        let order = |guards: bool| {
            let is_wanted = move |point: &Point| (point.asks == Asks::Guard) == guards;
            points.iter().enumerate().filter(move |(_, point)| is_wanted(point))
        };
        let all: Vec<(usize, Scenario)> = order(false)
            .chain(order(true))
            .flat_map(|(at, point)| point.ways.iter().map(move |way| (at, way)))
            .map(|(at, (id, fault))| {
                let before = base.map(|base| base.scenario.clone()).unwrap_or_default();
                (at, before.and(id.clone(), fault.clone()))
            })
            .collect();
        let scenarios: Vec<Scenario> = all.iter().map(|(_, scenario)| scenario.clone()).collect();
        let turns = match base {
            Some(base) => self.turns(&scenarios, &base.way),
            None => scenarios.iter().map(|_| None).collect(),
        };
        let mut groups: Vec<Vec<Vec<Turn>>> = points.iter().map(|_| Vec::new()).collect();
        let mut missing = vec![0; points.len()];
        for ((at, _), turn) in all.into_iter().zip(turns) {
            let Some(turn) = turn else {
                missing[at] += 1;
                continue;
            };
            match groups[at].iter_mut().find(|group| group[0].is_like(&turn, points[at].asks)) {
                Some(group) => group.push(turn),
                None => groups[at].push(vec![turn]),
            }
        }
        self.not_played += missing.iter().sum::<usize>();
        let mut decisions = Vec::new();
        for ((point, groups), not_played) in points.into_iter().zip(groups).zip(missing) {
            let Point { id, asks, effect, what, .. } = point;
            let branches = groups.into_iter().filter_map(|group| self.branch(group, depth)).collect();
            decisions.push(Decision { id, asks, effect, what, branches, not_played });
        }
        decisions
    }

    fn turns(&mut self, scenarios: &[Scenario], from: &Way) -> Vec<Option<Turn>> {
        let turns = self.worker_pool.all(
            scenarios,
            &self.bounds.progress,
            |n| self.may(n),
            |scenario, engine| Way::play(self.setup, scenario, engine).turn(from, scenario),
        );
        self.played += turns.iter().flatten().count();
        turns
    }

    /// The trial that several answers lead to. What is decided there is followed for the one on which most is undone, which stands
    /// for all.
    fn branch(&mut self, group: Vec<Turn>, depth: usize) -> Option<Branch> {
        let mut answers: Vec<Fault> = Vec::new();
        for turn in &group {
            if !answers.iter().any(|known| known.is_like(&turn.answer)) {
                answers.push(turn.answer.clone());
            }
        }
        let scenarios = group.iter().map(|turn| turn.scenario.clone()).collect();
        let fewest = group.iter().map(|turn| turn.undone.len()).min().unwrap_or(0);
        let Turn { scenario, end, why, does, skips, undone, left, points, elapsed_ms, .. } =
            group.into_iter().reduce(|most, turn| {
                let more = (turn.left.len(), turn.undone.len()) > (most.left.len(), most.undone.len());
                if more { turn } else { most }
            })?;
        let (mut decisions, mut too_deep) = (Vec::new(), 0);
        if !points.is_empty() && depth < DEEPEST {
            let base = self.may(0).then(|| self.base(scenario));
            decisions = self.decide(points, base.as_ref(), depth + 1);
        } else {
            too_deep = points.iter().map(|point| point.ways.len()).sum();
            self.too_deep += too_deep;
        }
        let undone_fewest = (fewest < undone.len()).then_some(fewest);
        Some(Branch {
            answers,
            scenarios,
            end,
            why,
            does,
            skips,
            undone,
            undone_fewest,
            left,
            decisions,
            too_deep,
            elapsed_ms,
        })
    }
}
