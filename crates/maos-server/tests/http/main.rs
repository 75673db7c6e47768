//! The server at its outermost door: HTTP in, HTTP out, on a data directory of its own.

mod errors;
mod house;
mod tasks;
