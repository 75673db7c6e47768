//! Cursors: a place in a listing as an opaque word.
//!
//! Its law: a word that was not made here, for this very filter, is refused. It holds what the
//! first page counted, so that later pages can tell it without counting again.

use maos_api::error::{ApiError, ErrorCode};

use crate::store::{Count, Place, TaskFilter};

/// The form of the word; another form gets another number.
const VERSION: u8 = 1;
const BODY_BYTES: usize = 42;
const CHECK_BYTES: usize = 6;

/// Where a page begins, and what is known of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) place: Place,
    /// The page that begins there, if all before it had the same size.
    pub(super) page: u64,
    pub(super) count: Count,
}

impl Cursor {
    pub(super) fn write(&self, filter: &TaskFilter) -> String {
        let mut bytes = Vec::with_capacity(BODY_BYTES + CHECK_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&filter_mark(filter));
        bytes.extend_from_slice(&self.place.created.to_be_bytes());
        bytes.extend_from_slice(&self.place.number.to_be_bytes());
        bytes.extend_from_slice(&self.page.to_be_bytes());
        bytes.extend_from_slice(&self.count.tasks.to_be_bytes());
        bytes.push(u8::from(self.count.exact));
        bytes.extend_from_slice(&check(&bytes));
        let mut word = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            word.push(digit(byte >> 4));
            word.push(digit(byte & 15));
        }
        word
    }

    pub(super) fn read(word: &str, filter: &TaskFilter) -> Result<Cursor, ApiError> {
        let bytes = unhex(word).ok_or_else(|| refused("is damaged: it is no cursor"))?;
        if bytes.first() != Some(&VERSION) {
            return Err(refused("is of another release: begin the listing anew"));
        }
        let (body, sum) = bytes
            .split_at_checked(BODY_BYTES)
            .filter(|(body, sum)| *sum == check(body).as_slice())
            .ok_or_else(|| refused("is damaged"))?;
        debug_assert_eq!(sum.len(), CHECK_BYTES);
        if body[1..9] != filter_mark(filter) {
            return Err(refused("belongs to a listing with other filters"));
        }
        let word = |at: usize| -> [u8; 8] {
            body[at..at + 8].try_into().expect("eight bytes of a body whose size was checked")
        };
        let place =
            Place { created: u64::from_be_bytes(word(9)), number: i64::from_be_bytes(word(17)) };
        let count = Count { tasks: u64::from_be_bytes(word(33)), exact: body[41] == 1 };
        Ok(Cursor { place, page: u64::from_be_bytes(word(25)), count })
    }
}

fn refused(what: &str) -> ApiError {
    let message = format!("query parameter `cursor` {what}");
    ApiError::new(ErrorCode::MalformedQuery, message).with("parameter", "cursor")
}

/// Tells filters apart; the same filter has the same mark in every process of this release.
fn filter_mark(filter: &TaskFilter) -> [u8; 8] {
    first_bytes(format!("{filter:?}").as_bytes())
}

fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    first_bytes(body)
}

fn first_bytes<const N: usize>(of: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    blake3::Hasher::new().update(b"maos cursor").update(of).finalize_xof().fill(&mut first);
    first
}

fn digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).unwrap_or('0')
}

fn unhex(word: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = word.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|d| d.len() == 2 * (BODY_BYTES + CHECK_BYTES))?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_refused_when_anything_is_changed() {
        let filter = TaskFilter { tags: vec!["a".into()], ..TaskFilter::default() };
        let place = Place { created: 1_790_000_000_000_000, number: 7 };
        let cursor = Cursor { place, page: 3, count: Count { tasks: 90, exact: false } };
        let word = cursor.write(&filter);
        assert_eq!(Cursor::read(&word, &filter), Ok(cursor));
        let other = TaskFilter::default();
        let refusal = Cursor::read(&word, &other).unwrap_err();
        assert!(refusal.message.contains("other filters"), "{refusal}");
        for at in 0..word.len() {
            let mut changed: Vec<char> = word.chars().collect();
            changed[at] = if changed[at] == '0' { '1' } else { '0' };
            let changed: String = changed.into_iter().collect();
            assert!(Cursor::read(&changed, &filter).is_err(), "digit {at}");
        }
        for bad in ["", "zz", "é", &word[1..], &format!("{word}00")] {
            assert!(Cursor::read(bad, &filter).is_err(), "{bad}");
        }
    }
}
