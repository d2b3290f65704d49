//! Where an entry stands in the order over all partitions, and the cursors made of it.

use cloakroom_core::refusal::Refusal;
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::Tick;

use crate::context::Error;

/// The place of an entry in the order over all partitions: by time, then by partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) tick: Tick,
    pub(crate) partition: Partition,
    pub(crate) index: u16,
}

/// What tells this store from another, where an error is made of it.
pub(crate) type StoreId = [u8; 16];

/// A place's text, in hexadecimal digits.
const PLACE_CHARS: usize = 24;
/// A cursor's text: a place and a store's id.
const CURSOR_CHARS: usize = PLACE_CHARS + 32;

impl Place {
    /// After everything that was logged before `instant`, and no entry's own place: no store has
    /// that many partitions.
    pub(crate) fn at(instant: Timestamp) -> Self {
        Self { tick: Tick::at(instant), partition: Partition(u16::MAX), index: u16::MAX }
    }

    /// Whether it is the place of an entry, not an instant.
    pub(crate) fn is_entry(self) -> bool {
        self.partition != Partition(u16::MAX)
    }

    /// The id of the entry that stands there.
    pub(crate) fn id(self) -> String {
        format!("{:016x}{:04x}{:04x}", self.tick.0, self.partition.0, self.index)
    }

    /// The cursor behind it, for clients.
    pub(crate) fn cursor(self, store: StoreId) -> String {
        format!("{}{:032x}", self.id(), u128::from_be_bytes(store))
    }

    /// The place that a cursor of this store names.
    pub(crate) fn parse(text: &str, store: StoreId) -> Option<Self> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != CURSOR_CHARS || !text.bytes().all(is_digit) {
            return None;
        }
        let part = |range| text.get(range).unwrap_or_default();
        let named = u128::from_str_radix(part(PLACE_CHARS..CURSOR_CHARS), 16).ok()?;
        if named.to_be_bytes() != store {
            return None;
        }
        Some(Self {
            tick: Tick(u64::from_str_radix(part(0..16), 16).ok()?),
            partition: Partition(u16::from_str_radix(part(16..20), 16).ok()?),
            index: u16::from_str_radix(part(20..24), 16).ok()?,
        })
    }

    /// The same for a listing's `after`.
    pub(crate) fn parse_after(text: &str, store: StoreId) -> Result<Self, Error> {
        Self::parse(text, store).ok_or_else(|| {
            let why = "not a cursor of this log".to_owned();
            Refusal::InvalidMember { member: "after".into(), why }.into()
        })
    }
}
