//! A world in which everything goes wrong, driven by a seed: one node, a journal that loses what it
//! has not confirmed, a store that lags, agents that answer late, twice or never, and a wall clock
//! that jumps. Whatever happens, the laws hold; and once nothing goes wrong any more, what can be
//! done gets done.
//!
//! The same seed gives the same run. No I/O here but the binary's output.

mod acts;
mod heal;
mod ledger;
mod plans;
mod promises;
mod rng;
mod store;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use trace::{Entry, Trace};

/// What one run, or many, came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Inputs that the node was given.
    pub steps: u64,
    /// Times the server went away.
    pub crashes: u64,
    /// Plans that the journal accepted.
    pub submissions: u64,
    /// Attempts that completed.
    pub completions: u64,
    /// Attempts of tasks that only a built-in agent may do.
    pub built_in: u64,
    /// Plans that were let go of and came back from the store.
    pub revivals: u64,
    /// A hash of everything that the node had done, in order.
    pub hash: u64,
}

impl Report {
    /// Adds another run to this one.
    pub fn add(&mut self, other: &Report) {
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.submissions += other.submissions;
        self.completions += other.completions;
        self.built_in += other.built_in;
        self.revivals += other.revivals;
        self.hash ^= other.hash.rotate_left(u32::try_from(self.steps % 64).unwrap_or_default());
    }
}

/// Runs one world: `steps` steps in which things go wrong, then on until it is quiet.
///
/// # Errors
/// The first law that did not hold, in words.
pub fn run(seed: u64, steps: u64) -> Result<Report, String> {
    run_in(seed, steps, None).map(|(report, _)| report)
}

/// The same, with all that the node had done, byte for byte.
///
/// # Errors
/// The first law that did not hold, in words.
pub fn run_traced(seed: u64, steps: u64) -> Result<(Report, Trace), String> {
    run_in(seed, steps, Some(Trace::default()))
}

fn run_in(seed: u64, steps: u64, trace: Option<Trace>) -> Result<(Report, Trace), String> {
    let whole = || {
        let mut world = world::World::new(seed, trace)?;
        for step in 0..steps {
            world.act().map_err(|why| format!("step {step}: {why}"))?;
            if step % 10 == 0 {
                world.check().map_err(|why| format!("step {step}: {why}"))?;
            }
        }
        world.heal().map_err(|why| format!("when nothing went wrong any more: {why}"))?;
        Ok((world.report(), world.into_trace()))
    };
    catch_unwind(AssertUnwindSafe(whole)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|word| (*word).to_owned()));
        Err(format!("panic: {}", words.unwrap_or_default()))
    })
}
