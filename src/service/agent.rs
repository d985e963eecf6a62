//! Agent runs: minutes held ahead, counted as they begin, booked a month at a time.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::quota::{self, Policy as QuotaPolicy};
use crate::domain::agent::{EndReason, Run};
use crate::domain::auth::{Caller, UserKey};
use crate::domain::calendar::{Calendar, Day};
use crate::domain::ledger::{NewEntry, ResourceType, Source};
use crate::domain::page::{Page, Paging};
use crate::domain::quota::{Holder, Maker, Refusal, Reservation, Usage};
use crate::domain::unit::{RunId, Timestamp};
use crate::domain::{Error, Result};
use crate::store::{Reader, Writer, agent as store, ledger, quota as quota_store};

/// How runs are counted, from the configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Limits and days.
    pub quota: std::sync::Arc<QuotaPolicy>,
    /// A run without a sign of life for so long is over, in milliseconds.
    pub heartbeat_timeout_ms: i64,
}

/// What a run shall be.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// What it is called.
    pub name: Option<String>,
    /// Free-form.
    pub metadata: Option<Value>,
    /// Most minutes it may use.
    pub max_minutes: Option<i64>,
}

/// Begins a run. It holds enough minutes to last until the heartbeat time-out and one minute more, or all that are
/// left.
///
/// # Errors
/// `QuotaExceeded` where not one minute can be held.
pub fn start(writer: &mut Writer<'_>, policy: &Policy, caller: &Caller, new: &NewRun) -> Result<Run> {
    let now = writer.now();
    let mut run = Run {
        id: RunId(uuid::Uuid::nil()),
        user: caller.user.key,
        name: new.name.clone(),
        metadata: new.metadata.clone(),
        tier: caller.tier().to_owned(),
        max_minutes: new.max_minutes,
        started_at: now,
        seen_at: now,
        held: 0,
        due_at: Some(now),
        end: None,
    };
    run.id = store::insert_run(writer, &run)?;
    if let Some(refusal) = grow(writer, policy, &mut run, &mut Vec::new())?
        && run.held == 0
    {
        return Err(Error::QuotaExceeded(Box::new(refusal)));
    }
    run.due_at = Some(run.next_due(policy.heartbeat_timeout_ms));
    store::update_run(writer, &run)?;
    Ok(run)
}

/// What a sign of life has led to.
#[derive(Clone, Debug)]
pub enum Beat {
    /// The run goes on.
    Alive(Run),
    /// Nothing more can be held: the run goes on until its hold ends, and ends there.
    Exhausted(Refusal),
}

/// Takes a sign of life: the hold grows with it.
///
/// # Errors
/// `NotFound` for another user's run; `Conflict` for one that has ended.
pub fn heartbeat(writer: &mut Writer<'_>, policy: &Policy, caller: &Caller, id: RunId) -> Result<Beat> {
    let mut run = store::load_run(writer, caller.user.key, id)?;
    let now = writer.now();
    if let Some((_, reason)) = run.end_as_of(now) {
        return Err(Error::conflict("run_ended", format!("the run has ended: {}", reason.as_str())));
    }
    run.seen_at = run.seen_at.max(now);
    let held = run.held;
    let mut holds = store::holds_of(writer, run.id)?;
    let refusal = grow(writer, policy, &mut run, &mut holds)?;
    book_past_months(writer, policy, &run, &holds)?;
    run.due_at = Some(run.next_due(policy.heartbeat_timeout_ms));
    store::update_run(writer, &run)?;
    Ok(match refusal {
        // The run ends with its hold, long before the window does: to wait helps nothing.
        Some(refusal) if run.held == held => Beat::Exhausted(Refusal { retry_after_s: None, ..refusal }),
        _ => Beat::Alive(run),
    })
}

