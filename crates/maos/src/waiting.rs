//! What a task waits for, in words for people who wait with it.
//!
//! Law: each reason is told once. It must not know whom it asks.

use std::collections::BTreeSet;
use std::time::Duration;

use maos_api::explain::{Blocker, Explanation};
use uuid::Uuid;

use crate::layout::{Fields, few, moment};
use crate::words;

/// A task that stands still for longer is asked why.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// So many times a reason that lies with another task is followed there.
const DEPTH_MAX: usize = 32;

/// Every blocker with its number, and what would let the task go on.
pub(crate) fn listed(blockers: &[Blocker]) -> String {
    let mut text = String::new();
    for (index, blocker) in blockers.iter().enumerate() {
        let what = words::one_line(&blocker.message);
        text.push_str(&format!("\n{}. {what} ({})", index + 1, words::one_line(&blocker.kind)));
        let fields = Fields::default()
            .with("   since", moment(blocker.since))
            .with("   held by", few(&blocker.held_by))
            .with("   unblock", words::harmless(&blocker.unblock).into_owned());
        text.push('\n');
        text.push_str(&fields.text());
    }
    text
}

/// What a task waits for in the end: the reason of the task that it waits for, if that is it.
/// `None` if something runs there.
pub(crate) async fn origin(
    task: Uuid,
    explain: impl AsyncFn(Uuid) -> Option<Explanation>,
) -> Option<Explanation> {
    let mut id = task;
    for _ in 0..DEPTH_MAX {
        let explanation = explain(id).await?;
        let first = explanation.blockers.first()?;
        if !matches!(first.kind.as_str(), "subtasks" | "dependency") {
            return Some(explanation);
        }
        id = *first.held_by.first()?;
    }
    None
}

/// Reasons that were told.
#[derive(Default)]
pub(crate) struct Told(BTreeSet<(Uuid, String)>);

impl Told {
    /// The reason in words, if it is new.
    pub(crate) fn news(&mut self, asked: Uuid, explanation: &Explanation) -> Option<String> {
        let id = explanation.task_id;
        let kinds: Vec<&str> = explanation.blockers.iter().map(|b| b.kind.as_str()).collect();
        if !self.0.insert((id, kinds.join(" "))) {
            return None;
        }
        let status = explanation.status.name();
        let whose = if id == asked { String::new() } else { format!("subtask {id} is ") };
        Some(format!("{whose}{status}: it waits for{}", listed(&explanation.blockers)))
    }
}

#[cfg(test)]
mod tests {
    use maos_api::task::TaskStatus;
    use maos_api::time::UtcTime;

    use super::*;

    fn explanation(id: u128, blockers: &[(&str, u128)]) -> Explanation {
        let blocker = |(kind, held_by): &(&str, u128)| Blocker {
            kind: (*kind).to_owned(),
            message: format!("{kind} is in the way"),
            since: UtcTime(0),
            held_by: vec![Uuid::from_u128(*held_by)],
            until: None,
            unblock: "patience".to_owned(),
        };
        Explanation {
            task_id: Uuid::from_u128(id),
            status: TaskStatus::Ready,
            waiting: true,
            blockers: blockers.iter().map(blocker).collect(),
        }
    }

    #[tokio::test]
    async fn a_reason_is_followed_to_where_it_begins() {
        let answers = [
            explanation(1, &[("subtasks", 2)]),
            explanation(2, &[("dependency", 3)]),
            explanation(3, &[("no_agent", 9)]),
            explanation(4, &[]),
            explanation(5, &[("subtasks", 4)]),
            explanation(6, &[("subtasks", 6)]),
        ];
        let explain = async |id: Uuid| answers.iter().find(|answer| answer.task_id == id).cloned();
        let found =
            async |id| origin(Uuid::from_u128(id), explain).await.map(|e| e.task_id.as_u128());
        assert_eq!(found(1).await, Some(3));
        assert_eq!(found(3).await, Some(3));
        assert_eq!((found(5).await, found(6).await, found(7).await), (None, None, None));
    }

    #[test]
    fn a_reason_is_told_once() {
        let mut told = Told::default();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let text = told.news(one, &explanation(1, &[("queue", 3)])).unwrap();
        assert!(
            text.starts_with("ready: it waits for\n1. queue is in the way (queue)\n"),
            "{text}"
        );
        assert_eq!(told.news(one, &explanation(1, &[("queue", 4)])), None);
        assert!(told.news(one, &explanation(1, &[("resources", 4)])).is_some());
        let text = told.news(one, &explanation(2, &[("queue", 3)])).unwrap();
        assert!(text.starts_with(&format!("subtask {two} is ready: it waits for")), "{text}");
    }
}
