//! Memories: what can be done with them. Their shapes stand in `memory_shapes.rs`.

use serde_json::{Value, json};

use super::operation::{Operation, delete, get, patch, post};
use super::schema::{Told, flag, one_of, text, whole, words};
use super::shared::{AT, ID, OTHER_ID};
use crate::domain::memory::transfer::Format;
use crate::domain::memory::{MemoryTier, SESSION_CHARACTERS_MAX, TAG_CHARACTERS_MAX, TYPE_CHARACTERS_MAX};

/// The heading.
pub(super) const GROUP: (&str, &str) = (
    "Memories",
    "What is remembered of a user: stored, searched by meaning and by words, changed, deleted, carried in and out. Each \
     memory's bytes count as `memory_storage`.",
);

const MEMORY: &str = "The memory.";
const QUOTA: &str = "`quota_exceeded`: the storage of the tier, or the bound of short-term memories, would be passed.";
const DUPLICATE: &str = "`duplicate`: a memory says the same, and `memory.on_duplicate` refuses it.";

/// A tier of memories.
pub(super) fn tier() -> Value {
    one_of(MemoryTier::ALL.map(MemoryTier::as_str))
}

/// The parameters of a filter.
fn filtered(operation: Operation) -> Operation {
    operation
        .asks("tier", "Of this tier alone.", tier())
        .asks("type", "Of this type alone.", text(1..=TYPE_CHARACTERS_MAX))
        .asks("tag", "With this tag.", text(1..=TAG_CHARACTERS_MAX))
        .asks("session", "Of this session alone.", text(1..=SESSION_CHARACTERS_MAX))
}

/// The calls.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = writes();
    all.extend(reads());
    all.extend(transfers());
    all
}

fn writes() -> Vec<Operation> {
    let new = json!({"type": "fact", "input_context": "Prefers tea to coffee", "tags": ["home"], "session": "spring"});
    let mut merged = stored();
    merged["last_seen_at"] = json!(AT);
    vec![
        post("/memory/store", "storeMemory", "Store a memory")
            .idempotent()
            .takes("NewMemory", new.clone())
            .answers(201, "It is stored.", "StoredMemory", stored())
            .answers(200, "It says what another one says, and was merged into that one.", "StoredMemory", merged)
            .fails(409, DUPLICATE)
            .fails(429, QUOTA),
        post("/memory/store/batch", "storeMemories", "Store many memories")
            .about("All or nothing.")
            .idempotent()
            .takes("NewMemories", json!({"memories": [new]}))
            .answers(201, "All are stored, in order.", "StoredMemories", json!({"memories": [stored()]}))
            .fails(409, DUPLICATE)
            .fails(429, "`quota_exceeded`: one of them would pass the limit; `index` says which."),
        patch("/memory/{id}", "changeMemory", "Change a memory")
            .of("id", MEMORY)
            .about("What is not named stays; null takes tags, metadata and session away.")
            .takes("MemoryChanges", json!({"tags": ["home", "drinks"], "session": null}))
            .answers(200, "The memory as it is now.", "Memory", memory())
            .fails(429, QUOTA),
        delete("/memory/{id}", "deleteMemory", "Delete a memory").of("id", MEMORY).answers_nothing(204, "It is gone."),
        filtered(delete("/memory", "deleteMemories", "Delete all memories that a filter lets through"))
            .must_ask("confirm", "Must be true.", one_of(["true"]))
            .answers(200, "What was deleted.", "Deletion", json!({"deleted": 3, "freed_bytes": 5_280})),
    ]
}

