//! Reading one field of a request: its type and range, with the fault in words when they are wrong.
//!
//! A reader never stops at a fault; it notes it and goes on, so that one answer names them all.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::document::{self, List, Members};
use crate::error::{ApiError, ErrorCode};
use crate::fault::Faults;
use crate::submission::{self, Bounds};

/// Reads fields of one object.
pub(crate) struct Reader<'r> {
    /// Where the object is in the body: empty, or a path that ends in a dot.
    pub(crate) at: &'r str,
    pub(crate) bounds: &'r Bounds,
    pub(crate) faults: &'r mut Faults,
}

/// Whether `null` stands for "not given".
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Null {
    Refused,
    Absent,
}

impl Reader<'_> {
    pub(crate) fn invalid(&mut self, field: &str, what: impl Into<String>) {
        self.faults.invalid(format!("{}{field}", self.at), what);
    }

    pub(crate) fn note(&mut self, field: &str, error: ApiError) {
        self.faults.note(format!("{}{field}", self.at), error);
    }

    fn wrong_type(&mut self, field: &str, wanted: &str, raw: &RawValue) {
        let found = kind(raw.get());
        self.invalid(field, format!("must be {wanted}, found {found}"));
    }

    /// The members of these names, each once; any other is a fault.
    pub(crate) fn only<'a, const N: usize>(
        &mut self,
        members: &Members<'a>,
        names: [&str; N],
    ) -> [Option<&'a RawValue>; N] {
        let (found, unknown) = self.named(members, names);
        for name in unknown {
            self.invalid(name, "is not known");
        }
        found
    }

    /// The same, with a warning for each other one.
    pub(crate) fn known<'a, const N: usize>(
        &mut self,
        members: &Members<'a>,
        names: [&str; N],
        warnings: &mut Vec<String>,
    ) -> [Option<&'a RawValue>; N] {
        let (found, unknown) = self.named(members, names);
        let named = unknown.into_iter().take(submission::UNKNOWN_NAMED_MAX);
        warnings.extend(named.map(submission::unknown_field));
        found
    }

    fn named<'a, 'm, const N: usize>(
        &mut self,
        members: &'m Members<'a>,
        names: [&str; N],
    ) -> ([Option<&'a RawValue>; N], Vec<&'m str>) {
        let (mut slots, mut unknown) = ([None; N], Vec::new());
        for (name, value) in &members.0 {
            match names.iter().position(|field| field == name) {
                Some(index) if slots[index].is_none() => slots[index] = Some(*value),
                Some(_) => self.invalid(name, "is given twice"),
                None => unknown.push(&**name),
            }
        }
        (slots, unknown)
    }

    /// A string without NUL of at most `chars_max` characters.
    pub(crate) fn text<'a>(
        &mut self,
        field: &str,
        raw: Option<&'a RawValue>,
        null: Null,
        chars_max: u32,
    ) -> Option<Cow<'a, str>> {
        let raw = raw?;
        if null == Null::Absent && raw.get() == "null" {
            return None;
        }
        let Some(text) = document::text(raw.get()) else {
            self.wrong_type(field, "a string", raw);
            return None;
        };
        match text_fault(&text, chars_max) {
            None => Some(text),
            Some(fault) => {
                self.invalid(field, fault);
                None
            }
        }
    }

    /// The same, neither empty nor blank, without the blanks around it.
    pub(crate) fn trimmed<'a>(
        &mut self,
        field: &str,
        raw: Option<&'a RawValue>,
        null: Null,
        chars_max: u32,
    ) -> Option<Cow<'a, str>> {
        let text = match self.text(field, raw, null, chars_max)? {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
        if text.is_empty() {
            self.invalid(field, "must not be blank");
            return None;
        }
        Some(text)
    }

    /// An integer within `range`.
    pub(crate) fn integer(
        &mut self,
        field: &str,
        raw: Option<&RawValue>,
        null: Null,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let raw = raw?;
        if null == Null::Absent && raw.get() == "null" {
            return None;
        }
        let number = raw.get();
        let Some(found) = whole(number) else {
            self.wrong_type(field, "an integer", raw);
            return None;
        };
        match found.parse::<u64>() {
            Ok(found) if range.contains(&found) => Some(found),
            _ => {
                let (least, most) = (range.start(), range.end());
                self.invalid(field, format!("must be {least} to {most}, found {number}"));
                None
            }
        }
    }

    /// A number from 0, in thousandths.
    pub(crate) fn amount(&mut self, field: &str, raw: Option<&RawValue>) -> Option<u64> {
        let raw = raw?;
        let milli = thousandths(raw.get());
        if milli.is_none() {
            let found = shown(raw.get());
            self.invalid(field, format!("must be a number from 0 to {AMOUNT_MAX}, found {found}"));
        }
        milli
    }

    /// A number from 0 on.
    pub(crate) fn number(
        &mut self,
        field: &str,
        raw: Option<&RawValue>,
        null: Null,
    ) -> Option<f64> {
        let raw = raw?;
        if null == Null::Absent && raw.get() == "null" {
            return None;
        }
        let number: Option<f64> = serde_json::from_str(raw.get()).ok();
        let number = number.filter(|number| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            self.invalid(field, format!("must be a number from 0 on, found {}", shown(raw.get())));
        }
        number
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, field: &str, raw: Option<&RawValue>) -> Option<bool> {
        let raw = raw?;
        let flag = serde_json::from_str(raw.get()).ok();
        if flag.is_none() {
            self.wrong_type(field, "a boolean", raw);
        }
        flag
    }

    /// An object, unread.
    pub(crate) fn object<'a>(
        &mut self,
        field: &str,
        raw: Option<&'a RawValue>,
    ) -> Option<&'a RawValue> {
        let raw = raw?;
        if raw.get().starts_with('{') {
            return Some(raw);
        }
        self.wrong_type(field, "an object", raw);
        None
    }

    /// A list, unread.
    pub(crate) fn list<'a>(
        &mut self,
        field: &str,
        raw: Option<&'a RawValue>,
        null: Null,
    ) -> Option<&'a RawValue> {
        let raw = raw?;
        if raw.get().starts_with('[') {
            return Some(raw);
        }
        if !(null == Null::Absent && raw.get() == "null") {
            self.wrong_type(field, "a list", raw);
        }
        None
    }

    /// A list of at most `count_max` words; doubles fold.
    pub(crate) fn words<'a>(
        &mut self,
        field: &str,
        raw: Option<&'a RawValue>,
        null: Null,
        count_max: u32,
    ) -> Option<Vec<Cow<'a, str>>> {
        let raw = self.list(field, raw, null)?;
        let count_max = usize::try_from(count_max).unwrap_or(usize::MAX);
        // Doubles fold, so more entries than words are fine, within reason.
        let entries = match document::list(raw.get(), count_max.saturating_mul(10))? {
            List::Entries(entries) => entries,
            List::TooLong { count } => {
                self.invalid(
                    field,
                    format!("must have at most {count_max} entries, found {count}"),
                );
                return None;
            }
        };
        let mut words = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let place = format!("{field}[{index}]");
            let chars_max = self.bounds.word_chars_max;
            words.extend(self.trimmed(&place, Some(entry), Null::Refused, chars_max));
        }
        words.sort_unstable();
        words.dedup();
        if words.len() > count_max {
            let count = words.len();
            self.invalid(field, format!("must have at most {count_max} entries, found {count}"));
            return None;
        }
        Some(words)
    }

    /// A list of capability names.
    pub(crate) fn capabilities<'a>(
        &mut self,
        field: &str,
        raw: Option<&'a RawValue>,
        null: Null,
    ) -> Option<Vec<Cow<'a, str>>> {
        let words = self.words(field, raw, null, self.bounds.capabilities_max)?;
        for word in &words {
            if !is_capability(word) {
                let what = format!("must hold names like `data_processing`, found `{word}`");
                self.invalid(field, what);
            }
        }
        Some(words)
    }

    /// An object of amounts, in thousandths.
    pub(crate) fn amounts<'a>(
        &mut self,
        field: &str,
        raw: Option<&'a RawValue>,
    ) -> Option<Vec<(Cow<'a, str>, u64)>> {
        let raw = self.object(field, raw)?;
        let members = document::members(raw.get())?;
        let kinds_max = self.bounds.resource_kinds_max;
        if u32::try_from(members.0.len()).is_ok_and(|count| count > kinds_max) {
            let count = members.0.len();
            self.invalid(field, format!("must have at most {kinds_max} kinds, found {count}"));
            return None;
        }
        let mut amounts = Vec::with_capacity(members.0.len());
        for (kind, amount) in members.0 {
            if let Some(fault) = text_fault(&kind, self.bounds.word_chars_max) {
                self.invalid(field, format!("has a kind of resource whose name {fault}"));
            } else if kind.trim().is_empty() {
                self.invalid(field, "has a kind of resource without a name");
            } else if let Some(milli) = thousandths(amount.get()) {
                amounts.push((kind, milli));
            } else {
                let found = shown(amount.get());
                let what = format!("must be a number from 0 to {AMOUNT_MAX}, found {found}");
                self.invalid(&format!("{field}.{kind}"), what);
            }
        }
        Some(amounts)
    }

    /// An id.
    pub(crate) fn id(&mut self, field: &str, raw: Option<&RawValue>) -> Option<Uuid> {
        let text = self.text(field, raw, Null::Absent, self.bounds.word_chars_max)?;
        let id = Uuid::parse_str(&text).ok();
        if id.is_none() {
            self.invalid(field, format!("must be a UUID, found `{text}`"));
        }
        id
    }

    /// One of `names`; the index of it.
    pub(crate) fn one_of(
        &mut self,
        field: &str,
        raw: Option<&RawValue>,
        null: Null,
        names: &[&str],
    ) -> Option<usize> {
        let found = self.text(field, raw, null, self.bounds.word_chars_max)?;
        let index = names.iter().position(|name| *name == found);
        if index.is_none() {
            let known = listed(names);
            self.invalid(field, format!("must be one of {known}, found `{found}`"));
        }
        index
    }
}

