//! The rules of the house that no compiler holds: lengths, openings, forbidden edges between crates
//! and modules, paths that documents name, licences of what comes in from outside.
//!
//! It lives beside the simulator because nothing depends on that crate and it depends on next to
//! nothing, so this test is built in seconds. Every check is a function from text to violations
//! and is itself tested against a small bad example. [`exceptions::EXCEPTIONS`] names what does not
//! hold yet; that list may only shrink.

mod documents;
mod edges;
mod exceptions;
mod licences;
mod lines;
mod manifests;
mod source;
mod tree;
mod violation;
