//! The wire contract as types: paths, requests, responses and error codes.
//!
//! What a client sends is parsed and checked here, with every fault named; what a server answers is
//! written and read with the same types, so neither side can drift. This crate knows no engine and
//! no clock, and no socket but in the module `client`; bounds arrive as arguments.

pub mod agent;
pub mod amend;
pub mod artifacts;
pub mod bulk;
pub mod checkpoint;
pub mod claude;
#[cfg(feature = "client")]
pub mod client;
pub mod document;
pub mod error;
pub mod events;
pub mod explain;
pub mod fault;
mod field;
pub mod history;
pub mod keys;
pub mod listing;
pub mod logs;
pub mod messages;
pub mod paths;
pub mod plan;
pub mod pool;
pub mod resource;
pub mod schedule;
pub mod submission;
pub mod subscriptions;
pub mod system;
pub mod task;
pub mod time;
pub mod worker;
