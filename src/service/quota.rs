//! Standings, the decision of an enforced write, and reservations.

use serde_json::Value;

use crate::domain::auth::{Caller, Credential, UserKey};
use crate::domain::calendar::{Calendar, Day};
use crate::domain::ledger::{Entry, NewEntry, ResourceType, Source};
use crate::domain::quota::{
    Holder, Maker, Reservation, Resolution, SETTLE_MS_MAX, Standing, Tiers, Usage, window_days,
};
use crate::domain::unit::{DAY_MS, ReservationId, Timestamp};
use crate::domain::{Error, Result};
use crate::store::{Reader, Writer, ledger, quota as store};

/// How quota is counted, from the configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Limits by tier.
    pub tiers: Tiers,
    /// Days and months.
    pub calendar: Calendar,
}

/// How `resource` stands for a user of `tier` in the window of `day`. What has expired does not count, booked out or not.
///
/// # Errors
/// Where the store cannot be read.
pub fn standing(
    reader: &Reader<'_>,
    policy: &Policy,
    holder: Holder<'_>,
    resource: ResourceType,
    day: Day,
) -> Result<Standing> {
    let mut standing = booked_standing(reader, policy, holder, resource, day)?;
    match window_days(resource, day) {
        Some(days) if standing.usage.reserved > 0 => {
            let usage = &mut standing.usage;
            usage.reserved -= store::expired_reserved(reader, holder.user, resource, &days)?;
            if resource == ResourceType::AgentMinutes {
                let over = super::agent::unbooked(reader, policy.calendar, holder.user, &days)?;
                usage.used = usage.used.saturating_add(over.used);
                usage.reserved -= over.reserved;
            }
        }
        Some(_) => {}
        None => standing.usage.used -= store::expired_memory_bytes(reader, holder.user)?,
    }
    Ok(standing)
}

/// As [`standing`], in the window of now.
///
/// # Errors
/// As [`standing`].
pub fn standing_now(
    reader: &Reader<'_>,
    policy: &Policy,
    holder: Holder<'_>,
    resource: ResourceType,
) -> Result<Standing> {
    standing(reader, policy, holder, resource, policy.calendar.day_of(reader.now()))
}

/// As the totals say: what has expired without having been booked out still counts.
fn booked_standing(
    reader: &Reader<'_>,
    policy: &Policy,
    holder: Holder<'_>,
    resource: ResourceType,
    day: Day,
) -> Result<Standing> {
    let limit = policy.tiers.limits(holder.tier).of(resource);
    let days = window_days(resource, day);
    let usage = match &days {
        Some(days) => store::booked_usage(reader, holder.user, resource, days)?,
        None => Usage { used: ledger::total(reader, holder.user, resource)?, reserved: 0 },
    };
    let resets_at = days.map(|days| policy.calendar.end_of(*days.end()));
    Ok(Standing { resource, usage, limit, resets_at })
}

/// How `resource` stands in the transaction that will write. Where `wanted` does not fit, expired holds and memories
/// are booked out first, so that they cause no refusal and cut nothing short.
///
/// # Errors
/// Where the store cannot be written.
pub(super) fn standing_to_fit(
    writer: &mut Writer<'_>,
    policy: &Policy,
    holder: Holder<'_>,
    resource: ResourceType,
    day: Day,
    wanted: i64,
) -> Result<Standing> {
    let standing = booked_standing(writer, policy, holder, resource, day)?;
    if standing.shortfall(wanted).is_none() {
        return Ok(standing);
    }
    book_out(writer, policy, holder.user, resource)?;
    booked_standing(writer, policy, holder, resource, day)
}

