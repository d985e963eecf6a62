//! What mem0's `get_all` gives, by its library and by its service.

use chrono::{NaiveDate, NaiveDateTime};
use serde_json::{Map, Value};

use super::pick::Picked;
use super::{Format, Item, Source, Terms, id, not_over};
use crate::domain::Result;
use crate::domain::field::{Why, instant, text_of_bytes};
use crate::domain::memory::field::{metadata, session, tags};
use crate::domain::memory::{Content, METADATA_BYTES_MAX, MemoryTier};
use crate::domain::unit::Timestamp;

/// What is read of a record.
const NAMES: [&str; 12] = [
    "id",
    "memory",
    "metadata",
    "categories",
    "run_id",
    "created_at",
    "expiration_date",
    "user_id",
    "agent_id",
    "app_id",
    "actor_id",
    "role",
];
/// Whose words a memory is: kept as metadata, where they say nothing of it themselves.
const SPEAKERS: [&str; 5] = ["user_id", "agent_id", "app_id", "actor_id", "role"];
/// The type of a memory from there.
const KIND: &str = "memory";

/// The memory that a record describes.
pub(super) fn item(record: &str, terms: &Terms) -> Result<Item, Why> {
    let picked = Picked::of(record, NAMES)?;
    let id = picked.optional("id", id)?;
    let timestamp = picked.optional("created_at", created(terms.now))?;
    let mut kept: Map<String, Value> = picked.optional("metadata", metadata)?.unwrap_or_default();
    for name in SPEAKERS {
        let said = picked.optional(name, text_of_bytes(1..=METADATA_BYTES_MAX))?;
        if let Some(said) = said {
            kept.entry(name).or_insert(Value::from(said));
        }
    }
    let content = Content {
        tier: MemoryTier::Long,
        kind: KIND.to_owned(),
        text: picked.required("memory", text_of_bytes(1..=terms.text_bytes_max))?,
        tags: picked.optional("categories", tags)?.unwrap_or_default(),
        metadata: metadata(Value::Object(kept)).map_err(|why| format!("metadata: {why}"))?,
        session: picked.optional("run_id", session)?,
        timestamp: timestamp.unwrap_or(terms.now),
    };
    let expires_at = picked.optional("expiration_date", |value| expiry(value, terms.now))?;
    let source = Source::of_item(Format::Mem0, id.as_deref(), &content, timestamp);
    Ok(Item { content, embedding: None, source, origin: None, expires_at })
}

/// A time in RFC 3339, or one without an offset, which is UTC.
fn created(now: Timestamp) -> impl Fn(Value) -> Result<Timestamp, Why> {
    move |value| {
        let naive = value.as_str().and_then(|text| text.replace(' ', "T").parse::<NaiveDateTime>().ok());
        let value = naive.map_or(value, |naive| Value::from(format!("{}Z", naive.format("%Y-%m-%dT%H:%M:%S%.f"))));
        crate::domain::memory::field::happened(now)(value)
    }
}

/// A date, which ends with its day, or a time.
fn expiry(value: Value, now: Timestamp) -> Result<Timestamp, Why> {
    let date = value.as_str().and_then(|text| text.parse::<NaiveDate>().ok());
    let end = date.and_then(|date| date.succ_opt()).and_then(|next| next.and_hms_opt(0, 0, 0));
    let at = match end {
        Some(end) => Timestamp(end.and_utc().timestamp_millis()),
        None => instant(value).map_err(|why| format!("{why}, or a date"))?,
    };
    not_over(at, now)
}
