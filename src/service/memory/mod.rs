//! Memories: stored, changed, found, counted, ended. Every byte that is held is in the ledger by the same transaction.

mod expiry;
mod reembed;
mod repair;
mod search;
mod transfer;
mod write;

use std::sync::Arc;

use serde_json::{Value, json};

pub use expiry::{book_due, book_ends, due_users, list_ended, purge};
pub use reembed::{Progress, adopt_model, reembed};
pub use repair::{Repaired, repair, require_whole};
pub use search::{Search, search, similar, similar_to};
pub use transfer::{Look, Page, Ready, Written, described, keep, look, missing, page, patiently, ready};
use write::count_fitting;
pub use write::{DeletedSlice, Stored, delete, delete_slice, has_room, meant, patch, require_room, sizes, store};

use super::quota::{self, Policy as QuotaPolicy};
use crate::config;
use crate::domain::auth::{Caller, UserKey};
use crate::domain::ledger::{NewEntry, ResourceType, Source};
use crate::domain::memory::{Filter, Memory, MemoryTier, OnDuplicate};
use crate::domain::quota::{Limit, Limits, Standing, Tiers};
use crate::domain::unit::{MemoryId, Timestamp};
use crate::domain::{Error, Result};
use crate::store::memory::{self as store_of, Amounts};
use crate::store::{Reader, Writer, ledger};

/// How memories are kept, from the configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How quota is counted.
    pub quota: Arc<QuotaPolicy>,
    /// Bound of a user's short-term memories, in bytes.
    pub stm_bytes_max: i64,
    /// How long memories live, in milliseconds, in the order of `MemoryTier::ALL`; none: for ever.
    pub ttl_ms: [Option<i64>; 3],
    /// What happens to a repetition.
    pub on_duplicate: OnDuplicate,
}

impl Policy {
    /// As the configuration says.
    pub const fn new(config: &config::Memory, quota: Arc<QuotaPolicy>) -> Self {
        Self {
            quota,
            stm_bytes_max: config.stm_bytes_max,
            ttl_ms: [config.stm_ttl_ms, config.itm_ttl_ms, config.ltm_ttl_ms],
            on_duplicate: config.on_duplicate,
        }
    }

    /// The same for a user of `tier` whom nothing is refused for its size.
    #[must_use]
    pub fn without_limits(&self, tier: &str) -> Self {
        let nothing = Limit::Unlimited;
        let limits = Limits { llm_tokens_day: nothing, memory_storage_bytes: nothing, agent_minutes_month: nothing };
        let tiers = Tiers([(tier.to_owned(), limits)].into());
        let quota = QuotaPolicy { tiers, calendar: self.quota.calendar };
        Self { quota: Arc::new(quota), stm_bytes_max: i64::MAX, ..self.clone() }
    }

    const fn ttl_ms(&self, tier: MemoryTier) -> Option<i64> {
        let [short, intermediate, long] = self.ttl_ms;
        match tier {
            MemoryTier::Short => short,
            MemoryTier::Intermediate => intermediate,
            MemoryTier::Long => long,
        }
    }
}

/// A living memory of the caller's user.
///
/// # Errors
/// `NotFound` where there is none, or it is another user's.
pub fn get(reader: &Reader<'_>, caller: &Caller, id: MemoryId) -> Result<Memory> {
    store_of::load(reader, caller.user.key, id)
}

/// A page of the caller's living memories, newest first, of those stored before the memory `before`.
///
/// # Errors
/// `Invalid` for a cursor that is none of ours.
pub fn list(
    reader: &Reader<'_>,
    caller: &Caller,
    filter: &Filter,
    before: Option<MemoryId>,
    limit: usize,
) -> Result<Vec<Memory>> {
    store_of::list(reader, caller.user.key, filter, before, limit)
}

/// The page of the caller's living memories that lies just before the memory `after`: the oldest of those stored later,
/// newest first.
///
/// # Errors
/// `Invalid` for a cursor that is none of ours.
pub fn list_newer(
    reader: &Reader<'_>,
    caller: &Caller,
    filter: &Filter,
    after: MemoryId,
    limit: usize,
) -> Result<Vec<Memory>> {
    let mut memories = store_of::list_after(reader, caller.user.key, filter, Some(after), limit)?;
    memories.reverse();
    Ok(memories)
}

