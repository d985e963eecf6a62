//! How memories look in answers: `snake_case`, as the original's.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::domain::memory::{Hit, Memory, Parts, rounded};
use crate::domain::quota::Limit;
use crate::domain::unit::{MemoryId, Timestamp, UserId, human_bytes};
use crate::service::memory::{Stored, TierUsage, Usage};

/// Similar memories that a store names, at most.
pub(super) const SIMILAR_MAX: usize = 5;

/// Answer of a store.
#[derive(Serialize)]
pub(in crate::web) struct StoreAnswer {
    id: MemoryId,
    user_id: UserId,
    #[serde(rename = "type")]
    kind: String,
    tier: &'static str,
    size_bytes: i64,
    size_human_readable: String,
    created_at: Timestamp,
    timestamp: Timestamp,
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    similar: Option<Vec<SimilarAnswer>>,
}

#[derive(Clone, Copy, Serialize)]
pub(in crate::web) struct SimilarAnswer {
    id: MemoryId,
    score: f64,
}

impl SimilarAnswer {
    pub(super) fn of(hit: &Hit) -> Self {
        Self { id: hit.memory.id, score: rounded(hit.parts.score) }
    }
}

impl StoreAnswer {
    pub(super) fn of(user: UserId, stored: &Stored, similar: Option<Vec<SimilarAnswer>>) -> Self {
        let memory = &stored.memory;
        // What it was merged with is itself.
        let others = |similar: Vec<SimilarAnswer>| {
            similar.into_iter().filter(|other| other.id != memory.id).take(SIMILAR_MAX).collect()
        };
        Self {
            id: memory.id,
            user_id: user,
            kind: memory.content.kind.clone(),
            tier: memory.content.tier.as_str(),
            size_bytes: memory.size_bytes,
            size_human_readable: human_bytes(memory.size_bytes),
            created_at: memory.created_at,
            timestamp: memory.content.timestamp,
            expires_at: memory.expires_at,
            last_seen_at: memory.last_seen_at,
            similar: similar.map(others),
        }
    }
}

#[derive(Serialize)]
pub(in crate::web) struct BatchAnswer {
    pub(super) memories: Vec<StoreAnswer>,
}

/// A whole memory.
#[derive(Serialize)]
pub(in crate::web) struct MemoryAnswer {
    id: MemoryId,
    user_id: UserId,
    #[serde(rename = "type")]
    kind: String,
    tier: &'static str,
    input_context: String,
    tags: Vec<String>,
    metadata: Map<String, Value>,
    session: Option<String>,
    timestamp: Timestamp,
    created_at: Timestamp,
    last_seen_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    size_bytes: i64,
    size_human_readable: String,
}

impl MemoryAnswer {
    pub(super) fn of(user: UserId, memory: Memory) -> Self {
        let content = memory.content;
        Self {
            id: memory.id,
            user_id: user,
            kind: content.kind,
            tier: content.tier.as_str(),
            input_context: content.text,
            tags: content.tags,
            metadata: content.metadata,
            session: content.session,
            timestamp: content.timestamp,
            created_at: memory.created_at,
            last_seen_at: memory.last_seen_at,
            expires_at: memory.expires_at,
            size_bytes: memory.size_bytes,
            size_human_readable: human_bytes(memory.size_bytes),
        }
    }
}

#[derive(Serialize)]
pub(in crate::web) struct ListAnswer {
    pub(super) memories: Vec<MemoryAnswer>,
    pub(super) next_cursor: Option<String>,
}

#[derive(Serialize)]
pub(in crate::web) struct DeleteAnswer {
    pub(super) deleted: i64,
    pub(super) freed_bytes: i64,
}

#[derive(Serialize)]
pub(in crate::web) struct SearchAnswer {
    results: Vec<HitAnswer>,
}

impl SearchAnswer {
    /// `with_context`: whether neighbours were asked for.
    pub(super) fn of(hits: Vec<Hit>, with_context: bool) -> Self {
        Self { results: hits.into_iter().map(|hit| HitAnswer::of(hit, with_context)).collect() }
    }
}

