//! Memories over HTTP.

mod answer;
mod export;
mod import;
pub(super) mod parse;
pub(super) mod places;
mod write;

use axum::Json;
use axum::extract::State;

pub(super) use export::export;
pub(super) use import::import;
pub(super) use write::{change, delete, delete_many, keep_exchange, patch, store, store_batch};

use super::answer::next_cursor;
use super::extract::{Body, Path, Query};
use super::problem::Answer;
use super::state::{AppState, Known};
use crate::domain::Result;
use crate::domain::memory::{Hit, Mode};
use crate::service::memory::{self, Search};
use answer::{ListAnswer, MemoryAnswer, QuotaCheckAnswer, SearchAnswer, UsageAnswer};

/// `POST /memory/search`
pub(super) async fn search(State(state): State<AppState>, known: Known, body: Body) -> Answer<Json<SearchAnswer>> {
    let search = parse::search(body)?;
    let with_context = search.context > 0;
    Ok(Json(SearchAnswer::of(find(&state, &known, search).await?, with_context)))
}

/// What a search finds. The embedding of its query is made first, outside of the read.
pub(super) async fn find(state: &AppState, known: &Known, mut search: Search) -> Result<Vec<Hit>> {
    if let (None, Some(query)) = (&search.embedding, &search.query) {
        search.lacks_meaning = search.mode == Mode::Hybrid && !state.embedder.knows(query);
        if search.mode != Mode::Keyword {
            search.embedding = state.embedder.embed(known.caller().user.key, vec![query.clone()]).await?.pop();
        }
    }
    state.search(known, move |reader, caller| memory::search(reader, caller, &search)).await
}

/// `GET /memory/{id}/similar`
pub(super) async fn similar(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<SearchAnswer>> {
    let limit = parse::similar(query)?;
    let id = parse::id(&id)?;
    let hits = state.search(&known, move |reader, caller| memory::similar(reader, caller, id, limit)).await?;
    Ok(Json(SearchAnswer::of(hits, false)))
}

/// `GET /memory/{id}`
pub(super) async fn get(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<MemoryAnswer>> {
    query.0.finish(|| Some(()))?;
    let id = parse::id(&id)?;
    let answer = state
        .read(&known, move |reader, caller| Ok(MemoryAnswer::of(caller.user.id, memory::get(reader, caller, id)?)));
    Ok(Json(answer.await?))
}

/// `GET /memory`
pub(super) async fn list(State(state): State<AppState>, known: Known, query: Query) -> Answer<Json<ListAnswer>> {
    let listing = parse::list(query)?;
    let answer = state.read(&known, move |reader, caller| {
        let limit = listing.limit;
        let mut memories = memory::list(reader, caller, &listing.filter, listing.before, limit + 1)?;
        let next_cursor = next_cursor(&memories, limit, |memory| memory.id.to_string());
        memories.truncate(limit);
        let user = caller.user.id;
        let memories = memories.into_iter().map(|memory| MemoryAnswer::of(user, memory)).collect();
        Ok(ListAnswer { memories, next_cursor })
    });
    Ok(Json(answer.await?))
}

/// `GET /memory/usage`
pub(super) async fn usage(State(state): State<AppState>, known: Known, query: Query) -> Answer<Json<UsageAnswer>> {
    query.0.finish(|| Some(()))?;
    let policy = state.memory.clone();
    let answer = state.read(&known, move |reader, caller| {
        Ok(UsageAnswer::of(caller.user.id, &memory::usage(reader, &policy, caller)?))
    });
    Ok(Json(answer.await?))
}

/// `GET /memory/usage/quota-check`
pub(super) async fn quota_check(
    State(state): State<AppState>,
    known: Known,
    query: Query,
) -> Answer<Json<QuotaCheckAnswer>> {
    query.0.finish(|| Some(()))?;
    let policy = state.memory.clone();
    let answer =
        state.read(&known, move |reader, caller| Ok(QuotaCheckAnswer::of(&memory::usage(reader, &policy, caller)?)));
    Ok(Json(answer.await?))
}