/// Up to `limit` types that the caller's newest memories have, the most used first.
///
/// # Errors
/// Where the store cannot be read.
pub fn recent_kinds(reader: &Reader<'_>, caller: &Caller, limit: usize) -> Result<Vec<String>> {
    store_of::recent_kinds(reader, caller.user.key, limit)
}

/// What a user holds of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierUsage {
    /// The tier.
    pub tier: MemoryTier,
    /// How many memories.
    pub memories: i64,
    /// What they count with, in bytes.
    pub size_bytes: i64,
    /// Bytes of their texts.
    pub text_bytes: i64,
}

impl TierUsage {
    /// Mean bytes of a text, rounded half up; 0 where there is none.
    pub fn mean_text_bytes(&self) -> i64 {
        let doubled = self.text_bytes.saturating_mul(2).saturating_add(self.memories);
        doubled.checked_div(self.memories.saturating_mul(2)).unwrap_or(0)
    }
}

/// What a user holds.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// When it was read.
    pub now: Timestamp,
    /// The level against its limit.
    pub standing: Standing,
    /// By tier, in the order of `MemoryTier::ALL`.
    pub tiers: [TierUsage; 3],
}

/// What the caller's user holds now.
///
/// # Errors
/// Where the store cannot be read.
pub fn usage(reader: &Reader<'_>, policy: &Policy, caller: &Caller) -> Result<Usage> {
    let standing = quota::standing_now(reader, &policy.quota, caller.holder(), ResourceType::MemoryStorage)?;
    let held = store_of::held(reader, caller.user.key)?;
    let of = |(tier, held): (MemoryTier, Amounts)| TierUsage {
        tier,
        memories: held.memories,
        size_bytes: held.size_bytes,
        text_bytes: held.text_bytes,
    };
    let [short, intermediate, long] = held;
    let tiers =
        [of((MemoryTier::Short, short)), of((MemoryTier::Intermediate, intermediate)), of((MemoryTier::Long, long))];
    Ok(Usage { now: reader.now(), standing, tiers })
}

/// Writes down what the level changed by; nothing where it did not.
fn book(writer: &mut Writer<'_>, policy: &QuotaPolicy, user: UserKey, amount: i64, metadata: Value) -> Result<()> {
    if amount == 0 {
        return Ok(());
    }
    let now = writer.now();
    let day = policy.calendar.day_of(now);
    let entry = NewEntry {
        user,
        resource: ResourceType::MemoryStorage,
        amount,
        timestamp: now,
        day,
        source: Source::Memory,
        reverses: None,
        metadata: Some(metadata),
    };
    ledger::append(writer, &entry, day).map(drop)
}

/// What an entry says of the act on a single memory.
fn act_on(memory: &Memory, action: &str) -> Value {
    json!({"action": action, "memoryId": memory.id})
}

/// What a memory adds to what its user holds.
fn held_by(memory: &Memory) -> Amounts {
    let text_bytes = i64::try_from(memory.content.text.len()).unwrap_or(i64::MAX);
    Amounts { memories: 1, size_bytes: memory.size_bytes, text_bytes }
}

/// When a memory of `tier` that begins now ends, `latest` where that is sooner: never at an instant whose ends are already
/// booked, else it would leave the reads without leaving the books.
fn end_of(
    reader: &Reader<'_>,
    policy: &Policy,
    user: UserKey,
    tier: MemoryTier,
    latest: Option<Timestamp>,
) -> Result<Option<Timestamp>> {
    let by_tier = policy.ttl_ms(tier).map(|ttl_ms| reader.now().plus_millis(ttl_ms));
    let Some(end) = by_tier.into_iter().chain(latest).min() else { return Ok(None) };
    let booked_until = store_of::booked_until(reader, user)?;
    Ok(Some(end.max(booked_until.plus_millis(1))))
}

/// A fault of ours: a memory arrived without its embedding.
fn lacks_embedding() -> Error {
    Error::Internal("a memory without an embedding".to_owned())
}
