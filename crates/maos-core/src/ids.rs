//! Identities and counters, each a type of its own, so that none can stand in for another.
//!
//! Ids arrive from outside (UUIDs, version 7); the core makes none. Their stored form is the 16
//! bytes of the UUID.

use core::fmt;
use core::hash::{Hash, Hasher};

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};

macro_rules! uuid_id {
    ($(#[$doc:meta] $name:ident)+) => {$(
        #[$doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub u128);

        // The low half of a version 7 UUID is random: one word is hash enough.
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                state.write_u64(low_word(self.0));
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(f, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(f, self.0)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), EncodeError<W::Error>> {
                e.bytes(&self.0.to_be_bytes())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                decode_uuid(d).map($name)
            }
        }
    )+};
}

uuid_id! {
    /// A task; stays the same over all its attempts and re-openings.
    TaskId
    /// The plan that one submission became. Never shared by two submissions.
    PlanId
    /// An agent, from its registration to its termination.
    AgentId
    /// One server with a data directory of its own; stays the same over its restarts.
    NodeId
}

macro_rules! counter {
    ($(#[$doc:meta] $name:ident($inner:ty))+) => {$(
        #[$doc]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode,
        )]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

counter! {
    /// Fencing number of one run of a task, counted from 1; never used twice for a task.
    Attempt(u32)
    /// One reign over the journal. Raised by every start of a leader; older ones are refused.
    Epoch(u64)
    /// Number of a step in the journal, counted from 1 over all epochs.
    Sequence(u64)
}

impl TaskId {
    /// The high and the low word; in the order of the ids.
    pub(crate) fn words(self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, low @ ..] = self.0.to_be_bytes();
        [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(low)]
    }
}

impl Attempt {
    /// The number of the attempt after this one.
    #[must_use]
    pub fn next(self) -> Attempt {
        Attempt(self.0.saturating_add(1))
    }
}

impl Sequence {
    /// The number of the step after this one.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// A place in the journal: which reign wrote it, and the how manieth step it is.
///
/// Sequences alone already order all steps; the epoch tells a suffix that a failover dropped from
/// the one that took its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Position {
    /// The reign that wrote the step.
    #[n(0)]
    pub epoch: Epoch,
    /// The step's number.
    #[n(1)]
    pub sequence: Sequence,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

fn low_word(id: u128) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = id.to_be_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn write_uuid(f: &mut fmt::Formatter<'_>, id: u128) -> fmt::Result {
    for (index, byte) in id.to_be_bytes().iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn decode_uuid(d: &mut Decoder<'_>) -> Result<u128, DecodeError> {
    let bytes: [u8; 16] =
        d.bytes()?.try_into().map_err(|_| DecodeError::message("an id has 16 bytes"))?;
    Ok(u128::from_be_bytes(bytes))
}
