//! What a commit brings about beside its rows.

use super::meters::Entries;
use super::recall::Change;
use crate::domain::auth::UserKey;

/// What the jobs of a commit have brought about so far.
#[derive(Default)]
pub(super) struct Effects {
    /// Who may do what has changed.
    pub(super) auth: bool,
    /// Something was erased for good: once it is committed, the log must not tell what was there before.
    pub(super) erased: bool,
    /// Changes of memories, each with whose it is.
    pub(super) memories: Vec<(UserKey, Change)>,
    /// Users whose erasure has begun.
    pub(super) users_erased: Vec<UserKey>,
    /// Ledger entries written.
    pub(super) entries: Entries,
}

/// How far the effects had come before a job.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    auth: bool,
    erased: bool,
    /// How many changes of memories there were.
    pub(super) memories: usize,
    users_erased: usize,
    entries: Entries,
}

impl Effects {
    /// How far they have come.
    pub(super) const fn mark(&self) -> Mark {
        Mark {
            auth: self.auth,
            erased: self.erased,
            memories: self.memories.len(),
            users_erased: self.users_erased.len(),
            entries: self.entries,
        }
    }

    /// Takes back all that came after `mark`.
    pub(super) fn roll_back(&mut self, mark: Mark) {
        let Mark { auth, erased, memories, users_erased, entries } = mark;
        (self.auth, self.erased, self.entries) = (auth, erased, entries);
        self.memories.truncate(memories);
        self.users_erased.truncate(users_erased);
    }
}
