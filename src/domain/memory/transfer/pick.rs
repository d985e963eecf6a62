//! The wanted members of an object, each as the text it stands there as: nothing is built of what is not wanted.

use std::ops::Range;

use serde_json::Value;

use super::scan::{self, Walk};
use crate::domain::Result;
use crate::domain::field::Why;

/// Largest value that is built, in bytes as written; texts are free of it, since they cost what they are.
const BUILT_BYTES_MAX: usize = 256 * 1024;
/// Most characters of a name that is shown in a refusal.
const NAME_CHARACTERS_SHOWN: usize = 64;

/// The members of these names.
pub(super) struct Picked<'t, const N: usize> {
    text: &'t str,
    names: [&'static str; N],
    found: [Option<Range<usize>>; N],
    /// The first member of another name.
    unknown: Option<String>,
}

impl<'t, const N: usize> Picked<'t, N> {
    /// From the object that `text` is.
    pub(super) fn of(text: &'t str, names: [&'static str; N]) -> Result<Self, Why> {
        let walk = Walk::object(text, &scan::whole(text));
        let mut walk = walk.ok_or_else(|| "the record: must be an object".to_owned())?;
        let mut picked = Self { text, names, found: std::array::from_fn(|_| None), unknown: None };
        while let Some((name, value)) = walk.member(text) {
            let name: String = serde_json::from_str(scan::at(text, name)).unwrap_or_default();
            let place = names.iter().position(|known| *known == name);
            match place.and_then(|place| picked.found.get_mut(place)) {
                Some(found) => *found = Some(value),
                None => {
                    picked.unknown.get_or_insert_with(|| name.chars().take(NAME_CHARACTERS_SHOWN).collect());
                }
            }
        }
        Ok(picked)
    }

    /// The first member of another name.
    pub(super) fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// A member as it is written; none where it is missing or null.
    pub(super) fn raw(&self, name: &str) -> Option<&'t str> {
        self.place(name).map(|place| scan::at(self.text, place))
    }

    /// Where a member's value stands; none where it is missing or null.
    pub(super) fn place(&self, name: &str) -> Option<Range<usize>> {
        let known = self.names.iter().position(|known| *known == name)?;
        let place = self.found.get(known).cloned().flatten()?;
        (scan::at(self.text, place.clone()) != "null").then_some(place)
    }

    /// A member that may be missing or null.
    pub(super) fn optional<T>(
        &self,
        name: &str,
        parse: impl FnOnce(Value) -> Result<T, Why>,
    ) -> Result<Option<T>, Why> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        value(raw).and_then(parse).map(Some).map_err(|why| format!("{name}: {why}"))
    }

    /// A member that must be there.
    pub(super) fn required<T>(&self, name: &str, parse: impl FnOnce(Value) -> Result<T, Why>) -> Result<T, Why> {
        self.optional(name, parse)?.ok_or_else(|| format!("{name}: is required"))
    }
}

/// The value that is written as `raw`.
pub(super) fn value(raw: &str) -> Result<Value, Why> {
    if raw.len() > BUILT_BYTES_MAX && !raw.starts_with('"') {
        return Err(format!("must be written in at most {BUILT_BYTES_MAX} bytes"));
    }
    serde_json::from_str(raw).map_err(|error| format!("cannot be read: {}", said(&error)))
}

/// What a parser says, without where: many lines that are wrong alike shall read alike.
pub(super) fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}