/// Ends a run now and books its minutes. A run that has ended is answered as it ended.
///
/// # Errors
/// `NotFound` for another user's run.
pub fn stop(writer: &mut Writer<'_>, policy: &Policy, caller: &Caller, id: RunId) -> Result<Run> {
    let mut run = store::load_run(writer, caller.user.key, id)?;
    let now = writer.now();
    let end = run.end_as_of(now).unwrap_or_else(|| {
        // To stop is a sign of life.
        run.seen_at = run.seen_at.max(now);
        (now, EndReason::Stopped)
    });
    if run.due_at.is_some() {
        close(writer, &policy.quota, &mut run, end)?;
    }
    Ok(run)
}

/// A run of the caller's user.
///
/// # Errors
/// `NotFound` where there is none.
pub fn load(reader: &Reader<'_>, user: UserKey, id: RunId) -> Result<Run> {
    store::load_run(reader, user, id)
}

/// A page of a user's runs, newest first.
///
/// # Errors
/// Where the store cannot be read.
pub fn list(reader: &Reader<'_>, user: UserKey, paging: Paging) -> Result<Page<Run>> {
    store::list_runs(reader, user, paging)
}

/// A user's newest runs, and how many there are in all.
///
/// # Errors
/// Where the store cannot be read.
pub fn newest(reader: &Reader<'_>, user: UserKey) -> Result<(Vec<Run>, i64)> {
    const RUNS: usize = 10;
    let page = store::list_runs(reader, user, Paging::first(RUNS))?;
    Ok((page.items, store::count_runs(reader, user)?))
}

/// Some runs that are over without their minutes being booked.
///
/// # Errors
/// Where the store cannot be read.
pub fn list_due(reader: &Reader<'_>) -> Result<Vec<Run>> {
    const RUNS: usize = 512;
    store::due_runs(reader, None, RUNS)
}

