//! The records of an input, one after the other: nothing is built of more than one of them at a time.

use std::ops::Range;

use super::chroma::Row;
use super::graph::{Entity, Kind, Node};
use super::pick::{Picked, said};
use super::scan::{self, Walk};
use super::{Format, Item, Skipped, Terms, chroma, graph, mem0, tallybox};
use crate::domain::field::Why;
use crate::domain::{Error, Fault, Result, json};

/// Most memories that are written in one transaction.
const BATCH_ITEMS_MAX: usize = 128;
/// About how much text a batch has at most, in bytes: what is embedded and not yet kept.
const BATCH_TEXT_BYTES: usize = 256 * 1024;
/// Most records that are looked at for a batch, whatever comes of them.
const BATCH_RECORDS_MAX: usize = 4_096;

/// An input that is being read.
pub struct Records {
    format: Format,
    text: String,
    shape: Shape,
    /// An entity of which there are observations left.
    open: Option<Entity>,
    /// The number of the last record.
    record: u64,
}

enum Shape {
    /// A record a line, from this byte on.
    Lines(usize),
    /// A list of records.
    List(Walk),
    /// Two lists of records.
    Graph { entities: Option<Walk>, relations: Option<Walk> },
    /// Lists of the same length.
    Columns { lists: Box<Columns>, total: u64 },
}

struct Columns {
    ids: Walk,
    documents: Walk,
    metadatas: Option<Walk>,
    embeddings: Option<Walk>,
}

/// Some of an input's memories, and what was no memory on the way to them.
#[derive(Debug, Default)]
pub struct Batch {
    /// Memories, each with the number of its record.
    pub items: Vec<(u64, Item)>,
    /// Records that are no memories.
    pub skipped: Vec<Skipped>,
}

impl Records {
    /// Of JSON lines, the first of which has the number `first`.
    pub fn of_lines(format: Format, text: String, first: u64) -> Self {
        let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { format, text, shape: Shape::Lines(start), open: None, record: first.saturating_sub(1) }
    }

    /// Of one JSON document.
    ///
    /// # Errors
    /// `Malformed` where it is no JSON; `Invalid` where it is not of the format's shape.
    pub fn of_document(format: Format, text: String) -> Result<Self> {
        json::check(&text).map_err(|error| json::unreadable(&text, &error))?;
        let shape = match format {
            Format::Tallybox => Shape::List(list_in(&text, ["memories", "next_cursor"], false)?),
            Format::Mem0 => match Walk::list(&text, &scan::whole(&text)) {
                Some(list) => Shape::List(list),
                None => Shape::List(list_in(&text, ["results"], true)?),
            },
            Format::Chroma => columns(&text)?,
            Format::McpJsonl => both(&text)?,
        };
        Ok(Self { format, text, shape, open: None, record: 0 })
    }

    /// The next memories; none at the end.
    pub fn batch(&mut self, terms: &Terms) -> Option<Batch> {
        let mut batch = Batch::default();
        let (mut bytes, mut looked_at) = (0_usize, 0_usize);
        while batch.items.len() < BATCH_ITEMS_MAX && bytes < BATCH_TEXT_BYTES && looked_at < BATCH_RECORDS_MAX {
            let Some(found) = self.next(terms) else { break };
            looked_at = looked_at.saturating_add(1);
            match found {
                Ok(item) => {
                    bytes = bytes.saturating_add(item.content.text.len());
                    batch.items.push((self.record, item));
                }
                Err(reason) => batch.skipped.push(Skipped { record: self.record, reason }),
            }
        }
        (looked_at > 0).then_some(batch)
    }

    /// How far the input has been read, and how far it goes.
    pub fn progress(&self) -> (u64, u64) {
        let bytes = |at: usize| (u64::try_from(at).unwrap_or(u64::MAX), u64::try_from(self.text.len()).unwrap_or(0));
        match &self.shape {
            Shape::Lines(at) => bytes(*at),
            Shape::List(walk) => bytes(walk.position()),
            Shape::Graph { entities, relations } => {
                let at = |walk: &Option<Walk>| walk.as_ref().map_or(0, Walk::position);
                bytes(at(entities).max(at(relations)))
            }
            Shape::Columns { total, .. } => (self.record, *total),
        }
    }

    fn next(&mut self, terms: &Terms) -> Option<Result<Item, Why>> {
        loop {
            if let Some(entity) = &mut self.open {
                match entity.next(terms) {
                    Some(item) => return Some(item),
                    None => self.open = None,
                }
            }
            match self.read(terms)? {
                Ok(Node::Entity(entity)) => self.open = Some(entity),
                Ok(Node::Relation(item)) => return Some(Ok(item)),
                Err(why) => return Some(Err(why)),
            }
        }
    }

