//! The shell around the core: everything that waits, reads, writes or runs something.
//!
//! ```text
//! http -> service -> driver -> {journal, agents}
//! ```
//! `http` never reaches the driver or the journal; journal and agents know nothing of each other.

pub mod config;
pub mod host;
pub mod http;
pub mod service;

pub mod door;
pub mod driver;
mod feed;
pub mod logs;
pub mod messages;
pub mod planner;

pub mod agents;
mod base64;
pub mod blobs;
pub mod codec;
pub mod data_dir;
pub mod journal;
pub mod payloads;
pub mod process;
pub mod store;
pub mod streams;
pub mod supervisor;

pub mod outbound;
pub mod webhooks;

pub mod telemetry;
