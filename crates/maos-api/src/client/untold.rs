//! What the attempts of a worker said and the server has not been told yet.
//!
//! It goes with the polls in the order in which it came, as much as one may hold. It is bounded,
//! however long the server is away. It must not know how attempts end.

use std::collections::{HashSet, VecDeque};

use crate::worker::{AttemptRef, LOG_LINES_MAX, Log, OUTCOMES_MAX, Progress};

/// Signs of progress that wait at the most: the newest are as good as all.
const SIGNS_MAX: usize = 10_000;
/// Bytes of the signs of progress of one poll, and of its lines.
const SAID_BYTES_MAX: usize = 8 << 20;
/// Bytes of an outcome, a sign or a line beside what it says, at the most.
const ENTRY_BYTES: usize = 256;

/// Something that an attempt says while it goes on.
#[derive(Debug)]
pub(super) enum Sign {
    Progress(Progress<'static>),
    Line(Log<'static>),
}

/// What waits for the server. Whoever adds lines bounds them.
#[derive(Debug, Default)]
pub(super) struct Untold {
    progress: VecDeque<Progress<'static>>,
    /// Signs that came before those: they were told, or grew too old.
    progress_gone: u64,
    lines: VecDeque<Log<'static>>,
}

/// What goes with one poll.
pub(super) struct Said {
    pub(super) progress: Vec<Progress<'static>>,
    pub(super) lines: Vec<Log<'static>>,
    /// The attempts of which more waits than goes with it.
    pub(super) more_of: HashSet<AttemptRef>,
    pub(super) told: Told,
}

/// How far one poll tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Signs up to there, of all that ever came.
    progress_end: u64,
    /// Lines, of those that wait.
    pub(super) lines: usize,
}

impl Untold {
    /// Takes something; what is over the bound is left out, the oldest first.
    pub(super) fn add(&mut self, sign: Sign) {
        match sign {
            Sign::Progress(sign) => {
                if self.progress.len() == SIGNS_MAX {
                    self.progress.pop_front();
                    self.progress_gone += 1;
                }
                self.progress.push_back(sign);
            }
            Sign::Line(line) => self.lines.push_back(line),
        }
    }

    /// What the next poll may hold.
    pub(super) fn next(&self) -> Said {
        let bytes = |text: &Option<_>| text.as_deref().map_or(0, bytes_as_json);
        let sizes = self.progress.iter().map(|sign| bytes(&sign.message));
        let signs = fitting(sizes, OUTCOMES_MAX, SAID_BYTES_MAX);
        let sizes = self.lines.iter().map(|line| bytes(&line.line));
        let lines = fitting(sizes, LOG_LINES_MAX, SAID_BYTES_MAX);
        let more = self.progress.iter().skip(signs).map(|sign| (sign.task_id, sign.attempt));
        let more =
            more.chain(self.lines.iter().skip(lines).map(|line| (line.task_id, line.attempt)));
        let signs_count = u64::try_from(signs).unwrap_or(u64::MAX);
        Said {
            progress: self.progress.iter().take(signs).cloned().collect(),
            lines: self.lines.iter().take(lines).cloned().collect(),
            more_of: more.map(|(task_id, attempt)| AttemptRef { task_id, attempt }).collect(),
            told: Told { progress_end: self.progress_gone + signs_count, lines },
        }
    }

    /// Leaves out what the server has now.
    pub(super) fn forget(&mut self, told: Told) {
        while self.progress_gone < told.progress_end && self.progress.pop_front().is_some() {
            self.progress_gone += 1;
        }
        self.lines.drain(..told.lines);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.progress.is_empty() && self.lines.is_empty()
    }
}

/// How many of the first entries go together: at most so many, with so many bytes; but one at
/// least, so that none holds up those behind it.
pub(super) fn fitting(
    sizes: impl Iterator<Item = usize>,
    count_max: usize,
    bytes_max: usize,
) -> usize {
    let (mut sum, mut count) = (0_usize, 0);
    for bytes in sizes.take(count_max) {
        sum = sum.saturating_add(ENTRY_BYTES + bytes);
        if sum > bytes_max && count > 0 {
            break;
        }
        count += 1;
    }
    count
}

/// What a text takes as JSON, at the most: what is escaped takes more than it has.
pub(super) fn bytes_as_json(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..b' ' => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn sign(fraction: f64) -> Sign {
        let task_id = Uuid::nil();
        Sign::Progress(Progress { task_id, attempt: 1, fraction: Some(fraction), message: None })
    }

    #[test]
    fn the_newest_signs_wait_and_what_grew_too_old_on_its_way_is_told_once() {
        let mut untold = Untold::default();
        (0..9_500).for_each(|index| untold.add(sign(f64::from(index))));
        let first = untold.next();
        assert_eq!(first.progress.len(), OUTCOMES_MAX);
        // While that poll is out, half of what it holds grows too old.
        (9_500..10_500).for_each(|index| untold.add(sign(f64::from(index))));
        assert_eq!(untold.progress.len(), SIGNS_MAX);
        untold.forget(first.told);
        assert_eq!(untold.next().progress[0].fraction, Some(1_000.0));
        assert_eq!(untold.progress.len(), 9_500);
        // All of it does.
        let second = untold.next();
        (0..10_000).for_each(|_| untold.add(sign(0.0)));
        untold.forget(second.told);
        assert_eq!(untold.progress.len(), SIGNS_MAX);
    }
}
