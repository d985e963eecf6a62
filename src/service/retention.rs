//! How long entries are kept: a day that is older gives way, user by user and resource by resource, to one entry that
//! stands for all of its entries.

use super::quota::Policy;
use crate::domain::Result;
use crate::domain::calendar::Day;
use crate::domain::unit::Timestamp;
use crate::store::{Reader, Writer, retention as store};

pub use crate::store::retention::Place;

/// Entries that are looked at in one write.
const SLICE: usize = 250;
/// What is recorded for a day may arrive until 35 days after it; two days more leave room for zones and slow clocks.
const MARGIN_DAYS: i32 = 2;

/// The first day that is not closed yet, or not to be closed.
pub fn first_open_day(policy: &Policy, now: Timestamp, keep_days: i32) -> Day {
    policy.calendar.day_of(now).plus(-keep_days.saturating_add(MARGIN_DAYS))
}

/// Closes the days before `before` for a slice of their entries, and tells where the next slice begins; none when all of
/// them are closed.
///
/// # Errors
/// Where the store cannot be written.
pub fn close_slice(writer: &mut Writer<'_>, policy: &Policy, before: Day, place: Place) -> Result<Option<Place>> {
    store::close_slice(writer, policy.calendar, before, place, SLICE)
}

/// How many rows of the ledger below the newest one are gone, by retention and by erasures.
///
/// # Errors
/// Where the store cannot be read.
pub fn gone(reader: &Reader<'_>) -> Result<i64> {
    store::gone(reader)
}
