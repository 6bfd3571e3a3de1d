//! One child process and all its descendants: started in a process group of their own, watched, ended.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    pin::pin,
    process::{ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use contraflow_runtime::{effect::On, event::Stream, quantity::Size};
use futures_util::{FutureExt, future::FusedFuture};
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};
use zeroize::Zeroizing;

use super::capture::Capture;

/// How long output is waited for after a command has ended. What still holds its output streams then are processes that it
/// left behind.
const DRAIN: Duration = Duration::from_secs(2);

/// How often to look whether a process group is gone.
const LOOK: Duration = Duration::from_millis(20);

/// What to run. All of it is decided.
pub(super) struct Job {
    /// The program's file.
    pub(super) path: PathBuf,
    /// The program as the script names it, and its arguments.
    pub(super) argv: Vec<Zeroizing<String>>,
    pub(super) env: Vec<(String, OsString)>,
    pub(super) dir: PathBuf,
    pub(super) stdin: Option<Zeroizing<String>>,
    pub(super) timeout: Duration,
    /// Time to end by itself when asked to, before it is killed.
    pub(super) grace: Duration,
    pub(super) keep: Size,
}

/// How it ended.
pub(super) enum Ending {
    /// By itself, or by a signal from elsewhere.
    Exited(ExitStatus),
    /// It was ended because it took too long.
    TimedOut,
    /// It was ended because the run stops.
    Cancelled,
}

/// A command that has ended.
pub(super) struct Finished {
    pub(super) ending: Ending,
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
    pub(super) took: Duration,
}

/// Runs it to its end. When this future is dropped, the process group is ended in the background.
pub(super) async fn run(on: &On, job: &Job) -> io::Result<Finished> {
    let start = on.clock().monotonic();
    let mut command = Command::new(&job.path);
    let (name, arguments) = job.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    command
        .arg0(&**name)
        .args(arguments.iter().map(|argument| &**argument))
        .env_clear()
        .envs(job.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&job.dir)
        .stdin(if job.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn()?;
    drop(command);
    let mut group = Group::of(&child, job.grace);

    let mut stdout = Capture::new(on, Stream::Stdout, job.keep);
    let mut stderr = Capture::new(on, Stream::Stderr, job.keep);
    let (out, err, stdin) = (child.stdout.take(), child.stderr.take(), child.stdin.take());
    let ending = {
        let feed = async {
            if let (Some(mut pipe), Some(text)) = (stdin, &job.stdin) {
                // A command need not read all its input.
                let _ = pipe.write_all(text.as_bytes()).await;
            }
        };
        let read_out = async {
            if let Some(pipe) = out {
                stdout.read(on, pipe).await;
            }
        };
        let read_err = async {
            if let Some(pipe) = err {
                stderr.read(on, pipe).await;
            }
        };
        let mut streams = pin!(async { tokio::join!(feed, read_out, read_err) }.fuse());
        let mut deadline = on.clock().sleep(job.timeout);
        let ending = loop {
            tokio::select! {
                biased;
                status = child.wait() => break Ending::Exited(status?),
                () = on.cancelled().cancelled() => break Ending::Cancelled,
                () = &mut deadline => break Ending::TimedOut,
                _ = &mut streams, if !streams.is_terminated() => {}
            }
        };
        // Processes that gave up its streams are left alone: it wanted them to go on without it.
        let left_behind = matches!(ending, Ending::Exited(_))
            && !streams.is_terminated()
            && tokio::select! {
                biased;
                _ = &mut streams => false,
                () = on.clock().sleep(DRAIN) => true,
            };
        if left_behind {
            on.output(Stream::Stderr, "… the command has ended; ending the processes it left behind");
        }
        if left_behind || !matches!(ending, Ending::Exited(_)) {
            // What is printed meanwhile is shown as well.
            let mut over = pin!(group.end(on, &mut child).fuse());
            while !over.is_terminated() {
                tokio::select! {
                    biased;
                    () = &mut over => {}
                    _ = &mut streams, if !streams.is_terminated() => {}
                }
            }
        }
        // What is in the pipes by now.
        let _ = streams.now_or_never();
        ending
    };
    group.release();
    stdout.end(on);
    stderr.end(on);
    let took = on.clock().monotonic().saturating_sub(start);
    Ok(Finished { ending, stdout, stderr, took })
}

/// A process group that must not outlive the future that started it.
struct Group {
    id: Option<Pid>,
    grace: Duration,
    /// It was asked to end.
    asked: bool,
}

impl Group {
    fn of(child: &Child, grace: Duration) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { id, grace, asked: false }
    }

    /// Nothing is left to be ended.
    fn release(&mut self) {
        self.id = None;
    }

    /// Asks all processes of the group to end, and kills those that have not after the grace time.
    async fn end(&mut self, on: &On, child: &mut Child) {
        let Some(id) = self.id else { return };
        ask_to_end(id);
        self.asked = true;
        let patience = on.clock().sleep(self.grace);
        let gone = async {
            // The first process is gone only when it was waited for.
            let _ = child.wait().await;
            while !is_gone(id) {
                on.clock().sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            () = gone => {}
            () = patience => {
                let _ = killpg(id, Signal::SIGKILL);
                // A process in uninterruptible sleep does not even die from that; the run does not wait for it.
                tokio::select! {
                    _ = child.wait() => {}
                    () = on.clock().sleep(Duration::from_secs(1)) => {}
                }
            }
        }
        self.release();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        if self.asked {
            // It has had its time, and nobody waits for it any more.
            let _ = killpg(id, Signal::SIGKILL);
            return;
        }
        ask_to_end(id);
        let grace = self.grace;
        // A thread, because the runtime may be about to end. Real time, because the processes are real.
        let watch = thread::Builder::new().name("exec-end".to_owned()).spawn(move || {
            let start = Instant::now();
            while start.elapsed() < grace {
                if is_gone(id) {
                    return;
                }
                thread::sleep(LOOK);
            }
            let _ = killpg(id, Signal::SIGKILL);
        });
        if watch.is_err() {
            let _ = killpg(id, Signal::SIGKILL);
        }
    }
}

fn ask_to_end(id: Pid) {
    let _ = killpg(id, Signal::SIGTERM);
    // A process that was stopped sees a signal only when it goes on.
    let _ = killpg(id, Signal::SIGCONT);
}

fn is_gone(id: Pid) -> bool {
    killpg(id, None) == Err(Errno::ESRCH)
}
