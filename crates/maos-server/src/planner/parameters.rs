//! The parameters of one subtask: as they were sent, or put together from what it inherits and what
//! its place in the list adds.

use std::borrow::Cow;
use std::rc::Rc;

use maos_api::document;

/// One member of an object: its name and its value as JSON.
pub(super) type Member<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What strings and data below a task inherit of its parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct PassedOn<'a>(pub(super) Rc<Vec<Member<'a>>>);

/// An object.
#[derive(Clone, Debug)]
pub(super) enum Parameters<'a> {
    /// As it was sent.
    AsSent(&'a str),
    /// What is inherited, but for what is its own.
    Built { inherited: PassedOn<'a>, own: Vec<Member<'a>> },
}

impl<'a> Parameters<'a> {
    /// Sets a member, unless the task has it of its own; says whether it was set.
    pub(super) fn set(&mut self, name: &'static str, json: String) -> bool {
        if let Parameters::AsSent(sent) = *self {
            *self = Parameters::Built { inherited: PassedOn::default(), own: opened(sent) };
        }
        match self {
            Parameters::Built { own, .. } if !own.iter().any(|(held, _)| held == name) => {
                own.push((Cow::Borrowed(name), Cow::Owned(json)));
                true
            }
            Parameters::Built { .. } | Parameters::AsSent(_) => false,
        }
    }

    /// The object as JSON.
    pub(super) fn text(&self) -> Cow<'a, str> {
        let (inherited, own) = match self {
            Parameters::AsSent(sent) => return Cow::Borrowed(sent),
            Parameters::Built { inherited, own } => (inherited, own),
        };
        let mut text = String::from("{");
        let kept = inherited.0.iter().filter(|(name, _)| !own.iter().any(|(held, _)| held == name));
        for (name, value) in kept.chain(own) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&quoted(name));
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        Cow::Owned(text)
    }

    /// What strings and data below a task with these parameters inherit: what it inherits itself,
    /// overridden by its own, without the members that `left_out` names.
    pub(super) fn passed_on(
        &self,
        inherited: &PassedOn<'a>,
        left_out: &dyn Fn(&str) -> bool,
    ) -> PassedOn<'a> {
        let own = match self {
            Parameters::AsSent(sent) => opened(sent),
            Parameters::Built { own, .. } => own.clone(),
        };
        let mut members: Vec<Member<'a>> = inherited
            .0
            .iter()
            .filter(|(name, _)| !own.iter().any(|(held, _)| held == name))
            .cloned()
            .collect();
        members.extend(own);
        members.retain(|(name, _)| !left_out(name));
        PassedOn(Rc::new(members))
    }
}

fn opened(sent: &str) -> Vec<Member<'_>> {
    let members = document::members(sent).unwrap_or_default();
    members.0.into_iter().map(|(name, raw)| (name, Cow::Borrowed(raw.get()))).collect()
}

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
