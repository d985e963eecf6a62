//! Memories: the shapes of what is sent and answered.

use serde_json::{Value, json};

use super::Terms;
use super::memory::tier;
use super::schema::{
    Object, Told, answer, body, count, flag, free_object, list, list_of, named, number, one_of, or_null, share, text,
    text_of_bytes, time, whole, words,
};
use super::shared::{id_of, next_cursor, percentage};
use crate::domain::ledger::METADATA_DEPTH_MAX;
use crate::domain::memory::{
    BATCH_MAX, CONTEXT_MAX, EMBEDDING_DIMENSIONS, METADATA_BYTES_MAX, QUERY_BYTES_MAX, SESSION_CHARACTERS_MAX,
    TAG_CHARACTERS_MAX, TAGS_MAX, TYPE_CHARACTERS_MAX,
};
use crate::web::memory::parse::FILTER_VALUES_MAX;

fn kind() -> Value {
    text(1..=TYPE_CHARACTERS_MAX)
}

fn session() -> Value {
    text(1..=SESSION_CHARACTERS_MAX).about("The conversation or run it belongs to.")
}

fn tags() -> Value {
    list_of(text(1..=TAG_CHARACTERS_MAX), 0..=TAGS_MAX).about("A set: repeats are dropped.")
}

fn metadata() -> Value {
    free_object(METADATA_BYTES_MAX, METADATA_DEPTH_MAX)
}

fn happened() -> Value {
    time().about("When it happened: any past, at most 5 minutes ahead; absent: now.")
}

fn embedding() -> Value {
    let number = json!({"type": "number", "minimum": f64::from(f32::MIN), "maximum": f64::from(f32::MAX)});
    list_of(number, EMBEDDING_DIMENSIONS..=EMBEDDING_DIMENSIONS)
        .about("Numbers that fit 32 bits, not all of them 0; brought to length 1 by the server.")
}

/// The fields of a memory to store.
fn new_memory(terms: &Terms) -> Object {
    body()
        .has("type", kind())
        .has("input_context", text_of_bytes(terms.text_bytes_max))
        .may("tier", tier().default("ltm"))
        .may("tags", tags())
        .may("metadata", metadata())
        .may("session", session())
        .may("timestamp", happened())
        .may("embedding", embedding().about("Absent: made by the server's model."))
}

/// What a memory is known by in every answer.
fn known() -> Object {
    answer()
        .has("id", id_of("The memory."))
        .has("type", words())
        .has("tier", tier())
        .has("timestamp", time().about("When it happened."))
        .has("created_at", time().about("When it was stored."))
}

fn sized(object: Object) -> Object {
    object
        .has("user_id", id_of("Whose."))
        .has("expires_at", or_null(time()))
        .has("size_bytes", count().about("What it counts as storage."))
        .has("size_human_readable", words())
}

/// What was said, with what is known of it.
fn said(object: Object) -> Object {
    object
        .has("input_context", words())
        .has("tags", list(words()))
        .has("metadata", json!({"type": "object", "additionalProperties": true}))
        .has("session", or_null(words()))
}

/// What they take and answer.
pub(super) fn schemas(terms: &Terms) -> Vec<(&'static str, Value)> {
    let mut all = taken(terms);
    all.extend(given());
    all.extend(figures());
    all
}

fn taken(terms: &Terms) -> Vec<(&'static str, Value)> {
    let report = flag().default(false).about("Names up to five memories that are like it.");
    let changes = body()
        .may("input_context", text_of_bytes(terms.text_bytes_max))
        .may("type", kind())
        .may("tags", tags())
        .may("metadata", metadata())
        .may("tier", tier())
        .may("session", session())
        .may("timestamp", happened());
    vec![
        ("NewMemory", new_memory(terms).may("report_similar", report).done()),
        ("NewMemories", body().has("memories", list_of(new_memory(terms).done(), 1..=BATCH_MAX)).done()),
        ("MemoryChanges", changes.done()),
        ("Search", search()),
        (
            "ImportedMemories",
            json!({"description": "One document of the named format. Records that are not understood are skipped."}),
        ),
    ]
}