    /// Reads the next record; none at the end.
    fn read(&mut self, terms: &Terms) -> Option<Result<Node, Why>> {
        let text = self.text.as_str();
        let (place, kind) = match &mut self.shape {
            Shape::Lines(from) => {
                let place = next_line(text, from, &mut self.record)?;
                if let Err(error) = json::check(scan::at(text, place.clone())) {
                    return Some(Err(format!("the record: malformed JSON, {}", said(&error))));
                }
                (place, None)
            }
            Shape::List(walk) => (walk.element(text)?, None),
            Shape::Graph { entities, relations } => {
                let entity = entities.as_mut().and_then(|walk| walk.element(text));
                match entity {
                    Some(place) => (place, Some(Kind::Entity)),
                    None => (relations.as_mut()?.element(text)?, Some(Kind::Relation)),
                }
            }
            Shape::Columns { lists, .. } => {
                let row = lists.row(text)?;
                self.record = self.record.saturating_add(1);
                return Some(chroma::item(&row, terms).map(Node::Relation));
            }
        };
        if !matches!(self.shape, Shape::Lines(_)) {
            self.record = self.record.saturating_add(1);
        }
        let record = scan::at(text, place);
        Some(match self.format {
            Format::Tallybox => tallybox::item(record, terms).map(Node::Relation),
            Format::Mem0 => mem0::item(record, terms).map(Node::Relation),
            Format::McpJsonl => graph::node(record, kind, terms),
            // Its lists are no records, and lines of it are none either.
            Format::Chroma => Err("the record: must be a place of lists".to_owned()),
        })
    }
}

/// The next line that is not blank; `number` counts blank ones too.
fn next_line(text: &str, from: &mut usize, number: &mut u64) -> Option<Range<usize>> {
    loop {
        let rest = text.get(*from..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').unwrap_or(rest.len());
        let place = *from..from.saturating_add(length);
        *from = place.end.saturating_add(1).min(text.len());
        *number = number.saturating_add(1);
        if !scan::at(text, place.clone()).trim().is_empty() {
            return Some(place);
        }
    }
}

/// The members of a document, which is an object.
fn members<'t, const N: usize>(text: &'t str, names: [&'static str; N]) -> Result<Picked<'t, N>> {
    Picked::of(text, names).map_err(|_| Error::invalid("body", "must be an object"))
}

fn list_of<const N: usize>(text: &str, picked: &Picked<'_, N>, name: &'static str) -> Result<Option<Walk>> {
    let Some(place) = picked.place(name) else { return Ok(None) };
    Walk::list(text, &place).map(Some).ok_or_else(|| Error::invalid(name, "must be a list"))
}

fn required(list: Option<Walk>, name: &'static str) -> Result<Walk> {
    list.ok_or_else(|| Error::invalid(name, "is required"))
}

/// The list that is the first of the members `names`.
fn list_in<const N: usize>(text: &str, names: [&'static str; N], takes_others: bool) -> Result<Walk> {
    let picked = members(text, names)?;
    let mut faults = Vec::new();
    let name = names.first().copied().unwrap_or_default();
    let list = list_of(text, &picked, name).and_then(|list| required(list, name));
    if let Err(Error::Invalid(found)) = &list {
        faults.extend(found.iter().cloned());
    }
    if let Some(unknown) = picked.unknown().filter(|_| !takes_others) {
        faults.push(Fault::new(unknown, "is not a known field"));
    }
    if faults.is_empty() { list } else { Err(Error::Invalid(faults)) }
}

fn both(text: &str) -> Result<Shape> {
    let picked = members(text, ["entities", "relations"])?;
    let (entities, relations) = (list_of(text, &picked, "entities")?, list_of(text, &picked, "relations")?);
    if entities.is_none() && relations.is_none() {
        return Err(Error::invalid("entities", "is required where there are no relations"));
    }
    Ok(Shape::Graph { entities, relations })
}

fn columns(text: &str) -> Result<Shape> {
    let picked = members(text, ["ids", "documents", "metadatas", "embeddings"])?;
    let ids = required(list_of(text, &picked, "ids")?, "ids")?;
    let documents = required(list_of(text, &picked, "documents")?, "documents")?;
    let metadatas = list_of(text, &picked, "metadatas")?;
    let embeddings = list_of(text, &picked, "embeddings")?;
    let total = count(text, &ids);
    let others =
        [("documents", Some(&documents)), ("metadatas", metadatas.as_ref()), ("embeddings", embeddings.as_ref())];
    for (name, list) in others {
        let length = list.map_or(total, |list| count(text, list));
        if length != total {
            return Err(Error::invalid(name, format!("must have as many elements as ids: {total}, not {length}")));
        }
    }
    Ok(Shape::Columns { lists: Box::new(Columns { ids, documents, metadatas, embeddings }), total })
}

fn count(text: &str, walk: &Walk) -> u64 {
    let mut walk = walk.clone();
    u64::try_from(std::iter::from_fn(|| walk.element(text)).count()).unwrap_or(u64::MAX)
}

impl Columns {
    fn row<'t>(&mut self, text: &'t str) -> Option<Row<'t>> {
        let next = |walk: &mut Walk| walk.element(text).map(|place| scan::at(text, place));
        Some(Row {
            id: next(&mut self.ids)?,
            document: next(&mut self.documents)?,
            metadata: self.metadatas.as_mut().and_then(next),
            embedding: self.embeddings.as_mut().and_then(next),
        })
    }
}
