//! The courier of an attempt of a program: brings messages to its task into a file beside it, and
//! takes along those that it sends.
//!
//! Its law: every message to the task is a line of the file, in order, as long as the program runs.
//! Nothing is acknowledged: a further attempt finds them all again.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use maos_api::messages::{self, LIMIT_MAX, Mailbox, MessageQuery, READER_DEFAULT};
use maos_core::ids::TaskId;
use uuid::Uuid;

use super::builtin::message_bounds;
use crate::messages::Bus;

/// Name of the file in the folder of an attempt.
const FILE: &str = "messages.jsonl";

pub(super) struct Courier {
    bus: Bus,
    mailbox: Mailbox,
    file: PathBuf,
}

impl Courier {
    pub(super) fn new(bus: Bus, task: TaskId, folder: &Path) -> Courier {
        let mailbox = Mailbox::Task(Uuid::from_u128(task.0));
        Courier { bus, mailbox, file: folder.join(FILE) }
    }

    /// Where messages are put, a line of JSON each; the file is there once there is one.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Sends a message of the program.
    pub(super) async fn send(&self, text: &str) -> Result<(), String> {
        let mut draft =
            messages::parse(text.as_bytes(), &message_bounds()).map_err(|error| error.message)?;
        draft.sender.get_or_insert_with(|| self.mailbox.to_string());
        self.bus.send(draft, None).await.map(drop).map_err(|error| error.message)
    }

    /// Brings what is there from an offset on; says where to go on.
    pub(super) async fn deliver(&self, from: u64) -> u64 {
        let mut query = MessageQuery {
            mailbox: self.mailbox.clone(),
            reader: READER_DEFAULT.to_owned(),
            offset: Some(from),
            limit: LIMIT_MAX,
            wait_seconds: 0,
        };
        let mut next = from;
        loop {
            query.offset = Some(next);
            let page = match self.bus.read(&query).await {
                Ok(page) if !page.items.is_empty() => page,
                Ok(_) => return next,
                Err(error) => {
                    tracing::warn!("messages to `{}` wait: {}", self.mailbox, error.message);
                    return next;
                }
            };
            let mut lines = Vec::new();
            for message in &page.items {
                // What was read from JSON can be written as JSON.
                drop(serde_json::to_writer(&mut lines, message));
                lines.push(b'\n');
            }
            let file = OpenOptions::new().create(true).append(true).open(&self.file);
            if let Err(why) = file.and_then(|mut file| file.write_all(&lines)) {
                tracing::warn!("`{}` cannot be written: {why}", self.file.display());
                return next;
            }
            next = page.next_offset;
        }
    }

    /// Brings what comes, for as long as it is let.
    pub(super) async fn deliver_all(&self, from: u64) -> Infallible {
        let mut watch = self.bus.watch(&self.mailbox);
        let mut next = self.deliver(from).await;
        while watch.longer().await.is_ok() {
            next = self.deliver(next).await;
        }
        std::future::pending().await
    }
}
