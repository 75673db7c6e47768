//! A circuit breaker: what fails again and again is left alone for a while, and then asked once.
//!
//! Its law: while it is open nobody gets through; after that one does, and its luck decides for
//! all. It knows neither what is asked nor how.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Lets requests to one target through, or has them wait.
pub(super) struct Breaker {
    failures_max: u32,
    open_for: Duration,
    standing: Mutex<Standing>,
    changed: Notify,
}

/// How a breaker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Failures since the last success.
    pub(super) failures: u32,
    /// What the last of them was.
    pub(super) fault: Option<String>,
    /// Who gets through.
    pub(super) phase: Phase,
}

/// Who gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everybody.
    Closed,
    /// Nobody until then.
    Open { until: Instant },
    /// The one who is on the way.
    HalfOpen,
}

/// One request that was let through. Dropped unsaid it counts neither way.
pub(super) struct Passage<'b> {
    breaker: &'b Breaker,
    probes: bool,
    told: bool,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Closed => "closed",
            Phase::Open { .. } => "open",
            Phase::HalfOpen => "half_open",
        }
    }
}

impl Breaker {
    /// Opens after so many failures in a row, for so long; with 0 it never does.
    pub(super) fn new(failures_max: u32, open_for: Duration) -> Breaker {
        let standing = Standing { failures: 0, fault: None, phase: Phase::Closed };
        Breaker { failures_max, open_for, standing: Mutex::new(standing), changed: Notify::new() }
    }

    pub(super) fn standing(&self) -> Standing {
        self.held().clone()
    }

    /// Waits until a request may go out. `waits` hears how it stands before each wait, and ends it
    /// by an error.
    pub(super) async fn enter<E>(
        &self,
        mut waits: impl FnMut(&Standing) -> Result<(), E>,
    ) -> Result<Passage<'_>, E> {
        loop {
            // Before the look, so that no change behind it is missed.
            let changed = self.changed.notified();
            let standing = match self.try_enter() {
                Ok(passage) => return Ok(passage),
                Err(standing) => standing,
            };
            waits(&standing)?;
            match standing.phase {
                Phase::Open { until } => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(until) => {}
                },
                Phase::Closed | Phase::HalfOpen => changed.await,
            }
        }
    }

    fn try_enter(&self) -> Result<Passage<'_>, Standing> {
        let mut standing = self.held();
        let probes = match standing.phase {
            Phase::Closed => false,
            Phase::Open { until } if until <= Instant::now() => {
                standing.phase = Phase::HalfOpen;
                true
            }
            Phase::Open { .. } | Phase::HalfOpen => return Err(standing.clone()),
        };
        Ok(Passage { breaker: self, probes, told: false })
    }

    fn held(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().expect("nothing panics while it holds this lock")
    }
}

impl Passage<'_> {
    /// The target answered.
    pub(super) fn succeeded(mut self) {
        self.told = true;
        let mut standing = self.breaker.held();
        // Who was let through before it opened says nothing about the time since.
        if self.probes || standing.phase == Phase::Closed {
            *standing = Standing { failures: 0, fault: None, phase: Phase::Closed };
            self.breaker.changed.notify_waiters();
        }
    }

    /// It did not.
    pub(super) fn failed(mut self, fault: &str) {
        self.told = true;
        let breaker = self.breaker;
        let mut standing = breaker.held();
        if !self.probes && standing.phase != Phase::Closed {
            return;
        }
        standing.failures = standing.failures.saturating_add(1);
        standing.fault = Some(fault.to_owned());
        if breaker.failures_max > 0 && standing.failures >= breaker.failures_max {
            standing.phase = Phase::Open { until: Instant::now() + breaker.open_for };
            breaker.changed.notify_waiters();
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if self.probes && !self.told {
            // The next one looks in its place.
            self.breaker.held().phase = Phase::Open { until: Instant::now() };
            self.breaker.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(30);

    async fn enter(breaker: &Breaker) -> Passage<'_> {
        let Ok(passage) = breaker.enter(|_| Ok::<(), Infallible>(())).await;
        passage
    }

    async fn refused(breaker: &Breaker) -> String {
        let held = breaker.enter(|standing| Err(standing.clone())).await.err();
        held.map_or("let through".to_owned(), |standing| standing.phase.name().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_lets_one_look_and_closes() {
        let breaker = Breaker::new(2, OPEN_FOR);
        enter(&breaker).await.failed("a");
        enter(&breaker).await.succeeded();
        enter(&breaker).await.failed("b");
        let slow = enter(&breaker).await;
        enter(&breaker).await.failed("c");
        assert_eq!(refused(&breaker).await, "open");
        slow.succeeded();
        assert_eq!(refused(&breaker).await, "open", "an old answer does not close it");
        tokio::time::advance(OPEN_FOR - Duration::from_millis(1)).await;
        assert_eq!(refused(&breaker).await, "open");
        let probe = enter(&breaker).await;
        assert_eq!(refused(&breaker).await, "half_open", "one at a time");
        probe.failed("d");
        let standing = breaker.standing();
        assert_eq!((standing.failures, standing.fault.as_deref()), (3, Some("d")));
        assert_eq!(refused(&breaker).await, "open");
        enter(&breaker).await.succeeded();
        assert_eq!(breaker.standing().phase, Phase::Closed);
        assert_eq!(breaker.standing().failures, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_comes_to_nothing_is_left_to_the_next_and_all_hear_of_the_end() {
        let breaker = Breaker::new(1, OPEN_FOR);
        enter(&breaker).await.failed("a");
        let probe = enter(&breaker).await;
        let (next, ()) = tokio::join!(enter(&breaker), async { drop(probe) });
        let (_, _, ()) = tokio::join!(enter(&breaker), enter(&breaker), async { next.succeeded() });
        let never = Breaker::new(0, OPEN_FOR);
        for _ in 0..100 {
            enter(&never).await.failed("x");
        }
        assert_eq!(never.standing().phase, Phase::Closed);
    }
}
