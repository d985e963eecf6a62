//! Reservations: promises of quota.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::record::metered_by_hand;
use crate::domain::Error;
use crate::domain::quota::{RESERVATION_TTL_S, RESERVATION_TTL_S_MAX, Reservation};
use crate::domain::unit::{AMOUNT_MAX, EntryId, ReservationId, Timestamp};
use crate::service::quota;
use crate::web::answer::{created, next_cursor, once, page_limit, respond};
use crate::web::extract::{Body, MaybeKey, Path, Query};
use crate::web::input;
use crate::web::problem::Answer;
use crate::web::state::{AppState, Known};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::web) struct ReservationAnswer {
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
pub(in crate::web) async fn reserve(State(state): State<AppState>, known: Known, key: MaybeKey, body: Body) -> Answer {
    let key = key.with(&body)?;
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

impl SettleAnswer {
    fn of(settled: quota::Settlement) -> Self {
        let entry = settled.entry.as_ref();
        Self {
            id: entry.map(|entry| entry.id),
            resource_type: settled.resource.as_str(),
            amount: settled.amount,
            timestamp: entry.map(|entry| entry.timestamp),
            recorded_at: entry.map(|entry| entry.recorded_at),
            metadata: settled.entry.and_then(|entry| entry.metadata),
            reverses: None,
            overrun: settled.overrun,
            late: settled.late,
        }
    }
}

/// `POST /usage/reservations/{id}/settle`
pub(in crate::web) async fn settle(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    key: MaybeKey,
    body: Body,
) -> Answer {
    let key = key.with(&body)?;
    let mut fields = body.fields()?;
    let amount = fields.required("amount", input::integer(0..=AMOUNT_MAX));
    let metadata = fields.optional("metadata", input::metadata);
    let amount = fields.finish(|| amount)?;
    let id = ReservationId::parse(&id).ok_or(Error::NotFound("the reservation"))?;
    let policy = state.quota.clone();
    let settled = state.write_even_if_disabled(&known, move |writer, caller| {
        once(writer, caller, key.as_ref(), |writer, caller| {
            let settled = quota::settle(writer, &policy, caller, id, amount, metadata)?;
            Ok((StatusCode::OK, SettleAnswer::of(settled)))
        })
    });
    Ok(respond(settled.await?))
}

/// `DELETE /usage/reservations/{id}`
pub(in crate::web) async fn release(State(state): State<AppState>, known: Known, Path(id): Path<String>) -> Answer {
    let id = ReservationId::parse(&id).ok_or(Error::NotFound("the reservation"))?;
    state.write_even_if_disabled(&known, move |writer, caller| quota::release(writer, caller, id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::web) struct ReservationsAnswer {
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
pub(in crate::web) async fn list_reservations(
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
    let next_cursor = next_cursor(&holds, limit, |hold| hold.id.to_string());
    let reservations = holds.iter().take(limit).map(|hold| OpenReservation {
        hold: ReservationAnswer::of(hold),
        kind: hold.maker.kind(),
        made_at: hold.made_at,
    });
    Ok(Json(ReservationsAnswer { reservations: reservations.collect(), next_cursor }))
}
