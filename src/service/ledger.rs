//! Recording facts, taking them back, and reading what was recorded.

use std::collections::HashMap;

use serde_json::Value;

use super::quota::{self, Policy};
use crate::domain::auth::{User, UserKey};
use crate::domain::calendar::Day;
use crate::domain::ledger::{
    AHEAD_MS_MAX, BACKDATE_MS_MAX, Entry, HistoryDay, ModelTotal, NewEntry, ResourceType, SeriesDay, Source, Window,
};
use crate::domain::quota::{Holder, Limit, Limits, Standing, State, window_days};
use crate::domain::unit::{EntryId, Timestamp};
use crate::domain::{Error, Result};
use crate::store::entries::{self, EntryCursor, EntryFilter};
use crate::store::{Reader, Writer, ledger as store, quota as quota_store, retention};

/// A fact to record.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Of what.
    pub resource: ResourceType,
    /// How much; negative with `reverses` alone.
    pub amount: i64,
    /// When it happened; none: now.
    pub timestamp: Option<Timestamp>,
    /// Refuse it rather than pass the limit.
    pub enforce: bool,
    /// The entry it takes back.
    pub reverses: Option<EntryId>,
    /// Free-form.
    pub metadata: Option<Value>,
}

/// Records a fact in the window of its timestamp.
///
/// # Errors
/// `Invalid` for what cannot be recorded; `Forbidden` for a reversal by a caller who may not reverse; `Conflict` for the
/// reversal of an entry of a closed day; `QuotaExceeded` where it is enforced and does not fit.
pub fn record(
    writer: &mut Writer<'_>,
    policy: &Policy,
    holder: Holder<'_>,
    fact: &Fact,
    source: Source,
) -> Result<(Entry, Standing)> {
    let new = match fact.reverses {
        Some(reversed) => reversal(writer, holder.user, fact, reversed, source)?,
        None => plain(writer, policy, holder.user, fact, source)?,
    };
    if fact.enforce && new.amount > 0 {
        let decided = quota::require(writer, policy, holder, new.resource, new.day, new.amount);
        // Its own time names its window: asked again, it is decided in the same.
        decided.map_err(|error| if fact.timestamp.is_some() { error.without_retry() } else { error })?;
    }
    let entry = store::append(writer, &new, policy.calendar.day_of(writer.now()))?;
    let standing = quota::standing(writer, policy, holder, new.resource, new.day)?;
    Ok((entry, standing))
}

/// Records facts in order, each decided after those before it.
///
/// # Errors
/// As [`record`], with the index of the first that cannot be recorded.
pub fn record_batch(
    writer: &mut Writer<'_>,
    policy: &Policy,
    holder: Holder<'_>,
    facts: &[Fact],
) -> Result<Vec<(Entry, Standing)>> {
    let record_one = |(index, fact)| {
        let recorded = record(writer, policy, holder, fact, Source::Record);
        recorded.map_err(|error| {
            let error = if fits_unused(policy, holder, facts) { error } else { error.without_retry() };
            error.at("entries", index)
        })
    };
    facts.iter().enumerate().map(record_one).collect()
}

/// Whether the facts without a time of their own would fit an empty window; if not, no later window takes them either,
/// and a retry is useless.
fn fits_unused(policy: &Policy, holder: Holder<'_>, facts: &[Fact]) -> bool {
    let limits = policy.tiers.limits(holder.tier);
    let mut sums: HashMap<ResourceType, i64> = HashMap::new();
    let mut of_now = facts.iter().filter(|fact| fact.timestamp.is_none() && fact.reverses.is_none());
    of_now.all(|fact| {
        let sum = sums.entry(fact.resource).or_default();
        *sum = sum.saturating_add(fact.amount);
        match limits.of(fact.resource) {
            Limit::AtMost(limit) => !fact.enforce || *sum <= limit,
            Limit::Unlimited => true,
        }
    })
}

fn plain(reader: &Reader<'_>, policy: &Policy, user: UserKey, fact: &Fact, source: Source) -> Result<NewEntry> {
    let now = reader.now();
    let timestamp = fact.timestamp.unwrap_or(now);
    if timestamp < now.plus_millis(-BACKDATE_MS_MAX) || timestamp > now.plus_millis(AHEAD_MS_MAX) {
        return Err(Error::invalid("timestamp", "must lie at most 35 days back and 5 minutes ahead"));
    }
    Ok(NewEntry {
        user,
        resource: fact.resource,
        amount: fact.amount,
        timestamp,
        day: policy.calendar.day_of(timestamp),
        source,
        reverses: None,
        metadata: fact.metadata.clone(),
    })
}

