//! How HAProxy deals sessions out, as far as weights do not say it.

use std::path::Path;

/// How a backend chooses a server for a session.
///
/// Source: HAProxy configuration manual, `balance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dealing {
    /// In turn, by weight.
    ByWeight,
    /// By weight, but a server with less load more often. `random` draws two servers and takes the one with less.
    ByWeightAndLoad,
    /// The server with fewest connections for its weight: with little traffic they all have none.
    FewestConnections,
    /// By a hash of something in the request: weights share out its values.
    ByHash,
    /// The first server that has room.
    FirstWithRoom,
    /// Not known here.
    Other,
}

impl Dealing {
    /// That of an algorithm, as `show stat` names it; without one, HAProxy did not say.
    pub(super) fn of(algorithm: Option<&str>) -> Self {
        match algorithm {
            Some("roundrobin" | "static-rr") => Self::ByWeight,
            Some("random") | None => Self::ByWeightAndLoad,
            Some("leastconn") => Self::FewestConnections,
            Some("source" | "uri" | "url_param" | "hdr" | "rdp-cookie" | "hash") => Self::ByHash,
            Some("first") => Self::FirstWithRoom,
            Some(_) => Self::Other,
        }
    }

    /// How far, in proportion, shares may be off that are dealt this way.
    pub(super) fn slack(self) -> f64 {
        match self {
            Self::ByWeight => 0.0,
            Self::ByWeightAndLoad | Self::FewestConnections | Self::FirstWithRoom | Self::Other => 0.5,
            Self::ByHash => 1.0,
        }
    }

    /// What has to be known of weights in a backend that uses `algorithm`.
    pub(super) fn caveat(self, backend: &str, algorithm: &str) -> Option<String> {
        let why = match self {
            Self::ByWeight | Self::ByWeightAndLoad => return None,
            Self::FewestConnections => {
                "weights count among busy servers only, so with little traffic pools get equal shares whatever \
                 their weights (`balance roundrobin` follows weights)"
            }
            Self::ByHash => {
                "weights share out the values that are hashed, not requests, so a few frequent values shift the shares"
            }
            Self::FirstWithRoom => {
                "the first server that has room gets every session, so traffic cannot be split, only moved as a whole"
            }
            Self::Other => "whether it follows weights is not known",
        };
        Some(format!("the backend {backend} uses `balance {algorithm}`: {why}"))
    }
}

/// Processes that a reload left over: HAProxy gives the new process the numbers of the old ones (`-sf`), and they live until their
/// last connection ends. Found only on this machine, and where its processes can be read.
pub(super) fn left_over(pid: u32) -> Vec<u32> {
    left_over_in(Path::new("/proc"), pid)
}

fn left_over_in(proc: &Path, pid: u32) -> Vec<u32> {
    let is_haproxy = |pid: u32| {
        let name = std::fs::read_to_string(proc.join(pid.to_string()).join("comm")).unwrap_or_default();
        // One that has ended and was not waited for serves nobody.
        let state = std::fs::read_to_string(proc.join(pid.to_string()).join("stat")).unwrap_or_default();
        let is_dead = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
        name.trim_end() == "haproxy" && !is_dead
    };
    // The number may be that of a process in a container, and mean another one here.
    if !is_haproxy(pid) {
        return Vec::new();
    }
    let arguments = std::fs::read(proc.join(pid.to_string()).join("cmdline")).unwrap_or_default();
    let mut old = Vec::new();
    let mut is_pid = false;
    for argument in arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy) {
        if argument == "-sf" || argument == "-st" {
            is_pid = true;
        } else if let Ok(number) = argument.parse::<u32>() {
            old.extend((is_pid && number != pid && is_haproxy(number)).then_some(number));
        } else {
            is_pid = false;
        }
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_that_does_not_follow_weights_says_so() {
        let caveat = |algorithm: &str| Dealing::of(Some(algorithm)).caveat("web", algorithm);
        for exact in ["roundrobin", "static-rr", "random"] {
            assert_eq!(caveat(exact), None, "{exact}");
        }
        assert!(
            caveat("leastconn").is_some_and(|c| c.starts_with("the backend web uses `balance leastconn`: "))
        );
        for hash in ["source", "uri", "url_param", "hdr", "rdp-cookie", "hash"] {
            assert!(caveat(hash).is_some_and(|c| c.contains("values that are hashed")), "{hash}");
        }
        assert!(caveat("first").is_some_and(|c| c.contains("cannot be split")));
        assert!(caveat("sticky").is_some_and(|c| c.contains("not known")));
        assert_eq!(Dealing::of(None).caveat("web", ""), None);
    }

    #[test]
    fn processes_of_before_a_reload_are_those_that_the_new_one_was_told_of() {
        let proc = tempfile::tempdir().expect("a folder");
        let process = |pid: u32, comm: &str, state: char, arguments: &[&str]| {
            let folder = proc.path().join(pid.to_string());
            std::fs::create_dir(&folder).expect("a folder");
            std::fs::write(folder.join("comm"), format!("{comm}\n")).expect("written");
            std::fs::write(folder.join("stat"), format!("{pid} ({comm}) {state} 1 1")).expect("written");
            std::fs::write(folder.join("cmdline"), arguments.join("\0")).expect("written");
        };
        process(10, "haproxy", 'S', &["haproxy", "-f", "h.cfg", "-sf", "7", "8", "9", "6", "-x", "5"]);
        process(9, "haproxy", 'Z', &["haproxy"]);
        process(8, "bash", 'S', &["bash"]);
        process(7, "haproxy", 'S', &["haproxy"]);
        process(5, "haproxy", 'S', &["haproxy"]);
        assert_eq!(left_over_in(proc.path(), 10), [7]);
        assert!(left_over_in(proc.path(), 8).is_empty());
        assert!(left_over_in(proc.path(), 4).is_empty());
    }
}
