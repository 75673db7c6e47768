//! Everything that a node had done, byte for byte, for those who compare two runs.
//!
//! What the journal was given is here as it is stored, all else as it is written for people.
//! Kept on request only: a run is a few megabytes of it.

/// One thing that the node had done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The input that brought it about, counted from 1.
    pub input: u64,
    /// What kind of thing.
    pub kind: &'static str,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// What one run had done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// What was done.
    pub entries: Vec<Entry>,
}

impl Trace {
    /// The first place at which two runs are not the same, in words.
    #[must_use]
    pub fn first_difference(&self, other: &Trace) -> Option<String> {
        let pairs = self.entries.iter().zip(&other.entries);
        if let Some((index, (one, another))) =
            pairs.enumerate().find(|(_, (one, another))| one != another)
        {
            let place = format!("action {index}, {} of input {}", one.kind, one.input);
            if (one.input, one.kind) != (another.input, another.kind) {
                return Some(format!("{place}, is {} of input {}", another.kind, another.input));
            }
            return Some(format!("{place}: {}", differing(&one.bytes, &another.bytes)));
        }
        let (one, another) = (self.entries.len(), other.entries.len());
        (one != another).then(|| format!("one has {one} actions, the other {another}"))
    }
}

/// Around the first byte that is another.
fn differing(one: &[u8], another: &[u8]) -> String {
    let at = one.iter().zip(another).take_while(|(one, another)| one == another).count();
    let around = |bytes: &[u8]| {
        let (from, to) = (at.saturating_sub(AROUND), bytes.len().min(at + AROUND));
        bytes.get(from..to).unwrap_or_default().escape_ascii().to_string()
    };
    let (lengths, texts) = ((one.len(), another.len()), (around(one), around(another)));
    format!("byte {at} of {} and {}: `{}` and `{}`", lengths.0, lengths.1, texts.0, texts.1)
}

/// Bytes on each side that a difference is shown with.
const AROUND: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(entries: &[(u64, &'static str, &[u8])]) -> Trace {
        let entries = entries.iter().map(|(input, kind, bytes)| Entry {
            input: *input,
            kind,
            bytes: bytes.to_vec(),
        });
        Trace { entries: entries.collect() }
    }

    #[test]
    fn the_first_place_that_differs_is_named() {
        let one = trace(&[(1, "append", b"abc"), (2, "reply", b"yes")]);
        for (another, told) in [
            (trace(&[(1, "append", b"abc"), (2, "reply", b"yes")]), None),
            (
                trace(&[(1, "append", b"abd"), (2, "reply", b"no")]),
                Some("action 0, append of input 1: byte 2 of 3 and 3: `abc` and `abd`"),
            ),
            (
                trace(&[(1, "append", b"abc"), (2, "reply", b"yes\x01")]),
                Some("action 1, reply of input 2: byte 3 of 3 and 4: `yes` and `yes\\x01`"),
            ),
            (
                trace(&[(1, "append", b"abc"), (3, "reply", b"yes")]),
                Some("action 1, reply of input 2, is reply of input 3"),
            ),
            (trace(&[(1, "append", b"abc")]), Some("one has 2 actions, the other 1")),
        ] {
            assert_eq!(one.first_difference(&another).as_deref(), told);
        }
    }
}
