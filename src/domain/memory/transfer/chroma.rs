//! What Chroma's `Collection.get` gives: a list of ids, and lists of the same length of what belongs to each.

use super::pick::value;
use super::{Format, Item, Source, Terms, id};
use crate::domain::Result;
use crate::domain::field::{Why, text_of_bytes};
use crate::domain::memory::field::{embedding, metadata};
use crate::domain::memory::{Content, MemoryTier};

/// The type of a memory from there.
const KIND: &str = "document";

/// One place of all lists, each as it is written.
pub(super) struct Row<'t> {
    pub(super) id: &'t str,
    pub(super) document: &'t str,
    pub(super) metadata: Option<&'t str>,
    pub(super) embedding: Option<&'t str>,
}

/// The memory that a place of the lists describes.
pub(super) fn item(row: &Row<'_>, terms: &Terms) -> Result<Item, Why> {
    let named = |name: &'static str| move |why: Why| format!("{name}: {why}");
    let id = value(row.id).and_then(id).map_err(named("ids"))?;
    if row.document == "null" {
        return Err("documents: is null, so there is no text to remember".to_owned());
    }
    let text = value(row.document).and_then(text_of_bytes(1..=terms.text_bytes_max)).map_err(named("documents"))?;
    let present = |raw: &&str| *raw != "null";
    let metadata = row.metadata.filter(present).map(|raw| value(raw).and_then(metadata));
    let given = row.embedding.filter(present).filter(|_| terms.embeddings);
    let embedding = given.map(|raw| value(raw).and_then(embedding)).transpose().map_err(named("embeddings"))?;
    // An id is one of its collection, whose name is not here: two collections often count alike.
    let source = Source::of(Format::Chroma, &["id", &id, &text]);
    let content = Content {
        tier: MemoryTier::Long,
        kind: KIND.to_owned(),
        text,
        tags: Vec::new(),
        metadata: metadata.transpose().map_err(named("metadatas"))?.unwrap_or_default(),
        session: None,
        timestamp: terms.now,
    };
    Ok(Item { content, embedding, source, origin: None, expires_at: None })
}
