//! temp
use super::*;
pub struct Action {
    pub name: &'static str,
    pub capability: &'static str,
}
pub const ACTIONS: &[Action] = &[Action { name: "noop", capability: "task_execution" }];
pub fn capability_of(action: &str) -> Option<&'static str> {
    ACTIONS.iter().find(|a| a.name == action).map(|a| a.capability)
}
pub struct Builtin;
impl Builtin {
    pub fn new(_: AllowedRoots, _: Vec<std::ffi::OsString>) -> Builtin {
        Builtin
    }
}
impl RunAttempt for Builtin {
    fn run(&self, a: Assignment) -> Running<'_> {
        Box::pin(async move { Verdict::Completed(a.parameters) })
    }
}
