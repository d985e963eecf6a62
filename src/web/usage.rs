//! Questions about usage, and the writes that make it: records, reservations.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::answer::{created, page_limit};
use super::extract::{Body, MaybeKey, Query};
use super::input::{self, Fields};
use super::problem::Answer;
use super::state::{AppState, Known};
use crate::domain::auth::Caller;
use crate::domain::ledger::{BATCH_MAX, Entry, ResourceType, Source};
use crate::domain::quota::{Limits, RESERVATION_TTL_S, RESERVATION_TTL_S_MAX, Reservation, Standing};
use crate::domain::unit::{AMOUNT_MAX, EntryId, ReservationId, Timestamp, UserId, human_bytes};
use crate::domain::{Error, Result};
use crate::service::ledger::{self, Fact, Listing, Stats};
use crate::service::quota;

/// Days of a look back.
const DAYS: std::ops::RangeInclusive<i64> = 1..=366;

fn parse_days(query: Query) -> Result<i32> {
    let mut fields = query.0;
    let days = fields.optional("days", input::integer_text(DAYS)).unwrap_or(30);
    fields.finish(|| i32::try_from(days).ok())
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
            let stats = ledger::stats(reader, &policy, caller, days)?;
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
    let standing =
        state.read(&known, move |reader, caller| quota::standing_now(reader, &policy, caller, resource)).await?;
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
    let standing =
        state.read(&known, move |reader, caller| quota::standing_now(reader, &policy, caller, resource)).await?;
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
    let resource = input::resource(Value::String(resource)).map_err(|why| Error::invalid("resourceType", why))?;
    let days = parse_days(query)?;
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

/// A fact as a body tells it.
pub(super) fn parse_fact(fields: &mut Fields) -> Option<Fact> {
    let resource = fields.required("resourceType", metered_by_hand);
    let reverses = fields.optional("reverses", |value| {
        value.as_str().and_then(EntryId::parse).ok_or_else(|| "must be the id of an entry".to_owned())
    });
    let amount = fields.required("amount", |value| amount(&value, reverses.is_some()));
    let metadata = fields.optional("metadata", input::metadata);
    let timestamp = fields.optional("timestamp", input::instant);
    let enforce = fields.optional("enforce", input::flag).unwrap_or(false);
    Some(Fact { resource: resource?, amount: amount?, timestamp, enforce, reverses, metadata })
}

fn metered_by_hand(value: Value) -> Result<ResourceType, input::Why> {
    match input::resource(value)? {
        ResourceType::MemoryStorage => Err("memory_storage is metered by storing memories, never by hand".to_owned()),
        resource => Ok(resource),
    }
}

fn amount(value: &Value, reverses: bool) -> Result<i64, input::Why> {
    match value.as_i64() {
        Some(amount) if reverses && (-AMOUNT_MAX..0).contains(&amount) => Ok(amount),
        Some(amount) if !reverses && (1..=AMOUNT_MAX).contains(&amount) => Ok(amount),
        Some(..0) if !reverses => Err("a negative amount must name in `reverses` the entry it takes back".to_owned()),
        _ if reverses => Err(format!("must be a whole number from -{AMOUNT_MAX} to -1 where `reverses` is given")),
        _ => Err(format!("must be a whole number from 1 to {AMOUNT_MAX}")),
    }
}

/// Nobody refunds themselves: a reversal needs act-as (or `/api/admin`).
fn require_may_reverse(caller: &Caller, facts: &[Fact]) -> Result<()> {
    if facts.iter().all(|fact| fact.reverses.is_none()) || caller.may_act_for_others() {
        return Ok(());
    }
    Err(Error::forbidden("reversal_forbidden", "only a caller with act-as or an administrator takes an entry back"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordAnswer {
    id: EntryId,
    resource_type: &'static str,
    amount: i64,
    timestamp: Timestamp,
    quota: QuotaAnswer,
}

#[derive(Serialize)]
struct QuotaAnswer {
    used: i64,
    limit: i64,
    percentage: f64,
}

impl RecordAnswer {
    pub(super) fn of(entry: &Entry, standing: &Standing) -> Self {
        let quota = QuotaAnswer {
            used: standing.usage.used,
            limit: standing.limit.to_number(),
            percentage: standing.percentage(),
        };
        let resource_type = entry.resource.as_str();
        Self { id: entry.id, resource_type, amount: entry.amount, timestamp: entry.timestamp, quota }
    }
}

/// `POST /usage/record`
pub(super) async fn record(State(state): State<AppState>, known: Known, key: MaybeKey, body: Body) -> Answer {
    let key = key.with(&body);
    let mut fields = body.fields()?;
    let fact = parse_fact(&mut fields);
    let fact = fields.finish(|| fact)?;
    require_may_reverse(known.caller(), std::slice::from_ref(&fact))?;
    let policy = state.quota.clone();
    created(&state, &known, key, move |writer, caller| {
        require_may_reverse(caller, std::slice::from_ref(&fact))?;
        let (entry, standing) = ledger::record(writer, &policy, caller, &fact, Source::Record)?;
        Ok((StatusCode::CREATED, RecordAnswer::of(&entry, &standing)))
    })
    .await
}

#[derive(Serialize)]
struct BatchAnswer {
    entries: Vec<RecordAnswer>,
}

/// `POST /usage/record/batch`
pub(super) async fn record_batch(State(state): State<AppState>, known: Known, key: MaybeKey, body: Body) -> Answer {
    let key = key.with(&body);
    let facts = parse_batch(body)?;
    require_may_reverse(known.caller(), &facts)?;
    let policy = state.quota.clone();
    created(&state, &known, key, move |writer, caller| {
        require_may_reverse(caller, &facts)?;
        let mut entries = Vec::with_capacity(facts.len());
        for (index, fact) in facts.iter().enumerate() {
            let recorded = ledger::record(writer, &policy, caller, fact, Source::Record);
            let (entry, standing) = recorded.map_err(|error| error.at("entries", index))?;
            entries.push(RecordAnswer::of(&entry, &standing));
        }
        Ok((StatusCode::CREATED, BatchAnswer { entries }))
    })
    .await
}

fn parse_batch(body: Body) -> Result<Vec<Fact>> {
    let mut fields = body.fields()?;
    let items = fields.required("entries", input::list(1..=BATCH_MAX)).unwrap_or_default();
    let mut facts = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let parsed = Fields::of_value(item, &format!("entries[{index}]")).and_then(|mut element| {
            let fact = parse_fact(&mut element);
            element.finish(|| fact)
        });
        facts.extend(fields.absorb(parsed)?);
    }
    fields.finish(|| Some(facts))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReservationAnswer {
    id: ReservationId,
    resource_type: &'static str,
    amount: i64,
    expires_at: Option<Timestamp>,
}

impl ReservationAnswer {
    fn of(hold: &Reservation) -> Self {
        let resource_type = hold.resource.as_str();
        Self { id: hold.id, resource_type, amount: hold.amount, expires_at: hold.expires_at }
    }
}

/// `POST /usage/reservations`
pub(super) async fn reserve(State(state): State<AppState>, known: Known, key: MaybeKey, body: Body) -> Answer {
    let key = key.with(&body);
    let mut fields = body.fields()?;
    let resource = fields.required("resourceType", metered_by_hand);
    let amount = fields.required("amount", input::integer(1..=AMOUNT_MAX));
    let ttl = fields.optional("ttlSeconds", input::integer(1..=RESERVATION_TTL_S_MAX)).unwrap_or(RESERVATION_TTL_S);
    let (resource, amount) = fields.finish(|| resource.zip(amount))?;
    let policy = state.quota.clone();
    created(&state, &known, key, move |writer, caller| {
        let hold = quota::reserve(writer, &policy, caller, resource, amount, ttl)?;
        Ok((StatusCode::CREATED, ReservationAnswer::of(&hold)))
    })
    .await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SettleAnswer {
    id: Option<EntryId>,
    resource_type: &'static str,
    amount: i64,
    timestamp: Option<Timestamp>,
    metadata: Option<Value>,
    reverses: Option<EntryId>,
    recorded_at: Option<Timestamp>,
    overrun: bool,
    late: bool,
}

/// `POST /usage/reservations/{id}/settle`
pub(super) async fn settle(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Json<impl Serialize>> {
    let mut fields = body.fields()?;
    let amount = fields.required("amount", input::integer(0..=AMOUNT_MAX));
    let metadata = fields.optional("metadata", input::metadata);
    let amount = fields.finish(|| amount)?;
    let id = ReservationId::parse(&id).ok_or(Error::NotFound("the reservation"))?;
    let policy = state.quota.clone();
    let settled = state.write_even_if_disabled(&known, move |writer, caller| {
        quota::settle(writer, &policy, caller, id, amount, metadata)
    });
    let settled = settled.await?;
    let entry = settled.entry.as_ref();
    Ok(Json(SettleAnswer {
        id: entry.map(|entry| entry.id),
        resource_type: settled.resource.as_str(),
        amount: settled.amount,
        timestamp: entry.map(|entry| entry.timestamp),
        metadata: entry.and_then(|entry| entry.metadata.clone()),
        reverses: None,
        recorded_at: entry.map(|entry| entry.recorded_at),
        overrun: settled.overrun,
        late: settled.late,
    }))
}

/// `DELETE /usage/reservations/{id}`
pub(super) async fn release(State(state): State<AppState>, known: Known, Path(id): Path<String>) -> Answer {
    let id = ReservationId::parse(&id).ok_or(Error::NotFound("the reservation"))?;
    state.write_even_if_disabled(&known, move |writer, caller| quota::release(writer, caller, id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReservationsAnswer {
    reservations: Vec<OpenReservation>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OpenReservation {
    #[serde(flatten)]
    hold: ReservationAnswer,
    kind: &'static str,
    made_at: Timestamp,
}

/// `GET /usage/reservations`
pub(super) async fn list_reservations(
    State(state): State<AppState>,
    known: Known,
    query: Query,
) -> Answer<Json<ReservationsAnswer>> {
    let mut fields = query.0;
    let before = fields.optional("cursor", |value| {
        value.as_str().and_then(ReservationId::parse).ok_or_else(|| "is not one of ours".to_owned())
    });
    let limit = page_limit(&mut fields);
    fields.finish(|| Some(()))?;
    let holds =
        state.read(&known, move |reader, caller| quota::list_reservations(reader, caller, before, limit + 1)).await?;
    let next_cursor = super::answer::next_cursor(&holds, limit, |hold| hold.id.to_string());
    let reservations = holds.iter().take(limit).map(|hold| OpenReservation {
        hold: ReservationAnswer::of(hold),
        kind: hold.maker.kind(),
        made_at: hold.made_at,
    });
    Ok(Json(ReservationsAnswer { reservations: reservations.collect(), next_cursor }))
}
