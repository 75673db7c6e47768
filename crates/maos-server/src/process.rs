//! What this process asks of the system for itself, and gives back to the programs that it starts.

/// Has this process and those it starts use ordinary pages of memory or, as the system does by
/// default, huge ones as well. A server that takes in much at once spends a third less processor
/// time with ordinary ones, because the kernel then clears only what is touched; programs of agents
/// are given back the default by the supervisor.
pub fn use_huge_pages(use_them: bool) {
    #[cfg(target_os = "linux")]
    if let Err(fault) = rustix::thread::disable_transparent_huge_pages(!use_them) {
        tracing::debug!("the size of memory pages stays as it is: {fault}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = use_them;
}

/// Has the thread that calls this yield to the engine and the journal, from now on, when there is
/// not enough processor for all.
pub(crate) fn yield_to_others() {
    // On Linux a niceness belongs to a thread. Where it may not be set all goes on as it is.
    #[cfg(target_os = "linux")]
    if let Err(fault) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!("a thread keeps its priority: {fault}");
    }
}

#[cfg(target_os = "linux")]
mod files {
    use std::sync::OnceLock;

    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
    use tracing::debug;

    /// The bound that this process was started with, once it has raised it.
    static BEFORE: OnceLock<Rlimit> = OnceLock::new();

    /// Opens as many files as the system lets it: every client that waits holds a connection, and
    /// the usual bound of 1,024 is for programs that count on less.
    pub fn open_many() {
        let before = getrlimit(Resource::Nofile);
        if before.current == before.maximum {
            return;
        }
        match setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }) {
            Ok(()) => drop(BEFORE.set(before)),
            Err(fault) => debug!("the bound on open files stays as it is: {fault}"),
        }
    }

    /// Gives a process, and those it will start, the bound that this one was started with.
    pub(crate) fn open_as_before(pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let (Some(before), Some(pid)) = (BEFORE.get(), pid) {
            // One that has ended already needs no bound.
            let _ = prlimit(Some(pid), Resource::Nofile, *before);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod files {
    /// The bound on open files stays as it is.
    pub fn open_many() {}

    pub(crate) fn open_as_before(_pid: u32) {}
}

pub(crate) use files::open_as_before;
pub use files::open_many;
