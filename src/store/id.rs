//! Ids that leave the box: UUIDv7 (RFC 9562) made of a row's time and its row id.
//!
//! The 48 bits of time are the row's own, the 12 bits after them name the table, and the 62 counter bits are the row id.
//! So an id is found by its row id alone, no second unique index has to be written, and ids sort by time. An id says
//! nothing that protects a row: whoever asks must also own it.

use uuid::Uuid;

use crate::domain::unit::Timestamp;

const TIME_MASK: u64 = (1 << 48) - 1;
const ROW_MASK: u64 = (1 << 62) - 1;

/// The tables whose rows have such ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Table {
    Ledger = 1,
    Reservations = 2,
    Memories = 3,
    Tokens = 4,
    Runs = 5,
    /// Closing entries: in the ledger too, in the row of one of those they stand for, and yet not that one.
    Closings = 6,
}

/// The id of row `row` of `table`, made at `at`.
pub(super) fn encode(table: Table, at: Timestamp, row: i64) -> Uuid {
    let time = at.0.unsigned_abs() & TIME_MASK;
    let high = (time << 16) | 0x7000 | u64::from(table as u16);
    let low = (1 << 63) | (row.unsigned_abs() & ROW_MASK);
    Uuid::from_u64_pair(high, low)
}

/// The row an id of `table` names, and the test that its time must pass; none for an id that is not of that table.
pub(super) fn decode(table: Table, id: Uuid) -> Option<Row> {
    let (high, low) = id.as_u64_pair();
    let ours = high & 0xffff == 0x7000 | u64::from(table as u16) && low >> 62 == 0b10;
    let row = i64::try_from(low & ROW_MASK).ok()?;
    ours.then_some(Row { row, time: high >> 16 })
}

/// A decoded id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The row id.
    pub(super) row: i64,
    time: u64,
}

impl Row {
    /// When the row was made.
    pub(super) fn at(self) -> Timestamp {
        Timestamp(i64::try_from(self.time).unwrap_or(i64::MAX))
    }

    /// Whether the row made at `at` is the one that was meant.
    pub(super) fn is_of(self, at: Timestamp) -> bool {
        at.0.unsigned_abs() & TIME_MASK == self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_table_time_and_row() {
        let at = Timestamp(1_795_000_000_123);
        let id = encode(Table::Memories, at, 987_654_321);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        let row = decode(Table::Memories, id).unwrap();
        assert_eq!(row.row, 987_654_321);
        assert!(row.is_of(at) && !row.is_of(at.plus_millis(1)));
        assert_eq!(decode(Table::Ledger, id), None);
        assert_eq!(decode(Table::Memories, Uuid::nil()), None);
        assert_eq!(decode(Table::Memories, Uuid::max()), None);
    }
}
