//! Recording facts, taking them back, and reading what was recorded.

use serde_json::Value;

use super::quota::{self, Policy};
use crate::domain::auth::{Caller, UserKey};
use crate::domain::calendar::Day;
use crate::domain::ledger::{AHEAD_MS_MAX, BACKDATE_MS_MAX, Entry, NewEntry, ResourceType, SeriesDay, Source, Window};
use crate::domain::quota::{Limits, Standing, State};
use crate::domain::unit::{EntryId, Timestamp};
use crate::domain::{Error, Result};
use crate::store::ledger::{EntryCursor, EntryFilter};
use crate::store::{Reader, Writer, ledger as store, quota as quota_store};

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
/// `Invalid` for what cannot be recorded; `Forbidden` for a reversal by one who may not; `Conflict` for one of a closed day;
/// `QuotaExceeded` where it is enforced and does not fit.
pub fn record(
    writer: &mut Writer<'_>,
    policy: &Policy,
    caller: &Caller,
    fact: &Fact,
    source: Source,
) -> Result<(Entry, Standing)> {
    let new = match fact.reverses {
        Some(reversed) => reversal(writer, caller, fact, reversed, source)?,
        None => plain(writer, policy, caller, fact, source)?,
    };
    if fact.enforce && new.amount > 0 {
        quota::require(writer, policy, caller, new.resource, new.day, new.amount)?;
    }
    let entry = store::append(writer, &new, policy.calendar.day_of(writer.now()))?;
    let standing = quota::standing(writer, policy, caller.user.key, caller.tier(), new.resource, new.day)?;
    Ok((entry, standing))
}

fn plain(reader: &Reader<'_>, policy: &Policy, caller: &Caller, fact: &Fact, source: Source) -> Result<NewEntry> {
    let now = reader.now();
    let timestamp = fact.timestamp.unwrap_or(now);
    if timestamp < now.plus_millis(-BACKDATE_MS_MAX) || timestamp > now.plus_millis(AHEAD_MS_MAX) {
        return Err(Error::invalid("timestamp", "must lie at most 35 days back and 5 minutes ahead"));
    }
    Ok(NewEntry {
        user: caller.user.key,
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
fn reversal(reader: &Reader<'_>, caller: &Caller, fact: &Fact, reversed: EntryId, source: Source) -> Result<NewEntry> {
    let fault = |message: &str| Err(Error::invalid("reverses", message));
    let user = caller.user.key;
    let Some(entry) = store::find_entry(reader, user, reversed)?.filter(|entry| entry.resource == fact.resource) else {
        return fault("must name an entry of the same user and resource");
    };
    if entry.source == Source::Closing {
        return Err(Error::conflict("day_closed", "the day of the entry has been closed"));
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
    let (entries, cursor) = store::list_entries(reader, user, &filter)?;
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
        let mut total = store::total(reader, user, resource)?;
        for day in series.iter_mut().rev() {
            day.total = Some(total);
            total = total.saturating_sub(day.amount);
        }
    }
    Ok(series)
}

/// Everything about a user's usage: what `/usage/stats` and the page show.
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
pub fn stats(reader: &Reader<'_>, policy: &Policy, caller: &Caller, days: i32) -> Result<Stats> {
    let today = policy.calendar.day_of(reader.now());
    let mut rows = Vec::new();
    for resource in ResourceType::ALL {
        let standing = quota::standing_now(reader, policy, caller, resource)?;
        let amount = match resource.window() {
            Window::Level => standing.usage.used,
            Window::Day | Window::Month => {
                let days = quota_store::series(reader, caller.user.key, resource, &(today.plus(1 - days)..=today))?;
                days.iter().fold(0, |sum: i64, day| sum.saturating_add(day.amount))
            }
        };
        rows.push(StatsRow { amount, standing });
    }
    Ok(Stats { now: reader.now(), today, limits: policy.tiers.limits(caller.tier()), rows })
}
