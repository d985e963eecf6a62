//! Questions about usage. The writes that make it stand in `record.rs` and `reservation.rs`.

mod record;
mod reservation;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;

use super::answer::page_limit;
use super::extract::{Body, Path, Query};
use super::input;
use super::problem::Answer;
use super::state::{AppState, Known};
use crate::domain::ledger::{Entry, ResourceType};
use crate::domain::quota::Limits;
use crate::domain::unit::{AMOUNT_MAX, EntryId, Timestamp, UserId, human_bytes};
use crate::domain::{Error, Result};
use crate::service::ledger::{self, Listing, Stats};
use crate::service::quota;
pub(super) use record::{RecordAnswer, parse_amount, record, record_batch};
pub(super) use reservation::{list_reservations, release, reserve, settle};

/// Days of a look back.
pub(super) const DAYS: std::ops::RangeInclusive<i64> = 1..=366;

pub(super) fn parse_days(query: Query) -> Result<i32> {
    let mut fields = query.0;
    let days = take_days(&mut fields);
    fields.finish(|| days)
}

fn take_days(fields: &mut input::Fields) -> Option<i32> {
    let days = fields.optional("days", input::integer_text(DAYS)).unwrap_or(30);
    i32::try_from(days).ok()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatsAnswer {
    user_id: UserId,
    period: String,
    breakdown: Vec<BreakdownRow>,
    limits: LimitsAnswer,
    warnings: Vec<String>,
    timestamp: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BreakdownRow {
    resource_type: &'static str,
    amount: i64,
    human_readable: String,
    percentage: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LimitsAnswer {
    llm_tokens_day: i64,
    memory_storage_bytes: i64,
    agent_minutes_month: i64,
}

impl LimitsAnswer {
    const fn of(limits: &Limits) -> Self {
        Self {
            llm_tokens_day: limits.llm_tokens_day.to_number(),
            memory_storage_bytes: limits.memory_storage_bytes.to_number(),
            agent_minutes_month: limits.agent_minutes_month.to_number(),
        }
    }
}

impl StatsAnswer {
    pub(super) fn of(user: UserId, days: i32, stats: &Stats) -> Self {
        let rows = stats.rows.iter();
        let breakdown = rows.map(|row| BreakdownRow {
            resource_type: row.standing.resource.as_str(),
            amount: row.amount,
            human_readable: row.standing.resource.human(row.amount),
            percentage: row.standing.percentage(),
        });
        Self {
            user_id: user,
            period: format!("last_{days}_days"),
            breakdown: breakdown.collect(),
            limits: LimitsAnswer::of(&stats.limits),
            warnings: stats.warnings(),
            timestamp: stats.now,
        }
    }
}

/// `GET /usage/stats`
pub(super) async fn stats(State(state): State<AppState>, known: Known, query: Query) -> Answer<Json<StatsAnswer>> {
    let days = parse_days(query)?;
    let policy = state.quota.clone();
    let answer = state
        .read(&known, move |reader, caller| {
            let stats = ledger::stats(reader, &policy, caller.holder(), days)?;
            Ok(StatsAnswer::of(caller.user.id, days, &stats))
        })
        .await?;
    Ok(Json(answer))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StandingAnswer {
    used: i64,
    limit: i64,
    percentage: f64,
    reserved: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    human_readable: Option<String>,
}

async fn standing(state: AppState, known: Known, query: Query, resource: ResourceType) -> Answer<Json<StandingAnswer>> {
    query.0.finish(|| Some(()))?;
    let policy = state.quota.clone();
    let standing = state
        .read(&known, move |reader, caller| quota::standing_now(reader, &policy, caller.holder(), resource))
        .await?;
    Ok(Json(StandingAnswer {
        used: standing.usage.used,
        limit: standing.limit.to_number(),
        percentage: standing.percentage(),
        reserved: standing.usage.reserved,
        resets_at: standing.resets_at,
        human_readable: (resource == ResourceType::MemoryStorage).then(|| human_bytes(standing.usage.used)),
    }))
}

/// `GET /usage/tokens`
pub(super) async fn tokens(State(state): State<AppState>, known: Known, query: Query) -> Answer<Json<StandingAnswer>> {
    standing(state, known, query, ResourceType::LlmTokens).await
}

/// `GET /usage/storage`
pub(super) async fn storage(State(state): State<AppState>, known: Known, query: Query) -> Answer<Json<StandingAnswer>> {
    standing(state, known, query, ResourceType::MemoryStorage).await
}

/// `GET /usage/agent-minutes`
pub(super) async fn agent_minutes(
    State(state): State<AppState>,
    known: Known,
    query: Query,
) -> Answer<Json<StandingAnswer>> {
    standing(state, known, query, ResourceType::AgentMinutes).await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckAnswer {
    has_quota: bool,
    message: String,
    used: i64,
    reserved: i64,
    limit: i64,
    remaining: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<Timestamp>,
}

/// `POST /usage/check-quota`
pub(super) async fn check_quota(State(state): State<AppState>, known: Known, body: Body) -> Answer<Json<CheckAnswer>> {
    let mut fields = body.fields()?;
    let resource = fields.required("resourceType", input::resource);
    let amount = fields.required("amount", input::integer(1..=AMOUNT_MAX));
    let (resource, amount) = fields.finish(|| resource.zip(amount))?;
    let policy = state.quota.clone();
    let standing = state
        .read(&known, move |reader, caller| quota::standing_now(reader, &policy, caller.holder(), resource))
        .await?;
    let shortfall = standing.shortfall(amount);
    let message = match shortfall {
        None => "Quota available".to_owned(),
        Some(over) => format!(
            "Quota exceeded: {} over the limit of {}",
            resource.human(over),
            resource.human(standing.limit.to_number())
        ),
    };
    Ok(Json(CheckAnswer {
        has_quota: shortfall.is_none(),
        message,
        used: standing.usage.used,
        reserved: standing.usage.reserved,
        limit: standing.limit.to_number(),
        remaining: standing.remaining().unwrap_or(-1),
        resets_at: standing.resets_at,
    }))
}

#[derive(Serialize)]
pub(super) struct SeriesElement {
    date: String,
    amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
}

/// `GET /usage/timeseries/{resourceType}`
pub(super) async fn timeseries(
    State(state): State<AppState>,
    known: Known,
    Path(resource): Path<String>,
    query: Query,
) -> Answer<Json<Vec<SeriesElement>>> {
    let mut fields = query.0;
    let resource =
        fields.absorb(input::resource(Value::String(resource)).map_err(|why| Error::invalid("resourceType", why)))?;
    let days = take_days(&mut fields);
    let (resource, days) = fields.finish(|| resource.zip(days))?;
    let policy = state.quota.clone();
    let series = state
        .read(&known, move |reader, caller| ledger::series(reader, &policy, caller.user.key, resource, days))
        .await?;
    let elements =
        series.into_iter().map(|day| SeriesElement { date: day.day.to_string(), amount: day.amount, total: day.total });
    Ok(Json(elements.collect()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TierAnswer {
    user_id: UserId,
    tier: String,
}

/// `GET /usage/tier`
pub(super) async fn tier(State(state): State<AppState>, known: Known, query: Query) -> Answer<Json<TierAnswer>> {
    query.0.finish(|| Some(()))?;
    let answer =
        state.read(&known, |_, caller| Ok(TierAnswer { user_id: caller.user.id, tier: caller.tier().to_owned() }));
    Ok(Json(answer.await?))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryAnswer {
    id: EntryId,
    resource_type: &'static str,
    amount: i64,
    timestamp: Timestamp,
    metadata: Option<Value>,
    reverses: Option<EntryId>,
    recorded_at: Timestamp,
}

impl From<Entry> for EntryAnswer {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            resource_type: entry.resource.as_str(),
            amount: entry.amount,
            timestamp: entry.timestamp,
            metadata: entry.metadata,
            reverses: entry.reverses,
            recorded_at: entry.recorded_at,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LedgerAnswer {
    entries: Vec<EntryAnswer>,
    next_cursor: Option<String>,
}

impl From<ledger::Page> for LedgerAnswer {
    fn from(page: ledger::Page) -> Self {
        Self { entries: page.entries.into_iter().map(EntryAnswer::from).collect(), next_cursor: page.next_cursor }
    }
}

/// The listing that a query asks for.
pub(super) fn parse_listing(query: Query) -> Result<Listing> {
    let mut fields = query.0;
    let resource = fields.optional("resourceType", input::resource);
    let from = fields.optional("from", input::instant);
    let to = fields.optional("to", input::instant);
    let cursor = fields.optional("cursor", input::text(1..=255));
    let limit = page_limit(&mut fields);
    fields.finish(|| Some(Listing { resource, from, to, cursor, limit }))
}

/// `GET /usage/ledger`
pub(super) async fn list_entries(
    State(state): State<AppState>,
    known: Known,
    query: Query,
) -> Answer<Json<LedgerAnswer>> {
    let listing = parse_listing(query)?;
    let policy = state.quota.clone();
    let page = state
        .read(&known, move |reader, caller| ledger::list_entries(reader, &policy, caller.user.key, &listing))
        .await?;
    Ok(Json(page.into()))
}
