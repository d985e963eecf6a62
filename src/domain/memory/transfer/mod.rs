//! Moving memories in and out: the formats that are read, the one that is written, and the report of an import.

mod chroma;
mod graph;
mod mem0;
mod pick;
mod records;
mod scan;
mod tallybox;

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Content, Embedding, json_of_metadata, json_of_tags};
use crate::domain::Result;
use crate::domain::field::{Why, instant};
use crate::domain::unit::{MemoryId, Timestamp};
pub use records::{Batch, Records};
pub use tallybox::line;

/// Records that are skipped and shown in full; of more it is told how many for which reason.
pub const SKIPPED_SHOWN_MAX: usize = 20;
/// Different reasons that are counted.
const REASONS_MAX: usize = 64;
/// What further reasons are counted as.
const OTHER_REASONS: &str = "other reasons";
/// Longest id of a record, in bytes.
const ID_BYTES_MAX: usize = 1_024;

/// What memories are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own export: an object a line, or `{"memories": [..]}`.
    Tallybox,
    /// What mem0's `get_all` gives.
    Mem0,
    /// What Chroma's `Collection.get` gives.
    Chroma,
    /// The file of the reference MCP memory server: entities and relations, one a line, or what its `read_graph` gives.
    McpJsonl,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Tallybox, Self::Mem0, Self::Chroma, Self::McpJsonl];

    /// `tallybox`, `mem0`, `chroma` or `mcp-jsonl`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tallybox => "tallybox",
            Self::Mem0 => "mem0",
            Self::Chroma => "chroma",
            Self::McpJsonl => "mcp-jsonl",
        }
    }

    /// The format of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text)
    }

    /// Whether a file of this format that begins with `line` is lines of JSON, and not one JSON document.
    pub fn is_lines(self, line: &str) -> bool {
        let line = line.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
        let keys: &[&str] = match self {
            Self::Mem0 | Self::Chroma => return false,
            Self::Tallybox => &["memories"],
            Self::McpJsonl => &["entities", "relations"],
        };
        line != "{" && !line.starts_with('[') && !scan::has_member(line, keys)
    }
}

/// Where a memory was imported from: 16 bytes of the SHA-256 of a format and of what tells the item from others of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub(crate) [u8; 16]);

impl Source {
    /// Of what tells an item from all others of its format.
    fn of(format: Format, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(&format.as_str()).chain(parts) {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        let mut source = [0; 16];
        source.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        Self(source)
    }

    /// Of an item by its id, or by all it says where it has none. `timestamp`: the time that it names itself.
    fn of_item(format: Format, id: Option<&str>, content: &Content, timestamp: Option<Timestamp>) -> Self {
        if let Some(id) = id {
            return Self::of(format, &["id", id]);
        }
        let time = timestamp.map(|at| at.to_string()).unwrap_or_default();
        let (tags, metadata) =
            (json_of_tags(content).unwrap_or_default(), json_of_metadata(content).unwrap_or_default());
        let session = content.session.as_deref().unwrap_or_default();
        let tier = content.tier.as_str();
        Self::of(format, &["content", tier, &content.kind, &content.text, &tags, &metadata, session, &time])
    }
}

/// What an import holds its records to.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Now.
    pub now: Timestamp,
    /// Longest text, in bytes.
    pub text_bytes_max: usize,
    /// Whether embeddings that come without the name of their model are said to be by this box's.
    pub embeddings: bool,
    /// The name of this box's model.
    pub model: String,
}

/// A memory that an input describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What is remembered.
    pub content: Content,
    /// Its embedding, by the model of this box.
    pub embedding: Option<Embedding>,
    /// What it is known again by.
    pub source: Source,
    /// The id it has where it was exported, which may have been this box.
    pub origin: Option<MemoryId>,
    /// When it ends at the latest.
    pub expires_at: Option<Timestamp>,
}

/// A record that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its number, or that of its line, from 1 on.
    pub record: u64,
    /// Which field is why.
    pub reason: String,
}

/// What became of the records of an import.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Memories stored.
    pub imported: u64,
    /// Memories that were there already.
    pub already_there: u64,
    /// The first that were skipped.
    pub skipped: Vec<Skipped>,
    /// How many were skipped.
    pub skipped_count: u64,
    more: BTreeMap<String, u64>,
}

impl Report {
    /// Notes a record that was skipped.
    pub fn skip(&mut self, skipped: Skipped) {
        self.skipped_count = self.skipped_count.saturating_add(1);
        if self.skipped.len() < SKIPPED_SHOWN_MAX {
            self.skipped.push(skipped);
            return;
        }
        let is_new = !self.more.contains_key(&skipped.reason);
        let reason = if is_new && self.more.len() >= REASONS_MAX { OTHER_REASONS.to_owned() } else { skipped.reason };
        let count = self.more.entry(reason).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// Notes several.
    pub fn skip_all(&mut self, all: Vec<Skipped>) {
        for skipped in all {
            self.skip(skipped);
        }
    }

    /// How many more were skipped, by their reasons.
    pub fn more_skipped(&self) -> impl Iterator<Item = (&str, u64)> {
        self.more.iter().map(|(reason, count)| (reason.as_str(), *count))
    }
}

/// The id of a record.
fn id(value: Value) -> Result<String, Why> {
    match value {
        Value::String(id) if (1..=ID_BYTES_MAX).contains(&id.len()) => Ok(id),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("must be a text of 1 to {ID_BYTES_MAX} bytes")),
    }
}

/// When a memory ends, which must not be over.
fn end(now: Timestamp) -> impl Fn(Value) -> Result<Timestamp, Why> {
    move |value| instant(value).and_then(|at| not_over(at, now))
}

fn not_over(at: Timestamp, now: Timestamp) -> Result<Timestamp, Why> {
    if at > now { Ok(at) } else { Err(OVER.to_owned()) }
}

/// What is said of an end that has been.
pub(crate) const OVER: &str = "lies in the past";

#[cfg(test)]
mod tests;
