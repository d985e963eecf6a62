//! Memories: what is remembered, how large it is, what it asks of a quota, and how well it answers a search.

mod code;
mod embedding;
pub(crate) mod field;
mod run;
mod score;
pub mod transfer;

use std::borrow::Cow;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

pub use code::{Code, Estimator};
pub use embedding::{Embedding, EmbeddingFault};
pub use run::{RUN_GAP_MS, RUN_REACH, Run};
pub use score::{Corpus, Evidence, Parts, Rarities, WordCount, bm25, dot_of_bytes, fuse, rounded, weighed};

use super::unit::{MemoryId, Timestamp};
use super::words::index_words;
use transfer::Source;

/// Numbers of an embedding.
pub const EMBEDDING_DIMENSIONS: usize = 384;
/// Bytes that an embedding counts with: 384 x 4.
pub const EMBEDDING_BYTES: i64 = 1_536;
/// Bytes that a memory counts with beside its text, embeddings, tags and metadata.
pub const ROW_OVERHEAD_BYTES: i64 = 162;
/// Most embeddings of one memory: the store keeps them in one range of ids.
pub const WINDOWS_MAX: usize = 4_096;
/// Most memories of one batch.
pub const BATCH_MAX: usize = 256;
/// Most characters of a type.
pub const TYPE_CHARACTERS_MAX: usize = 64;
/// Most tags of a memory.
pub const TAGS_MAX: usize = 32;
/// Most characters of a tag.
pub const TAG_CHARACTERS_MAX: usize = 64;
/// Metadata of a memory: 16 KiB of compact JSON.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Most characters of a session's name.
pub const SESSION_CHARACTERS_MAX: usize = 128;
/// Longest query, in bytes.
pub const QUERY_BYTES_MAX: usize = 8 * 1024;
/// Most neighbours before and after a hit.
pub const CONTEXT_MAX: usize = 5;

/// How long a memory is meant to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryTier {
    /// Short-term: expires after `memory.stm_ttl`, its quota is a bound of its own.
    Short,
    /// Intermediate-term.
    Intermediate,
    /// Long-term.
    Long,
}

impl MemoryTier {
    /// Every tier, shortest first.
    pub const ALL: [Self; 3] = [Self::Short, Self::Intermediate, Self::Long];

    /// `stm`, `itm` or `ltm`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "stm",
            Self::Intermediate => "itm",
            Self::Long => "ltm",
        }
    }

    /// The tier of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text)
    }
}

/// What happens to a memory that repeats another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDuplicate {
    /// It is stored like any other.
    Store,
    /// The older one takes its tags and metadata.
    Merge,
    /// It is refused.
    Refuse,
}

/// The store's own handle of a memory, meaningless outside one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryKey(pub(crate) i64);

/// What is remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// How long it is meant to live.
    pub tier: MemoryTier,
    /// What kind of thing it is, 1 to 64 characters.
    pub kind: String,
    /// The text, never empty.
    pub text: String,
    /// A set, in the order given.
    pub tags: Vec<String>,
    /// An object; an empty one counts as none.
    pub metadata: Map<String, Value>,
    /// The conversation or run it belongs to.
    pub session: Option<String>,
    /// When it happened.
    pub timestamp: Timestamp,
}

/// A memory that is not written yet.
#[derive(Clone, Debug)]
pub struct NewMemory {
    /// What is remembered; its time is now where none was given.
    pub content: Content,
    /// One a window of the text, at least one.
    pub embeddings: Vec<Embedding>,
    /// What it is found by; made beforehand, so that no write waits for it.
    pub words: Vec<String>,
    /// What it was imported from.
    pub source: Option<Source>,
    /// When it ends at the latest, where it brings that with it.
    pub expires_at: Option<Timestamp>,
}

impl NewMemory {
    /// With the words of its text.
    pub fn new(content: Content, embeddings: Vec<Embedding>) -> Self {
        Self { words: index_words(&content.text), content, embeddings, source: None, expires_at: None }
    }
}

/// A memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// The store's handle.
    pub key: MemoryKey,
    /// The public id.
    pub id: MemoryId,
    /// What is remembered.
    pub content: Content,
    /// When it was stored, by our clock.
    pub created_at: Timestamp,
    /// When it was last stored again and merged.
    pub last_seen_at: Option<Timestamp>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// What it counts with in the quota.
    pub size_bytes: i64,
}

