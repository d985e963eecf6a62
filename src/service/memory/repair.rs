//! Making indexes and totals anew from the memories.

use super::super::quota::Policy as QuotaPolicy;
use super::reembed::{Progress, replace};
use crate::domain::memory::{Embedding, MemoryKey};
use crate::domain::{Error, Result};
use crate::store::memory as store_of;
use crate::store::{Reader, Store};

/// What was made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Vectors without a memory that were taken away.
    pub vectors_deleted: usize,
    /// Memories that got new vectors.
    pub embedded: usize,
    /// Memories that were entered into the full-text index.
    pub indexed: u64,
    /// Rows of totals that were put right.
    pub totals: usize,
}

/// The setting that says that a repair has begun and not ended.
const REPAIRING: &str = "repairing";

/// Refuses a database whose repair has begun and not ended: its full text lacks words, so that nothing could be deleted.
///
/// # Errors
/// `Unavailable` that says what to do.
pub fn require_whole(reader: &Reader<'_>) -> Result<()> {
    match store_of::find_setting(reader, REPAIRING)? {
        None => Ok(()),
        Some(_) => Err(Error::Unavailable(
            "a repair of this database was interrupted: run `tallybox check --repair` to its end".to_owned(),
        )),
    }
}

/// Memories of one write.
const SLICE: usize = 256;

/// Deletes vectors without a memory, remakes missing or wrong ones with `embed` (a text in, one embedding for each
/// window out), and rebuilds the full-text index and the totals. An interrupted repair starts again from the beginning.
///
/// # Errors
/// Whatever `embed` or the store fail with.
pub fn repair(
    store: &Store,
    policy: &QuotaPolicy,
    mut embed: impl FnMut(&str) -> Result<Vec<Embedding>>,
    mut progress: impl FnMut(Progress),
) -> Result<Repaired> {
    let mut repaired = Repaired::default();
    (repaired.vectors_deleted, repaired.totals) = store.write_blocking(|writer| {
        store_of::set_setting(writer, REPAIRING, Some("yes"))?;
        let deleted = store_of::delete_lost_vectors(writer)?;
        store_of::clear_words(writer)?;
        Ok((deleted, store_of::restore_totals(writer)?))
    })?;
    let mut left = store.read_blocking(|reader| store_of::count_after(reader, MemoryKey(0)))?;
    let mut position = MemoryKey(0);
    loop {
        let page = store.read_blocking(|reader| store_of::list_all(reader, position, SLICE))?;
        let Some((_, last)) = page.last() else { break };
        position = last.key;
        let count = page.len() as u64;
        store.write_blocking(move |writer| {
            for (user, memory) in &page {
                store_of::enter_words(writer, *user, memory);
            }
            Ok(())
        })?;
        repaired.indexed += count;
        left = left.saturating_sub(count);
        progress(Progress { done: repaired.indexed, left });
    }
    loop {
        let page = store.read_blocking(|reader| store_of::list_unembedded(reader, SLICE))?;
        if page.is_empty() {
            store.write_blocking(|writer| store_of::set_setting(writer, REPAIRING, None))?;
            return Ok(repaired);
        }
        repaired.embedded += page.len();
        let mut embedded = Vec::with_capacity(page.len());
        for (user, memory) in page {
            let embeddings = embed(&memory.content.text)?;
            embedded.push((user, memory, embeddings));
        }
        let policy = policy.clone();
        store.write_blocking(move |writer| {
            embedded.iter().try_for_each(|(user, memory, new)| replace(writer, &policy, *user, memory, new))
        })?;
    }
}
