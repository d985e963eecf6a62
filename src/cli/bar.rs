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
    let _ = write!(stderr().lock(), "\r{}", line(done, total, said));
}

fn line(done: u64, total: Option<u64>, said: impl Display) -> String {
    let Some(total) = total else { return said.to_string() };
    let filled = BAR.saturating_mul(done.min(total)) / total.max(1);
    let bar: String = (0..BAR).map(|place| if place < filled { '#' } else { '.' }).collect();
    format!("[{bar}] {said}")
}

/// Ends the line that the bar stands on.
pub(super) fn end() {
    if is_seen() {
        super::output::note("");
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_bar_is_as_full_as_what_is_done_and_never_more() {
        let filled = |done, total| line(done, Some(total), "").matches('#').count();
        let all =
            [filled(0, 8), filled(1, 8), filled(4, 8), filled(8, 8), filled(9, 8), filled(0, 0), filled(u64::MAX, 1)];
        assert_eq!(all, [0, 5, 20, 40, 40, 0, 40]);
        assert_eq!(line(4, Some(8), "3 imported"), format!("[{}{}] 3 imported", "#".repeat(20), ".".repeat(20)));
        assert_eq!(line(4, None, "3 imported"), "3 imported");
    }
}