/// Books out what has expired of a user's use of `resource`.
fn book_out(writer: &mut Writer<'_>, policy: &Policy, user: UserKey, resource: ResourceType) -> Result<()> {
    match resource {
        ResourceType::LlmTokens => store::free_expired_of(writer, user, resource).map(drop),
        ResourceType::AgentMinutes => {
            store::free_expired_of(writer, user, resource)?;
            super::agent::close_due_of(writer, policy, user)
        }
        ResourceType::MemoryStorage => super::memory::book_ends(writer, policy, user),
    }
}

/// Decides whether `amount` more fits, in the transaction that will write it. Before a refusal, what has expired is booked
/// out and the decision is made again.
///
/// # Errors
/// `QuotaExceeded` where it does not fit.
pub fn require(
    writer: &mut Writer<'_>,
    policy: &Policy,
    holder: Holder<'_>,
    resource: ResourceType,
    day: Day,
    amount: i64,
) -> Result<()> {
    let standing = standing_to_fit(writer, policy, holder, resource, day, amount)?;
    match standing.shortfall(amount) {
        None => Ok(()),
        Some(_) => Err(Error::QuotaExceeded(Box::new(standing.refuse(amount, writer.now())))),
    }
}

/// The maker of a hold that this caller makes.
fn maker_of(caller: &Caller) -> Maker {
    match (caller.acting, caller.credential) {
        (Some(user), _) => Maker::Acting(user),
        (None, Credential::Proxy) => Maker::Proxy,
        (None, Credential::Session(_) | Credential::Token(_)) => Maker::User,
    }
}

/// Holds `amount` for `ttl_s` seconds.
///
/// # Errors
/// `QuotaExceeded` where it does not fit.
pub fn reserve(
    writer: &mut Writer<'_>,
    policy: &Policy,
    caller: &Caller,
    resource: ResourceType,
    amount: i64,
    ttl_s: i64,
) -> Result<Reservation> {
    let day = policy.calendar.day_of(writer.now());
    require(writer, policy, caller.holder(), resource, day, amount)?;
    let expires_at = Some(writer.now().plus_seconds(ttl_s));
    let user = caller.user.key;
    let new = store::NewReservation { user, resource, amount, day, maker: maker_of(caller), expires_at };
    store::insert_reservation(writer, new)
}

/// What a settlement left behind.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The entry; none for an amount of 0.
    pub entry: Option<Entry>,
    /// Of what.
    pub resource: ResourceType,
    /// What was settled.
    pub amount: i64,
    /// Whether more was settled than had been held.
    pub overrun: bool,
    /// Whether the hold had expired before.
    pub late: bool,
}

/// Records what was really used of a hold, in the window it was made for. This happens once; a repeat with the same
/// amount gets the same answer.
///
/// # Errors
/// `NotFound` for another user's; `Conflict` where it was resolved otherwise, was made by another, or is too old.
pub fn settle(
    writer: &mut Writer<'_>,
    policy: &Policy,
    caller: &Caller,
    id: ReservationId,
    amount: i64,
    metadata: Option<Value>,
) -> Result<Settlement> {
    let hold = load_own(writer, caller, id)?;
    let overrun = amount > hold.amount;
    match &hold.resolution {
        Resolution::Released => return Err(Error::conflict("already_released", "the reservation was released")),
        Resolution::Settled { entry, amount: settled, metadata: with, late } => {
            if *settled != amount || *with != metadata {
                return Err(Error::conflict(
                    "already_settled",
                    "the reservation was settled with another amount or metadata",
                ));
            }
            let entry = entry.map(|entry| ledger::find_entry(writer, caller.user.key, entry)).transpose()?.flatten();
            // Where the day has been closed since, it is the closing entry, which has metadata of its own.
            let entry = entry.map(|entry| Entry { metadata: with.clone(), ..entry });
            return Ok(Settlement { entry, resource: hold.resource, amount, overrun, late: *late });
        }
        Resolution::Open { .. } => {}
    }
    let now = writer.now();
    if now >= hold.made_at.plus_millis(SETTLE_MS_MAX) {
        return Err(Error::conflict("reservation_too_old", "the reservation was made more than 30 days ago"));
    }
    let late = hold.is_expired(now);
    let entry = if amount == 0 {
        None
    } else {
        let new = NewEntry {
            user: hold.user,
            resource: hold.resource,
            amount,
            timestamp: now,
            day: hold.day,
            source: Source::Settlement,
            reverses: None,
            metadata: metadata.clone(),
        };
        Some(ledger::append(writer, &new, policy.calendar.day_of(now))?)
    };
    store::settle(writer, &hold, amount, metadata.as_ref(), entry.as_ref(), late)?;
    Ok(Settlement { entry, resource: hold.resource, amount, overrun, late })
}

