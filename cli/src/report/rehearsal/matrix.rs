//! Effects and faults, as a table.

use std::collections::HashMap;

use contraflow_runtime::rehearsal::{Findings, Row, Tried};

use super::{Known, Mark, size};

/// Columns that stand before the verdicts that checks have, and behind them.
const FIRST: [&str; 5] = ["unreachable", "refused", "lost-answer", "times-out", "never-settles"];
const LAST: [&str; 4] = ["denied", "no-answer", "breach", "killed"];

/// Columns into which all verdicts go where there are too many of them.
const VERDICT: &str = "verdict";

/// The table.
pub(super) struct Matrix<'f> {
    /// Names of faults.
    pub(super) columns: Vec<&'f str>,
    pub(super) known: Known<'f>,
    /// Effects on the way forward, and effects that undo.
    pub(super) blocks: [Vec<Line<'f>>; 2],
}

/// One effect.
pub(super) struct Line<'f> {
    pub(super) row: &'f Row,
    pub(super) cells: Vec<Cell<'f>>,
}

/// One way in which it can go wrong.
#[derive(Default)]
pub(super) struct Cell<'f> {
    possible: bool,
    /// The scenarios, the plainest first.
    pub(super) tried: Vec<&'f Tried>,
}

impl<'f> Cell<'f> {
    /// The scenario that says most about it: one that violates something, or the plainest.
    pub(super) fn speaks(&self, known: &Known<'_>) -> Option<&'f Tried> {
        let bad = self.tried.iter().find(|tried| known.is_new_in(tried));
        bad.or(self.tried.first()).copied()
    }

    fn mark(&self, known: &Known<'_>) -> Mark {
        match self.speaks(known) {
            Some(tried) => known.mark(tried),
            None if self.possible => Mark::NOT_TRIED,
            None => Mark::CANNOT,
        }
    }
}

impl<'f> Matrix<'f> {
    /// The table of what was found, with at most so many columns.
    pub(super) fn of(findings: &'f Findings, most: usize) -> Self {
        let mut found: Vec<&str> = Vec::new();
        for name in findings.effects.iter().flat_map(|row| &row.faults) {
            if !found.contains(&&**name) {
                found.push(name);
            }
        }
        let fixed =
            |names: &'static [&'static str]| names.iter().copied().filter(|name| found.contains(name));
        let verdicts: Vec<&str> =
            found.iter().copied().filter(|name| !FIRST.contains(name) && !LAST.contains(name)).collect();
        let merged =
            fixed(&FIRST).count() + verdicts.len() + fixed(&LAST).count() > most && verdicts.len() > 1;
        let middle = if merged { vec![VERDICT] } else { verdicts.clone() };
        let columns: Vec<&str> = fixed(&FIRST).chain(middle).chain(fixed(&LAST)).collect();
        let column = |fault: &str| {
            let name = if merged && verdicts.contains(&fault) { VERDICT } else { fault };
            columns.iter().position(|column| *column == name)
        };
        let mut tried: HashMap<(&str, &str), Vec<&Tried>> = HashMap::new();
        for one in &findings.tried {
            if one.scenario.crash.is_some() || one.scenario.backwards {
                continue;
            }
            // What goes wrong last is what is tried; the others lead there.
            if let Some((id, fault)) = one.scenario.faults.last() {
                tried.entry((id, fault.name())).or_default().push(one);
            }
        }
        let mut blocks = [Vec::new(), Vec::new()];
        for row in findings.effects.iter().filter(|row| !row.faults.is_empty()) {
            let mut cells: Vec<Cell<'_>> = columns.iter().map(|_| Cell::default()).collect();
            for fault in &row.faults {
                let Some(cell) = column(fault).and_then(|at| cells.get_mut(at)) else { continue };
                cell.possible = true;
                cell.tried.extend(tried.remove(&(&*row.id, &**fault)).unwrap_or_default());
            }
            cells.iter_mut().for_each(|cell| cell.tried.sort_by_key(|tried| size(&tried.scenario)));
            blocks[usize::from(row.id.is_rollback())].push(Line { row, cells });
        }
        Self { columns, known: Known::of(findings), blocks }
    }

    /// How a cell is marked.
    pub(super) fn mark(&self, cell: &Cell<'_>) -> Mark {
        cell.mark(&self.known)
    }

    /// The marks that occur, each once, in the order of a legend.
    pub(super) fn legend(&self) -> Vec<Mark> {
        let cells = || self.blocks.iter().flatten().flat_map(|line| &line.cells);
        Mark::all().filter(|mark| cells().any(|cell| self.mark(cell) == *mark)).collect()
    }
}
