//! The record of administrative acts.

use crate::domain::Result;
use crate::domain::audit::{Act, ActFilter};
use crate::domain::page::{Page, Paging};
use crate::domain::unit::DAY_MS;
use crate::store::{Reader, Writer, audit as store};

/// Acts that pass the filter, newest first.
///
/// # Errors
/// Those of the store.
pub fn list(reader: &Reader<'_>, filter: &ActFilter, paging: Paging) -> Result<Page<Act>> {
    store::list_acts(reader, filter, paging)
}

/// Deletes a slice of the acts that are older than `keep_days`, and tells whether there are more.
///
/// # Errors
/// Those of the store.
pub fn purge(writer: &mut Writer<'_>, keep_days: i64) -> Result<bool> {
    const SLICE: i64 = 500;
    let until = writer.now().plus_millis(keep_days.saturating_mul(DAY_MS).saturating_neg());
    Ok(store::purge_acts(writer, until, SLICE)? > 0)
}
