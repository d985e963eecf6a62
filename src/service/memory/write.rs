//! Storing, changing and deleting, with the decision of the quota in the same transaction.

use serde_json::json;

use super::super::quota;
use super::{Policy, act_on, book, book_ends, end_of, held_by, lacks_embedding};
use crate::domain::auth::Caller;
use crate::domain::ledger::ResourceType;
use crate::domain::memory::{
    Content, Demand, EMBEDDING_BYTES, Filter, Groundwork, METADATA_BYTES_MAX, Memory, MemoryKey, MemoryTier, NewMemory,
    OnDuplicate, Patch, TAGS_MAX, json_of_metadata, stored_bytes, unique,
};
use crate::domain::quota::{Limit, Standing, Usage};
use crate::domain::unit::MemoryId;
use crate::domain::{Error, Result};
use crate::store::memory::{self as store_of, Amounts};
use crate::store::{Reader, Writer};

/// A memory that was stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The memory.
    pub memory: Memory,
    /// Whether it was there before, and was merged with what was given.
    pub merged: bool,
}

/// Decides whether `demand` fits. Before a refusal, the user's memories that have ended are booked out and the decision is
/// made again.
///
/// # Errors
/// `QuotaExceeded` where it does not fit.
fn require(writer: &mut Writer<'_>, policy: &Policy, caller: &Caller, demand: Demand) -> Result<()> {
    if let Some(amount) = demand.quota {
        let today = policy.quota.calendar.day_of(writer.now());
        quota::require(writer, &policy.quota, caller.holder(), ResourceType::MemoryStorage, today, amount)?;
    }
    let Some(amount) = demand.short else { return Ok(()) };
    let user = caller.user.key;
    let decide = |writer: &Writer<'_>| {
        let held = store_of::held_of_tier(writer, user, MemoryTier::Short)?;
        let standing = Standing {
            resource: ResourceType::MemoryStorage,
            usage: Usage { used: held.size_bytes, reserved: 0 },
            limit: Limit::AtMost(policy.stm_bytes_max),
            resets_at: None,
        };
        Ok::<_, Error>(standing)
    };
    if decide(writer)?.shortfall(amount).is_none() {
        return Ok(());
    }
    book_ends(writer, &policy.quota, user)?;
    let standing = decide(writer)?;
    match standing.shortfall(amount) {
        None => Ok(()),
        Some(_) => Err(Error::QuotaExceeded(Box::new(standing.refuse(amount, writer.now())))),
    }
}

/// What memories would count with, each with its number of embeddings.
pub fn sizes<'c>(memories: impl IntoIterator<Item = (&'c Content, usize)>) -> Vec<(MemoryTier, i64)> {
    memories.into_iter().map(|(content, count)| (content.tier, stored_bytes(content, count))).collect()
}

/// Whether new memories of these tiers and sizes would all fit now; what has ended does not count.
///
/// # Errors
/// Where the store cannot be read.
pub fn has_room(reader: &Reader<'_>, policy: &Policy, caller: &Caller, sizes: &[(MemoryTier, i64)]) -> Result<bool> {
    let sum = |of: fn(Demand) -> Option<i64>| {
        sizes.iter().filter_map(|after| of(Demand::of(None, *after))).fold(0, i64::saturating_add)
    };
    // The last to be decided finds those of the other kind in the level too, so this may promise what is then refused.
    let quota = sum(|demand| demand.quota);
    let standing = quota::standing_now(reader, &policy.quota, caller.holder(), ResourceType::MemoryStorage)?;
    let [short, _, _] = store_of::held(reader, caller.user.key)?;
    let fits_quota = quota == 0 || standing.shortfall(quota).is_none();
    Ok(fits_quota && short.size_bytes.saturating_add(sum(|demand| demand.short)) <= policy.stm_bytes_max)
}

/// How many new memories of these tiers and sizes, from the first, would fit now one after the other; what has ended does not
/// count.
///
/// # Errors
/// Where the store cannot be read.
pub(super) fn count_fitting(
    reader: &Reader<'_>,
    policy: &Policy,
    caller: &Caller,
    sizes: impl Iterator<Item = (MemoryTier, i64)>,
) -> Result<usize> {
    let standing = quota::standing_now(reader, &policy.quota, caller.holder(), ResourceType::MemoryStorage)?;
    let [short, _, _] = store_of::held(reader, caller.user.key)?;
    let (mut level, mut short_level, mut count) = (0_i64, short.size_bytes, 0);
    for after in sizes {
        let demand = Demand::of(None, after);
        // Every tier's bytes are in the level.
        level = level.saturating_add(after.1);
        short_level = short_level.saturating_add(demand.short.unwrap_or(0));
        let is_over = demand.quota.is_some() && standing.shortfall(level).is_some();
        if is_over || (demand.short.is_some() && short_level > policy.stm_bytes_max) {
            break;
        }
        count += 1;
    }
    Ok(count)
}