impl Memory {
    /// How many windows its text was cut into: what it counts with tells.
    pub fn windows(&self) -> i64 {
        let embeddings = self.size_bytes.saturating_sub(stored_bytes(&self.content, 0));
        embeddings.checked_div(EMBEDDING_BYTES).unwrap_or(0)
    }
}

/// What a memory counts with: the text's UTF-8 bytes, 1,536 an embedding, tags and metadata as compact JSON (0 when
/// empty), and 162 for the rest.
pub fn stored_bytes(content: &Content, embeddings: usize) -> i64 {
    let texts = [content.text.len(), json_of_tags(content).map_or(0, |json| json.len()), metadata_bytes(content)];
    let embeddings = i64::try_from(embeddings).unwrap_or(i64::MAX).saturating_mul(EMBEDDING_BYTES);
    texts
        .into_iter()
        .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
        .fold(ROW_OVERHEAD_BYTES.saturating_add(embeddings), i64::saturating_add)
}

/// Tags as compact JSON; none when there are none.
pub fn json_of_tags(content: &Content) -> Option<String> {
    (!content.tags.is_empty()).then(|| Value::from(content.tags.clone()).to_string())
}

/// Metadata as compact JSON; none when there is none.
pub fn json_of_metadata(content: &Content) -> Option<String> {
    (!content.metadata.is_empty()).then(|| Value::from(content.metadata.clone()).to_string())
}

fn metadata_bytes(content: &Content) -> usize {
    json_of_metadata(content).map_or(0, |json| json.len())
}

/// The form in which texts are compared: NFC, without white space at the ends.
pub fn normalised_text(text: &str) -> String {
    text.nfc().collect::<String>().trim().to_owned()
}

/// 63 bits of the SHA-256 of all that makes a duplicate, tier, type, session and normalised text: of duplicates they are
/// equal, the reverse has to be looked at.
pub fn content_hash(content: &Content) -> i64 {
    let mut hasher = Sha256::new();
    let session = content.session.as_deref().unwrap_or_default();
    for part in [content.tier.as_str(), &content.kind, session] {
        // None of them contains it.
        hasher.update(part);
        hasher.update([0]);
    }
    hasher.update(normalised_text(&content.text));
    let digest = hasher.finalize();
    let head = digest.iter().take(8).fold(0_u64, |head, byte| (head << 8) | u64::from(*byte));
    i64::try_from(head >> 1).unwrap_or(i64::MAX)
}

/// `tags` without repetitions, in their order.
pub fn unique(tags: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for tag in tags {
        if !kept.contains(&tag) {
            kept.push(tag);
        }
    }
    kept
}

/// A text with the words that it is found by; made beforehand, so that no write waits for it.
#[derive(Clone, Debug)]
pub struct Worded {
    text: String,
    words: Vec<String>,
}

impl Worded {
    /// With the words of `text`.
    pub fn new(text: String) -> Self {
        Self { words: index_words(&text), text }
    }
}

/// What a change of a memory needs of its texts; made beforehand, so that no write waits for it.
#[derive(Clone, Debug, Default)]
pub struct Groundwork {
    /// Of a text that differs from the one it has, one a window.
    pub embeddings: Option<Vec<Embedding>>,
    /// The text it had when this was made and the one it gets, as far as their words are needed.
    pub worded: Vec<Worded>,
}

impl Groundwork {
    /// The words of a text; they are made now where they are not at hand, as where another change came in between.
    pub fn words_of(&self, text: &str) -> Cow<'_, [String]> {
        let made = self.worded.iter().find(|worded| worded.text == text);
        made.map_or_else(|| index_words(text).into(), |worded| worded.words.as_slice().into())
    }
}

/// Changes to a memory: what is none stays.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// A new text.
    pub text: Option<String>,
    /// A new type.
    pub kind: Option<String>,
    /// New tags.
    pub tags: Option<Vec<String>>,
    /// New metadata.
    pub metadata: Option<Map<String, Value>>,
    /// Another tier.
    pub tier: Option<MemoryTier>,
    /// Another session, or none.
    pub session: Option<Option<String>>,
    /// Another time.
    pub timestamp: Option<Timestamp>,
}

