//! Our own export: an object a line.

use serde::Serialize;
use serde_json::{Map, Value};

use super::pick::Picked;
use super::{Format, Item, Source, Terms, end, id};
use crate::domain::Result;
use crate::domain::field::{Why, text, text_of_bytes};
use crate::domain::memory::field::{embedding, happened, kind, metadata, session, tags, tier};
use crate::domain::memory::{Content, Embedding, Memory, MemoryTier};
use crate::domain::unit::{MemoryId, Timestamp};

/// What a record may have. Those of a listing are known too, so that a listing can be imported as well.
const NAMES: [&str; 17] = [
    "id",
    "user",
    "type",
    "tier",
    "input_context",
    "tags",
    "metadata",
    "session",
    "timestamp",
    "created_at",
    "expires_at",
    "embedding",
    "embedding_model",
    "user_id",
    "last_seen_at",
    "size_bytes",
    "size_human_readable",
];

/// The memory that a record describes.
pub(super) fn item(record: &str, terms: &Terms) -> Result<Item, Why> {
    let picked = Picked::of(record, NAMES)?;
    if let Some(name) = picked.unknown() {
        return Err(format!("{name}: is not a known field"));
    }
    let id = picked.optional("id", id)?;
    let timestamp = picked.optional("timestamp", happened(terms.now))?;
    let content = Content {
        tier: picked.optional("tier", tier)?.unwrap_or(MemoryTier::Long),
        kind: picked.required("type", kind)?,
        text: picked.required("input_context", text_of_bytes(1..=terms.text_bytes_max))?,
        tags: picked.optional("tags", tags)?.unwrap_or_default(),
        metadata: picked.optional("metadata", metadata)?.unwrap_or_default(),
        session: picked.optional("session", session)?,
        timestamp: timestamp.unwrap_or(terms.now),
    };
    let expires_at = picked.optional("expires_at", end(terms.now))?;
    // An embedding that names its model speaks for itself.
    let model = picked.optional("embedding_model", text(1..=256))?;
    let is_ours = model.map_or(terms.embeddings, |model| model == terms.model);
    let embedding = if is_ours { picked.optional("embedding", embedding)? } else { None };
    let source = Source::of_item(Format::Tallybox, id.as_deref(), &content, timestamp);
    Ok(Item { content, embedding, source, origin: id.as_deref().and_then(MemoryId::parse), expires_at })
}

#[derive(Serialize)]
struct Line<'a> {
    id: MemoryId,
    user: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    tier: &'static str,
    input_context: &'a str,
    tags: &'a [String],
    metadata: &'a Map<String, Value>,
    session: Option<&'a str>,
    timestamp: Timestamp,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_model: Option<&'a str>,
}

/// A memory as a line of an export, without the line's end. `user`: whose it is; `embedding`: with the name of its model.
///
/// # Errors
/// Where it cannot be written as JSON, which no memory that was stored gives cause for.
pub fn line(user: &str, memory: &Memory, embedding: Option<(&Embedding, &str)>) -> serde_json::Result<String> {
    let content = &memory.content;
    serde_json::to_string(&Line {
        id: memory.id,
        user,
        kind: &content.kind,
        tier: content.tier.as_str(),
        input_context: &content.text,
        tags: &content.tags,
        metadata: &content.metadata,
        session: content.session.as_deref(),
        timestamp: content.timestamp,
        created_at: memory.created_at,
        expires_at: memory.expires_at,
        embedding: embedding.map(|(embedding, _)| embedding.as_slice()),
        embedding_model: embedding.map(|(_, model)| model),
    })
}
