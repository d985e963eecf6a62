//! The model that vectors are made with: which one it is, and the change to another.

use serde_json::json;

use super::super::quota::Policy as QuotaPolicy;
use super::{book, held_by};
use crate::domain::auth::UserKey;
use crate::domain::memory::{Embedding, Groundwork, Memory, MemoryKey, stored_bytes};
use crate::domain::{Error, Result};
use crate::store::memory as store_of;
use crate::store::{Reader, Store, Writer};

/// The setting that names the model of all vectors.
pub(super) const MODEL: &str = "embedding_model";
/// The setting that names the model that vectors are being made anew with.
const NEXT_MODEL: &str = "reembed_model";
/// The setting that says up to which memory they have been.
const POSITION: &str = "reembed_position";

/// Makes `model` that of the database if it has no vectors yet.
///
/// # Errors
/// `Unavailable` where there are vectors of another model: two models' vectors cannot be compared.
pub fn adopt_model(writer: &mut Writer<'_>, model: &str) -> Result<()> {
    let interrupted = store_of::find_setting(writer, NEXT_MODEL)?;
    let present = store_of::find_setting(writer, MODEL)?;
    match (present, interrupted) {
        (Some(present), None) if present == model => Ok(()),
        (Some(present), interrupted) if store_of::has_vectors(writer)? => {
            let next = interrupted.map_or_else(String::new, |next| format!(" and in part by {next}"));
            Err(Error::Unavailable(format!(
                "the embeddings in this database were made by {present}{next}, and the configuration names {model}: run \
                 `tallybox reembed` to make them anew, or set [embedding] back"
            )))
        }
        _ => {
            forget_progress(writer)?;
            store_of::set_setting(writer, MODEL, Some(model))
        }
    }
}

/// How far a change of model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Memories done in this run.
    pub done: u64,
    /// Memories left in this run.
    pub left: u64,
}

/// Remakes the embeddings of all memories with `model`, by `embed` (a text in, one embedding for each window out). What
/// was done stays done: after an interruption the same call goes on where it stopped.
///
/// # Errors
/// Whatever `embed` or the store fail with.
pub fn reembed(
    store: &Store,
    policy: &QuotaPolicy,
    model: &str,
    mut embed: impl FnMut(&str) -> Result<Vec<Embedding>>,
    mut progress: impl FnMut(Progress),
) -> Result<()> {
    const SLICE: usize = 32;
    let (mut position, mut left) = store.read_blocking(|reader| begin(reader, model))?;
    let mut done = 0;
    loop {
        let page = store.read_blocking(|reader| store_of::list_all(reader, position, SLICE))?;
        let Some((_, last)) = page.last() else { break };
        position = last.key;
        let mut slice = Vec::with_capacity(page.len());
        for (user, memory) in page {
            let embeddings = embed(&memory.content.text)?;
            slice.push((user, memory, embeddings));
        }
        done += slice.len() as u64;
        left = u64::saturating_sub(left, slice.len() as u64);
        let (policy, model) = (policy.clone(), model.to_owned());
        store.write_blocking(move |writer| {
            for (user, memory, embeddings) in &slice {
                replace(writer, &policy, *user, memory, embeddings)?;
            }
            store_of::set_setting(writer, NEXT_MODEL, Some(&model))?;
            store_of::set_setting(writer, POSITION, Some(&position.0.to_string()))
        })?;
        progress(Progress { done, left });
    }
    let model = model.to_owned();
    store.write_blocking(move |writer| {
        forget_progress(writer)?;
        store_of::set_setting(writer, MODEL, Some(&model))
    })
}

/// Where to begin, and how many memories lie behind that.
fn begin(reader: &Reader<'_>, model: &str) -> Result<(MemoryKey, u64)> {
    let resumes = store_of::find_setting(reader, NEXT_MODEL)?.is_some_and(|next| next == model);
    let position = store_of::find_setting(reader, POSITION)?.filter(|_| resumes);
    let position = MemoryKey(position.and_then(|position| position.parse().ok()).unwrap_or(0));
    Ok((position, store_of::count_after(reader, position)?))
}

fn forget_progress(writer: &mut Writer<'_>) -> Result<()> {
    store_of::set_setting(writer, NEXT_MODEL, None)?;
    store_of::set_setting(writer, POSITION, None)
}

/// Gives a memory new embeddings. There may be more or fewer windows: the difference is booked, unless the memory's end
/// already is.
pub(super) fn replace(
    writer: &mut Writer<'_>,
    policy: &QuotaPolicy,
    user: UserKey,
    memory: &Memory,
    embeddings: &[Embedding],
) -> Result<()> {
    let booked_until = store_of::booked_until(writer, user)?;
    if memory.expires_at.is_some_and(|end| end <= booked_until) {
        return store_of::replace_vectors(writer, memory.key, embeddings);
    }
    let after = Memory { size_bytes: stored_bytes(&memory.content, embeddings.len()), ..memory.clone() };
    let made = Groundwork { embeddings: Some(embeddings.to_vec()), ..Groundwork::default() };
    store_of::update(writer, user, memory, &after, &made)?;
    store_of::add_held(writer, user, memory.content.tier, held_by(memory).negated())?;
    store_of::add_held(writer, user, memory.content.tier, held_by(&after))?;
    let metadata = json!({"action": "reembed", "memoryId": memory.id});
    book(writer, policy, user, after.size_bytes - memory.size_bytes, metadata)
}
