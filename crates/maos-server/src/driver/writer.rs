//! The journal's own thread: encodes a group, appends it, and goes on trying when that fails. A
//! small group on an idle server is appended by who brings it.
//!
//! A failed append is tried again with the same bytes until it works: what was decided is never
//! taken back.

use std::sync::{Arc, Mutex, mpsc as blocking};
use std::thread::JoinHandle;
use std::time::Duration;

use maos_core::event::Step;
use maos_core::ids::{Epoch, Sequence};
use tokio::sync::mpsc;

use crate::codec::Sealer;
use crate::journal::{Batch, Journal, JournalError};

/// Pause before a failed append is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Steps that become durable together.
pub(super) struct Group {
    pub(super) epoch: Epoch,
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    pub(super) steps: Vec<Step>,
}

/// What the journal's thread says.
pub(super) enum Ack {
    Durable { through: Sequence },
    Failed(JournalError),
    Fenced,
    TrimFailed(JournalError),
}

enum Job {
    Append(Group),
    Trim(Sequence),
}

/// The journal and the memory in which groups for it are sealed.
struct Desk {
    journal: Box<dyn Journal>,
    sealer: Sealer,
}

pub(super) struct Writer {
    /// Gone when the writer is about to be.
    jobs: Option<blocking::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Held while something is written; whoever finds it free may write.
    desk: Arc<Mutex<Desk>>,
    pub(super) acks: mpsc::UnboundedReceiver<Ack>,
    /// A group is on its way; there is never more than one.
    pub(super) busy: bool,
}

/// The journal is closed when this is dropped; a group that could not be appended is given up.
impl Drop for Writer {
    fn drop(&mut self) {
        self.acks.close();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by its hook; there is nobody to hand it on to.
            drop(thread.join());
        }
    }
}

impl Writer {
    pub(super) fn start(journal: Box<dyn Journal>) -> std::io::Result<Writer> {
        let (jobs, inbox) = blocking::channel();
        let (outbox, acks) = mpsc::unbounded_channel();
        let desk = Arc::new(Mutex::new(Desk { journal, sealer: Sealer::default() }));
        let shared = desk.clone();
        let thread = std::thread::Builder::new()
            .name("maos-journal".into())
            .spawn(move || write_all(&shared, &inbox, &outbox))?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread), desk, acks, busy: false })
    }

    pub(super) fn append(&mut self, group: Group) {
        assert!(!self.busy, "one group at a time is on its way to disk");
        self.busy = true;
        self.send(Job::Append(group));
    }

    /// Appends on this very thread, which spares two hand-overs between threads: for when there is
    /// nothing else to do meanwhile. A group that cannot be appended at once takes the other way.
    pub(super) fn append_here(&mut self, group: Group) -> Option<Ack> {
        assert!(!self.busy, "one group at a time is on its way to disk");
        if let Ok(mut desk) = self.desk.try_lock()
            && let Ok(through) = desk.append(&group)
        {
            return Some(Ack::Durable { through });
        }
        self.append(group);
        None
    }

    pub(super) fn trim(&mut self, through: Sequence) {
        self.send(Job::Trim(through));
    }

    fn send(&self, job: Job) {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        assert!(sent, "the journal's thread outlives its driver");
    }
}

impl Desk {
    fn append(&mut self, group: &Group) -> Result<Sequence, JournalError> {
        let (epoch, first, last) = (group.epoch, group.first, group.last);
        let batch = Batch { epoch, first, last, sealed: self.sealer.seal_steps(&group.steps) };
        let appended = self.journal.append(&batch);
        self.sealer.reuse(batch.sealed);
        appended.map(|()| last)
    }
}

fn write_all(
    desk: &Mutex<Desk>,
    inbox: &blocking::Receiver<Job>,
    outbox: &mpsc::UnboundedSender<Ack>,
) {
    while let Ok(job) = inbox.recv() {
        let mut desk = desk.lock().expect("a journal that panicked takes no more");
        let ack = match job {
            Job::Append(group) => append(&mut desk, &group, outbox),
            Job::Trim(through) => desk.journal.trim(through).err().map(Ack::TrimFailed),
        };
        drop(desk);
        if let Some(ack) = ack
            && outbox.send(ack).is_err()
        {
            return;
        }
    }
}

fn append(desk: &mut Desk, group: &Group, outbox: &mpsc::UnboundedSender<Ack>) -> Option<Ack> {
    loop {
        match desk.append(group) {
            Ok(through) => return Some(Ack::Durable { through }),
            Err(JournalError::Fenced { .. }) => return Some(Ack::Fenced),
            Err(fault) => outbox.send(Ack::Failed(fault)).ok()?,
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}
