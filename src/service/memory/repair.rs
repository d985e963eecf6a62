//! Making indexes and totals anew from the memories.

use super::super::quota::Policy as QuotaPolicy;
use super::reembed::{Progress, replace};
use crate::domain::Result;
use crate::domain::memory::{Embedding, MemoryKey};
use crate::store::Store;
use crate::store::memory as store_of;

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

/// Memories of one write.
const SLICE: usize = 256;

/// Takes away vectors without a memory, makes those that are missing or wrong with `embed` (a text in, one embedding a window
/// out), and makes the full-text index and the totals anew. What was interrupted is done again from the beginning.
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
