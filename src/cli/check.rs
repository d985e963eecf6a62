//! `tallybox check`.

use std::process::ExitCode;

use tallybox::service::check::{invariants, run};
use tallybox::store::Store;

use super::output;

/// Prints every difference; exit 1 where there is one.
pub(super) fn report(store: &Store) -> anyhow::Result<ExitCode> {
    let differences = run(store)?;
    for difference in &differences {
        output::result(format_args!("{}: {}", difference.invariant, difference.detail))?;
    }
    if differences.is_empty() {
        output::result(format_args!("ok: {} invariants hold", invariants().len()))?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
