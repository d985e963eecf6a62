//! Recording facts.

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::domain::auth::Caller;
use crate::domain::ledger::{BATCH_MAX, Entry, ResourceType, Source};
use crate::domain::quota::Standing;
use crate::domain::unit::{AMOUNT_MAX, EntryId, Timestamp};
use crate::domain::{Error, Result};
use crate::service::ledger::{self, Fact};
use crate::web::answer::created;
use crate::web::extract::{Body, MaybeKey};
use crate::web::input::{self, Fields};
use crate::web::problem::Answer;
use crate::web::state::{AppState, Known};

/// A fact as a body tells it.
fn parse_fact(fields: &mut Fields) -> Option<Fact> {
    let fact = parse_amount(fields);
    let metadata = fields.optional("metadata", input::metadata);
    let timestamp = fields.optional("timestamp", input::instant);
    let enforce = fields.optional("enforce", input::flag).unwrap_or(false);
    let fact = Fact { timestamp, enforce, metadata, ..fact? };
    if fact.reverses.is_some() && fact.timestamp.is_some() {
        fields.fault("timestamp", "must not be given with `reverses`: a reversal is booked when its entry was");
    }
    Some(fact)
}

/// Of what, how much, and what is taken back.
pub(in crate::web) fn parse_amount(fields: &mut Fields) -> Option<Fact> {
    let resource = fields.required("resourceType", metered_by_hand);
    let reverses = fields.optional("reverses", |value| {
        value.as_str().and_then(EntryId::parse).ok_or_else(|| "must be the id of an entry".to_owned())
    });
    let amount = fields.required("amount", |value| amount(&value, reverses.is_some()));
    Some(Fact { resource: resource?, amount: amount?, timestamp: None, enforce: false, reverses, metadata: None })
}

pub(super) fn metered_by_hand(value: Value) -> Result<ResourceType, input::Why> {
    match input::resource(value)? {
        ResourceType::MemoryStorage => Err("memory_storage is metered by storing memories, never by hand".to_owned()),
        resource => Ok(resource),
    }
}

fn amount(value: &Value, reverses: bool) -> Result<i64, input::Why> {
    match input::whole(value) {
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
pub(in crate::web) struct RecordAnswer {
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
    pub(in crate::web) fn of(entry: &Entry, standing: &Standing) -> Self {
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
pub(in crate::web) async fn record(State(state): State<AppState>, known: Known, key: MaybeKey, body: Body) -> Answer {
    let key = key.with(&body)?;
    let mut fields = body.fields()?;
    let fact = parse_fact(&mut fields);
    let fact = fields.finish(|| fact)?;
    require_may_reverse(known.caller(), std::slice::from_ref(&fact))?;
    let policy = state.quota.clone();
    created(&state, &known, key, move |writer, caller| {
        require_may_reverse(caller, std::slice::from_ref(&fact))?;
        let (entry, standing) = ledger::record(writer, &policy, caller.holder(), &fact, Source::Record)?;
        Ok((StatusCode::CREATED, RecordAnswer::of(&entry, &standing)))
    })
    .await
}

#[derive(Serialize)]
struct BatchAnswer {
    entries: Vec<RecordAnswer>,
}

/// `POST /usage/record/batch`
pub(in crate::web) async fn record_batch(
    State(state): State<AppState>,
    known: Known,
    key: MaybeKey,
    body: Body,
) -> Answer {
    let key = key.with(&body)?;
    let facts = parse_batch(body)?;
    require_may_reverse(known.caller(), &facts)?;
    let policy = state.quota.clone();
    created(&state, &known, key, move |writer, caller| {
        require_may_reverse(caller, &facts)?;
        let recorded = ledger::record_batch(writer, &policy, caller.holder(), &facts)?;
        let entries = recorded.iter().map(|(entry, standing)| RecordAnswer::of(entry, standing)).collect();
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