/// Decides whether new memories would fit, one after the other, before anyone goes to the length of making their
/// embeddings. What counts is the decision of the write itself.
///
/// # Errors
/// `QuotaExceeded` for the first that does not fit, with its index.
pub fn require_room(
    writer: &mut Writer<'_>,
    policy: &Policy,
    caller: &Caller,
    sizes: &[(MemoryTier, i64)],
) -> Result<()> {
    let mut before = (0_i64, 0_i64);
    for (index, after) in sizes.iter().enumerate() {
        let alone = Demand::of(None, *after);
        let demand = Demand {
            quota: alone.quota.map(|bytes| bytes.saturating_add(before.0)),
            short: alone.short.map(|bytes| bytes.saturating_add(before.1)),
        };
        if let Err(error) = require(writer, policy, caller, demand) {
            return Err(said_of(error, index, if alone.quota.is_some() { before.0 } else { before.1 }));
        }
        // Every tier's bytes are in the level.
        before = (before.0.saturating_add(after.1), before.1.saturating_add(alone.short.unwrap_or(0)));
    }
    Ok(())
}

/// A refusal of element `index`, of which `before` bytes belong to the elements before it.
fn said_of(error: Error, index: usize, before: i64) -> Error {
    match error {
        Error::QuotaExceeded(mut refusal) => {
            refusal.used = refusal.used.saturating_add(before);
            refusal.requested = refusal.requested.saturating_sub(before);
            Error::QuotaExceeded(refusal).at("memories", index)
        }
        other => other,
    }
}

/// Stores a memory, or merges it with the one it repeats.
///
/// # Errors
/// `QuotaExceeded` where it does not fit; `Conflict` `duplicate` where repetitions are refused; `Invalid` where two cannot be
/// united within the bounds of one.
pub fn store(writer: &mut Writer<'_>, policy: &Policy, caller: &Caller, new: NewMemory) -> Result<Stored> {
    if new.embeddings.is_empty() {
        return Err(lacks_embedding());
    }
    let user = caller.user.key;
    let repeated = match policy.on_duplicate {
        OnDuplicate::Store => None,
        OnDuplicate::Merge | OnDuplicate::Refuse => store_of::find_duplicate(writer, user, &new.content)?,
    };
    match (repeated, policy.on_duplicate) {
        (Some(memory), OnDuplicate::Merge) => return merge(writer, policy, caller, &memory, new.content),
        (Some(memory), _) => {
            return Err(Error::conflict("duplicate", format!("the memory {} says the same", memory.id)));
        }
        (None, _) => {}
    }
    let size_bytes = stored_bytes(&new.content, new.embeddings.len());
    let tier = new.content.tier;
    require(writer, policy, caller, Demand::of(None, (tier, size_bytes)))?;
    let given = new.expires_at;
    let expires_at = end_of(writer, policy, user, tier, given)?;
    let memory = store_of::insert(writer, user, new, size_bytes, expires_at)?;
    store_of::add_held(writer, user, tier, held_by(&memory))?;
    book(writer, &policy.quota, user, size_bytes, act_on(&memory, "store"))?;
    Ok(Stored { memory, merged: false })
}

/// Unites tags and metadata (the newer value of a key holds) and notes when it was seen again.
fn merge(writer: &mut Writer<'_>, policy: &Policy, caller: &Caller, memory: &Memory, again: Content) -> Result<Stored> {
    let mut content = memory.content.clone();
    content.tags = unique(content.tags.into_iter().chain(again.tags));
    content.metadata.extend(again.metadata);
    if content.tags.len() > TAGS_MAX {
        return Err(Error::invalid(
            "tags",
            format!("must be at most {TAGS_MAX} together with those it is merged with"),
        ));
    }
    if json_of_metadata(&content).is_some_and(|json| json.len() > METADATA_BYTES_MAX) {
        return Err(Error::invalid(
            "metadata",
            format!("must be at most {METADATA_BYTES_MAX} bytes of JSON together with what it is merged with"),
        ));
    }
    let last_seen_at = Some(writer.now());
    // Its text and its time stay, and with them all that it is found by.
    let made = Groundwork::default();
    let merged = replace(writer, policy, caller, memory, content, &made, |memory| memory.last_seen_at = last_seen_at)?;
    Ok(Stored { memory: merged, merged: true })
}

/// Changes a memory. `made`: what was made beforehand of the text it had and of the one it gets.
///
/// # Errors
/// `NotFound`; `QuotaExceeded` where it grows and does not fit; `Busy` where another change came in between.
pub fn patch(
    writer: &mut Writer<'_>,
    policy: &Policy,
    caller: &Caller,
    id: MemoryId,
    patch: Patch,
    made: Groundwork,
) -> Result<Memory> {
    let memory = store_of::load(writer, caller.user.key, id)?;
    let content = patch.apply(&memory.content);
    let changes_text = content.text != memory.content.text;
    if changes_text && made.embeddings.is_none() {
        return Err(Error::Busy("the memory"));
    }
    let made = Groundwork { embeddings: made.embeddings.filter(|_| changes_text), ..made };
    let changes_tier = content.tier != memory.content.tier;
    let expires_at =
        if changes_tier { end_of(writer, policy, caller.user.key, content.tier, None)? } else { memory.expires_at };
    replace(writer, policy, caller, &memory, content, &made, |memory| memory.expires_at = expires_at)
}

