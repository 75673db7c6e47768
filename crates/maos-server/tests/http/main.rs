//! The server at its outermost door: HTTP in, HTTP out, on a data directory of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod amend;
mod artifacts;
mod batches;
mod checkpoints;
mod claude;
mod codes;
mod description;
mod errors;
mod events;
mod house;
mod http_agents;
mod keys;
mod lists;
mod logs;
mod messages;
mod pools;
mod resources;
mod schedules;
mod settings;
mod streams;
mod subscriptions;
mod target;
mod tasks;
mod workers;

#[path = "../../benches/speed/ended.rs"]
mod ended;

#[path = "../../../../examples/backend_api.rs"]
#[expect(dead_code, reason = "its own start is not tested here")]
mod backend_api;
