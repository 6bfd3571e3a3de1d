//! Where in the tree of steps and branches an id stands.
//!
//! Ids are paths: `shift-25/2:par[0]/1:probe.http` is the first effect in branch 0 of the `parallel` that is the second thing
//! in step `shift-25`. Which of the parts are steps is known from the steps that are open.

use std::collections::BTreeSet;

/// The steps that are open now.
#[derive(Debug, Default)]
pub(crate) struct Places {
    open: BTreeSet<String>,
    shelved: Vec<BTreeSet<String>>,
}

/// A part of an id that can hold others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// An open step.
    Step,
    /// A branch of a `parallel`, by its name or number.
    Branch(&'a str),
}

impl Places {
    /// A step opened.
    pub(crate) fn open(&mut self, id: &str) {
        self.open.insert(id.to_owned());
    }

    /// A step closed.
    pub(crate) fn close(&mut self, id: &str) {
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
    pub(crate) fn around<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (&'a str, Part<'a>)> {
        let ends = id.match_indices('/').map(|(at, _)| at).chain([id.len()]);
        ends.filter_map(move |end| {
            let outer = &id[..end];
            if self.open.contains(outer) {
                return Some((outer, Part::Step));
            }
            let last = outer.rsplit_once('/').map_or(outer, |(_, last)| last);
            branch(last).map(|name| (outer, Part::Branch(name)))
        })
    }

    /// What a line about `id` begins with: two spaces for each step around it, `[0] ` for each branch.
    pub(crate) fn margin(&self, id: &str) -> String {
        let mut margin = "  ".repeat(self.shelved.len());
        for (_, part) in self.around(id) {
            match part {
                Part::Step => margin.push_str("  "),
                Part::Branch(name) => margin.push_str(&format!("[{name}] ")),
            }
        }
        margin
    }
}

/// The branch that a segment such as `2:par[0]` names.
fn branch(segment: &str) -> Option<&str> {
    let name = match segment.split_once(':') {
        Some((n, name)) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => segment,
    };
    name.strip_prefix("par[")?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn margin(open: &[&str], id: &str) -> String {
        let mut places = Places::default();
        open.iter().for_each(|step| places.open(step));
        places.margin(id)
    }

    #[test]
    fn depth_is_the_number_of_open_steps_around() {
        assert_eq!(margin(&[], "1:probe.http"), "");
        assert_eq!(margin(&["preflight"], "preflight/1:probe.http"), "  ");
        assert_eq!(margin(&["a", "a/2:b"], "a/2:b/1:probe.http"), "    ");
        assert_eq!(margin(&["a/b"], "a/b/1:probe.http"), "  ", "a slash in a step's name is no level");
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
        places.open("s");
        places.shelve();
        assert_eq!(places.margin("s/1:traffic.shift"), "  ");
        places.open("s");
        assert_eq!(places.margin("s/1:traffic.shift"), "    ");
        places.unshelve();
        assert_eq!(places.margin("s/1:traffic.shift"), "  ");
    }
}
