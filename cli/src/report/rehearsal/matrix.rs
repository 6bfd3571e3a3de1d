//! Effects and faults, as a table.

use std::collections::HashMap;

use contraflow_runtime::{
    effect::EffectId,
    rehearsal::{Fault, Findings, Row, Tried},
};

use super::{Known, Mark, size};

/// A column of the table.
#[derive(Clone, Copy)]
pub(super) enum Column<'f> {
    /// One fault.
    Fault(&'f Fault),
    /// All verdicts, where there are too many of them.
    Verdicts,
}

impl<'f> Column<'f> {
    /// What stands above it.
    pub(super) fn name(self) -> &'f str {
        match self {
            Self::Fault(fault) => fault.name(),
            Self::Verdicts => "verdict",
        }
    }

    fn holds(self, fault: &Fault) -> bool {
        match self {
            Self::Fault(own) => own.is_like(fault),
            Self::Verdicts => matches!(fault, Fault::Verdict(_)),
        }
    }

    /// Where it stands: what breaks, then the verdicts of checks as they were found, then what people and guards do.
    fn rank(self) -> u8 {
        match self {
            Self::Fault(Fault::Unreachable) => 0,
            Self::Fault(Fault::Refused) => 1,
            Self::Fault(Fault::LostAnswer) => 2,
            Self::Fault(Fault::TimesOut) => 3,
            Self::Fault(Fault::NeverSettles) => 4,
            Self::Fault(Fault::Verdict(_)) | Self::Verdicts => 5,
            Self::Fault(Fault::Denied) => 6,
            Self::Fault(Fault::NoAnswer) => 7,
            Self::Fault(Fault::Breach(_)) => 8,
            Self::Fault(Fault::Killed) => 9,
        }
    }
}

/// The table.
pub(super) struct Matrix<'f> {
    pub(super) columns: Vec<Column<'f>>,
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
        let mut columns: Vec<Column<'f>> = Vec::new();
        for fault in findings.effects.iter().flat_map(|row| &row.faults) {
            if !columns.iter().any(|column| column.holds(fault)) {
                columns.push(Column::Fault(fault));
            }
        }
        let is_verdict = |column: &Column<'_>| matches!(column, Column::Fault(Fault::Verdict(_)));
        if columns.len() > most && columns.iter().filter(|column| is_verdict(column)).count() > 1 {
            columns.retain(|column| !is_verdict(column));
            columns.push(Column::Verdicts);
        }
        columns.sort_by_key(|column| column.rank());
        let mut tried: HashMap<&EffectId, Vec<(&Fault, &Tried)>> = HashMap::new();
        for one in &findings.tried {
            if one.scenario.crash.is_some() || one.scenario.backwards {
                continue;
            }
            // What goes wrong last is what is tried; the others lead there.
            if let Some((id, fault)) = one.scenario.faults.last() {
                tried.entry(id).or_default().push((fault, one));
            }
        }
        let mut blocks = [Vec::new(), Vec::new()];
        for row in findings.effects.iter().filter(|row| !row.faults.is_empty()) {
            let mut cells: Vec<Cell<'_>> = columns.iter().map(|_| Cell::default()).collect();
            let all = tried.remove(&row.id).unwrap_or_default();
            for (column, cell) in columns.iter().zip(&mut cells) {
                let faults = row.faults.iter().filter(|fault| column.holds(fault));
                for fault in faults {
                    cell.possible = true;
                    cell.tried
                        .extend(all.iter().filter(|(one, _)| one.is_like(fault)).map(|(_, tried)| *tried));
                }
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
