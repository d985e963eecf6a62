//! Results go to stdout, everything else to stderr.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};

/// A line of the command's result.
///
/// # Errors
/// Where stdout is closed or full: a result that nobody got is a failure.
pub(crate) fn result(line: impl Display) -> std::io::Result<()> {
    let mut stdout = stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// A line for the person at the terminal. It is no loss where stderr is closed.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(stderr().lock(), "{line}");
}
