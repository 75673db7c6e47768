//! The real binary as a real process: killed, stopped, restarted, with real programs below it.

mod crash;
mod house;
mod programs;
