//! One file a command: what it needs, what it does, how it ends.

pub(crate) mod run;
pub(crate) mod serve;
