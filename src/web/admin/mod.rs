//! Administration: figures over all users, and the audit log. What is done to one user stands in `user.rs`.

pub(super) mod user;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use super::answer::page_limit;
use super::auth::parse_paging;
use super::extract::Query;
use super::input;
use super::problem::Answer;
use super::state::{AppState, Known};
use crate::domain::Result;
use crate::domain::audit::{Act, ActFilter};
use crate::domain::calendar::{Calendar, Day};
use crate::domain::gateway::figures::{FaultKind, Histogram};
use crate::domain::overview::{UpstreamFigures, UserTotal};
use crate::domain::unit::{Timestamp, UserId};
use crate::service::overview::Overview;
use crate::service::{audit, overview};
pub(super) use user::{
    correct, create, delete, get, ledger, list, list_tokens, reset_password, revoke_token, update, usage as usage_of,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TotalAnswer {
    user_id: UserId,
    email: Option<String>,
    tier: String,
    resource_type: &'static str,
    amount: i64,
}

impl From<UserTotal> for TotalAnswer {
    fn from(total: UserTotal) -> Self {
        let UserTotal { user, email, tier, resource, amount } = total;
        Self { user_id: user, email, tier, resource_type: resource.as_str(), amount }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TotalsAnswer {
    from: String,
    to: String,
    totals: Vec<TotalAnswer>,
    next_cursor: Option<String>,
}

/// A day: a date, or the day that an instant lies in.
fn day(calendar: Calendar) -> impl Fn(Value) -> Result<Day, input::Why> {
    move |value| {
        let text = value.as_str().unwrap_or_default();
        let date = text.parse().map(Day::from_date).ok();
        date.or_else(|| Timestamp::parse_rfc3339(text).map(|instant| calendar.day_of(instant)))
            .ok_or_else(|| "must be a date such as 2025-11-09, or a time in RFC 3339".to_owned())
    }
}

/// `GET /api/admin/usage`
pub(super) async fn usage(
    State(state): State<AppState>,
    known: Known,
    headers: HeaderMap,
    query: Query,
) -> Answer<Response> {
    let mut fields = query.0;
    let calendar = state.quota.calendar;
    let today = calendar.day_of(state.now());
    let from = fields.optional("from", day(calendar));
    let to = fields.optional("to", day(calendar)).unwrap_or(today);
    let from = from.unwrap_or(to.plus(-29));
    let cursor = fields.optional("cursor", input::text(1..=255));
    let limit = page_limit(&mut fields);
    if from > to || to.0.saturating_sub(from.0) > 3_660 {
        fields.fault("from", "must not lie after `to`, and at most ten years before it");
    }
    fields.finish(|| Some(()))?;
    if prefers_csv(&headers) {
        let table = state.read(&known, move |reader, _| csv(reader, from, to)).await?;
        return Ok(csv_response(table));
    }
    let page = state.read(&known, move |reader, _| overview::totals(reader, &(from..=to), cursor.as_deref(), limit));
    let page = page.await?.map(TotalAnswer::from);
    let (from, to) = (from.to_string(), to.to_string());
    Ok(Json(TotalsAnswer { from, to, totals: page.items, next_cursor: page.next }).into_response())
}

/// Whether a table is wanted rather than JSON: it must be named, and no less wanted than what else is.
fn prefers_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = accepted.flat_map(|value| value.split(',')).map(|range| {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").and_then(|weight| weight.trim().parse().ok()));
        (media, weight.unwrap_or(1.0_f32))
    });
    let ranges: Vec<(String, f32)> = ranges.collect();
    let find = |media: &str| ranges.iter().position(|range| range.0 == media).map(|at| (at, ranges[at].1));
    let Some((at, weight)) = find("text/csv").filter(|(_, weight)| *weight > 0.0) else { return false };
    match find("application/json") {
        Some((other, of_json)) => weight > of_json || (weight >= of_json && at < other),
        None => find("application/*").or_else(|| find("*/*")).is_none_or(|(_, of_json)| weight >= of_json),
    }
}

fn csv(reader: &crate::store::Reader<'_>, from: Day, to: Day) -> Result<String> {
    let mut table = "userId,email,tier,resourceType,amount\r\n".to_owned();
    for total in overview::totals(reader, &(from..=to), None, usize::MAX)?.items {
        let email = total.email.unwrap_or_default();
        let cells = [
            total.user.to_string(),
            cell(&email),
            cell(&total.tier),
            total.resource.as_str().to_owned(),
            total.amount.to_string(),
        ];
        table.push_str(&cells.join(","));
        table.push_str("\r\n");
    }
    Ok(table)
}

/// A cell of RFC 4180. What a spreadsheet would take for a formula is made a text by an apostrophe.
fn cell(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn csv_response(table: String) -> Response {
    let mut response = table.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"usage.csv\""));
    response
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefusalAnswer {
    user_id: UserId,
    email: Option<String>,
    resource_type: &'static str,
    hour: Timestamp,
    count: i64,
}

#[derive(Serialize)]
struct Percentiles {
    p50: Option<u64>,
    p99: Option<u64>,
}

impl Percentiles {
    fn of(times: &Histogram) -> Self {
        Self { p50: times.percentile(50), p99: times.percentile(99) }
    }
}

#[derive(Serialize)]
struct AttemptsAnswer {
    calls: i64,
    errors: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UpstreamAnswer {
    name: String,
    is_configured: bool,
    calls: i64,
    errors: i64,
    errors_by_kind: BTreeMap<&'static str, i64>,
    duration_ms: Percentiles,
    first_token_ms: Percentiles,
    today: AttemptsAnswer,
}

impl UpstreamAnswer {
    fn of(upstream: &UpstreamFigures) -> Self {
        let UpstreamFigures { name, is_configured, today, all } = upstream;
        Self {
            name: name.clone(),
            is_configured: *is_configured,
            calls: all.calls,
            errors: all.errors(),
            errors_by_kind: FaultKind::ALL.iter().map(|kind| kind.as_str()).zip(all.faults).collect(),
            duration_ms: Percentiles::of(&all.durations),
            first_token_ms: Percentiles::of(&all.first_tokens),
            today: AttemptsAnswer { calls: today.calls, errors: today.errors() },
        }
    }
}

#[derive(Serialize)]
struct UserCounts {
    total: i64,
    enabled: i64,
    admins: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SizesAnswer {
    database_bytes: i64,
    wal_bytes: u64,
    ledger_entries: i64,
    memories: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OverviewAnswer {
    days: i32,
    users: UserCounts,
    totals: BTreeMap<&'static str, i64>,
    top_users: Vec<TotalAnswer>,
    recent_refusals: Vec<RefusalAnswer>,
    upstreams: Vec<UpstreamAnswer>,
    sizes: SizesAnswer,
    version: &'static str,
    uptime_seconds: u64,
    timestamp: Timestamp,
}

/// `GET /api/admin/overview`
pub(super) async fn overview(
    State(state): State<AppState>,
    known: Known,
    query: Query,
) -> Answer<Json<OverviewAnswer>> {
    let days = super::usage::parse_days(query)?;
    let policy = state.quota.clone();
    let upstreams = state.upstreams.names();
    let read = state.read(&known, move |reader, _| overview::overview(reader, &policy, days, &upstreams));
    let figures = read.await?;
    Ok(Json(overview_answer(&state, days, figures)))
}

fn overview_answer(state: &AppState, days: i32, figures: Overview) -> OverviewAnswer {
    let (total, enabled, admins) = figures.users;
    let refusals = figures.refusals.into_iter().map(|refusal| RefusalAnswer {
        user_id: refusal.user,
        email: refusal.email,
        resource_type: refusal.resource.as_str(),
        hour: refusal.hour,
        count: refusal.count,
    });
    OverviewAnswer {
        days,
        users: UserCounts { total, enabled, admins },
        totals: figures.totals.into_iter().map(|(resource, amount)| (resource.as_str(), amount)).collect(),
        top_users: figures.top_users.into_iter().map(TotalAnswer::from).collect(),
        recent_refusals: refusals.collect(),
        upstreams: figures.upstreams.iter().map(UpstreamAnswer::of).collect(),
        sizes: SizesAnswer {
            database_bytes: figures.sizes.database_bytes,
            wal_bytes: state.store.log_bytes(),
            ledger_entries: figures.sizes.ledger_entries,
            memories: figures.sizes.memories,
        },
        version: crate::VERSION,
        uptime_seconds: state.started_at.seconds_until(state.now()),
        timestamp: state.now(),
    }
}

#[derive(Serialize)]
struct ActorAnswer {
    kind: &'static str,
    id: Option<UserId>,
    email: Option<String>,
}

#[derive(Serialize)]
struct SubjectAnswer {
    id: UserId,
    email: Option<String>,
}

#[derive(Serialize)]
struct ActAnswer {
    id: i64,
    at: Timestamp,
    actor: ActorAnswer,
    action: String,
    subject: Option<SubjectAnswer>,
    before: Option<Value>,
    after: Option<Value>,
    address: Option<String>,
}

impl From<Act> for ActAnswer {
    fn from(act: Act) -> Self {
        let (id, email) = act.actor.map_or((None, None), |(id, email)| (Some(id), email));
        Self {
            id: act.id,
            at: act.at,
            actor: ActorAnswer { kind: act.actor_kind, id, email },
            action: act.action,
            subject: act.subject.map(|(id, email)| SubjectAnswer { id, email }),
            before: act.before,
            after: act.after,
            address: act.address,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditAnswer {
    acts: Vec<ActAnswer>,
    next_cursor: Option<String>,
}

/// `GET /api/admin/audit`
pub(super) async fn audit(State(state): State<AppState>, known: Known, query: Query) -> Answer<Json<AuditAnswer>> {
    let paging = parse_paging(query.0)?;
    let page = state.read(&known, move |reader, _| audit::list(reader, &ActFilter::default(), paging)).await?;
    let page = page.map(ActAnswer::from);
    Ok(Json(AuditAnswer { acts: page.items, next_cursor: page.next }))
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn a_cell_is_quoted_and_never_a_formula() {
        assert_eq!(cell("a@b"), "a@b");
        assert_eq!(cell("a,\"b"), "\"a,\"\"b\"");
        assert_eq!(cell("=1+1"), "'=1+1");
    }
}
