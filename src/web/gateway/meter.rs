//! Counting what an answer says while it is said.

use std::collections::BTreeMap;

use crate::adapter::tokenizer;
use crate::domain::gateway::estimate::Family;
use crate::domain::gateway::usage::Usage;

/// What an answer has said so far, and what the upstream says that it cost.
pub(super) struct Meter {
    family: Family,
    counted: i64,
    /// What is not counted yet, by choice: a word that came in pieces is counted as one.
    pending: BTreeMap<u64, String>,
    pending_bytes: i64,
    /// The upstream's own count, once it has come.
    pub(super) usage: Option<Usage>,
}

impl Meter {
    pub(super) fn new(family: Family) -> Self {
        Self { family, counted: 0, pending: BTreeMap::new(), pending_bytes: 0, usage: None }
    }

    /// Takes what a choice says.
    pub(super) fn write(&mut self, choice: u64, text: &str) {
        self.pending.entry(choice).or_default().push_str(text);
        self.pending_bytes = self.pending_bytes.saturating_add(i64::try_from(text.len()).unwrap_or(i64::MAX));
    }

    /// Whether what has been said passes `allowance`. A token has a byte at least, so it is seldom worth counting.
    pub(super) fn passes(&mut self, allowance: i64) -> bool {
        self.counted.saturating_add(self.pending_bytes) > allowance && self.count() > allowance
    }

    /// Counts no more than `allowance`: what went past it was not passed on.
    pub(super) fn keep_to(&mut self, allowance: i64) {
        self.counted = self.count().min(allowance);
    }

    /// Tokens of what has been said.
    pub(super) fn count(&mut self) -> i64 {
        for text in std::mem::take(&mut self.pending).into_values() {
            self.counted = self.counted.saturating_add(tokenizer::count_here(self.family, &text));
        }
        self.pending_bytes = 0;
        self.counted
    }
}
