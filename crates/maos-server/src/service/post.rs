//! The post of workers: messages to them and to the tasks that they hold come with their polls.
//!
//! What a worker has not acknowledged comes again, but not in a hurry: an answer may be lost, and a
//! worker may take its time.

use std::time::Duration;

use futures_util::future::select_all;
use maos_api::messages::{Ack, Mailbox, Message};
use maos_api::worker::Poll;
use maos_core::ids::AgentId;
use maos_core::limits::STOP_GRACE_MS;
use tokio::time::Instant;
use uuid::Uuid;

use super::Service;
use crate::agents::worker::Desk;
use crate::streams::Watch;

/// Tasks of one poll whose mailboxes are looked at.
const TASKS_MAX: usize = 1_000;
/// Time that a worker has to acknowledge before a message comes again.
const AGAIN_AFTER: Duration = Duration::from_millis(STOP_GRACE_MS);

/// What a poll is told beside its tasks.
pub(super) struct Post<'d> {
    service: Service,
    desk: &'d Desk,
    incarnation: u64,
    most: usize,
    mailboxes: Vec<Mailbox>,
    watches: Vec<Watch>,
    /// New to this process of the worker, or due to come again.
    pub(super) messages: Vec<Message>,
    /// When those that it has may come again.
    again: Option<Instant>,
    /// What the worker's author should know.
    pub(super) warnings: Vec<String>,
}

impl Service {
    /// Takes the acknowledgements of a poll, and looks what there is for it.
    pub(super) async fn post<'d>(
        &self,
        desk: &'d Desk,
        agent: AgentId,
        poll: &Poll<'_>,
    ) -> Post<'d> {
        let mut post = Post {
            service: self.clone(),
            desk,
            incarnation: poll.incarnation,
            most: usize::try_from(poll.max_messages).unwrap_or(usize::MAX),
            mailboxes: Vec::new(),
            watches: Vec::new(),
            messages: Vec::new(),
            again: None,
            warnings: Vec::new(),
        };
        if post.most == 0 && poll.ack.is_empty() {
            return post;
        }
        let own = std::iter::once(Mailbox::Agent(Uuid::from_u128(agent.0)));
        let held = poll.holding.iter().map(|held| Mailbox::Task(held.task_id));
        post.mailboxes.extend(own.chain(held.take(TASKS_MAX)));
        let ended = poll.outcomes.iter().map(|outcome| Mailbox::Task(outcome.task_id));
        let may: Vec<Mailbox> = post.mailboxes.iter().cloned().chain(ended).collect();
        for ack in &poll.ack {
            post.warnings.extend(self.take_ack(&may, ack).await);
        }
        if post.most > 0 {
            let bus = &self.inner.bus;
            post.watches = post.mailboxes.iter().map(|mailbox| bus.watch(mailbox)).collect();
            post.look().await;
        }
        post
    }

    /// Takes an acknowledgement; or says why not.
    async fn take_ack(&self, may: &[Mailbox], ack: &Ack) -> Option<String> {
        if !may.contains(&ack.mailbox) {
            let mailbox = &ack.mailbox;
            return Some(format!(
                "`ack`: `{mailbox}` is neither its own nor of a task that it has"
            ));
        }
        let ack = Ack { reader: None, ..ack.clone() };
        self.inner.bus.acknowledge(&ack).await.err().map(|why| format!("`ack`: {}", why.message))
    }
}

impl Post<'_> {
    /// Looks what there is that this process has not, or has had for long.
    async fn look(&mut self) {
        let bus = &self.service.inner.bus;
        let found = match bus.unread(self.mailboxes.clone(), self.most).await {
            Ok(found) => found,
            Err(why) => return self.warnings.push(format!("messages: {}", why.message)),
        };
        let handed = self.desk.handed_messages(self.incarnation);
        let due = handed.at + AGAIN_AFTER;
        let waits = Instant::now() < due;
        let has = |message: &Message| {
            handed.last.get(&message.mailbox).is_some_and(|last| message.offset <= *last)
        };
        let any = !found.is_empty();
        self.messages = found.into_iter().filter(|found| !(waits && has(found))).collect();
        self.again = (any && waits).then_some(due);
    }

    /// Returns once there are messages; never, if the worker takes none.
    pub(super) async fn arrives(&mut self) {
        while self.messages.is_empty() {
            if self.watches.is_empty() {
                return std::future::pending().await;
            }
            let again = async {
                match self.again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let longer = select_all(self.watches.iter_mut().map(|watch| Box::pin(watch.longer())));
            let closed = tokio::select! {
                biased;
                (longer, _, _) = longer => longer.is_err(),
                () = again => false,
            };
            if closed {
                self.watches.clear();
            } else {
                self.look().await;
            }
        }
    }

    /// The messages, which the worker has from now on.
    pub(super) fn hand_over(&mut self) -> Vec<Message> {
        let messages = std::mem::take(&mut self.messages);
        if !messages.is_empty() {
            self.desk.note_messages(self.incarnation, &messages);
        }
        messages
    }
}
