//! Writing memories. What is slow, the embedding, is done before the write begins.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::answer::{BatchAnswer, DeleteAnswer, MemoryAnswer, SIMILAR_MAX, SimilarAnswer, StoreAnswer};
use super::parse::{self, Described};
use crate::domain::auth::Scope;
use crate::domain::memory::{Content, Embedding, Memory, MemoryTier, NewMemory, OnDuplicate, Patch, WINDOWS_MAX};
use crate::domain::unit::MemoryId;
use crate::domain::{Error, Result};
use crate::service::memory;
use crate::web::answer::{created, first_answer, respond};
use crate::web::extract::{Body, MaybeKey, Path, Query};
use crate::web::problem::Answer;
use crate::web::state::{AppState, Known};

/// The least cosine that counts as similar.
const SIMILAR_LEAST: f64 = 0.5;

/// `POST /memory/store`
pub(in crate::web) async fn store(State(state): State<AppState>, known: Known, key: MaybeKey, body: Body) -> Answer {
    let key = key.with(&body)?;
    let (described, report_similar) = parse::store(body, &state.config.memory, state.now())?;
    if let Some(first) = first_answer(&state, &known, key.as_ref()).await? {
        return Ok(respond(first));
    }
    let mut memories = embed_all(&state, &known, vec![described]).await.map_err(Error::without_index)?;
    let new = memories.pop().ok_or_else(|| Error::Internal("a memory was lost".to_owned()))?;
    let similar = if report_similar { Some(find_similar(&state, &known, &new.embeddings).await?) } else { None };
    let policy = state.memory.clone();
    created(&state, &known, key, move |writer, caller| {
        let stored = memory::store(writer, &policy, caller, new)?;
        let status = if stored.merged { StatusCode::OK } else { StatusCode::CREATED };
        Ok((status, StoreAnswer::of(caller.user.id, &stored, similar)))
    })
    .await
}

/// `POST /memory/store/batch`
pub(in crate::web) async fn store_batch(
    State(state): State<AppState>,
    known: Known,
    key: MaybeKey,
    body: Body,
) -> Answer {
    let key = key.with(&body)?;
    let batch = parse::store_batch(body, &state.config.memory, state.now())?;
    if let Some(first) = first_answer(&state, &known, key.as_ref()).await? {
        return Ok(respond(first));
    }
    let memories = embed_all(&state, &known, batch).await?;
    let policy = state.memory.clone();
    created(&state, &known, key, move |writer, caller| {
        let mut answers = Vec::with_capacity(memories.len());
        for (index, new) in memories.into_iter().enumerate() {
            let stored = memory::store(writer, &policy, caller, new).map_err(|error| error.at("memories", index))?;
            answers.push(StoreAnswer::of(caller.user.id, &stored, None));
        }
        Ok((StatusCode::CREATED, BatchAnswer { memories: answers }))
    })
    .await
}

/// Keeps what was said in a call of the gateway.
pub(in crate::web) async fn keep_exchange(state: &AppState, known: &Known, content: Content) -> Result<()> {
    let mut memories = embed_all(state, known, vec![Described { content, embedding: None }]).await?;
    let new = memories.pop().ok_or_else(|| Error::Internal("a memory was lost".to_owned()))?;
    let policy = state.memory.clone();
    let kept = state.write(known, move |writer, caller| {
        caller.require(Scope::MemoryWrite)?;
        memory::store(writer, &policy, caller, new)
    });
    kept.await.map(drop)
}

/// Makes the embeddings that were not given, once it is likely that the memories fit.
async fn embed_all(state: &AppState, known: &Known, batch: Vec<Described>) -> Result<Vec<NewMemory>> {
    let described = batch.into_iter().map(|described| (described.content, described.embedding)).collect();
    let cut = state.embedder.cut(described).await?;
    if !cut.fits() {
        return Err(too_many_windows());
    }
    if cut.lacks_embeddings() && state.memory.on_duplicate == OnDuplicate::Store {
        require_room(state, known, memory::sizes(cut.counts())).await?;
    }
    let memories = state.embedder.complete(known.caller().user.key, cut).await?;
    Ok(memories.into_iter().flatten().collect())
}

fn too_many_windows() -> Error {
    Error::invalid("input_context", format!("must give at most {WINDOWS_MAX} windows of the model"))
}

/// A look at the quota before embeddings are made, so that what is refused costs nothing. The write decides again.
async fn require_room(state: &AppState, known: &Known, sizes: Vec<(MemoryTier, i64)>) -> Result<()> {
    let (policy, asked) = (state.memory.clone(), sizes.clone());
    if !state.read(known, move |reader, caller| memory::has_room(reader, &policy, caller, &asked)).await? {
        let policy = state.memory.clone();
        state.write(known, move |writer, caller| memory::require_room(writer, &policy, caller, &sizes)).await?;
    }
    Ok(())
}

/// The memories most like one to be stored; one more than are named, since it may be merged with the nearest.
async fn find_similar(state: &AppState, known: &Known, embeddings: &[Embedding]) -> Result<Vec<SimilarAnswer>> {
    const LIMIT: usize = SIMILAR_MAX + 1;
    let embeddings = embeddings.to_vec();
    let hits = state
        .search(known, move |reader, caller| memory::similar_to(reader, caller, &embeddings, LIMIT, SIMILAR_LEAST));
    Ok(hits.await?.iter().map(SimilarAnswer::of).collect())
}

/// `PATCH /memory/{id}`
pub(in crate::web) async fn patch(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Json<MemoryAnswer>> {
    let patch = parse::patch(body, &state.config.memory, state.now())?;
    let id = parse::id(&id)?;
    let memory = change(&state, &known, id, patch).await?;
    Ok(Json(MemoryAnswer::of(known.caller().user.id, memory)))
}

/// Changes a memory. The embeddings and the words of another text are made before the write begins.
pub(in crate::web) async fn change(state: &AppState, known: &Known, id: MemoryId, patch: Patch) -> Result<Memory> {
    let before = state.read(known, move |reader, caller| memory::get(reader, caller, id)).await?;
    let made = state.embedder.prepare_change(known.caller().user.key, before.content, &patch).await?;
    let made = made.ok_or_else(too_many_windows)?;
    let policy = state.memory.clone();
    state.write(known, move |writer, caller| memory::patch(writer, &policy, caller, id, patch, made)).await
}

/// `DELETE /memory/{id}`
pub(in crate::web) async fn delete(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    query: Query,
) -> Answer<StatusCode> {
    query.0.finish(|| Some(()))?;
    let id = parse::id(&id)?;
    let policy = state.memory.clone();
    state.write(&known, move |writer, caller| memory::delete(writer, &policy, caller, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /memory`
pub(in crate::web) async fn delete_many(
    State(state): State<AppState>,
    known: Known,
    query: Query,
) -> Answer<Json<DeleteAnswer>> {
    let filter = Arc::new(parse::delete_many(query)?);
    let mut answer = DeleteAnswer { deleted: 0, freed_bytes: 0 };
    let meant = Arc::clone(&filter);
    let mut left = state.read(&known, move |reader, caller| memory::meant(reader, caller, &meant)).await?;
    while !left.is_empty() {
        let (policy, filter) = (state.memory.clone(), Arc::clone(&filter));
        let slice = state
            .write(&known, move |writer, caller| memory::delete_slice(writer, &policy, caller, &filter, left))
            .await?;
        answer.deleted += slice.memories;
        answer.freed_bytes += slice.size_bytes;
        left = slice.left;
    }
    Ok(Json(answer))
}
