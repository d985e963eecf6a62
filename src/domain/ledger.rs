//! The append-only record of what was used.

use serde_json::Value;

use super::auth::UserKey;
use super::calendar::Day;
use super::unit::{DAY_MS, EntryId, Timestamp, human_bytes, thousands};

/// A fact may lie this far in the past: 35 days, in milliseconds.
pub const BACKDATE_MS_MAX: i64 = 35 * DAY_MS;
/// A fact may lie this far in the future (clocks differ): 5 minutes, in milliseconds.
pub const AHEAD_MS_MAX: i64 = 5 * 60_000;
/// Most entries of one batch.
pub const BATCH_MAX: usize = 1_000;
/// Metadata of entries, settlements and runs: 4 KiB of compact JSON.
pub const METADATA_BYTES_MAX: usize = 4 * 1024;
/// Deepest nesting of metadata.
pub const METADATA_DEPTH_MAX: usize = 8;
/// Longest name of a model that is counted by itself, in characters.
pub const MODEL_CHARACTERS_MAX: usize = 128;

/// What is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// Tokens of language models, counted by the calendar day.
    LlmTokens,
    /// Bytes of memories held: a level without reset.
    MemoryStorage,
    /// Started minutes of agent runs, counted by the calendar month.
    AgentMinutes,
}

/// Over what time a resource is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
    /// No window: what is held now.
    Level,
}

impl ResourceType {
    /// Every resource, in the order in which answers show them.
    pub const ALL: [Self; 3] = [Self::LlmTokens, Self::MemoryStorage, Self::AgentMinutes];

    /// The name used in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LlmTokens => "llm_tokens",
            Self::MemoryStorage => "memory_storage",
            Self::AgentMinutes => "agent_minutes",
        }
    }

    /// The resource of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.as_str() == text)
    }

    /// The window it is counted in.
    pub const fn window(self) -> Window {
        match self {
            Self::LlmTokens => Window::Day,
            Self::AgentMinutes => Window::Month,
            Self::MemoryStorage => Window::Level,
        }
    }

    /// An amount in words: `45,000 tokens`, `500.00 MB`, `12 minutes`.
    pub fn human(self, amount: i64) -> String {
        match self {
            Self::LlmTokens => format!("{} {}", thousands(amount), if amount == 1 { "token" } else { "tokens" }),
            Self::MemoryStorage => human_bytes(amount),
            Self::AgentMinutes => format!("{} {}", thousands(amount), if amount == 1 { "minute" } else { "minutes" }),
        }
    }
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Recorded by hand.
    Record,
    /// A settled reservation.
    Settlement,
    /// A memory stored, changed, deleted or expired.
    Memory,
    /// A correction by an administrator.
    Correction,
    /// The sum of a closed day, in the place of its entries.
    Closing,
    /// A call of the gateway.
    Gateway,
}

/// An entry that is not written yet.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// Whose.
    pub user: UserKey,
    /// Of what.
    pub resource: ResourceType,
    /// How much: never 0; negative for what is given back.
    pub amount: i64,
    /// When it happened.
    pub timestamp: Timestamp,
    /// The day it counts in, decided once.
    pub day: Day,
    /// Where it comes from.
    pub source: Source,
    /// The entry it takes back.
    pub reverses: Option<EntryId>,
    /// Free-form, an object.
    pub metadata: Option<Value>,
}

/// An entry of the ledger. Never changed, and deleted by an erasure or by retention alone.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Of what.
    pub resource: ResourceType,
    /// How much.
    pub amount: i64,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When it was written.
    pub recorded_at: Timestamp,
    /// The day it counts in.
    pub day: Day,
    /// Where it comes from.
    pub source: Source,
    /// The entry it takes back.
    pub reverses: Option<EntryId>,
    /// Free-form, an object.
    pub metadata: Option<Value>,
}

/// What the metadata of a closing entry call the number of entries that it stands for.
pub const CLOSED_ENTRIES: &str = "closedEntries";

impl Entry {
    /// How many entries a closing entry stands for; none for any other.
    pub fn closed_entries(&self) -> Option<i64> {
        let count = || self.metadata.as_ref()?.get(CLOSED_ENTRIES)?.as_i64();
        if self.source == Source::Closing { count() } else { None }
    }
}

/// What the metadata of an entry of tokens say of the call that used them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelUse {
    /// The model's name.
    pub model: String,
    /// Tokens of the prompt, and of the completion, where they are told; at most the entry's amount.
    pub parts: (i64, i64),
}

impl ModelUse {
    /// Of an entry of `amount` tokens; none where its metadata name no model.
    pub fn of(metadata: Option<&Value>, amount: i64) -> Option<Self> {
        let metadata = metadata?;
        let model = metadata.get("model")?.as_str()?;
        let is_name = !model.is_empty() && model.chars().count() <= MODEL_CHARACTERS_MAX;
        let part = |name| metadata.get(name).and_then(Value::as_i64).unwrap_or(0).clamp(0, amount.max(0));
        is_name.then(|| Self { model: model.to_owned(), parts: (part("promptTokens"), part("completionTokens")) })
    }
}

/// What a user used of a model over some days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelTotal {
    /// The model's name.
    pub model: String,
    /// Entries, without those that take others back.
    pub calls: i64,
    /// Tokens of prompts, as far as they were told.
    pub prompt: i64,
    /// Tokens of completions, as far as they were told.
    pub completion: i64,
    /// Tokens, less what was taken back.
    pub tokens: i64,
}

/// One day of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesDay {
    /// The day.
    pub day: Day,
    /// Sum of the day's entries.
    pub amount: i64,
    /// For a level: what was held at the day's end.
    pub total: Option<i64>,
}

/// One day of a user's history of a resource, as charts show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryDay {
    /// The day.
    pub day: Day,
    /// Sum of the day's entries.
    pub amount: i64,
    /// What counted against the limit at the day's end: the sum of the window up to then; for a level what was held.
    pub standing: i64,
    /// How many requests were refused that day.
    pub refused: i64,
}
