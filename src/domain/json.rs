//! Whether a text is JSON, and whether it is JSON that can be read.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Error, Fault, Result};

/// Checks that a text is one JSON value, however large its numbers and however deep it is nested.
///
/// # Errors
/// `Malformed`.
pub(crate) fn require_well_formed(text: &str) -> Result<()> {
    // What is ignored is passed over without recursion.
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|error| malformed(&error))
}

/// The failure of a text that `error` kept from being read: well formed and past what can be read, or no JSON.
pub(crate) fn unreadable(text: &str, error: &serde_json::Error) -> Error {
    let said = error.to_string();
    let message = if said.starts_with("number out of range") {
        "holds a number that is out of range"
    } else if said.starts_with("recursion limit exceeded") {
        "is nested too deep"
    } else {
        return malformed(error);
    };
    if let Err(malformed) = require_well_formed(text) {
        return malformed;
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
    let faulty = members.into_iter().filter(|(_, value)| check(value.get()).is_err());
    let faults: Vec<Fault> = faulty.map(|(name, _)| Fault::new(name, message)).collect();
    if faults.is_empty() { Error::invalid("body", message) } else { Error::Invalid(faults) }
}

fn malformed(error: &serde_json::Error) -> Error {
    Error::Malformed(format!("malformed JSON: {error}"))
}

/// Checks that a text is one JSON value that can be read: nesting, numbers and escapes included.
pub(crate) fn check(text: &str) -> serde_json::Result<()> {
    serde_json::from_str::<Checked>(text).map(drop)
}

/// A value that was read and dropped.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Check)
    }
}

struct Check;

impl<'de> Visitor<'de> for Check {
    type Value = Checked;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Checked, A::Error> {
        while list.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        while map.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}
