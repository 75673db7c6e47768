//! All at once: `parallel`, and `fan_out_fan_in` with its steps before and after.

use maos_api::document;
use maos_api::error::ApiError;
use maos_api::submission::{Fields, is_submission};
use serde_json::value::RawValue;

use super::draft::{CollectRule, Drafts, PassedOn, Slot};
use super::lists::Found;
use super::parameters::Parameters;
use super::reference;

impl<'a> Drafts<'a, '_> {
    /// One subtask for each entry; the list of their results is the parent's.
    pub(super) fn split_parallel(
        &mut self,
        parent: usize,
        found: Found<'a>,
        passed: &PassedOn<'a>,
    ) -> Result<(), ApiError> {
        self.spread(parent, found, passed, None)?;
        self.tasks[parent].collect = CollectRule::All;
        Ok(())
    }

    /// The same, after `prepare` and before `reduce`, which gets all results as its `inputs`.
    pub(super) fn split_fan(
        &mut self,
        parent: usize,
        found: Found<'a>,
        parameters: Option<&'a RawValue>,
        passed: &PassedOn<'a>,
    ) -> Result<(), ApiError> {
        let step = |name| {
            let raw = document::member(parameters?.get(), name)?;
            (raw.get() != "null").then_some(raw)
        };
        let prepare = match step("prepare") {
            Some(raw) => self.add_step(parent, "prepare", raw, None, passed)?,
            None => None,
        };
        let workers = self.spread(parent, found, passed, prepare)?;
        let Some(raw) = step("reduce") else {
            if prepare.is_some() {
                let at = &self.tasks[parent].at;
                let shown = format!("`{at}parameters.prepare` has no `reduce` beside it");
                self.warn(format!("{shown}: its result is the first of the collected ones"));
            }
            self.tasks[parent].collect = CollectRule::All;
            return Ok(());
        };
        let inputs: Vec<String> =
            workers.iter().map(|worker| reference::write(&self.tasks[*worker].key)).collect();
        let inputs = format!("[{}]", inputs.join(","));
        if let Some(reduce) = self.add_step(parent, "reduce", raw, Some(inputs), passed)? {
            self.tasks[reduce].depends_on.extend(workers);
            self.tasks[parent].collect = CollectRule::One(reduce);
        }
        Ok(())
    }

    fn spread(
        &mut self,
        parent: usize,
        mut found: Found<'a>,
        passed: &PassedOn<'a>,
        after: Option<usize>,
    ) -> Result<Vec<usize>, ApiError> {
        let mut workers = Vec::with_capacity(found.entries.len());
        for (index, entry) in std::mem::take(&mut found.entries).into_iter().enumerate() {
            let slot = self.slot(parent, &found, index);
            let worker = self.add_entry(slot, entry, passed)?;
            self.tasks[worker].depends_on.extend(after);
            workers.push(worker);
        }
        Ok(workers)
    }

    /// Adds the step before or after: a submission, a name, or else its parameters.
    fn add_step(
        &mut self,
        parent: usize,
        label: &'static str,
        raw: &'a RawValue,
        inputs: Option<String>,
        passed: &PassedOn<'a>,
    ) -> Result<Option<usize>, ApiError> {
        let at = format!("{}parameters.{label}", self.tasks[parent].at);
        let json = raw.get();
        let adds = inputs.map(|inputs| ("inputs", inputs));
        let slot = Slot { parent, label: label.to_owned(), at, index: None, adds };
        if json.starts_with('"') {
            return self.add_entry(slot, json.into(), passed).map(Some);
        }
        let Some(members) = document::members(json) else {
            let what = "must be a submission, a name or an object of parameters";
            self.faults.invalid(slot.at, what);
            return Ok(None);
        };
        if is_submission(&members) {
            return self.add_submission(slot, members, passed).map(Some);
        }
        self.push(slot, Fields::default(), None, Parameters::AsSent(json)).map(Some)
    }
}