/// A reversal is booked at the moment of the entry it reverses, in that entry's window.
fn reversal(reader: &Reader<'_>, user: UserKey, fact: &Fact, reversed: EntryId, source: Source) -> Result<NewEntry> {
    let fault = |message: &str| Err(Error::invalid("reverses", message));
    let closed = || Err(Error::conflict("day_closed", "the day of the entry has been closed"));
    let entry = store::find_entry(reader, user, reversed)?;
    if entry.is_none() && retention::may_have_had(reader, user, fact.resource, reversed)? {
        return closed();
    }
    let Some(entry) = entry.filter(|entry| entry.resource == fact.resource) else {
        return fault("must name an entry of the same user and resource");
    };
    if retention::is_closed(reader, user, entry.resource, entry.day)? {
        return closed();
    }
    if entry.amount < 0 {
        return fault("must name a positive entry");
    }
    // Both are at most the entry's own amount, so the sum cannot leave 64 bits.
    if entry.amount + store::reversed_amount(reader, reversed)? + fact.amount < 0 {
        return fault("all reversals together must not exceed the entry");
    }
    Ok(NewEntry {
        user,
        resource: fact.resource,
        amount: fact.amount,
        timestamp: entry.timestamp,
        day: entry.day,
        source,
        reverses: Some(reversed),
        metadata: fact.metadata.clone(),
    })
}

/// A page of entries, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page begins; none at the end.
    pub next_cursor: Option<String>,
}

/// What a listing of entries asks for.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Of this resource only.
    pub resource: Option<ResourceType>,
    /// Recorded at this instant or later.
    pub from: Option<Timestamp>,
    /// Recorded before this instant.
    pub to: Option<Timestamp>,
    /// Where the page before this one ended.
    pub cursor: Option<String>,
    /// Most entries.
    pub limit: usize,
}

/// Lists a user's entries in the order in which they were recorded, newest first.
///
/// # Errors
/// `Invalid` for a cursor that is none of ours.
pub fn list_entries(reader: &Reader<'_>, policy: &Policy, user: UserKey, listing: &Listing) -> Result<Page> {
    let parse = |text: &String| EntryCursor::parse(text).ok_or_else(|| Error::invalid("cursor", "is not one of ours"));
    let filter = EntryFilter {
        resources: listing.resource.map_or_else(|| ResourceType::ALL.to_vec(), |resource| vec![resource]),
        from: listing.from,
        to: listing.to.map(|to| (to, policy.calendar.day_of(to))),
        cursor: listing.cursor.as_ref().map(parse).transpose()?,
        limit: listing.limit,
    };
    let (entries, cursor) = entries::list_entries(reader, user, &filter)?;
    Ok(Page { entries, next_cursor: cursor.map(|cursor| cursor.to_text()) })
}

/// The last `days` days of `resource`, oldest first, today last; for a level with what was held at each day's end.
///
/// # Errors
/// Where the store cannot be read.
pub fn series(
    reader: &Reader<'_>,
    policy: &Policy,
    user: UserKey,
    resource: ResourceType,
    days: i32,
) -> Result<Vec<SeriesDay>> {
    let today = policy.calendar.day_of(reader.now());
    let mut series = quota_store::series(reader, user, resource, &(today.plus(1 - days)..=today))?;
    if resource.window() == Window::Level {
        // What has ended is no longer held, whether or not that is booked yet.
        let ended = quota_store::expired_memory_bytes(reader, user)?;
        let mut total = store::total(reader, user, resource)?.saturating_sub(ended);
        if let Some(today) = series.last_mut() {
            today.amount = today.amount.saturating_sub(ended);
        }
        for day in series.iter_mut().rev() {
            day.total = Some(total);
            total = total.saturating_sub(day.amount);
        }
    }
    Ok(series)
}

/// A user's usage over some days: how each resource stands, and day by day how it came to that.
#[derive(Clone, Debug)]
pub struct Report {
    /// When the figures were read.
    pub now: Timestamp,
    /// The user's first day.
    pub since: Day,
    /// A row a resource, in the order of `ResourceType::ALL`.
    pub rows: Vec<ReportRow>,
    /// The tokens of the days by model, most first.
    pub models: Vec<ModelTotal>,
}

