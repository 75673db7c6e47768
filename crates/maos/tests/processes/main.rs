//! The real binary as a real process: killed, stopped, restarted, with real programs below it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checkpoints;
mod clients;
mod crash;
mod house;
mod plans;
mod programs;
mod runs;
mod secure;
mod targets;
mod workers;

#[path = "../../../../examples/client_examples.rs"]
#[expect(dead_code, reason = "its own start is not tested here")]
mod client_examples;

#[path = "../../../../examples/worker.rs"]
#[expect(dead_code, reason = "its own start is not tested here")]
mod worker_example;
