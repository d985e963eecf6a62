//! Proves that the totals are the sums, and that nothing is orphaned.

use crate::domain::{Error, Result};
use crate::store::memory::set_setting;
use crate::store::{Reader, SCHEMA_VERSION, Store, Writer, check as store};

pub use crate::store::check::Difference;

/// Most differences reported of each invariant.
const REPORTED_MAX: usize = 20;

/// The fact that a proof of writing writes down.
const ASKED_READY_AT: &str = "asked_ready_at";

/// Checks every invariant on one snapshot of the database.
///
/// # Errors
/// Where the database cannot be read.
pub fn run(database: &Store) -> Result<Vec<Difference>> {
    database.read_blocking(|reader| Ok(store::run(reader, REPORTED_MAX)))
}

/// The invariants that [`run`] checks.
pub fn invariants() -> Vec<&'static str> {
    store::names()
}

/// Writes down when this was asked, so that a commit has something to bring to the disk.
///
/// # Errors
/// Where the store cannot be written.
pub fn prove_writable(writer: &mut Writer<'_>) -> Result<()> {
    let now = writer.now().to_string();
    set_setting(writer, ASKED_READY_AT, Some(&now))
}

/// Makes sure that the schema is the one that this program knows: another process may have changed it.
///
/// # Errors
/// `Unavailable` where it is another one, or the store cannot be read.
pub fn require_schema(reader: &Reader<'_>) -> Result<()> {
    match store::schema_version(reader)? {
        SCHEMA_VERSION => Ok(()),
        other => {
            Err(Error::Unavailable(format!("the schema has version {other}, this program knows {SCHEMA_VERSION}")))
        }
    }
}

/// Brings the planner's statistics up to date.
///
/// # Errors
/// Where the store cannot be written.
pub fn keep_in_trim(writer: &mut Writer<'_>) -> Result<()> {
    writer.optimize()
}