/// A resource of a [`Report`].
#[derive(Clone, Debug)]
pub struct ReportRow {
    /// How the current window stands.
    pub standing: Standing,
    /// The days, oldest first, today last.
    pub history: Vec<HistoryDay>,
}

impl ReportRow {
    /// Sum over the days; the level for a level.
    pub fn amount(&self) -> i64 {
        match self.standing.resource.window() {
            Window::Level => self.standing.usage.used,
            Window::Day | Window::Month => self.history.iter().fold(0, |sum: i64, day| sum.saturating_add(day.amount)),
        }
    }
}

/// Reads the report of `user` over the last `days` days, by the limits of `tier`.
///
/// # Errors
/// Where the store cannot be read.
pub fn report(reader: &Reader<'_>, policy: &Policy, user: &User, tier: &str, days: i32) -> Result<Report> {
    let calendar = &policy.calendar;
    let first = calendar.day_of(reader.now()).plus(1 - days);
    let mut refused: HashMap<(ResourceType, Day), i64> = HashMap::new();
    for (resource, hour, count) in quota_store::refusals_of(reader, user.key, calendar.end_of(first.plus(-1)))? {
        let sum = refused.entry((resource, calendar.day_of(hour))).or_default();
        *sum = sum.saturating_add(count);
    }
    let mut rows = Vec::new();
    for resource in ResourceType::ALL {
        let standing = quota::standing_now(reader, policy, Holder { user: user.key, tier }, resource)?;
        // A month is counted from its first day, which may lie before the days asked for.
        let head = window_days(resource, first).map_or(0, |window| first.0 - window.start().0);
        let series = series(reader, policy, user.key, resource, days + head)?;
        let mut history = Vec::with_capacity(series.len());
        let mut sum = 0_i64;
        for SeriesDay { day, amount, total } in series {
            if window_days(resource, day).is_some_and(|window| *window.start() == day) {
                sum = 0;
            }
            sum = sum.saturating_add(amount);
            let refused = refused.get(&(resource, day)).copied().unwrap_or(0);
            history.push(HistoryDay { day, amount, standing: total.unwrap_or(sum), refused });
        }
        history.drain(..usize::try_from(head).unwrap_or(0));
        rows.push(ReportRow { standing, history });
    }
    let models = store::model_totals(reader, user.key, &(first..=calendar.day_of(reader.now())))?;
    Ok(Report { now: reader.now(), since: calendar.day_of(user.created_at), rows, models })
}

/// Everything about a user's usage: what `/usage/stats` answers.
#[derive(Clone, Debug)]
pub struct Stats {
    /// When the figures were read.
    pub now: Timestamp,
    /// Today.
    pub today: Day,
    /// The tier's limits.
    pub limits: Limits,
    /// A row a resource, in the order of `ResourceType::ALL`.
    pub rows: Vec<StatsRow>,
}

/// A resource of [`Stats`].
#[derive(Clone, Copy, Debug)]
pub struct StatsRow {
    /// Sum over the days asked for; the level for a level.
    pub amount: i64,
    /// How the current window stands.
    pub standing: Standing,
}

impl Stats {
    /// A line a resource at 80 % or more.
    pub fn warnings(&self) -> Vec<String> {
        let standings = self.rows.iter().map(|row| row.standing);
        let close = standings.filter(|standing| State::of(standing.usage.used, standing.limit) != State::Ok);
        close
            .map(|standing| format!("{} at {:?}% of quota", standing.resource.as_str(), standing.percentage()))
            .collect()
    }
}

/// Reads the figures of the last `days` days.
///
/// # Errors
/// Where the store cannot be read.
pub fn stats(reader: &Reader<'_>, policy: &Policy, holder: Holder<'_>, days: i32) -> Result<Stats> {
    let today = policy.calendar.day_of(reader.now());
    let mut rows = Vec::new();
    for resource in ResourceType::ALL {
        let standing = quota::standing_now(reader, policy, holder, resource)?;
        let amount = match resource.window() {
            Window::Level => standing.usage.used,
            Window::Day | Window::Month => {
                let days = quota_store::series(reader, holder.user, resource, &(today.plus(1 - days)..=today))?;
                days.iter().fold(0, |sum: i64, day| sum.saturating_add(day.amount))
            }
        };
        rows.push(StatsRow { amount, standing });
    }
    Ok(Stats { now: reader.now(), today, limits: policy.tiers.limits(holder.tier), rows })
}
