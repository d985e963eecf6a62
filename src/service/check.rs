//! Proves that the totals are the sums, and that nothing is orphaned.

use crate::domain::Result;
use crate::store::{Store, check as store};

pub use crate::store::check::Difference;

/// Most differences reported of each invariant.
const REPORTED_MAX: usize = 20;

/// Checks every invariant on one snapshot of the database.
///
/// # Errors
/// Where the database cannot be read.
pub fn run(database: &Store) -> Result<Vec<Difference>> {
    database.read_blocking(|reader| store::run(reader, REPORTED_MAX))
}

/// The invariants that [`run`] checks.
pub fn invariants() -> Vec<&'static str> {
    store::names()
}