impl Patch {
    /// `content` with the changes.
    pub fn apply(self, content: &Content) -> Content {
        Content {
            tier: self.tier.unwrap_or(content.tier),
            kind: self.kind.unwrap_or_else(|| content.kind.clone()),
            text: self.text.unwrap_or_else(|| content.text.clone()),
            tags: self.tags.unwrap_or_else(|| content.tags.clone()),
            metadata: self.metadata.unwrap_or_else(|| content.metadata.clone()),
            session: self.session.unwrap_or_else(|| content.session.clone()),
            timestamp: self.timestamp.unwrap_or(content.timestamp),
        }
    }

    /// The text that takes the place of `text`, where it is another one.
    pub fn other_text(&self, text: &str) -> Option<&str> {
        self.text.as_deref().filter(|new| *new != text)
    }

    /// Whether the words that `content` is found by change, those of its text or of its day.
    pub fn changes_words(&self, content: &Content) -> bool {
        self.other_text(&content.text).is_some() || self.timestamp.is_some_and(|at| at != content.timestamp)
    }
}

/// What a write asks for: of the user's quota, and of the bound of short-term memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Demand {
    /// Bytes that must fit into the quota (negative where the level falls); none where it is not asked.
    pub quota: Option<i64>,
    /// Bytes that must fit into `memory.stm_bytes_max`; none where it is not asked.
    pub short: Option<i64>,
}

impl Demand {
    /// Of the step from `before` (none for a new memory) to `after`, each a tier and a size.
    ///
    /// Growth asks, shrinking never does. A step out of short-term asks for its growth alone, since its bytes are in the
    /// level already, but asks even where there is none: the level must then lie within the limit.
    pub fn of(before: Option<(MemoryTier, i64)>, after: (MemoryTier, i64)) -> Self {
        let (tier, size) = after;
        let growth = size.saturating_sub(before.map_or(0, |(_, size)| size));
        let was_short = before.is_some_and(|(tier, _)| tier == MemoryTier::Short);
        if tier == MemoryTier::Short {
            let short = if was_short { growth } else { size };
            return Self { quota: None, short: Some(short).filter(|short| *short > 0) };
        }
        Self { quota: Some(growth).filter(|growth| was_short || *growth > 0), short: None }
    }
}

/// Which memories are meant; what is empty or none does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Any of these tiers.
    pub tiers: Vec<MemoryTier>,
    /// Any of these types.
    pub kinds: Vec<String>,
    /// All of these tags.
    pub tags: Vec<String>,
    /// Equal values at the top level of the metadata.
    pub metadata: Map<String, Value>,
    /// This session.
    pub session: Option<String>,
    /// Stored later than this.
    pub created_after: Option<Timestamp>,
    /// Stored earlier than this.
    pub created_before: Option<Timestamp>,
    /// Happened later than this.
    pub after: Option<Timestamp>,
    /// Happened earlier than this.
    pub before: Option<Timestamp>,
}

impl Filter {
    /// Whether tags and metadata, which are not columns of their own, pass.
    pub fn passes(&self, tags: &[String], metadata: &Map<String, Value>) -> bool {
        self.tags.iter().all(|tag| tags.contains(tag))
            && self.metadata.iter().all(|(key, value)| metadata.get(key).is_some_and(|found| same(found, value)))
    }
}

/// Whether two JSON values are equal, 1 and 1.0 included. Whole numbers are held against each other exactly: as floats, those
/// past 2^53 would equal their neighbours.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || (left.is_f64() || right.is_f64()) && left.as_f64() == right.as_f64()
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|found| same(value, found)))
        }
        _ => left == right,
    }
}

/// What a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Meaning and words.
    #[default]
    Hybrid,
    /// Meaning alone.
    Semantic,
    /// Words alone.
    Keyword,
}

impl Mode {
    /// The mode of that name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "hybrid" => Some(Self::Hybrid),
            "semantic" => Some(Self::Semantic),
            "keyword" => Some(Self::Keyword),
            _ => None,
        }
    }
}

