//! A walk through JSON that is known to be valid, value by value, without building what is not wanted: an input of many
//! megabytes costs no more memory than its text.

use std::ops::Range;

/// Where the one value of a text stands.
pub(super) fn whole(text: &str) -> Range<usize> {
    let start = text.bytes().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(text.len());
    start..end_of(text.as_bytes(), start)
}

/// The text of a place.
pub(super) fn at(text: &str, place: Range<usize>) -> &str {
    text.get(place).unwrap_or_default()
}

/// Whether a text that need not be valid begins with an object that has a member of one of these names.
pub(super) fn has_member(text: &str, names: &[&str]) -> bool {
    let Some(mut walk) = Walk::object(text, &whole(text)) else { return false };
    while let Some(name) = walk.element(text) {
        if names.contains(&at(text, name).trim_matches('"')) {
            return true;
        }
        if walk.element(text).is_none() {
            return false;
        }
    }
    false
}

/// The elements of a list or the members of an object, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    at: usize,
}

impl Walk {
    /// Into the list at `place`; none where something else stands there.
    pub(super) fn list(text: &str, place: &Range<usize>) -> Option<Self> {
        Self::into(text, place, b'[')
    }

    /// Into the object at `place`; none where something else stands there.
    pub(super) fn object(text: &str, place: &Range<usize>) -> Option<Self> {
        Self::into(text, place, b'{')
    }

    fn into(text: &str, place: &Range<usize>, open: u8) -> Option<Self> {
        let first = *text.as_bytes().get(place.start)?;
        (first == open).then_some(Self { at: place.start.saturating_add(1) })
    }

    /// How far it has come.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// The next element; none at the end.
    pub(super) fn element(&mut self, text: &str) -> Option<Range<usize>> {
        let bytes = text.as_bytes();
        let rest = bytes.get(self.at..)?;
        let skipped = rest.iter().position(|byte| !matches!(byte, b',' | b':') && !byte.is_ascii_whitespace())?;
        let start = self.at.saturating_add(skipped);
        if matches!(bytes.get(start), None | Some(b']' | b'}')) {
            return None;
        }
        self.at = end_of(bytes, start);
        Some(start..self.at)
    }

    /// The next member, its name with its quotation marks and its value; none at the end.
    pub(super) fn member(&mut self, text: &str) -> Option<(Range<usize>, Range<usize>)> {
        let name = self.element(text)?;
        Some((name, self.element(text)?))
    }
}

/// Where the value that begins at `start` ends.
fn end_of(bytes: &[u8], start: usize) -> usize {
    let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace();
    match bytes.get(start) {
        Some(b'"') => end_of_text(bytes, start),
        Some(b'[' | b'{') => end_of_nested(bytes, start),
        Some(_) => {
            let rest = bytes.get(start..).unwrap_or_default();
            rest.iter().position(is_end).map_or(bytes.len(), |length| start.saturating_add(length))
        }
        None => bytes.len(),
    }
}

fn end_of_nested(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0_usize, start);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = end_of_text(bytes, at);
                continue;
            }
            b'[' | b'{' => depth = depth.saturating_add(1),
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at.saturating_add(1);
                }
            }
            _ => {}
        }
        at = at.saturating_add(1);
    }
    bytes.len()
}

fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start.saturating_add(1);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at.saturating_add(1),
            b'\\' => at = at.saturating_add(2),
            _ => at = at.saturating_add(1),
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::domain::json::check;

    fn elements(text: &str) -> Vec<Value> {
        let mut walk = Walk::list(text, &whole(text)).unwrap();
        std::iter::from_fn(|| walk.element(text)).map(|place| serde_json::from_str(at(text, place)).unwrap()).collect()
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_walk_meets_what_a_parser_meets(list in prop::collection::vec(json(), 0..6), pretty: bool) {
            let list = Value::from(list);
            let text = if pretty { serde_json::to_string_pretty(&list).unwrap() } else { list.to_string() };
            check(&text).unwrap();
            // What a parser makes of it: not every number that is written comes back the same.
            let parsed: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(Value::from(elements(&text)), parsed);
        }

        #[test]
        fn what_is_checked_is_what_a_parser_takes(text in "[\\[\\]{}\",:0-9eE.+a-z\\\\ -]{0,24}") {
            prop_assert_eq!(check(&text).is_ok(), serde_json::from_str::<Value>(&text).is_ok());
        }

        #[test]
        fn a_walk_through_anything_ends(text in ".{0,40}") {
            let mut walk = Walk { at: 0 };
            let mut steps = 0;
            while walk.element(&text).is_some() {
                steps += 1;
                assert!(steps <= 200);
            }
        }
    }
}
