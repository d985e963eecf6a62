//! Counting what an answer says while it is said.

use std::collections::BTreeMap;

use crate::adapter::tokenizer;
use crate::domain::gateway::estimate::Family;
use crate::domain::gateway::usage::Usage;

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

/// What an answer has said so far, and what the upstream says that it cost.
pub(super) struct Meter {
    family: Family,
    /// Below 0 while it repeats the prompt.
    counted: i64,
    /// What is not counted yet, by choice: a word that came in pieces is counted as one.
    pending: BTreeMap<u64, String>,
    pending_bytes: i64,
    /// What the event that is being read says: it may be too much.
    fresh: Vec<(u64, String)>,
    /// Bytes that each choice has said.
    said_bytes: BTreeMap<u64, usize>,
    /// The upstream's own count, once it has come.
    pub(super) usage: Option<Usage>,
}

impl Meter {
    /// A meter of an answer that repeats `echoed` tokens of the prompt, which count there.
    pub(super) fn new(family: Family, echoed: i64) -> Self {
        Self {
            family,
            counted: 0_i64.saturating_sub(echoed),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            fresh: Vec::new(),
            said_bytes: BTreeMap::new(),
            usage: None,
        }
    }

    /// Takes what a choice says.
    pub(super) fn write(&mut self, choice: u64, text: &str) {
        let said = self.said_bytes.entry(choice).or_default();
        *said = said.saturating_add(text.len());
        self.fresh.push((choice, text.to_owned()));
    }

    /// Takes a text of which it is not known what a model wrote of it, as `most` tokens at most.
    pub(super) fn write_at_most(&mut self, most: i64, text: &str) {
        self.write(0, text);
        self.counted = self.count().min(most.max(0));
    }

    /// Takes all that a choice said, of which the most has come in pieces, and tells whether some of it had not.
    pub(super) fn write_rest(&mut self, choice: u64, whole: &str) -> bool {
        let said = self.said_bytes.get(&choice).copied().unwrap_or(0);
        let rest = whole.get(whole.floor_char_boundary(said)..).unwrap_or_default();
        if !rest.is_empty() {
            self.write(choice, rest);
        }
        !rest.is_empty()
    }

    /// Whether what has been said passes `allowance` with the event that was read last; then that one is not taken. A token has
    /// a byte at least, so it is seldom worth counting.
    pub(super) fn passes(&mut self, allowance: i64) -> bool {
        let fresh = self.fresh.iter().fold(0_i64, |sum, (_, text)| sum.saturating_add(length(text)));
        if fresh == 0 || self.counted.saturating_add(self.pending_bytes).saturating_add(fresh) <= allowance {
            self.take();
            return false;
        }
        let (counted, pending) = (self.counted, self.pending.clone());
        self.take();
        self.count_pending();
        let passes = self.counted > allowance;
        if passes {
            (self.counted, self.pending) = (counted, pending);
            self.count_pending();
        }
        passes
    }

    fn take(&mut self) {
        for (choice, text) in self.fresh.drain(..) {
            self.pending_bytes = self.pending_bytes.saturating_add(length(&text));
            self.pending.entry(choice).or_default().push_str(&text);
        }
    }

    fn count_pending(&mut self) {
        for text in std::mem::take(&mut self.pending).into_values() {
            self.counted = self.counted.saturating_add(tokenizer::count_here(self.family, &text));
        }
        self.pending_bytes = 0;
    }

    /// Tokens of what has been said.
    pub(super) fn count(&mut self) -> i64 {
        self.take();
        self.count_pending();
        self.counted.max(0)
    }
}
