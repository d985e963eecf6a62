//! A bar that is drawn over itself on a terminal.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};

/// Characters of the bar.
const BAR: u64 = 40;

/// Whether there is anybody to see it.
pub(super) fn is_seen() -> bool {
    stderr().is_terminal()
}

/// Draws how far it is: `done` of `total`, where that is known, and what is said beside it. Nothing where nobody sees it.
pub(super) fn show(done: u64, total: Option<u64>, said: impl Display) {
    if !is_seen() {
        return;
    }
    // A bar that cannot be drawn is no failure.
    let _ = match total {
        Some(total) => {
            let filled = BAR.saturating_mul(done.min(total)) / total.max(1);
            let bar: String = (0..BAR).map(|place| if place < filled { '#' } else { '.' }).collect();
            write!(stderr().lock(), "\r[{bar}] {said}")
        }
        None => write!(stderr().lock(), "\r{said}"),
    };
}

/// Ends the line that the bar stands on.
pub(super) fn end() {
    if is_seen() {
        super::output::note("");
    }
}
