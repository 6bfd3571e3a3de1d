//! Where in the tree of steps and branches an effect stands.
//!
//! Which parts of its id are steps that are to be seen is known from the steps that are open.

use std::collections::BTreeSet;

use contraflow_runtime::effect::{EffectId, Segment};

/// The steps that are open now.
#[derive(Debug, Default)]
pub(crate) struct Places {
    open: BTreeSet<EffectId>,
    shelved: Vec<BTreeSet<EffectId>>,
}

/// A part of an id that can hold others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// An open step.
    Step,
    /// A branch.
    Branch {
        /// Id of its `parallel`.
        parallel: &'a str,
        /// Its number.
        index: usize,
    },
}

impl Places {
    /// A step opened.
    pub(crate) fn open(&mut self, id: &EffectId) {
        self.open.insert(id.clone());
    }

    /// A step closed.
    pub(crate) fn close(&mut self, id: &EffectId) {
        self.open.remove(id);
    }

    /// A section of its own begins, one level deeper: a rollback. Undone effects bear the ids of the steps they were done in,
    /// which are no longer there to see.
    pub(crate) fn shelve(&mut self) {
        self.shelved.push(std::mem::take(&mut self.open));
    }

    /// The section ends.
    pub(crate) fn unshelve(&mut self) {
        if let Some(open) = self.shelved.pop() {
            self.open = open;
        }
    }

    /// What stands around `id`, outermost first, each with its own id.
    pub(crate) fn around<'a>(&'a self, id: &'a EffectId) -> impl Iterator<Item = (&'a str, Part<'a>)> {
        id.parts().filter_map(|part| match part.segment {
            _ if self.open.contains(part.id) => Some((part.id, Part::Step)),
            Segment::Branch { parallel, index } => Some((part.id, Part::Branch { parallel, index })),
            _ => None,
        })
    }

    /// What a line about `id` begins with: two spaces for each step around it, `[0] ` for each branch.
    pub(crate) fn margin(&self, id: &EffectId) -> String {
        let mut margin = "  ".repeat(self.shelved.len());
        for (_, part) in self.around(id) {
            match part {
                Part::Step => margin.push_str("  "),
                Part::Branch { index, .. } => margin.push_str(&format!("[{index}] ")),
            }
        }
        margin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn margin(open: &[&str], id: &str) -> String {
        let mut places = Places::default();
        open.iter().for_each(|step| places.open(&EffectId::from(*step)));
        places.margin(&id.into())
    }

    #[test]
    fn depth_is_the_number_of_open_steps_around() {
        assert_eq!(margin(&[], "1:probe.http"), "");
        assert_eq!(margin(&["preflight"], "preflight/1:probe.http"), "  ");
        assert_eq!(margin(&["a", "a/b"], "a/b/1:probe.http"), "    ");
        assert_eq!(margin(&["a/b"], "a/b/1:probe.http"), "  ", "a step that is not open is not to be seen");
        assert_eq!(
            margin(&["pre"], "preflight/1:probe.http"),
            "",
            "a step is not open because another one is"
        );
    }

    #[test]
    fn branches_are_marked_where_they_fork() {
        assert_eq!(margin(&[], "2:par[1]/1:probe.http"), "[1] ");
        assert_eq!(
            margin(&["s", "s/2:par[0]/verify"], "s/2:par[0]/verify/3:par[2]/1:x"),
            "  [0]   [2] ",
            "step, branch, step in the branch, branch in it"
        );
    }

    #[test]
    fn a_rollback_hides_the_steps_and_gives_them_back() {
        let mut places = Places::default();
        places.open(&"s".into());
        places.shelve();
        assert_eq!(places.margin(&"s/1:traffic.shift".into()), "  ");
        places.open(&"s".into());
        assert_eq!(places.margin(&"s/1:traffic.shift".into()), "    ");
        places.unshelve();
        assert_eq!(places.margin(&"s/1:traffic.shift".into()), "  ");
    }
}
