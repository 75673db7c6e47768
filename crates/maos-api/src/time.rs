//! Times on the wire: RFC 3339 in UTC, with microseconds.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// A moment of the calendar, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(pub u64);

/// The end of the year 9999 is the last moment that RFC 3339 can name.
const LAST_US: u64 = 253_402_207_200_000_000;

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0.min(LAST_US)).unwrap_or_default();
        Timestamp::from_microsecond(micros).unwrap_or_default().fmt(f)
    }
}

impl FromStr for UtcTime {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<UtcTime, jiff::Error> {
        let micros = text.parse::<Timestamp>()?.as_microsecond();
        Ok(UtcTime(u64::try_from(micros).unwrap_or_default()))
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UtcTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UtcTime, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl PartialSchema for UtcTime {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for UtcTime {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_what_they_write() {
        for micros in [0, 1, 1_790_000_000_123_456, LAST_US] {
            let text = UtcTime(micros).to_string();
            assert!(text.ends_with('Z'), "{text}");
            assert_eq!(text.parse::<UtcTime>().unwrap(), UtcTime(micros));
        }
        assert_eq!(UtcTime(u64::MAX).to_string(), UtcTime(LAST_US).to_string());
        assert_eq!(
            "2026-01-01T02:00:00+02:00".parse::<UtcTime>().unwrap().to_string(),
            "2026-01-01T00:00:00Z"
        );
    }
}
