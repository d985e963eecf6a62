//! The second reckoning of memories: every one is kept, also those that are gone, and their sizes are summed anew for every
//! question.

use serde_json::{Map, Value, json};

use super::reference::{Account, Resource, day_of};

const HOUR_MS: i64 = 3_600_000;
/// Bound of a user's short-term memories, in bytes.
pub(super) const SHORT_BYTES_MAX: i64 = 12_000;
/// What each embedding, and the rest of a memory, counts with.
pub(super) const VECTOR_BYTES: i64 = 1_536;
pub(super) const REST_BYTES: i64 = 162;
/// Name and life of the tiers of memories.
pub(super) const SHELVES: [(&str, Option<i64>); 3] =
    [("stm", Some(18 * HOUR_MS)), ("itm", Some(72 * HOUR_MS)), ("ltm", None)];
const SHORT: usize = 0;
/// Words of a window of the model that embeds.
const WINDOW_WORDS: usize = 50;
/// Memories that a bulk deletion books at once.
const SLICE: usize = 256;

/// What somebody wants kept.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Of [`SHELVES`].
    pub(super) tier: usize,
    pub(super) kind: &'static str,
    pub(super) text: String,
    /// May repeat themselves.
    pub(super) tags: Vec<String>,
    pub(super) metadata: Map<String, Value>,
    pub(super) session: Option<&'static str>,
    /// Whether an embedding comes with it.
    pub(super) given: bool,
}

/// What somebody wants changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) tier: Option<usize>,
    pub(super) kind: Option<&'static str>,
    pub(super) text: Option<String>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) metadata: Option<Map<String, Value>>,
    /// An empty one takes it away.
    pub(super) session: Option<&'static str>,
}

/// Which memories are meant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sieve {
    pub(super) tier: Option<usize>,
    pub(super) kind: Option<&'static str>,
    pub(super) tag: Option<&'static str>,
    pub(super) session: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) id: String,
    pub(super) tier: usize,
    pub(super) kind: &'static str,
    pub(super) text: String,
    pub(super) tags: Vec<String>,
    pub(super) metadata: Map<String, Value>,
    pub(super) session: Option<&'static str>,
    pub(super) vectors: i64,
    pub(super) created_at: i64,
    pub(super) expires_at: Option<i64>,
    /// Deleted, or ended and booked out.
    gone: bool,
}

/// Why something is not written: the limit, what is used of it, and what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) i64, pub(super) i64, pub(super) i64);

/// The bytes of a text.
pub(super) fn bytes(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap()
}

fn windows(text: &str) -> i64 {
    i64::try_from(text.split(' ').count().div_ceil(WINDOW_WORDS)).unwrap()
}

fn without_repeats(tags: &[String]) -> Vec<String> {
    let fresh = |(index, tag): &(usize, &String)| !tags[..*index].contains(tag);
    tags.iter().enumerate().filter(fresh).map(|(_, tag)| tag.clone()).collect()
}

impl Memory {
    fn new(draft: &Draft, now: i64) -> Self {
        Self {
            id: String::new(),
            tier: draft.tier,
            kind: draft.kind,
            text: draft.text.clone(),
            tags: without_repeats(&draft.tags),
            metadata: draft.metadata.clone(),
            session: draft.session,
            vectors: if draft.given { 1 } else { windows(&draft.text) },
            created_at: now,
            expires_at: SHELVES[draft.tier].1.map(|life| now + life),
            gone: false,
        }
    }

    fn changed(&self, change: &Change, now: i64) -> Self {
        let mut after = self.clone();
        if let Some(text) = change.text.as_ref().filter(|text| **text != self.text) {
            after.text.clone_from(text);
            after.vectors = windows(text);
        }
        if let Some(tier) = change.tier.filter(|tier| *tier != self.tier) {
            after.tier = tier;
            after.expires_at = SHELVES[tier].1.map(|life| now + life);
        }
        after.kind = change.kind.unwrap_or(self.kind);
        if let Some(session) = change.session {
            after.session = Some(session).filter(|session| !session.is_empty());
        }
        if let Some(tags) = &change.tags {
            after.tags = without_repeats(tags);
        }
        if let Some(metadata) = &change.metadata {
            after.metadata.clone_from(metadata);
        }
        after
    }

    /// What tags and metadata count with.
    pub(super) fn notes_bytes(&self) -> i64 {
        let tags = if self.tags.is_empty() { 0 } else { bytes(&json!(self.tags).to_string()) };
        let metadata = if self.metadata.is_empty() { 0 } else { bytes(&json!(self.metadata).to_string()) };
        tags + metadata
    }

    pub(super) fn size(&self) -> i64 {
        bytes(&self.text) + self.vectors * VECTOR_BYTES + self.notes_bytes() + REST_BYTES
    }

    pub(super) fn is_short(&self) -> bool {
        self.tier == SHORT
    }

    pub(super) fn lives(&self, now: i64) -> bool {
        !self.gone && self.expires_at.is_none_or(|end| now < end)
    }

