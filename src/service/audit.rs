//! The record of administrative acts.

use crate::domain::Result;
use crate::domain::audit::Act;
use crate::domain::page::{Page, Paging};
use crate::store::{Reader, audit as store};

/// Acts, newest first.
///
/// # Errors
/// Those of the store.
pub fn list(reader: &Reader<'_>, paging: Paging) -> Result<Page<Act>> {
    store::list_acts(reader, paging)
}
