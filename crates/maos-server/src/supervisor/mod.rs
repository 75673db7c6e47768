//! Programs and all that they start, ended for certain.
//!
//! Every program runs under one process of ours, the supervisor: this binary re-executed, a child
//! subreaper, connected by a socket. When the socket closes, because the server stopped or was
//! killed, the supervisor ends all its descendants, also those in sessions of their own and
//! double-forked ones. A sweep at the next start is the second net, where there is a data directory
//! to remember it. Linux only: it rests on `/proc` and on subreapers.

mod link;
mod message;
mod process;
mod tree;
pub(crate) mod usage;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thiserror::Error;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tracing::{error, warn};
use uuid::Uuid;

use link::Link;
use message::{Event, Request};
pub use process::supervisor_main;

/// Every program of one server carries this in its environment.
pub(crate) const SUPERVISOR_MARKER: &str = "MAOS_SUPERVISOR";
/// Every program of one attempt carries this in its environment.
pub(crate) const ATTEMPT_MARKER: &str = "MAOS_ATTEMPT";

/// Why programs cannot be run.
#[derive(Debug, Error)]
pub enum SupervisorError {
    /// The folder that remembers the last supervisor.
    #[error("`{}` cannot be used", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: io::Error,
    },
    /// The supervisor itself.
    #[error("the process that runs programs cannot be started: {0}")]
    NotStarted(#[source] io::Error),
    /// The supervisor does not answer any more.
    #[error("the process that runs programs is gone")]
    Gone,
}

/// A program to run.
#[derive(Clone, Debug)]
pub struct ProgramSpec {
    /// Unique among all programs that run; shown to the program as `MAOS_ATTEMPT`.
    pub id: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Its whole environment, but for our markers; `None`: that of this process.
    pub environment: Option<Vec<(String, String)>>,
    /// Address space of each of its processes, at the most.
    pub memory_bytes: Option<u64>,
}

/// How a program came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It never began.
    NotStarted(String),
    /// The supervisor went away, and the program with it.
    Lost,
}

/// A program that runs. Dropped before its exit, it is ended with all its descendants.
pub struct Program {
    /// Its standard input.
    pub stdin: pipe::Sender,
    /// Its standard output.
    pub stdout: pipe::Receiver,
    /// Its standard error.
    pub stderr: pipe::Receiver,
    /// Its end; nothing it started is left then.
    pub exit: oneshot::Receiver<Exit>,
    /// How to end it.
    pub stop: Stop,
}

/// Ends a program with all its descendants.
pub struct Stop {
    id: String,
    shared: Arc<Shared>,
}

/// Runs programs. The process behind it is started with the first of them.
pub struct Supervisor {
    shared: Arc<Shared>,
    command: Vec<OsString>,
    marker: String,
    record: Option<PathBuf>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    waiting: HashMap<String, oneshot::Sender<Exit>>,
    /// Why there is no process, if there should be one.
    fault: Option<String>,
}