fn reads() -> Vec<Operation> {
    let hit = json!({
        "id": ID, "input_context": "Prefers tea to coffee", "type": "fact", "tier": "ltm", "tags": ["home"],
        "metadata": {}, "session": "spring", "timestamp": AT, "created_at": AT, "score": 0.82,
        "score_breakdown": {"semantic": 0.78, "keyword": 0.9},
    });
    let usage = json!({
        "user_id": ID,
        "storage": {"total_bytes": 6_750, "total_human_readable": "6.59 KB"},
        "memory_counts": {"stm": 1, "itm": 0, "ltm": 3, "total": 4},
        "tier_stats": {"stm": of_tier(1), "itm": of_tier(0), "ltm": of_tier(3)},
        "timestamp": AT,
    });
    vec![
        post("/memory/search", "searchMemories", "Search memories")
            .about("By the meaning of `query` or of an `embedding`, by words, or both. Best first.")
            .takes("Search", json!({"query": "what does she drink", "limit": 5, "tags": ["home"]}))
            .answers(200, "What was found.", "Hits", json!({"results": [hit.clone()]})),
        filtered(get("/memory", "listMemories", "List memories")).paged().answers(
            200,
            "A page, newest first.",
            "Memories",
            json!({"memories": [memory()], "next_cursor": null}),
        ),
        get("/memory/{id}", "getMemory", "One memory").of("id", MEMORY).answers(200, "The memory.", "Memory", memory()),
        get("/memory/{id}/similar", "findSimilar", "What is like a memory")
            .of("id", MEMORY)
            .asks("limit", "Most of them.", whole(1..=100).default(10))
            .answers(200, "What was found.", "Hits", json!({"results": [hit]})),
        get("/memory/usage", "getMemoryUsage", "Counts and bytes by tier").answers(
            200,
            "The figures.",
            "MemoryUsage",
            usage,
        ),
        get("/memory/usage/quota-check", "checkMemoryQuota", "Is there room for memories").answers(
            200,
            "Whether there is.",
            "MemoryQuota",
            json!({
                "has_quota": true, "message": "Storage quota available", "current_usage": "6.59 KB", "limit": "1.00 GB",
                "percentage_used": 0.0,
            }),
        ),
    ]
}

fn transfers() -> Vec<Operation> {
    let mut line = exported().to_string();
    line.push('\n');
    vec![
        filtered(get("/memory/export", "exportMemories", "Carry memories out"))
            .about("A JSON object a line, as POST /memory/import takes it. An answer that breaks off is not whole.")
            .asks("embeddings", "With the embeddings, and the name of their model.", flag().default(false))
            .answers_as(200, "The memories.", "application/x-ndjson", words(), json!(line.clone())),
        post("/memory/import", "importMemories", "Carry memories in")
            .about(
                "What is there already is left out, so that an import can be repeated. A record that is not understood is \
                 skipped and counted. Bounded by `memory.import_bytes_max`. With an Idempotency-Key the body is compared as it \
                 was sent, byte by byte.",
            )
            .idempotent()
            .asks("format", "Whose format it is.", one_of(Format::ALL.map(Format::as_str)).default("tallybox"))
            .asks("embeddings", "Whether embeddings in the records are of this server's model.", flag().default(false))
            .takes("ImportedMemories", json!({"memories": [exported()]}))
            .or_takes("application/x-ndjson", lines(), &line)
            .or_takes("application/jsonl", lines(), &line)
            .answers(
                200,
                "What became of the records.",
                "ImportReport",
                json!({
                    "imported": 1, "already_there": 0,
                    "skipped": [{"record": 2, "reason": "type: is required"}], "skipped_count": 1,
                }),
            )
            .fails(429, "`quota_exceeded`: the record `record` did not fit; what was imported before it stays.")
            .fails(503, "`busy`: another import of the same user is under way, or too many of others."),
    ]
}

/// Many records, of which a schema can say nothing: what is not understood is skipped.
fn lines() -> Value {
    json!({"description": "A JSON object a line."})
}

fn of_tier(memories: i64) -> Value {
    let bytes = memories * 21;
    json!({
        "memory_count": memories, "avg_text_size": if memories == 0 { 0 } else { 21 }, "total_text_size": bytes,
        "total_text_human": format!("{bytes} B"),
    })
}

fn stored() -> Value {
    json!({
        "id": ID, "user_id": OTHER_ID, "type": "fact", "tier": "ltm", "size_bytes": 1_727,
        "size_human_readable": "1.69 KB", "created_at": AT, "timestamp": AT, "expires_at": null,
    })
}

fn memory() -> Value {
    json!({
        "id": ID, "user_id": OTHER_ID, "type": "fact", "tier": "ltm", "input_context": "Prefers tea to coffee",
        "tags": ["home"], "metadata": {}, "session": "spring", "timestamp": AT, "created_at": AT, "last_seen_at": null,
        "expires_at": null, "size_bytes": 1_727, "size_human_readable": "1.69 KB",
    })
}

fn exported() -> Value {
    json!({
        "id": ID, "user": "ada@example.org", "type": "fact", "tier": "ltm", "input_context": "Prefers tea to coffee",
        "tags": ["home"], "metadata": {}, "session": "spring", "timestamp": AT, "created_at": AT, "expires_at": null,
    })
}