/// A memory that answers a search.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The memory.
    pub memory: Memory,
    /// How well it answers, 0 to 1, and by which part.
    pub parts: Parts,
    /// Its neighbours in the session, oldest first.
    pub context: Vec<Memory>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn content(text: &str) -> Content {
        Content {
            tier: MemoryTier::Long,
            kind: "note".to_owned(),
            text: text.to_owned(),
            tags: Vec::new(),
            metadata: Map::new(),
            session: None,
            timestamp: Timestamp(0),
        }
    }

    #[test]
    fn numbers_are_equal_by_value_and_whole_ones_exactly() {
        let filter =
            |value: Value| Filter { metadata: Map::from_iter([("id".to_owned(), value)]), ..Filter::default() };
        let passes =
            |wanted: Value, found: Value| filter(wanted).passes(&[], &Map::from_iter([("id".to_owned(), found)]));
        assert!(passes(json!(1), json!(1.0)) && passes(json!([-5]), json!([-5.0])));
        assert!(passes(json!(1_234_567_890_123_456_789_u64), json!(1_234_567_890_123_456_789_u64)));
        assert!(!passes(json!(1_234_567_890_123_456_789_u64), json!(1_234_567_890_123_456_700_u64)));
        assert!(!passes(json!({"a": 9_007_199_254_740_993_i64}), json!({"a": 9_007_199_254_740_992_i64})));
    }

    #[test]
    fn a_memory_counts_to_the_byte() {
        let mut memory = content("héllo");
        assert_eq!(stored_bytes(&memory, 1), 6 + 1_536 + 162);
        memory.tags = vec!["x".to_owned(), "ÿ".to_owned()];
        memory.metadata = json!({"a": [1, {"b": null}]}).as_object().unwrap().clone();
        let json = r#"["x","ÿ"]{"a":[1,{"b":null}]}"#.len();
        let json = i64::try_from(json).unwrap();
        assert_eq!(stored_bytes(&memory, 3), 6 + 3 * 1_536 + 162 + json);
        let memory = Memory {
            key: MemoryKey(1),
            id: MemoryId(uuid::Uuid::nil()),
            size_bytes: stored_bytes(&memory, 3),
            content: memory,
            created_at: Timestamp(0),
            last_seen_at: None,
            expires_at: None,
        };
        assert_eq!(memory.windows(), 3);
    }

    #[test]
    fn texts_that_differ_in_form_alone_are_equal() {
        assert_eq!(content_hash(&content(" Cafe\u{301}\n")), content_hash(&content("Café")));
        assert_ne!(content_hash(&content("Café")), content_hash(&content("Cafe")));
        assert!(content_hash(&content("x")) >= 0);
    }

    #[test]
    fn equal_texts_of_another_tier_type_or_session_are_no_duplicates() {
        let memory = content("Café");
        for other in [
            Content { tier: MemoryTier::Short, ..memory.clone() },
            Content { kind: "plan".to_owned(), ..memory.clone() },
            Content { session: Some("s".to_owned()), ..memory.clone() },
        ] {
            assert_ne!(content_hash(&other), content_hash(&memory));
        }
    }

    #[test]
    fn growth_asks_and_shrinking_never_does() {
        use MemoryTier::{Intermediate, Long, Short};
        let of = |before, after| {
            let demand = Demand::of(before, after);
            (demand.quota, demand.short)
        };
        assert_eq!(of(None, (Long, 10)), (Some(10), None));
        assert_eq!(of(None, (Short, 10)), (None, Some(10)));
        assert_eq!(of(Some((Long, 10)), (Long, 12)), (Some(2), None));
        assert_eq!(of(Some((Long, 10)), (Intermediate, 9)), (None, None));
        assert_eq!(of(Some((Short, 10)), (Long, 10)), (Some(0), None));
        assert_eq!(of(Some((Short, 10)), (Long, 7)), (Some(-3), None));
        assert_eq!(of(Some((Long, 10)), (Short, 9)), (None, Some(9)));
        assert_eq!(of(Some((Short, 10)), (Short, 9)), (None, None));
    }

    #[test]
    fn metadata_passes_where_top_level_values_are_equal() {
        let of = |value: Value| value.as_object().unwrap().clone();
        let filter = Filter { metadata: of(json!({"turn": 1.0, "who": "me"})), ..Filter::default() };
        assert!(filter.passes(&[], &of(json!({"turn": 1, "who": "me", "more": []}))));
        assert!(!filter.passes(&[], &of(json!({"turn": 2, "who": "me"}))));
        assert!(!filter.passes(&[], &of(json!({"turn": 1}))));
    }
}