/// Books the minutes of a run that was found due, unless a sign of life or another end has come before.
///
/// # Errors
/// Where the store cannot be written.
pub fn close_due(writer: &mut Writer<'_>, policy: &QuotaPolicy, run: &Run) -> Result<()> {
    match store::load_run(writer, run.user, run.id) {
        Ok(run) if run.due_at.is_some() => close_all(writer, policy, vec![run]),
        // Its user may have been erased.
        Ok(_) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Books the minutes of a user's runs that are over, so that what they held no longer causes a refusal.
///
/// # Errors
/// Where the store cannot be written.
pub(super) fn close_due_of(writer: &mut Writer<'_>, policy: &QuotaPolicy, user: UserKey) -> Result<()> {
    let runs = store::due_runs(writer, Some(user), usize::MAX)?;
    close_all(writer, policy, runs)
}

fn close_all(writer: &mut Writer<'_>, policy: &QuotaPolicy, runs: Vec<Run>) -> Result<()> {
    let now = writer.now();
    for mut run in runs {
        if let Some(end) = run.end_as_of(now) {
            close(writer, policy, &mut run, end)?;
        }
    }
    Ok(())
}

/// Holds more, month by month, until the run is covered; returns why where that is not possible. `holds`: those the run
/// has already.
fn grow(
    writer: &mut Writer<'_>,
    policy: &Policy,
    run: &mut Run,
    holds: &mut Vec<Reservation>,
) -> Result<Option<Refusal>> {
    let wanted = run.minutes_wanted(run.seen_at, policy.heartbeat_timeout_ms);
    let calendar = &policy.quota.calendar;
    while run.held < wanted {
        let day = calendar.day_of(run.start_of(run.held + 1));
        let month_end = calendar.end_of(*day.month().end());
        // At least one: minute `held + 1` begins in this month.
        let in_month = run.minutes_before(month_end).min(wanted) - run.held;
        let holder = Holder { user: run.user, tier: &run.tier };
        let resource = ResourceType::AgentMinutes;
        let standing = quota::standing_to_fit(writer, &policy.quota, holder, resource, day, in_month)?;
        let granted = standing.remaining().map_or(in_month, |left| left.min(in_month));
        if granted > 0 {
            hold(writer, run, holds, (day, granted))?;
            run.held += granted;
        }
        if granted < in_month {
            return Ok(Some(standing.refuse(in_month - granted, writer.now())));
        }
    }
    Ok(None)
}

/// Holds `minutes` more in the month of `day`: one hold a month.
fn hold(writer: &mut Writer<'_>, run: &Run, holds: &mut Vec<Reservation>, (day, minutes): (Day, i64)) -> Result<()> {
    if let Some(open) = holds.iter_mut().find(|hold| hold.day.month() == day.month()) {
        quota_store::grow_reservation(writer, open, minutes)?;
        open.amount = open.amount.saturating_add(minutes);
        return Ok(());
    }
    let new = quota_store::NewReservation {
        user: run.user,
        resource: ResourceType::AgentMinutes,
        amount: minutes,
        day,
        maker: Maker::Agent,
        expires_at: None,
    };
    let made = quota_store::insert_reservation(writer, new)?;
    store::add_hold(writer, run.id, made.id)?;
    holds.push(made);
    Ok(())
}

/// Books the months that a living run has left behind.
fn book_past_months(writer: &mut Writer<'_>, policy: &Policy, run: &Run, holds: &[Reservation]) -> Result<()> {
    let this_month = policy.quota.calendar.day_of(run.seen_at).month();
    for hold in holds.iter().filter(|hold| hold.day.month().end() < this_month.start()) {
        book(writer, &policy.quota, run, hold, i64::MAX)?;
    }
    Ok(())
}

/// Ends a run and books its minutes: one entry a month.
fn close(writer: &mut Writer<'_>, policy: &QuotaPolicy, run: &mut Run, end: (Timestamp, EndReason)) -> Result<()> {
    run.end = Some(end);
    run.due_at = None;
    store::update_run(writer, run)?;
    let used = run.minutes_used(end.0);
    for hold in store::holds_of(writer, run.id)? {
        book(writer, policy, run, &hold, used)?;
    }
    Ok(())
}

/// Those of the run's first `used` minutes that begin in the hold's month.
fn minutes_in(calendar: Calendar, run: &Run, hold: &Reservation, used: i64) -> i64 {
    let month = hold.day.month();
    let before = |instant: Timestamp| run.minutes_before(instant).min(used);
    before(calendar.end_of(*month.end())) - before(calendar.end_of(month.start().plus(-1)))
}

/// What the worker has not booked yet of a user's runs that are over, in `days`: the minutes they used, as used, and what
/// they no longer hold, as reserved.
pub(super) fn unbooked(
    reader: &Reader<'_>,
    calendar: Calendar,
    user: UserKey,
    days: &RangeInclusive<Day>,
) -> Result<Usage> {
    let mut usage = Usage::default();
    for run in store::due_runs(reader, Some(user), usize::MAX)? {
        let Some((end, _)) = run.end_as_of(reader.now()) else { continue };
        for hold in store::holds_of(reader, run.id)?.iter().filter(|hold| days.contains(&hold.day)) {
            usage.used += minutes_in(calendar, &run, hold, run.minutes_used(end)).max(0);
            usage.reserved += hold.amount;
        }
    }
    Ok(usage)
}

/// Settles a hold with the minutes of [`minutes_in`].
fn book(writer: &mut Writer<'_>, policy: &QuotaPolicy, run: &Run, hold: &Reservation, used: i64) -> Result<()> {
    let minutes = minutes_in(policy.calendar, run, hold, used);
    if minutes <= 0 {
        quota_store::release(writer, hold)?;
    } else {
        let now = writer.now();
        let metadata = json!({
            "run": run.id, "name": run.name, "startedAt": run.started_at,
            "endedAt": run.end.map(|(at, _)| at), "endReason": run.end.map(|(_, reason)| reason.as_str()),
        });
        let new = NewEntry {
            user: run.user,
            resource: ResourceType::AgentMinutes,
            amount: minutes,
            timestamp: now,
            day: hold.day,
            source: Source::Settlement,
            reverses: None,
            metadata: Some(metadata.clone()),
        };
        let entry = ledger::append(writer, &new, policy.calendar.day_of(now))?;
        quota_store::settle(writer, hold, minutes, Some(&metadata), Some(&entry), false)?;
    }
    store::drop_hold(writer, run.id, hold.id)
}