/// Puts `content` in the place of what `memory` holds, if it fits.
fn replace(
    writer: &mut Writer<'_>,
    policy: &Policy,
    caller: &Caller,
    memory: &Memory,
    content: Content,
    made: &Groundwork,
    change: impl FnOnce(&mut Memory),
) -> Result<Memory> {
    let user = caller.user.key;
    let kept = memory.size_bytes - stored_bytes(&memory.content, 0);
    let vectors =
        made.embeddings.as_ref().map_or(kept, |new| EMBEDDING_BYTES * i64::try_from(new.len()).unwrap_or(i64::MAX));
    let size_bytes = stored_bytes(&content, 0).saturating_add(vectors);
    let mut after = Memory { content, size_bytes, ..memory.clone() };
    change(&mut after);
    let step = Demand::of(Some((memory.content.tier, memory.size_bytes)), (after.content.tier, size_bytes));
    require(writer, policy, caller, step)?;
    store_of::update(writer, user, memory, &after, made)?;
    store_of::add_held(writer, user, memory.content.tier, held_by(memory).negated())?;
    store_of::add_held(writer, user, after.content.tier, held_by(&after))?;
    book(writer, &policy.quota, user, size_bytes - memory.size_bytes, act_on(&after, "update"))?;
    Ok(after)
}

/// Deletes a memory and books what it held.
///
/// # Errors
/// `NotFound`.
pub fn delete(writer: &mut Writer<'_>, policy: &Policy, caller: &Caller, id: MemoryId) -> Result<()> {
    let user = caller.user.key;
    let memory = store_of::load(writer, user, id)?;
    store_of::delete(writer, user, &memory)?;
    store_of::add_held(writer, user, memory.content.tier, held_by(&memory).negated())?;
    book(writer, &policy.quota, user, -memory.size_bytes, act_on(&memory, "delete"))
}

/// What a slice of a bulk deletion did.
#[derive(Clone, Debug)]
pub struct DeletedSlice {
    /// Memories deleted.
    pub memories: i64,
    /// Bytes they held.
    pub size_bytes: i64,
    /// What has not been looked at yet.
    pub left: Vec<MemoryKey>,
}

/// The caller's living memories that pass `filter`, oldest first. Looks at all of them, so that no write has to.
///
/// # Errors
/// Where the store cannot be read.
pub fn meant(reader: &Reader<'_>, caller: &Caller, filter: &Filter) -> Result<Vec<MemoryKey>> {
    store_of::keys(reader, caller.user.key, filter)
}

/// Deletes up to 256 of `keys`, from the last, with one entry for all. Those that live no more or no longer pass `filter` stay.
///
/// # Errors
/// Where the store cannot be written.
pub fn delete_slice(
    writer: &mut Writer<'_>,
    policy: &Policy,
    caller: &Caller,
    filter: &Filter,
    keys: Vec<MemoryKey>,
) -> Result<DeletedSlice> {
    const SLICE: usize = 256;
    /// About how much text a slice takes away, in bytes, so that no other write waits long behind it.
    const TEXT_BYTES: usize = 1024 * 1024;
    let user = caller.user.key;
    let mut slice = DeletedSlice { memories: 0, size_bytes: 0, left: keys };
    let (mut looked_at, mut text_bytes) = (0, 0_usize);
    let mut deleted = [Amounts::default(); 3];
    // From the newest, which is deleted first, to the oldest.
    let mut range: Option<(MemoryKey, MemoryKey)> = None;
    while looked_at < SLICE && text_bytes < TEXT_BYTES {
        let Some(key) = slice.left.pop() else { break };
        looked_at += 1;
        let Some(memory) = store_of::find_passing(writer, user, filter, key)? else { continue };
        store_of::delete(writer, user, &memory)?;
        range = Some((key, range.map_or(key, |(_, newest)| newest)));
        let tier = MemoryTier::ALL.iter().position(|tier| *tier == memory.content.tier).unwrap_or_default();
        if let Some(sum) = deleted.get_mut(tier) {
            *sum = sum.plus(held_by(&memory));
        }
        slice.memories += 1;
        slice.size_bytes += memory.size_bytes;
        text_bytes = text_bytes.saturating_add(memory.content.text.len());
    }
    if let Some((oldest, newest)) = range {
        store_of::pack_vectors(writer, oldest, newest)?;
    }
    for (tier, sum) in MemoryTier::ALL.into_iter().zip(deleted) {
        store_of::add_held(writer, user, tier, sum.negated())?;
    }
    let metadata = json!({"action": "delete", "memories": slice.memories});
    book(writer, &policy.quota, user, -slice.size_bytes, metadata)?;
    Ok(slice)
}
