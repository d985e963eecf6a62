//! Calls of the gateway: held before they are made, settled when they have ended, by whatever end.

use std::sync::Arc;

use serde_json::{Value, json};

use super::quota::{self, Policy};
use crate::domain::auth::UserKey;
use crate::domain::gateway::figures::Figures;
use crate::domain::gateway::{Grant, OutputBounds, Wish};
use crate::domain::ledger::{Entry, NewEntry, ResourceType, Source};
use crate::domain::quota::{Holder, Maker, Reservation, Resolution, Standing};
use crate::domain::unit::ReservationId;
use crate::domain::{Error, Result};
use crate::store::{Reader, Writer, gateway as figures_store, ledger, quota as store};

const RESOURCE: ResourceType = ResourceType::LlmTokens;

/// A call that may begin.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What is held for it.
    pub hold: ReservationId,
    /// How much, and how long an answer may be.
    pub grant: Grant,
    /// How the day stands with it.
    pub standing: Standing,
}

/// Holds what a call may cost at most, fitted into what remains. `facts` is what is known of the call, and `prompt` what its
/// prompt counts: what is booked if nothing more is heard of it.
///
/// # Errors
/// `QuotaExceeded` where not even the least answer fits.
pub fn open(
    writer: &mut Writer<'_>,
    policy: &Policy,
    holder: Holder<'_>,
    (wish, bounds): (Wish, OutputBounds),
    prompt: i64,
    facts: &Value,
) -> Result<Opened> {
    let day = policy.calendar.day_of(writer.now());
    let wanted = wish.prompt.saturating_add(wish.output.unwrap_or(bounds.default).saturating_mul(wish.choices));
    let mut standing = quota::standing_to_fit(writer, policy, holder, RESOURCE, day, wanted)?;
    let grant = wish
        .fit(standing.remaining(), bounds)
        .map_err(|least| Error::QuotaExceeded(Box::new(standing.refuse(least, writer.now()))))?;
    let new = store::NewReservation {
        user: holder.user,
        resource: RESOURCE,
        amount: grant.hold,
        day,
        maker: Maker::Gateway,
        expires_at: None,
    };
    let hold = store::insert_reservation(writer, new)?;
    store::checkpoint(writer, hold.id, prompt, Some(facts))?;
    standing.usage.reserved = standing.usage.reserved.saturating_add(grant.hold);
    Ok(Opened { hold: hold.id, grant, standing })
}

/// Notes what has been delivered so far of a call under way, the prompt included, and what is known about it.
///
/// # Errors
/// Where the store cannot be written.
pub fn checkpoint(writer: &mut Writer<'_>, hold: ReservationId, delivered: i64, facts: &Value) -> Result<()> {
    store::checkpoint(writer, hold, delivered, Some(facts))
}

/// Settles a call with what it cost, as one entry in the window of its hold; what cost nothing leaves none. Once: a call that
/// has been resolved already, by a recovery or an erasure, is left as it is. Tells how the day stands then.
///
/// # Errors
/// Where the store cannot be written.
pub fn settle(
    writer: &mut Writer<'_>,
    policy: &Policy,
    holder: Holder<'_>,
    hold: ReservationId,
    amount: i64,
    metadata: Option<Value>,
) -> Result<Standing> {
    match store::load_reservation(writer, holder.user, hold) {
        Ok(hold) if matches!(hold.resolution, Resolution::Open { .. }) => {
            resolve(writer, policy, &hold, amount, metadata)?;
        }
        Ok(_) | Err(Error::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    quota::standing_now(writer, policy, holder, RESOURCE)
}

fn resolve(
    writer: &mut Writer<'_>,
    policy: &Policy,
    hold: &Reservation,
    amount: i64,
    metadata: Option<Value>,
) -> Result<Option<Entry>> {
    if amount == 0 {
        store::release(writer, hold)?;
        return Ok(None);
    }
    let now = writer.now();
    let new = NewEntry {
        user: hold.user,
        resource: hold.resource,
        amount,
        timestamp: now,
        day: hold.day,
        source: Source::Gateway,
        reverses: None,
        metadata: metadata.clone(),
    };
    let entry = ledger::append(writer, &new, policy.calendar.day_of(now))?;
    store::settle(writer, hold, amount, metadata.as_ref(), Some(&entry), false)?;
    Ok(Some(entry))
}

/// Whether calls are open whose process is gone. To be asked only at the start, before any call is made.
///
/// # Errors
/// Where the store cannot be read.
pub fn has_left_open(reader: &Reader<'_>) -> Result<bool> {
    Ok(!store::list_gateway_holds(reader, 1)?.is_empty())
}

/// Settles calls that were under way when the program ended, with the prompt and what the last checkpoint had of the answer.
/// Tells whether there may be more.
///
/// # Errors
/// Where the store cannot be written.
pub fn recover(writer: &mut Writer<'_>, policy: &Policy) -> Result<bool> {
    const SLICE: usize = 500;
    let left = store::list_gateway_holds(writer, SLICE)?;
    for left in &left {
        let mut metadata = left.metadata.clone().unwrap_or_else(|| json!({}));
        if let Some(facts) = metadata.as_object_mut() {
            let prompt = facts.get("promptTokens").and_then(Value::as_i64).unwrap_or(0);
            facts.insert("completionTokens".to_owned(), left.delivered.saturating_sub(prompt).max(0).into());
            facts.insert("counted".to_owned(), "checkpoint".into());
            facts.insert("outcome".to_owned(), "recovered".into());
            facts.insert("recovered".to_owned(), true.into());
        }
        resolve(writer, policy, &left.reservation, left.delivered, Some(metadata))?;
    }
    Ok(left.len() == SLICE)
}

/// How the day of a user stands, for the headers of an answer that held nothing.
///
/// # Errors
/// Where the store cannot be read.
pub fn standing(reader: &Reader<'_>, policy: &Policy, holder: Holder<'_>) -> Result<Standing> {
    quota::standing_now(reader, policy, holder, RESOURCE)
}

/// The owner of a call, kept for as long as the call lasts: its end is booked whatever has become of the caller.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Whose.
    pub user: UserKey,
    /// Name of the tier whose limits held when it began.
    pub tier: String,
}

impl Owner {
    /// As the rules ask for it.
    pub fn holder(&self) -> Holder<'_> {
        Holder { user: self.user, tier: &self.tier }
    }
}

/// Adds what has come of attempts at upstreams to the figures of today.
///
/// # Errors
/// Where the store cannot be written.
pub fn note_figures(writer: &mut Writer<'_>, policy: &Policy, figures: &[(Arc<str>, Figures)]) -> Result<()> {
    let day = policy.calendar.day_of(writer.now());
    figures.iter().try_for_each(|(upstream, figures)| figures_store::add_figures(writer, day, upstream, figures))
}

/// Forgets figures that no overview looks back to any more.
///
/// # Errors
/// Where the store cannot be written.
pub fn purge_figures(writer: &mut Writer<'_>, policy: &Policy) -> Result<()> {
    /// The longest look back, and a day.
    const KEPT_DAYS: i32 = 367;
    let today = policy.calendar.day_of(writer.now());
    figures_store::purge_figures(writer, today.plus(-KEPT_DAYS))
}
