//! One after another: `sequential`, `hierarchical` and `pipeline`.

use maos_api::error::ApiError;

use super::draft::{CollectRule, Drafts, PassedOn};
use super::lists::Found;
use super::reference;

impl<'a> Drafts<'a, '_> {
    /// Each entry waits for the one before; the last one's result is the parent's.
    pub(super) fn split_sequence(
        &mut self,
        parent: usize,
        found: Found<'a>,
        passed: &PassedOn<'a>,
    ) -> Result<(), ApiError> {
        self.chain(parent, found, passed, None)
    }

    /// The same, and each entry gets the result of the one before as its `input`.
    pub(super) fn split_pipeline(
        &mut self,
        parent: usize,
        found: Found<'a>,
        passed: &PassedOn<'a>,
    ) -> Result<(), ApiError> {
        self.chain(parent, found, passed, Some("input"))
    }

    fn chain(
        &mut self,
        parent: usize,
        mut found: Found<'a>,
        passed: &PassedOn<'a>,
        flows_into: Option<&'static str>,
    ) -> Result<(), ApiError> {
        let mut previous: Option<usize> = None;
        for (index, entry) in std::mem::take(&mut found.entries).into_iter().enumerate() {
            let mut slot = self.slot(parent, &found, index);
            if let (Some(member), Some(before)) = (flows_into, previous) {
                slot.adds = Some((member, reference::write(&self.tasks[before].key)));
            }
            let added = self.add_entry(slot, entry, passed)?;
            self.tasks[added].depends_on.extend(previous);
            previous = Some(added);
        }
        if let Some(last) = previous {
            self.tasks[parent].collect = CollectRule::One(last);
        }
        Ok(())
    }
}
