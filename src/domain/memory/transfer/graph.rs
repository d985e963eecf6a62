//! The knowledge graph of the reference MCP memory server: entities with what was observed of them, and relations.

use serde_json::{Map, Value};

use super::pick::{Picked, value};
use super::scan::{self, Walk};
use super::{Format, Item, Source, Terms};
use crate::domain::Result;
use crate::domain::field::{Why, text};
use crate::domain::memory::{Content, MemoryTier, TAG_CHARACTERS_MAX};

/// Most characters of a name and of a type: they are said again with every observation.
const NAME_CHARACTERS_MAX: usize = 256;

/// What a record of the graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Entity,
    Relation,
}

/// What stands in a record.
pub(super) enum Node {
    Entity(Entity),
    Relation(Item),
}

/// An entity whose observations are taken one after the other.
pub(super) struct Entity {
    name: String,
    kind: String,
    observations: String,
    walk: Walk,
}

/// Reads a record; `kind` where it does not say itself what it is.
pub(super) fn node(record: &str, kind: Option<Kind>, terms: &Terms) -> Result<Node, Why> {
    let kind = match kind {
        Some(kind) => kind,
        None => Picked::of(record, ["type"])?.required("type", kind_of)?,
    };
    match kind {
        Kind::Entity => entity(record).map(Node::Entity),
        Kind::Relation => relation(record, terms).map(Node::Relation),
    }
}

fn kind_of(value: Value) -> Result<Kind, Why> {
    match value.as_str() {
        Some("entity") => Ok(Kind::Entity),
        Some("relation") => Ok(Kind::Relation),
        _ => Err("must be entity or relation".to_owned()),
    }
}

fn entity(record: &str) -> Result<Entity, Why> {
    let picked = Picked::of(record, ["name", "entityType", "observations"])?;
    let name = picked.required("name", text(1..=NAME_CHARACTERS_MAX))?;
    let kind = picked.optional("entityType", text(0..=NAME_CHARACTERS_MAX))?.unwrap_or_default();
    let observations = picked.raw("observations").ok_or("observations: is required")?;
    let walk = Walk::list(observations, &scan::whole(observations)).ok_or("observations: must be a list of texts")?;
    if walk.clone().element(observations).is_none() {
        return Err("observations: is empty, so there is nothing to remember".to_owned());
    }
    Ok(Entity { name, kind, observations: observations.to_owned(), walk })
}

impl Entity {
    /// The next observation; none at the end.
    pub(super) fn next(&mut self, terms: &Terms) -> Option<Result<Item, Why>> {
        let place = self.walk.element(&self.observations)?;
        Some(self.observed(scan::at(&self.observations, place), terms))
    }

    fn observed(&self, raw: &str, terms: &Terms) -> Result<Item, Why> {
        let named = |why: Why| format!("an observation: {why}");
        let observation = value(raw).and_then(text(1..=terms.text_bytes_max)).map_err(named)?;
        let (name, kind) = (self.name.as_str(), self.kind.as_str());
        let source = Source::of(Format::McpJsonl, &["entity", name, &observation]);
        let metadata = object([("entity", name), ("entityType", kind)]);
        item("observation", format!("{name}: {observation}"), tag(kind), metadata, source, terms)
    }
}

fn relation(record: &str, terms: &Terms) -> Result<Item, Why> {
    let picked = Picked::of(record, ["from", "to", "relationType"])?;
    let name = |name| picked.required(name, text(1..=NAME_CHARACTERS_MAX));
    let (from, to, kind) = (name("from")?, name("to")?, name("relationType")?);
    let source = Source::of(Format::McpJsonl, &["relation", &from, &kind, &to]);
    let metadata = object([("from", &from), ("relationType", &kind), ("to", &to)]);
    item("relation", format!("{from} {kind} {to}"), tag(&kind), metadata, source, terms)
}

fn item(
    kind: &str,
    text: String,
    tags: Vec<String>,
    metadata: Map<String, Value>,
    source: Source,
    terms: &Terms,
) -> Result<Item, Why> {
    if text.len() > terms.text_bytes_max {
        return Err(format!("the text: must be at most {} bytes of UTF-8", terms.text_bytes_max));
    }
    let (tier, kind) = (MemoryTier::Long, kind.to_owned());
    let content = Content { tier, kind, text, tags, metadata, session: None, timestamp: terms.now };
    Ok(Item { content, embedding: None, source, origin: None, expires_at: None })
}

/// A type as a tag, where it fits one; it is metadata in any case.
fn tag(kind: &str) -> Vec<String> {
    let fits = (1..=TAG_CHARACTERS_MAX).contains(&kind.chars().count());
    if fits { vec![kind.to_owned()] } else { Vec::new() }
}

fn object<const N: usize>(members: [(&str, &str); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, text)| (name.to_owned(), Value::from(text))).collect()
}