fn search() -> Value {
    let most = i64::try_from(CONTEXT_MAX).unwrap_or(i64::MAX);
    let mut search = body()
        .may("query", text_of_bytes(QUERY_BYTES_MAX))
        .may("embedding", embedding())
        .may("limit", whole(1..=100).default(10))
        .may("mode", one_of(["hybrid", "semantic", "keyword"]).default("hybrid"))
        .may("tiers", list_of(tier(), 0..=FILTER_VALUES_MAX))
        .may("types", list_of(kind(), 0..=FILTER_VALUES_MAX))
        .may("tags", tags().about("All of them."))
        .may("metadata", metadata().about("Equal values of these members."))
        .may("session", session())
        .may("created_after", time())
        .may("created_before", time())
        .may("after", time().about("By when it happened."))
        .may("before", time())
        .may("min_score", share())
        .may("context", whole(0..=most).default(0).about("Neighbours in the same session, on either side."))
        .done();
    let is_there = |kind: &str| json!({"type": kind});
    search["anyOf"] = json!([
        {"title": "By a text", "required": ["query"], "properties": {"query": is_there("string")}},
        {
            "title": "By an embedding",
            "required": ["embedding"],
            "properties": {"embedding": is_there("array"), "mode": {"enum": ["hybrid", "semantic", null]}},
        },
    ]);
    search
}

fn given() -> Vec<(&'static str, Value)> {
    let similar = answer().has("id", id_of("The memory.")).has("score", share());
    let stored =
        sized(known()).may("last_seen_at", time().about("Where it was merged.")).may("similar", list(similar.done()));
    let neighbour = answer().has("id", id_of("The memory.")).has("input_context", words()).has("timestamp", time());
    let parts = answer().has("semantic", or_null(share())).has("keyword", or_null(share()));
    let hit = said(known())
        .has("score", share())
        .has("score_breakdown", parts.done().about("Null: not used."))
        .may("context", list(neighbour.done()));
    vec![
        ("StoredMemory", stored.done()),
        ("StoredMemories", answer().has("memories", list(named("StoredMemory"))).done()),
        ("Memory", said(sized(known())).has("last_seen_at", or_null(time())).done()),
        ("Memories", answer().has("memories", list(named("Memory"))).has("next_cursor", next_cursor()).done()),
        ("Deletion", answer().has("deleted", count()).has("freed_bytes", count()).done()),
        ("Hits", answer().has("results", list(hit.done())).done()),
    ]
}

fn figures() -> Vec<(&'static str, Value)> {
    let of_tier = || {
        let tier = answer()
            .has("memory_count", count())
            .has("avg_text_size", count())
            .has("total_text_size", count())
            .has("total_text_human", words());
        tier.done()
    };
    let counts = answer().has("stm", count()).has("itm", count()).has("ltm", count()).has("total", count());
    vec![
        (
            "MemoryUsage",
            answer()
                .has("user_id", id_of("Whose."))
                .has("storage", answer().has("total_bytes", number()).has("total_human_readable", words()).done())
                .has("memory_counts", counts.done())
                .has("tier_stats", answer().has("stm", of_tier()).has("itm", of_tier()).has("ltm", of_tier()).done())
                .has("timestamp", time())
                .done(),
        ),
        (
            "MemoryQuota",
            answer()
                .has("has_quota", flag())
                .has("message", words())
                .has("current_usage", words())
                .has("limit", words())
                .has("percentage_used", percentage())
                .done(),
        ),
        (
            "ImportReport",
            answer()
                .has("imported", count())
                .has("already_there", count().about("Left out, being there already."))
                .has(
                    "skipped",
                    list(answer().has("record", count()).has("reason", words()).done()).about("The first of them."),
                )
                .has("skipped_count", count())
                .may("more_skipped", list(answer().has("reason", words()).has("count", count()).done()))
                .done(),
        ),
    ]
}
