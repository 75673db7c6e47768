//! One file a command: what it takes, what it does, how it ends.

pub(crate) mod serve;

pub(crate) mod run;

pub(crate) mod agent;
pub(crate) mod checkpoint;
pub(crate) mod status;
pub(crate) mod task;
pub(crate) mod watch;
pub(crate) mod worker;

pub(crate) mod backup;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod restore;
