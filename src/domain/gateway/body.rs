//! A JSON object whose text is changed where something must change, and nowhere else.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::{Error, Result, json};

/// An object as the text it came in, and where in it each member's value lies.
#[derive(Clone, Debug)]
pub struct Object {
    text: String,
    members: Vec<Member>,
    added: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    place: Range<usize>,
    changed: Option<String>,
}

struct Members<'t>(&'t str);

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Vec<Member>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Member>, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            // The value borrows from the text, so its place is the distance between the two.
            let start = value.get().as_ptr().addr().wrapping_sub(self.0.as_ptr().addr());
            let end = start.saturating_add(value.get().len());
            members.push(Member { name, place: start..end, changed: None });
        }
        Ok(members)
    }
}

/// Looks through a value, and keeps the first name that one of its objects has twice.
struct Twice<'f>(&'f mut Option<String>);

impl<'de> DeserializeSeed<'de> for Twice<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Twice<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                self.0.get_or_insert(name);
            } else {
                names.insert(name);
            }
            map.next_value_seed(Twice(self.0))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Twice(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

impl Object {
    /// Reads a text.
    ///
    /// # Errors
    /// `Malformed` for what is no JSON; `Invalid` for what is no object, or names a member twice at whatever depth: two readers
    /// could each believe another one.
    pub fn parse(text: String) -> Result<Self> {
        let malformed = |error: serde_json::Error| Error::Malformed(format!("malformed JSON: {error}"));
        if !text.trim_start().starts_with('{') {
            json::check(&text).map_err(|error| json::unreadable(&text, &error))?;
            return Err(Error::invalid("body", "must be an object"));
        }
        let mut reader = serde_json::Deserializer::from_str(&text);
        let members = reader.deserialize_map(Members(&text)).and_then(|members| reader.end().map(|()| members));
        let members = members.map_err(malformed)?;
        let mut twice = None;
        Twice(&mut twice).deserialize(&mut serde_json::Deserializer::from_str(&text)).map_err(malformed)?;
        match twice {
            Some(name) => Err(Error::invalid(name, "is there twice")),
            None => Ok(Self { text, members, added: Vec::new() }),
        }
    }

    /// Each member's name and the text of its value.
    pub fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        let added = self.added.iter().map(|(name, raw)| (*name, raw.as_str()));
        let members = self.members.iter().map(|member| (member.name.as_str(), self.raw_of(member)));
        added.chain(members)
    }

    fn raw_of<'o>(&'o self, member: &'o Member) -> &'o str {
        member.changed.as_deref().or_else(|| self.text.get(member.place.clone())).unwrap_or("null")
    }

    /// The text of a member's value.
    pub fn raw(&self, name: &str) -> Option<&str> {
        let member = self.members.iter().find(|member| member.name == name)?;
        Some(self.raw_of(member))
    }

    /// The value of a member; null where there is none.
    ///
    /// # Errors
    /// `Malformed` for what is nested too deeply or holds half a character.
    pub fn value(&self, name: &str) -> Result<Value> {
        let Some(raw) = self.raw(name) else { return Ok(Value::Null) };
        serde_json::from_str(raw).map_err(|error| Error::Malformed(format!("malformed JSON in {name}: {error}")))
    }

    /// Changes the value of a member, or adds it. `raw` is JSON.
    pub fn set(&mut self, name: &'static str, raw: String) {
        if let Some(member) = self.members.iter_mut().find(|member| member.name == name) {
            member.changed = Some(raw);
            return;
        }
        self.added.retain(|(known, _)| *known != name);
        self.added.push((name, raw));
    }

    /// Takes a member away. The others keep their values to the byte, not the spaces between them.
    pub fn remove(&mut self, name: &str) {
        if !self.members.iter().any(|member| member.name == name) {
            return;
        }
        let mut text = String::with_capacity(self.text.len());
        let mut members = Vec::with_capacity(self.members.len());
        for member in self.members.iter().filter(|member| member.name != name) {
            text.push(if members.is_empty() { '{' } else { ',' });
            text.push_str(&Value::from(member.name.as_str()).to_string());
            text.push(':');
            let start = text.len();
            text.push_str(self.raw_of(member));
            members.push(Member { name: member.name.clone(), place: start..text.len(), changed: None });
        }
        text.push_str(if members.is_empty() { "{}" } else { "}" });
        self.text = text;
        self.members = members;
    }

    /// The text, with what was changed.
    pub fn to_text(&self) -> String {
        if self.added.is_empty() && self.members.iter().all(|member| member.changed.is_none()) {
            return self.text.clone();
        }
        let mut text = String::with_capacity(self.text.len().saturating_add(128));
        let open = self.text.find('{').unwrap_or_default().saturating_add(1);
        text.push_str(self.text.get(..open).unwrap_or_default());
        for (index, (name, raw)) in self.added.iter().enumerate() {
            let before = if index == 0 { "\"" } else { ",\"" };
            text.extend([before, name, "\":", raw]);
        }
        if !self.added.is_empty() && !self.members.is_empty() {
            text.push(',');
        }
        let mut from = open;
        for member in &self.members {
            if let Some(changed) = &member.changed {
                text.push_str(self.text.get(from..member.place.start).unwrap_or_default());
                text.push_str(changed);
                from = member.place.end;
            }
        }
        text.push_str(self.text.get(from..).unwrap_or_default());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.to_owned()).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_as_it_was_byte_for_byte() {
        let text = "  { \"a\" : 1.50e3 ,\"ü\":\"\\u00e9\",\n\"model\": \"x\", \"z\":[ 1,2 ] }\n";
        assert_eq!(object(text).to_text(), text);
        let mut changed = object(text);
        changed.set("model", "\"y\"".to_owned());
        assert_eq!(changed.raw("model"), Some("\"y\""));
        assert_eq!(changed.to_text(), text.replace("\"x\"", "\"y\""));
    }

    #[test]
    fn what_is_new_comes_first() {
        let mut one = object("{}");
        one.set("max_tokens", "5".to_owned());
        assert_eq!(one.to_text(), "{\"max_tokens\":5}");
        let mut two = object("{\"a\":{\"max_tokens\":1}}");
        two.set("max_tokens", "5".to_owned());
        two.set("b", "true".to_owned());
        two.set("max_tokens", "6".to_owned());
        assert_eq!(two.to_text(), "{\"b\":true,\"max_tokens\":6,\"a\":{\"max_tokens\":1}}");
    }

    #[test]
    fn a_member_can_be_taken_away() {
        let mut one = object("{ \"a\": 1.0 , \"gone\": {\"x\":[1]}, \"b\": [ 2 ] }");
        one.remove("nothing");
        one.remove("gone");
        one.set("b", "3".to_owned());
        assert_eq!(one.to_text(), "{\"a\":1.0,\"b\":3}");
        let mut only = object("{\"gone\":1}");
        only.remove("gone");
        assert_eq!(only.to_text(), "{}");
    }

    #[test]
    fn what_is_no_object_or_says_a_thing_twice_is_refused() {
        for text in ["", "{", "{\"a\":}", "nul", "{} {}", "{\"a\":01}"] {
            assert!(matches!(Object::parse(text.to_owned()), Err(Error::Malformed(_))), "{text}");
        }
        for text in [
            "[]",
            "null",
            "5",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"b\":2,\"\\u0061\":2}",
            "{\"z\":[1.5,-1,true,null,{\"a\":\"x\",\"b\":{},\"\\u0061\":null}]}",
        ] {
            assert!(matches!(Object::parse(text.to_owned()), Err(Error::Invalid(_))), "{text}");
        }
        object("{\"a\":{\"a\":[{\"a\":1},{\"a\":2}]},\"b\":{\"a\":3}}");
    }
}
