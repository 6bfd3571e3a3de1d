//! Child processes in a group of their own, which ends with the effect that started them.

use std::{
    ffi::OsStr,
    io,
    process::{Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::process::{Child, Command};

/// How long a group may take to end when it is asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A running group. When it is dropped before its leader has ended, the group is asked to end, then killed.
struct Group {
    leader: Option<Child>,
    id: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        let (Some(mut leader), Some(id)) = (self.leader.take(), self.id) else { return };
        // The leader is not waited for yet, so its number still belongs to it.
        let _ = killpg(id, Signal::SIGTERM);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                if tokio::time::timeout(GRACE, leader.wait()).await.is_err() {
                    let _ = killpg(id, Signal::SIGKILL);
                    drop(leader.wait().await);
                }
            })),
            Err(_) => {
                let _ = killpg(id, Signal::SIGKILL);
            }
        }
    }
}

/// Runs a program to its end with no input and no environment but `env`. Nothing secret belongs into `args`: everybody on the
/// machine can read them.
///
/// # Errors
/// It could not be started.
pub(crate) async fn run<A: AsRef<OsStr>>(
    program: &OsStr,
    args: impl IntoIterator<Item = A>,
    env: &[(String, String)],
) -> io::Result<Output> {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn()?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut group = Group { leader: Some(child), id };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (read_out, read_err) = tokio::join!(all(&mut stdout, &mut out), all(&mut stderr, &mut err));
    read_out?;
    read_err?;
    let status = match &mut group.leader {
        Some(leader) => leader.wait().await?,
        None => return Err(io::Error::other("the process has ended")),
    };
    group.leader = None;
    Ok(Output { status, stdout: out, stderr: err })
}

async fn all(from: &mut Option<impl tokio::io::AsyncRead + Unpin>, into: &mut Vec<u8>) -> io::Result<()> {
    match from {
        Some(from) => tokio::io::AsyncReadExt::read_to_end(from, into).await.map(drop),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn only_the_given_environment_is_seen_and_both_outputs_come_back() {
        let env = [("A".to_owned(), "1".to_owned())];
        let output =
            run(OsStr::new("/bin/sh"), ["-c", "echo $A$HOME; echo b >&2; exit 3"], &env).await.expect("sh");
        assert_eq!((&*output.stdout, &*output.stderr), (&b"1\n"[..], &b"b\n"[..]));
        assert_eq!(output.status.code(), Some(3));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dropped_run_ends_the_whole_group() {
        let folder = tempfile::tempdir().expect("folder");
        let mark = folder.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", mark.display());
        let env = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let run = run(OsStr::new("/bin/sh"), ["-c", &*script], &env);
        let started = async {
            while !std::fs::read_to_string(&mark).is_ok_and(|text| text.ends_with('\n')) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            output = run => panic!("ended: {output:?}"),
            () = started => {}
        }
        let pid: i32 = std::fs::read_to_string(&mark).expect("pid").trim().parse().expect("number");
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        for _ in 0..400 {
            // Gone, or ended and not yet collected by whoever adopted it.
            if state().is_empty() || state().contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("process {pid} is still there");
    }
}
