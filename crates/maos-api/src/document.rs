//! JSON text as it came: one level opened at a time, the rest passed on unread.
//!
//! Law: a document that [`scan`] lets pass can be read by any 64-bit JSON reader without loss. What
//! the fields mean is for others.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in the order they came, values unread.
#[derive(Clone, Debug, Default)]
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

/// A string, borrowed from the document where it holds no escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Members<'a> {
    /// The value of the last member called `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct Open;
        impl<'de> Visitor<'de> for Open {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(Text(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Open)
    }
}

/// The members of the object `json`; `None` if it is not an object.
#[must_use]
pub fn members(json: &str) -> Option<Members<'_>> {
    if !json.starts_with('{') {
        return None;
    }
    serde_json::from_str(json).ok()
}

/// The string that `json` is; `None` if it is something else.
#[must_use]
pub fn text(json: &str) -> Option<Cow<'_, str>> {
    if !json.starts_with('"') {
        return None;
    }
    serde_json::from_str(json).ok().map(|Text(text)| text)
}

/// What a look at a list found.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// Its entries.
    Entries(Vec<&'a RawValue>),
    /// It has more entries than may be.
    TooLong {
        /// How many.
        count: usize,
    },
}

/// The entries of the list `json`, unread; `None` if it is not a list. Of a list with more than
/// `entries_max` nothing is kept.
#[must_use]
pub fn list(json: &str, entries_max: usize) -> Option<List<'_>> {
    struct Open {
        entries_max: usize,
    }
    impl<'de> Visitor<'de> for Open {
        type Value = List<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<'de>, A::Error> {
            let mut entries = Vec::new();
            while entries.len() < self.entries_max {
                match seq.next_element()? {
                    Some(entry) => entries.push(entry),
                    None => return Ok(List::Entries(entries)),
                }
            }
            let mut count = entries.len();
            while seq.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok(if count > self.entries_max {
                List::TooLong { count }
            } else {
                List::Entries(entries)
            })
        }
    }
    impl<'de> DeserializeSeed<'de> for Open {
        type Value = List<'de>;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<List<'de>, D::Error> {
            deserializer.deserialize_seq(self)
        }
    }
    if !json.starts_with('[') {
        return None;
    }
    Open { entries_max }.deserialize(&mut serde_json::Deserializer::from_str(json)).ok()
}

/// The last member called `name` of the object `json`, without a list of the others.
#[must_use]
pub fn member<'a>(json: &'a str, name: &str) -> Option<&'a RawValue> {
    struct Pick<'n> {
        name: &'n str,
    }
    impl<'de> Visitor<'de> for Pick<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(Text(name)) = map.next_key()? {
                if name == self.name {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    impl<'de> DeserializeSeed<'de> for Pick<'_> {
        type Value = Option<&'de RawValue>;

        fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
            d.deserialize_map(self)
        }
    }
    if !json.starts_with('{') {
        return None;
    }
    Pick { name }.deserialize(&mut serde_json::Deserializer::from_str(json)).ok()?
}

/// What is wrong with JSON that is well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Lists and objects nest too deeply.
    TooDeep,
    /// An escape names half of a surrogate pair.
    LoneSurrogate,
    /// An integer does not fit into 64 bits.
    IntegerTooLarge,
    /// A number is beyond the range of 64-bit floats.
    FloatTooLarge,
}

impl Defect {
    /// What is wrong, in words that follow the field's name.
    #[must_use]
    pub fn message(self, nesting_max: u32) -> String {
        match self {
            Defect::TooDeep => format!("nests deeper than {nesting_max} lists and objects"),
            Defect::LoneSurrogate => "has a `\\u` escape of half a surrogate pair".to_owned(),
            Defect::IntegerTooLarge => "has an integer beyond 64 bits".to_owned(),
            Defect::FloatTooLarge => "has a number beyond the range of 64-bit floats".to_owned(),
        }
    }
}

/// Looks through `json`, which must be well-formed, for what a reader may stumble over.
///
/// # Errors
/// The first defect and the byte where it begins.
pub fn scan(json: &str, nesting_max: u32) -> Result<(), (Defect, usize)> {
    let bytes = json.as_bytes();
    let (mut at, mut depth) = (0, 0_u32);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = scan_string(bytes, at)?;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > nesting_max {
                    return Err((Defect::TooDeep, at));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                at = scan_number(json, at)?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The byte after the string that begins at `start`.
fn scan_string(bytes: &[u8], start: usize) -> Result<usize, (Defect, usize)> {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return Ok(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => at = scan_escape(bytes, at)?,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Ok(at)
}

/// The byte after the `\uXXXX` at `start`, or after both when it begins a pair.
fn scan_escape(bytes: &[u8], start: usize) -> Result<usize, (Defect, usize)> {
    match unit(bytes, start) {
        Some(0xd800..=0xdbff) => match unit(bytes, start + 6) {
            Some(0xdc00..=0xdfff) => Ok(start + 12),
            _ => Err((Defect::LoneSurrogate, start)),
        },
        Some(0xdc00..=0xdfff) => Err((Defect::LoneSurrogate, start)),
        _ => Ok(start + 6),
    }
}

/// The UTF-16 unit of the escape at `start`.
fn unit(bytes: &[u8], start: usize) -> Option<u16> {
    let escape = bytes.get(start..start + 6)?;
    let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// The byte after the number that begins at `start`.
fn scan_number(json: &str, start: usize) -> Result<usize, (Defect, usize)> {
    let rest = &json[start..];
    let length = rest
        .bytes()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        .unwrap_or(rest.len());
    let number = &rest[..length];
    if number.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        if !number.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err((Defect::FloatTooLarge, start));
        }
    } else if length > 18 && number.parse::<u64>().is_err() && number.parse::<i64>().is_err() {
        return Err((Defect::IntegerTooLarge, start));
    }
    Ok(start + length)
}

/// Line and column, counted from 1, of a byte of `text`; the column counts bytes, as the reader's
/// own messages do.
#[must_use]
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    (line, column)
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
