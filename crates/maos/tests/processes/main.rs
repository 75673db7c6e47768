//! The real binary as a real process: killed, stopped, restarted, with real programs below it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod house;
mod plans;
mod programs;
mod runs;
mod targets;
mod workers;