#[derive(Serialize)]
struct HitAnswer {
    id: MemoryId,
    input_context: String,
    #[serde(rename = "type")]
    kind: String,
    tier: &'static str,
    tags: Vec<String>,
    metadata: Map<String, Value>,
    session: Option<String>,
    timestamp: Timestamp,
    created_at: Timestamp,
    score: f64,
    score_breakdown: PartsAnswer,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Vec<NeighbourAnswer>>,
}

#[derive(Serialize)]
struct PartsAnswer {
    semantic: Option<f64>,
    keyword: Option<f64>,
}

impl PartsAnswer {
    fn of(parts: Parts) -> Self {
        Self { semantic: parts.semantic.map(rounded), keyword: parts.keyword.map(rounded) }
    }
}

#[derive(Serialize)]
struct NeighbourAnswer {
    id: MemoryId,
    input_context: String,
    timestamp: Timestamp,
}

impl HitAnswer {
    fn of(hit: Hit, with_context: bool) -> Self {
        let content = hit.memory.content;
        let context = hit.context.into_iter().map(|neighbour| NeighbourAnswer {
            id: neighbour.id,
            input_context: neighbour.content.text,
            timestamp: neighbour.content.timestamp,
        });
        Self {
            id: hit.memory.id,
            input_context: content.text,
            kind: content.kind,
            tier: content.tier.as_str(),
            tags: content.tags,
            metadata: content.metadata,
            session: content.session,
            timestamp: content.timestamp,
            created_at: hit.memory.created_at,
            score: rounded(hit.parts.score),
            score_breakdown: PartsAnswer::of(hit.parts),
            context: with_context.then(|| context.collect()),
        }
    }
}

/// Answer of `GET /memory/usage`.
#[derive(Serialize)]
pub(in crate::web) struct UsageAnswer {
    user_id: UserId,
    storage: StorageAnswer,
    memory_counts: CountsAnswer,
    tier_stats: ByTier<TierAnswer>,
    timestamp: Timestamp,
}

#[derive(Serialize)]
struct StorageAnswer {
    total_bytes: i64,
    total_human_readable: String,
}

#[derive(Serialize)]
struct CountsAnswer {
    #[serde(flatten)]
    by_tier: ByTier<i64>,
    total: i64,
}

#[derive(Serialize)]
struct ByTier<T> {
    stm: T,
    itm: T,
    ltm: T,
}

#[derive(Serialize)]
struct TierAnswer {
    memory_count: i64,
    avg_text_size: i64,
    total_text_size: i64,
    total_text_human: String,
}

impl TierAnswer {
    fn of(tier: &TierUsage) -> Self {
        Self {
            memory_count: tier.memories,
            avg_text_size: tier.mean_text_bytes(),
            total_text_size: tier.text_bytes,
            total_text_human: human_bytes(tier.text_bytes),
        }
    }
}

impl UsageAnswer {
    pub(super) fn of(user: UserId, usage: &Usage) -> Self {
        let total_bytes = usage.standing.usage.used;
        let [stm, itm, ltm] = &usage.tiers;
        let by_tier = ByTier { stm: stm.memories, itm: itm.memories, ltm: ltm.memories };
        Self {
            user_id: user,
            storage: StorageAnswer { total_bytes, total_human_readable: human_bytes(total_bytes) },
            memory_counts: CountsAnswer { total: by_tier.stm + by_tier.itm + by_tier.ltm, by_tier },
            tier_stats: ByTier { stm: TierAnswer::of(stm), itm: TierAnswer::of(itm), ltm: TierAnswer::of(ltm) },
            timestamp: usage.now,
        }
    }
}

/// Answer of `GET /memory/usage/quota-check`.
#[derive(Serialize)]
pub(in crate::web) struct QuotaCheckAnswer {
    has_quota: bool,
    message: &'static str,
    current_usage: String,
    limit: String,
    percentage_used: f64,
}

impl QuotaCheckAnswer {
    pub(super) fn of(usage: &Usage) -> Self {
        let used = usage.standing.usage.used;
        let (has_quota, limit) = match usage.standing.limit {
            Limit::Unlimited => (true, "Unlimited".to_owned()),
            Limit::AtMost(limit) => (used < limit, human_bytes(limit)),
        };
        Self {
            has_quota,
            message: if has_quota { "Storage quota available" } else { "Storage quota exceeded" },
            current_usage: human_bytes(used),
            limit,
            percentage_used: usage.standing.percentage(),
        }
    }
}