/// Gives a hold back unused. Once; a repeat answers the same.
///
/// # Errors
/// `NotFound` for another user's; `Conflict` where it was settled or was made by another.
pub fn release(writer: &mut Writer<'_>, caller: &Caller, id: ReservationId) -> Result<()> {
    let hold = load_own(writer, caller, id)?;
    match hold.resolution {
        Resolution::Released => Ok(()),
        Resolution::Settled { .. } => Err(Error::conflict("already_settled", "the reservation was settled")),
        Resolution::Open { .. } => store::release(writer, &hold),
    }
}

/// The caller's user's hold, if this caller made it.
fn load_own(writer: &Writer<'_>, caller: &Caller, id: ReservationId) -> Result<Reservation> {
    let maker = maker_of(caller);
    let hold = store::load_reservation(writer, caller.user.key, id);
    if maker == Maker::User {
        super::auth::require_enabled(caller)?;
    }
    let hold = hold?;
    if hold.maker == maker {
        Ok(hold)
    } else {
        super::auth::require_enabled(caller)?;
        Err(Error::conflict("not_the_maker", "only who made a reservation resolves it"))
    }
}

/// A page of open holds, newest first.
///
/// # Errors
/// Where the store cannot be read.
pub fn list_reservations(
    reader: &Reader<'_>,
    caller: &Caller,
    before: Option<ReservationId>,
    limit: usize,
) -> Result<Vec<Reservation>> {
    store::list_open_reservations(reader, caller.user.key, before, limit)
}

/// What the worker does with holds: books out those that expired, forgets those long resolved. Tells whether there may be
/// more.
///
/// # Errors
/// Where the store cannot be written.
pub fn tidy_reservations(writer: &mut Writer<'_>) -> Result<bool> {
    const SLICE: usize = 500;
    /// Long after a hold can no longer be settled, a repeat still gets its answer.
    const KEPT_MS: i64 = 2 * SETTLE_MS_MAX;
    let freed = store::free_expired(writer, SLICE)?;
    let cutoff = Timestamp(writer.now().0.saturating_sub(KEPT_MS));
    let purged = store::purge_reservations(writer, cutoff, SLICE)?;
    Ok(freed == SLICE || purged == SLICE)
}

/// Writes down how often each user was refused each resource, by the hour.
///
/// # Errors
/// Where the store cannot be written.
pub fn note_refusals(writer: &mut Writer<'_>, refusals: &[((UserKey, ResourceType, Timestamp), i64)]) -> Result<()> {
    store::add_refusals(writer, refusals)
}

/// Forgets refusals that no overview looks back to any more. Tells whether there may be more.
///
/// # Errors
/// Where the store cannot be written.
pub fn purge_refusals(writer: &mut Writer<'_>) -> Result<bool> {
    const SLICE: usize = 500;
    /// The longest look back, 366 days, and a day.
    const KEPT_MS: i64 = 367 * DAY_MS;
    let before = writer.now().plus_millis(-KEPT_MS);
    Ok(store::purge_refusals(writer, before, SLICE)? == SLICE)
}

/// How many holds are open, of all users.
///
/// # Errors
/// Where the store cannot be read.
pub fn count_open(reader: &Reader<'_>) -> Result<i64> {
    store::count_open(reader)
}
