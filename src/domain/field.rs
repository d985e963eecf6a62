//! Parsing of single values of an input: each refusal names the bound.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::Result;
use super::unit::Timestamp;

/// Why a value is refused, naming the bound.
pub(crate) type Why = String;

/// A text of a number of characters, without NUL.
pub(crate) fn text(bounds: RangeInclusive<usize>) -> impl Fn(Value) -> Result<String, Why> {
    move |value| match value {
        Value::String(text) if text.contains('\0') => Err("must not contain NUL".to_owned()),
        Value::String(text) if bounds.contains(&text.chars().count()) => Ok(text),
        _ => Err(format!("must be a text of {} to {} characters", bounds.start(), bounds.end())),
    }
}

/// A text of a number of bytes of UTF-8, without NUL.
pub(crate) fn text_of_bytes(bounds: RangeInclusive<usize>) -> impl Fn(Value) -> Result<String, Why> {
    move |value| match value {
        Value::String(text) if text.contains('\0') => Err("must not contain NUL".to_owned()),
        Value::String(text) if bounds.contains(&text.len()) => Ok(text),
        _ => Err(format!("must be a text of {} to {} bytes of UTF-8", bounds.start(), bounds.end())),
    }
}

/// A whole number, also one that is written as `5.0`: JSON knows one kind of number.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    // Past 2^53 a number with a fraction point stands for more than one whole number.
    const EXACT: f64 = 9_007_199_254_740_991.0;
    value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)?;
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and well within 64 bits")]
        Some(number as i64)
    })
}

/// A list of a number of elements.
pub(crate) fn list(bounds: RangeInclusive<usize>) -> impl Fn(Value) -> Result<Vec<Value>, Why> {
    move |value| match value {
        Value::Array(items) if bounds.contains(&items.len()) => Ok(items),
        _ => Err(format!("must be a list of {} to {} elements", bounds.start(), bounds.end())),
    }
}

/// An instant in RFC 3339.
pub(crate) fn instant(value: Value) -> Result<Timestamp, Why> {
    value
        .as_str()
        .and_then(Timestamp::parse_rfc3339)
        .ok_or_else(|| "must be a time in RFC 3339, such as 2025-11-09T21:00:00Z".to_owned())
}

/// An object of bounded size (compact JSON) and depth, without NUL.
pub(crate) fn object(bytes: usize, depth: usize) -> impl Fn(Value) -> Result<Value, Why> {
    move |value| {
        if !value.is_object() {
            return Err("must be an object".to_owned());
        }
        if depth_of(&value) > depth {
            return Err(format!("must not nest deeper than {depth}"));
        }
        if has_nul(&value) {
            return Err("must not contain NUL".to_owned());
        }
        if value.to_string().len() > bytes {
            return Err(format!("must be at most {bytes} bytes of JSON"));
        }
        Ok(value)
    }
}

/// Nesting: 1 for an object of plain values.
fn depth_of(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(depth_of).max().unwrap_or(0).saturating_add(1),
        Value::Object(map) => map.values().map(depth_of).max().unwrap_or(0).saturating_add(1),
        _ => 0,
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}
