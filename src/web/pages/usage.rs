//! The page of a user's usage.

use axum::extract::State;
use http::StatusCode;

use super::{Address, Visitor, page, who};
use crate::service::{agent, ledger};
use crate::view::agent::Runs;
use crate::view::layout::Frame;
use crate::view::usage::{RANGES, UsagePage, UsageRow};
use crate::web::extract::Query;
use crate::web::problem::Answer;
use crate::web::state::AppState;

/// Days of the look back when none are named.
const DAYS_DEFAULT: i32 = 30;

/// What is said of any other number of days.
fn no_such_range() -> String {
    let [first, second, third] = RANGES;
    format!("History can show {first}, {second} or {third} days")
}

/// `GET /usage`
pub(in crate::web) async fn usage(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Address(address): Address,
    query: Query,
) -> Answer {
    let mut fields = query.0;
    let days = fields.optional("days", |value| {
        let days = value.as_str().and_then(|text| text.parse().ok());
        days.filter(|days| RANGES.contains(days)).ok_or_else(no_such_range)
    });
    let days = fields.finish(|| Some(days.unwrap_or(DAYS_DEFAULT)))?;
    let policy = state.quota.clone();
    let read = state.read(&known, move |reader, caller| {
        let report = ledger::report(reader, &policy, &caller.user, caller.tier(), days)?;
        Ok((who(caller), report, agent::newest(reader, caller.user.key)?))
    });
    let (visitor, report, (newest, count)) = read.await?;
    let rows: Vec<UsageRow> = report
        .rows
        .into_iter()
        .map(|row| UsageRow { standing: row.standing, amount: row.amount(), history: row.history })
        .collect();
    let tiers = &state.quota.tiers;
    let markup = UsagePage {
        frame: Frame { who: &visitor, now: report.now, zone: state.quota.calendar.zone_name() },
        days,
        since: report.since,
        rows: &rows,
        models: &report.models,
        runs: Runs { newest: &newest, count },
        address: &address,
        upgrade_url: &state.config.upgrade_url,
        tiers: (tiers.limits(&visitor.tier), tiers.next_above(&visitor.tier)),
    };
    Ok(page(StatusCode::OK, markup.render()))
}
