//! Agent runs.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::answer::created;
use super::auth::parse_paging;
use super::extract::{Body, MaybeKey, Path, Query};
use super::input;
use super::problem::Answer;
use super::state::{AppState, Known};
use crate::domain::Error;
use crate::domain::agent::{MAX_MINUTES, NAME_CHARACTERS, Run};
use crate::domain::unit::{RunId, Timestamp};
use crate::service::agent::{self, Beat, NewRun};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunAnswer {
    id: RunId,
    name: Option<String>,
    metadata: Option<Value>,
    tier: String,
    status: &'static str,
    started_at: Timestamp,
    last_seen_at: Timestamp,
    /// Minutes that have begun: what the run has used until now, or in all.
    minutes: i64,
    max_minutes: Option<i64>,
    /// Where what is held ends; the run reaches no further without another heartbeat.
    held_until: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    end_reason: Option<&'static str>,
}

impl RunAnswer {
    fn of(run: Run, now: Timestamp) -> Self {
        let end = run.end_as_of(now);
        Self {
            status: if end.is_some() { "ended" } else { "running" },
            minutes: run.minutes_used(end.map_or(now, |(at, _)| at)),
            held_until: end.is_none().then(|| run.held_until()),
            ended_at: end.map(|(at, _)| at),
            end_reason: end.map(|(_, reason)| reason.as_str()),
            id: run.id,
            started_at: run.started_at,
            last_seen_at: run.seen_at,
            max_minutes: run.max_minutes,
            name: run.name,
            metadata: run.metadata,
            tier: run.tier,
        }
    }
}

/// `POST /agents/runs`
pub(super) async fn start(State(state): State<AppState>, known: Known, key: MaybeKey, body: Body) -> Answer {
    let key = key.with(&body)?;
    let mut fields = body.fields_or_none()?;
    let name = fields.optional("name", input::text(NAME_CHARACTERS));
    let metadata = fields.optional("metadata", input::metadata);
    let max_minutes = fields.optional("maxMinutes", input::integer(MAX_MINUTES));
    let new = fields.finish(|| Some(NewRun { name, metadata, max_minutes }))?;
    let policy = state.agent.clone();
    created(&state, &known, key, move |writer, caller| {
        let run = agent::start(writer, &policy, caller, &new)?;
        Ok((StatusCode::CREATED, RunAnswer::of(run, writer.now())))
    })
    .await
}

/// `POST /agents/runs/{id}/heartbeat`
pub(super) async fn heartbeat(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Json<RunAnswer>> {
    body.fields_or_none()?.finish(|| Some(()))?;
    let (id, policy) = (parse(&id)?, state.agent.clone());
    let beat = state.write(&known, move |writer, caller| agent::heartbeat(writer, &policy, caller, id)).await?;
    match beat {
        Beat::Alive(run) => Ok(Json(RunAnswer::of(run, state.now()))),
        Beat::Exhausted(refusal) => {
            state.note_refusal(&known, &refusal);
            Err(Error::QuotaExceeded(Box::new(refusal)).into())
        }
    }
}

/// `POST /agents/runs/{id}/stop`
pub(super) async fn stop(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Json<RunAnswer>> {
    body.fields_or_none()?.finish(|| Some(()))?;
    let (id, policy) = (parse(&id)?, state.agent.clone());
    let run = state.write(&known, move |writer, caller| agent::stop(writer, &policy, caller, id)).await?;
    Ok(Json(RunAnswer::of(run, state.now())))
}

/// `GET /agents/runs/{id}`
pub(super) async fn get(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
) -> Answer<Json<RunAnswer>> {
    let id = parse(&id)?;
    let run = state.read(&known, move |reader, caller| agent::load(reader, caller.user.key, id)).await?;
    Ok(Json(RunAnswer::of(run, state.now())))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunsAnswer {
    runs: Vec<RunAnswer>,
    next_cursor: Option<String>,
}

/// `GET /agents/runs`
pub(super) async fn list(State(state): State<AppState>, known: Known, query: Query) -> Answer<Json<RunsAnswer>> {
    let paging = parse_paging(query.0)?;
    let page = state.read(&known, move |reader, caller| agent::list(reader, caller.user.key, paging)).await?;
    let now = state.now();
    let page = page.map(|run| RunAnswer::of(run, now));
    Ok(Json(RunsAnswer { runs: page.items, next_cursor: page.next }))
}

fn parse(id: &str) -> Result<RunId, Error> {
    RunId::parse(id).ok_or(Error::NotFound("the run"))
}
