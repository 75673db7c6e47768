//! The supervisor process: starts programs, reaps everything below it, ends what is to end.
//!
//! One thread takes requests, one reaps; a stop with a grace time has a thread of its own. It knows
//! nothing of tasks. It ends when its socket does, and then nothing below it is left.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, prlimit,
    set_child_subreaper, setsid, wait, waitid,
};

use super::link::{receive, send};
use super::message::{Event, Request};
use super::{ATTEMPT_MARKER, SUPERVISOR_MARKER, own_pid, tree};

/// Pause before one looks again whether a program has heeded its signal.
const LOOK: Duration = Duration::from_millis(5);

/// How long ending strays is tried at the end of each program.
const STRAYS_PATIENCE: Duration = Duration::from_millis(100);

struct Supervising {
    socket: OwnedFd,
    /// Leaders of the programs that run. Held while one is started, so that nobody else reaps it.
    leaders: Mutex<HashMap<i32, Leader>>,
    started: Condvar,
}

/// What this binary is when it is called as the supervisor: its standard input is the socket.
#[must_use]
pub fn supervisor_main() -> ExitCode {
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn supervise() -> io::Result<()> {
    // A session of its own: what is typed at the server's terminal is not meant for us.
    let _ = setsid();
    crate::process::use_huge_pages(true);
    set_child_subreaper(Pid::from_raw(1))?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let supervising =
        Arc::new(Supervising { socket, leaders: Mutex::default(), started: Condvar::new() });
    let reaping = supervising.clone();
    std::thread::Builder::new().name("reap".into()).spawn(move || reaping.reap())?;
    while let Ok(Some((request, fds))) = receive(supervising.socket.as_fd()) {
        match request {
            Request::Spawn { id, command, folder, environment, memory_bytes } => {
                let program = Start { command, folder, environment, memory_bytes };
                if let Err(why) = supervising.start(&id, &program, fds) {
                    let error = why.to_string();
                    supervising.tell(&Event::NotStarted { id, error });
                }
            }
            Request::Stop { id, grace_ms } => supervising.stop(id, grace_ms)?,
        }
    }
    // The server is gone: so is everything that it started. Until nothing is left, however often
    // something new appears.
    let own = own_pid();
    while !tree::below(&tree::processes(), own).is_empty() {
        tree::end_all(|processes| tree::below(processes, own), tree::PATIENCE);
    }
    Ok(())
}

struct Leader {
    /// Whose program it is.
    id: String,
    /// When it was started, in the ticks of [`tree::Process`].
    started: u64,
}

struct Start {
    command: Vec<String>,
    folder: PathBuf,
    environment: Option<Vec<(String, String)>>,
    memory_bytes: Option<u64>,
}

impl Supervising {
    fn start(&self, id: &str, program: &Start, fds: Vec<OwnedFd>) -> io::Result<()> {
        let [stdin, stdout, stderr]: [OwnedFd; 3] =
            fds.try_into().map_err(|_| io::Error::other("three standard streams are wanted"))?;
        let (name, arguments) =
            program.command.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
        let marker = std::env::var(SUPERVISOR_MARKER).unwrap_or_default();
        let mut command = Command::new(name);
        if let Some(environment) = &program.environment {
            command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        }
        command
            .args(arguments)
            .current_dir(&program.folder)
            .env(SUPERVISOR_MARKER, marker)
            .env(ATTEMPT_MARKER, id)
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr))
            .process_group(0);
        let mut leaders = self.leaders();
        let child = command.spawn().map_err(|why| explain(&why, name, &program.folder))?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        if let Some(most) = program.memory_bytes {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            // One that has ended already needs no bound.
            let _ = prlimit(Pid::from_raw(pid), Resource::As, limit);
        }
        // One that has ended already is as old as can be: what may be its own is left alone.
        let started = tree::started(pid).unwrap_or_default();
        leaders.insert(pid, Leader { id: id.to_owned(), started });
        drop(leaders);
        self.started.notify_one();
        Ok(())
    }

    /// Reaps whatever ends below us. When a leader has ended, what is left of its program is ended,
    /// and then the server is told.
    fn reap(self: Arc<Supervising>) {
        loop {
            let any = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            match waitid(WaitId::All, any) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => {
                    // No children at all: there will be some when the next program is started.
                    let leaders = self.leaders();
                    if leaders.is_empty() {
                        drop(self.started.wait(leaders));
                    }
                    continue;
                }
            }
            let mut leaders = self.leaders();
            // With the lock held, what waits to be reaped is not one that is just being started.
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if let Some(leader) = leaders.remove(&pid.as_raw_nonzero().get()) {
                    self.clone().conclude(leader.id, status);
                }
            }
        }
    }

    fn conclude(self: Arc<Supervising>, id: String, status: WaitStatus) {
        let (code, signal) = (status.exit_status(), status.terminating_signal());
        let done = std::thread::Builder::new().spawn(move || {
            tree::end_all(|processes| members(processes, None, &id), tree::PATIENCE);
            self.tell(&Event::Exited { id, code, signal });
            // Behind that, and for a moment: one that belongs to another user is never ended.
            tree::end_all(|processes| self.strays(processes), STRAYS_PATIENCE);
        });
        // Without a thread the server waits for this program until it stops it, or stops itself.
        drop(done);
    }

    fn stop(self: &Arc<Supervising>, id: String, grace_ms: u64) -> io::Result<()> {
        let supervising = self.clone();
        let stopping = move || {
            let deadline = Instant::now() + Duration::from_millis(grace_ms);
            let find =
                |processes: &[tree::Process]| members(processes, supervising.leader_of(&id), &id);
            if grace_ms > 0 {
                for pid in find(&tree::processes()) {
                    tree::signal(pid, Signal::TERM);
                }
            }
            while Instant::now() < deadline && supervising.leader_of(&id).is_some() {
                std::thread::sleep(LOOK);
            }
            tree::end_all(find, tree::PATIENCE);
        };
        std::thread::Builder::new().spawn(stopping).map(drop)
    }

    fn leader_of(&self, id: &str) -> Option<i32> {
        self.leaders().iter().find(|(_, leader)| leader.id == id).map(|(pid, _)| *pid)
    }

    /// Processes that left the tree of their program and cleared its marker from their environment,
    /// with what is below them. Whose they are is not known: only that it is a program which was
    /// there before them. So they go when the last such program has ended.
    fn strays(&self, processes: &[tree::Process]) -> Vec<i32> {
        let leaders = self.leaders();
        let own = own_pid();
        let adopted = processes.iter().filter(|process| {
            process.parent == own
                && !leaders.contains_key(&process.pid)
                && leaders.values().all(|leader| leader.started > process.started)
                && tree::marker_of(process.pid, ATTEMPT_MARKER).is_none()
        });
        let tops: Vec<i32> = adopted.map(|process| process.pid).collect();
        let below = tops.iter().flat_map(|top| tree::below(processes, *top));
        tops.iter().copied().chain(below).collect()
    }

    fn tell(&self, event: &Event) {
        // A server that is gone is noticed by who listens to it.
        drop(send(self.socket.as_fd(), event, &[]));
    }

    fn leaders(&self) -> MutexGuard<'_, HashMap<i32, Leader>> {
        self.leaders.lock().expect("nothing panics while it holds this lock")
    }
}

/// All processes of a program: its leader, what is below it, and what carries its marker wherever
/// it hangs, with what is below that.
fn members(processes: &[tree::Process], leader: Option<i32>, id: &str) -> Vec<i32> {
    let marker = format!("{ATTEMPT_MARKER}={id}");
    let mut found: Vec<i32> = tree::below(processes, own_pid())
        .into_iter()
        .filter(|pid| Some(*pid) == leader || tree::has_marker(*pid, &marker))
        .collect();
    for top in found.clone() {
        found.extend(tree::below(processes, top));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Says whether it is the program or its folder that is not there.
fn explain(why: &io::Error, name: &str, folder: &Path) -> io::Error {
    if File::open(folder).is_err() {
        return io::Error::other(format!("its folder `{}` is not there", folder.display()));
    }
    io::Error::other(format!("`{name}` cannot be started: {why}"))
}
