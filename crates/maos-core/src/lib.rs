//! What may happen: the pure core of MAOS.
//!
//! No clock, no I/O, no randomness: the same inputs give the same events, byte for byte. `no_std`
//! keeps it so; time, ids and entropy arrive as arguments.
//!
//! ```text
//! node -> engine -> {task, agent, change, dispatch, gate, retry}
//! -> {command, event, rejection} -> {ids, time, limits}
//! ```
#![no_std]
// A new variant must find its places.
#![warn(clippy::wildcard_enum_match_arm)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod node;

pub mod engine;
pub mod laws;
pub mod outcome;
pub mod view;

mod agent;
pub mod change;
mod dispatch;
mod gate;
mod presence;
mod retry;
mod slab;
mod sorted;
mod task;

pub mod command;
pub mod event;
pub mod payload;
pub mod record;
pub mod rejection;
pub mod spec;

pub mod ids;
pub mod limits;
pub mod time;

pub use dispatch::Pool;
