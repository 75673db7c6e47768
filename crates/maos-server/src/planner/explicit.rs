//! The caller's own graph: `subtasks`, each with a `key` and what it `depends_on`.

use maos_api::document;
use maos_api::error::ApiError;
use serde_json::value::RawValue;

use super::draft::{CollectRule, Drafts, PassedOn, Slot};
use super::lists;

impl<'a> Drafts<'a, '_> {
    /// One subtask for each entry, which must be a submission: here an unknown field is a slip.
    pub(super) fn split_explicit(
        &mut self,
        parent: usize,
        subtasks: &'a RawValue,
        inherited: &PassedOn<'a>,
    ) -> Result<(), ApiError> {
        let full = format!("{}subtasks", self.tasks[parent].at);
        let entries = lists::read(subtasks, &full)?.unwrap_or_default();
        if entries.is_empty() {
            self.warn(format!("`{full}` is empty: the task runs as one"));
            return Ok(());
        }
        let passed = self.tasks[parent].parameters.passed_on(inherited, &|_| false);
        for (index, entry) in entries.into_iter().enumerate() {
            let at = format!("{full}[{index}]");
            let members = match entry {
                std::borrow::Cow::Borrowed(json) => document::members(json),
                std::borrow::Cow::Owned(_) => None,
            };
            let Some(members) = members else {
                self.faults.invalid(at, "must be an object with the fields of a submission");
                continue;
            };
            let label = format!("subtask-{}", index + 1);
            let slot = Slot { parent, label, at, index: Some(index), adds: None };
            self.add_submission(slot, members, &passed)?;
        }
        self.tasks[parent].collect = CollectRule::Sink;
        Ok(())
    }
}