/// Largest amount of a resource: in thousandths it is still exact as a 64-bit float.
const AMOUNT_MAX: u64 = 1_000_000_000_000;

const INTEGER: &str = "an integer";
const FRACTION: &str = "a number with a fraction or an exponent";

/// What `json` is, in words.
pub(crate) fn kind(json: &str) -> &'static str {
    match json.bytes().next() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') | None => "null",
        Some(_) if json.contains(['.', 'e', 'E']) => FRACTION,
        Some(_) => INTEGER,
    }
}

/// The digits of a number without a fraction, also of one that is written as `5.0` or `1e3`.
fn whole(json: &str) -> Option<Cow<'_, str>> {
    match kind(json) {
        INTEGER => Some(Cow::Borrowed(json)),
        FRACTION => {
            let number: f64 = json.parse().ok()?;
            // Beyond this not every integer is one of these numbers.
            let exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
            exact.then(|| Cow::Owned(format!("{number:.0}")))
        }
        _ => None,
    }
}

/// `json` itself if it is short, else what it is.
pub(crate) fn shown(json: &str) -> String {
    if json.len() <= 40 { format!("`{json}`") } else { kind(json).to_owned() }
}

/// The names as a sentence lists them.
pub(crate) fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A capability's name: a lower-case letter, then lower-case letters, digits and underscores.
fn is_capability(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn text_fault(text: &str, chars_max: u32) -> Option<String> {
    if text.contains('\0') {
        return Some("must not hold NUL".to_owned());
    }
    let most = usize::try_from(chars_max).unwrap_or(usize::MAX);
    if text.len() > most {
        let count = text.chars().count();
        if count > most {
            return Some(format!("must have at most {most} characters, found {count}"));
        }
    }
    None
}

/// The number `json` in thousandths, of which an amount above 0 has at least one: it would be
/// nothing, and hold nothing back. `None` if it is not one from 0 to [`AMOUNT_MAX`].
fn thousandths(json: &str) -> Option<u64> {
    if let Ok(whole) = json.parse::<u64>() {
        return (whole <= AMOUNT_MAX).then(|| whole * 1_000);
    }
    let first = json.bytes().next()?;
    let amount = if first == b'-' || first.is_ascii_digit() {
        json.parse::<f64>().ok()?
    } else {
        return None;
    };
    if !(0.0..=1e12).contains(&amount) {
        return None;
    }
    // By way of decimal digits: the language has no checked conversion from floats.
    let milli: u64 = format!("{:.0}", (amount * 1_000.0).abs()).parse().ok()?;
    Some(milli.max(u64::from(amount > 0.0)))
}

/// An error for a name that is not among the known ones.
pub(crate) fn unknown(code: ErrorCode, what: &str, found: &str, known: &[&str]) -> ApiError {
    let message = format!("{what} `{found}` is not known\nhint: use one of {}", listed(known));
    ApiError::new(code, message).with("known", known.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_kept_in_thousandths() {
        for (json, expected) in [
            ("0", Some(0)),
            ("2", Some(2_000)),
            ("0.5", Some(500)),
            ("0.29", Some(290)),
            ("1e3", Some(1_000_000)),
            ("-0.0", Some(0)),
            ("0.0004", Some(1)),
            ("1e-300", Some(1)),
            ("1000000000000", Some(1_000_000_000_000_000)),
            ("1000000000001", None),
            ("1e13", None),
            ("-1", None),
            ("-0.5", None),
            ("\"1\"", None),
            ("null", None),
            ("true", None),
        ] {
            assert_eq!(thousandths(json), expected, "{json}");
        }
    }

    #[test]
    fn an_integer_is_one_however_it_is_written() {
        for (json, expected) in [
            ("5", Some("5")),
            ("5.0", Some("5")),
            ("1e3", Some("1000")),
            ("-2.0", Some("-2")),
            ("5.5", None),
            ("1e17", None),
            ("\"5\"", None),
        ] {
            assert_eq!(whole(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn capability_names_have_a_form() {
        assert!(is_capability("gpu_2") && is_capability("a"));
        for bad in ["", "2gpu", "_a", "Gpu", "a-b", "a b", "ä"] {
            assert!(!is_capability(bad), "{bad}");
        }
    }
}