impl Supervisor {
    /// Sweeps what an earlier server in this data directory may have left behind. Nothing is
    /// started yet: `command` is this program and the word that makes it a supervisor.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub async fn start(
        command: &[OsString],
        data_dir: &Path,
    ) -> Result<Supervisor, SupervisorError> {
        let record = data_dir.join("supervisor");
        let failed = |source| SupervisorError::Record { path: record.clone(), source };
        match fs::read_to_string(&record) {
            Ok(earlier) => {
                let swept = tokio::task::spawn_blocking(move || sweep(earlier.trim())).await;
                let swept = swept.unwrap_or_default();
                if swept > 0 {
                    warn!("ended {swept} processes that an earlier server left behind");
                }
                fs::remove_file(&record).map_err(failed)?;
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(failed(why)),
        }
        Ok(Supervisor { record: Some(record), ..Supervisor::unrecorded(command) })
    }

    /// The same without a data directory: nothing is swept, now or by the next one.
    #[must_use]
    pub fn unrecorded(command: &[OsString]) -> Supervisor {
        let marker = Uuid::now_v7().to_string();
        Supervisor { shared: Arc::default(), command: command.to_vec(), marker, record: None }
    }

    /// Runs a program.
    ///
    /// # Errors
    /// When the supervisor cannot be started or reached. A program that cannot be started says so
    /// through its exit.
    pub fn spawn(&self, spec: &ProgramSpec) -> Result<Program, SupervisorError> {
        let link = self.link()?;
        let pipes = || -> io::Result<_> { Ok((pipe_pair()?, pipe_pair()?, pipe_pair()?)) };
        let (input, output, errors) = pipes().map_err(SupervisorError::NotStarted)?;
        let program = || -> io::Result<_> {
            Ok((
                pipe::Sender::from_owned_fd(input.1)?,
                pipe::Receiver::from_owned_fd(output.0)?,
                pipe::Receiver::from_owned_fd(errors.0)?,
            ))
        };
        let (stdin, stdout, stderr) = program().map_err(SupervisorError::NotStarted)?;
        let (told, exit) = oneshot::channel();
        self.shared.lock().waiting.insert(spec.id.clone(), told);
        let request = Request::Spawn {
            id: spec.id.clone(),
            command: spec.command.clone(),
            folder: spec.folder.clone(),
            environment: spec.environment.clone(),
            memory_bytes: spec.memory_bytes,
        };
        let ours = [input.0.as_fd(), output.1.as_fd(), errors.1.as_fd()];
        if link.send(&request, &ours).is_err() {
            self.shared.lock().waiting.remove(&spec.id);
            return Err(SupervisorError::Gone);
        }
        let stop = Stop { id: spec.id.clone(), shared: self.shared.clone() };
        Ok(Program { stdin, stdout, stderr, exit, stop })
    }

    /// Ends everything that runs, and the supervisor; waits for that at most `patience`.
    pub async fn shutdown(&self, patience: Duration) {
        let link = self.shared.lock().link.take();
        let Some(link) = link else { return };
        link.close();
        let ended = tokio::task::spawn_blocking(move || link.wait(patience)).await;
        match ended {
            Ok(true) => drop(self.record.as_ref().map(fs::remove_file)),
            Ok(false) | Err(_) => warn!("the process that runs programs has not ended yet"),
        }
    }

    /// Whether programs can be run. Of a process that is gone it is told once: then another one is
    /// started, and if that stays, the next who asks hears nothing bad.
    ///
    /// # Errors
    /// Why there is no process, in words.
    pub fn health(&self) -> Result<(), String> {
        let Some(fault) = self.shared.lock().fault.clone() else { return Ok(()) };
        // What fails is noted for the next who asks.
        drop(self.link());
        Err(fault)
    }

    /// The link to a supervisor that runs; starts one if there is none.
    fn link(&self) -> Result<Arc<Link>, SupervisorError> {
        let mut state = self.shared.lock();
        if let Some(link) = &state.link {
            return Ok(link.clone());
        }
        let opened = self.open(&mut state);
        state.fault = opened.as_ref().err().map(ToString::to_string);
        opened
    }

    fn open(&self, state: &mut State) -> Result<Arc<Link>, SupervisorError> {
        // Written first: whatever starts from here on is found by the next sweep.
        if let Some(path) = &self.record {
            fs::write(path, &self.marker)
                .map_err(|source| SupervisorError::Record { path: path.clone(), source })?;
        }
        let link = Link::open(&self.command, &self.marker).map_err(SupervisorError::NotStarted)?;
        let link = Arc::new(link);
        let (hearing, shared, marker) = (link.clone(), self.shared.clone(), self.marker.clone());
        std::thread::Builder::new()
            .name("maos-supervisor".into())
            .spawn(move || shared.hear(&hearing, &marker))
            .map_err(SupervisorError::NotStarted)?;
        state.link = Some(link.clone());
        Ok(link)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    /// Hands on what the supervisor says, until it is gone.
    fn hear(&self, link: &Arc<Link>, marker: &str) {
        while let Some(event) = link.hear() {
            let (id, exit) = match event {
                Event::NotStarted { id, error } => (id, Exit::NotStarted(error)),
                Event::Exited { id, code: Some(code), .. } => (id, Exit::Code(code)),
                Event::Exited { id, signal, .. } => (id, Exit::Signal(signal.unwrap_or_default())),
            };
            if let Some(told) = self.lock().waiting.remove(&id) {
                // Whoever ran it may have lost interest.
                drop(told.send(exit));
            }
        }
        let mut state = self.lock();
        let expected = state.link.as_ref().is_none_or(|held| !Arc::ptr_eq(held, link));
        if !expected {
            state.link = None;
            state.fault = Some("the process that runs programs is gone".to_owned());
        }
        let lost: Vec<_> = state.waiting.drain().collect();
        drop(state);
        if !expected {
            error!("the process that runs programs is gone; what it ran is ended");
            sweep(marker);
        }
        for (_, told) in lost {
            drop(told.send(Exit::Lost));
        }
    }
}

impl Stop {
    /// Asks the program to end; what is left of it after `grace` is killed.
    pub fn within(&self, grace: Duration) {
        let link = self.shared.lock().link.clone();
        if let Some(link) = link {
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            // A supervisor that is gone has ended it already.
            drop(link.send(&Request::Stop { id: self.id.clone(), grace_ms }, &[]));
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        let runs = self.shared.lock().waiting.contains_key(&self.id);
        if runs {
            self.within(Duration::ZERO);
        }
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(i32::MAX)
}

/// A pipe: its reading end, its writing end.
fn pipe_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Ends every process that carries this marker; says how many there were.
fn sweep(marker: &str) -> usize {
    if marker.is_empty() {
        return 0;
    }
    let wanted = format!("{SUPERVISOR_MARKER}={marker}");
    tree::end_all(|processes| tree::with_marker(processes, &wanted), tree::PATIENCE)
}