    fn passes(&self, sieve: &Sieve) -> bool {
        sieve.tier.is_none_or(|tier| tier == self.tier)
            && sieve.kind.is_none_or(|kind| kind == self.kind)
            && sieve.tag.is_none_or(|tag| self.tags.iter().any(|own| own == tag))
            && sieve.session.is_none_or(|session| Some(session) == self.session)
    }
}

/// The bytes of those that are counted.
fn sum<'m>(memories: impl Iterator<Item = &'m Memory>) -> i64 {
    memories.map(Memory::size).sum()
}

impl Account {
    pub(super) fn living(&self, now: i64) -> impl Iterator<Item = &Memory> {
        self.memories.iter().filter(move |memory| memory.lives(now))
    }

    /// What is held now, of every tier.
    pub(super) fn level(&self, now: i64) -> i64 {
        sum(self.living(now))
    }

    /// What short-term memories may still grow by.
    pub(super) fn short_room(&self, now: i64) -> i64 {
        SHORT_BYTES_MAX - sum(self.living(now).filter(|memory| memory.is_short()))
    }

    /// The net change of storage on all days that pass.
    pub(super) fn stored_on(&self, passes: impl Fn(chrono::NaiveDate) -> bool) -> i64 {
        let counted = self.entries.iter().filter(|entry| entry.resource == Resource::Storage && passes(entry.day));
        counted.map(|entry| entry.amount).sum()
    }

    fn book(&mut self, amount: i64, now: i64) {
        if amount != 0 {
            self.push(Resource::Storage, amount, day_of(now));
        }
    }

    /// Books what has ended: one entry for all.
    pub(super) fn book_ends(&mut self, now: i64) {
        let mut freed = 0;
        for memory in self.memories.iter_mut().filter(|memory| !memory.gone && !memory.lives(now)) {
            memory.gone = true;
            freed += memory.size();
        }
        self.book(-freed, now);
    }

    /// Asks for `amount` of what `is_short` bounds. What has ended leaves the books where it would cause a refusal.
    fn ask(&mut self, is_short: bool, amount: i64, now: i64) -> Result<(), Refusal> {
        let limit = if is_short { Some(SHORT_BYTES_MAX) } else { self.limit(Resource::Storage) };
        let Some(limit) = limit else { return Ok(()) };
        let counts = |memory: &&Memory| !is_short || memory.is_short();
        if sum(self.memories.iter().filter(|memory| !memory.gone).filter(counts)) + amount > limit {
            self.book_ends(now);
        }
        let used = sum(self.living(now).filter(counts));
        if used + amount > limit { Err(Refusal(limit, used, amount)) } else { Ok(()) }
    }

    /// Keeps a memory, which has no id yet.
    pub(super) fn keep(&mut self, draft: &Draft, now: i64) -> Result<(), Refusal> {
        let memory = Memory::new(draft, now);
        let mut after = self.clone();
        after.ask(memory.is_short(), memory.size(), now)?;
        after.book(memory.size(), now);
        after.memories.push(memory);
        *self = after;
        Ok(())
    }

    /// Keeps all of them, or tells which does not fit.
    pub(super) fn keep_all(&mut self, drafts: &[Draft], now: i64) -> Result<(), (usize, Refusal)> {
        let mut after = self.clone();
        for (index, draft) in drafts.iter().enumerate() {
            after.keep(draft, now).map_err(|refusal| (index, refusal))?;
        }
        *self = after;
        Ok(())
    }

    /// Changes a living memory.
    pub(super) fn change(&mut self, index: usize, change: &Change, now: i64) -> Result<(), Refusal> {
        let before = self.memories[index].clone();
        let changed = before.changed(change, now);
        let growth = changed.size() - before.size();
        let mut after = self.clone();
        match (before.is_short(), changed.is_short()) {
            // The bound of short-term memories sees a newcomer whole.
            (false, true) => after.ask(true, changed.size(), now)?,
            (true, true) if growth > 0 => after.ask(true, growth, now)?,
            // A step out asks even where there is no growth.
            (true, false) => after.ask(false, growth, now)?,
            (false, false) if growth > 0 => after.ask(false, growth, now)?,
            (true, true) | (false, false) => {}
        }
        after.book(growth, now);
        after.memories[index] = changed;
        *self = after;
        Ok(())
    }

    /// The status of an answer to a deletion.
    pub(super) fn forget(&mut self, index: usize, now: i64) -> u16 {
        if !self.memories[index].lives(now) {
            return 404;
        }
        self.memories[index].gone = true;
        self.book(-self.memories[index].size(), now);
        204
    }

    /// Deletes all that pass, the newest first. How many, and how many bytes.
    pub(super) fn clear(&mut self, sieve: &Sieve, now: i64) -> (usize, i64) {
        let passes = |index: &usize| self.memories[*index].lives(now) && self.memories[*index].passes(sieve);
        let meant: Vec<usize> = (0..self.memories.len()).rev().filter(passes).collect();
        let mut freed = 0;
        for slice in meant.chunks(SLICE) {
            let size: i64 = slice.iter().map(|index| self.memories[*index].size()).sum();
            for index in slice {
                self.memories[*index].gone = true;
            }
            self.book(-size, now);
            freed += size;
        }
        (meant.len(), freed)
    }
}
