//! A JSON object whose text is changed where something must change, and nowhere else.

use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
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

impl Object {
    /// Reads a text.
    ///
    /// # Errors
    /// `Malformed` for what is no JSON; `Invalid` for what is no object, or names a member twice: two readers could each
    /// believe another one.
    pub fn parse(text: String) -> Result<Self> {
        let malformed = |error: serde_json::Error| Error::Malformed(format!("malformed JSON: {error}"));
        if !text.trim_start().starts_with('{') {
            json::check(&text).map_err(|error| json::unreadable(&text, &error))?;
            return Err(Error::invalid("body", "must be an object"));
        }
        let mut reader = serde_json::Deserializer::from_str(&text);
        let members = reader.deserialize_map(Members(&text)).and_then(|members| reader.end().map(|()| members));
        let members = members.map_err(malformed)?;
        let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(Error::invalid(pair.first().copied().unwrap_or_default(), "is there twice"));
        }
        Ok(Self { text, members, added: Vec::new() })
    }

    /// The text of a member's value.
    pub fn raw(&self, name: &str) -> Option<&str> {
        let member = self.members.iter().find(|member| member.name == name)?;
        member.changed.as_deref().or_else(|| self.text.get(member.place.clone()))
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
            text.push_str(member.changed.as_deref().or_else(|| self.text.get(member.place.clone())).unwrap_or("null"));
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
        for text in ["[]", "null", "5", "{\"a\":1,\"a\":2}", "{\"a\":1,\"b\":2,\"\\u0061\":2}"] {
            assert!(matches!(Object::parse(text.to_owned()), Err(Error::Invalid(_))), "{text}");
        }
    }
}
