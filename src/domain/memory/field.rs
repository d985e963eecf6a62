//! The fields of a memory as an input gives them, and their bounds.

use serde_json::{Map, Value};

use super::{
    Embedding, METADATA_BYTES_MAX, MemoryTier, SESSION_CHARACTERS_MAX, TAG_CHARACTERS_MAX, TAGS_MAX,
    TYPE_CHARACTERS_MAX, unique,
};
use crate::domain::Result;
use crate::domain::field::{Why, instant, object, text};
use crate::domain::ledger::{AHEAD_MS_MAX, METADATA_DEPTH_MAX};
use crate::domain::unit::Timestamp;

/// A tier by its name.
pub(crate) fn tier(value: Value) -> Result<MemoryTier, Why> {
    let names = MemoryTier::ALL.map(MemoryTier::as_str);
    value.as_str().and_then(MemoryTier::parse).ok_or_else(|| format!("must be one of {}", names.join(", ")))
}

/// A type.
pub(crate) fn kind(value: Value) -> Result<String, Why> {
    text(1..=TYPE_CHARACTERS_MAX)(value)
}

/// The name of a session.
pub(crate) fn session(value: Value) -> Result<String, Why> {
    text(1..=SESSION_CHARACTERS_MAX)(value)
}

/// A set of tags.
pub(crate) fn tags(value: Value) -> Result<Vec<String>, Why> {
    let why =
        || format!("must be a list of at most {TAGS_MAX} texts of 1 to {TAG_CHARACTERS_MAX} characters without NUL");
    let Value::Array(items) = value else { return Err(why()) };
    let parsed: Result<Vec<String>, Why> = items.into_iter().map(text(1..=TAG_CHARACTERS_MAX)).collect();
    let tags = unique(parsed.map_err(|_| why())?);
    if tags.len() <= TAGS_MAX { Ok(tags) } else { Err(why()) }
}

/// Metadata.
pub(crate) fn metadata(value: Value) -> Result<Map<String, Value>, Why> {
    match object(METADATA_BYTES_MAX, METADATA_DEPTH_MAX)(value)? {
        Value::Object(map) => Ok(map),
        _ => Err("must be an object".to_owned()),
    }
}

/// When something happened: any past, at most 5 minutes ahead.
pub(crate) fn happened(now: Timestamp) -> impl Fn(Value) -> Result<Timestamp, Why> {
    move |value| {
        let at = instant(value)?;
        if at <= now.plus_millis(AHEAD_MS_MAX) { Ok(at) } else { Err("must lie at most 5 minutes ahead".to_owned()) }
    }
}

/// An embedding as numbers, of any length but 0.
pub(crate) fn embedding(value: Value) -> Result<Embedding, Why> {
    let Value::Array(items) = value else { return Err("must be a list of numbers".to_owned()) };
    let mut numbers = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let number = item.as_f64().ok_or_else(|| format!("element {position} is not a number"))?;
        #[expect(clippy::cast_possible_truncation, reason = "what does not fit becomes infinite, which is refused")]
        numbers.push(number as f32);
    }
    Embedding::normalised(&numbers).map_err(|fault| fault.to_string())
}
