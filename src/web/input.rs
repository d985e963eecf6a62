//! Parsing at the edge: bodies and queries into checked values, with every fault named at once.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::domain::auth::parse_email;
pub(super) use crate::domain::field::{Why, instant, list, object, text, text_of_bytes, whole};
use crate::domain::ledger::{METADATA_BYTES_MAX, METADATA_DEPTH_MAX, ResourceType};
use crate::domain::{Error, Fault, Result};

/// The fields of an object that has not been read yet. What is left at the end is unknown, which is a fault too.
pub(super) struct Fields {
    map: Map<String, Value>,
    prefix: String,
    faults: Vec<Fault>,
}

impl Fields {
    /// Of a JSON body.
    pub(super) fn of_body(body: Value) -> Result<Self> {
        Self::of_value(body, "")
    }

    /// Of an element of a list, whose faults begin with `prefix`.
    pub(super) fn of_value(value: Value, prefix: &str) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { map, prefix: prefix.to_owned(), faults: Vec::new() }),
            _ => Err(Error::invalid(if prefix.is_empty() { "body" } else { prefix }, "must be an object")),
        }
    }

    /// Of a query string. A parameter given twice is a fault.
    pub(super) fn of_query(query: Option<&str>) -> Result<Self> {
        Self::of_query_with(query, &[])
    }

    /// As [`Fields::of_query`]; the parameters `repeated` may be given more than once, and are lists.
    pub(super) fn of_query_with(query: Option<&str>, repeated: &[&str]) -> Result<Self> {
        let mut fields = Self { map: Map::new(), prefix: String::new(), faults: Vec::new() };
        let query = query.unwrap_or_default();
        let bad = || Error::invalid("query", "must be name=value pairs, percent-encoded UTF-8");
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).map_err(|_| bad())?;
        // The decoder puts U+FFFD where bytes are no UTF-8; whoever means that character writes it.
        let has_replacement = pairs.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}'));
        if has_replacement && !query.contains('\u{fffd}') && !query.to_ascii_uppercase().contains("%EF%BF%BD") {
            return Err(bad());
        }
        for (name, value) in pairs {
            if repeated.contains(&name.as_str()) {
                let list = fields.map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                list.as_array_mut().into_iter().for_each(|list| list.push(Value::String(value.clone())));
                continue;
            }
            if fields.map.insert(name.clone(), Value::String(value)).is_some() {
                fields.fault(&name, "must be given once");
            }
        }
        Ok(fields)
    }

    /// Notes a fault.
    pub(super) fn fault(&mut self, name: &str, message: impl Into<String>) {
        let field = match self.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}.{name}"),
        };
        self.faults.push(Fault::new(field, message));
    }

    /// Notes the faults of a failed part; other failures are returned.
    pub(super) fn absorb<T>(&mut self, part: Result<T>) -> Result<Option<T>> {
        match part {
            Ok(value) => Ok(Some(value)),
            Err(Error::Invalid(faults)) => {
                self.faults.extend(faults);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// What was given as a text, to be shown again; empty where there is none.
    pub(super) fn peek(&self, name: &str) -> String {
        self.map.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Drops what a form left empty: a browser sends every field.
    pub(super) fn drop_blank(&mut self) {
        self.map.retain(|_, value| value.as_str() != Some(""));
    }

    /// A form has texts alone: what `name` holds is taken for the whole number or the truth value that it is written as.
    pub(super) fn untext(&mut self, name: &str) {
        let Some(Value::String(text)) = self.map.get(name) else { return };
        let value = match text.trim() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => number.parse::<i64>().map_or_else(|_| Value::from(text.as_str()), Value::from),
        };
        self.map.insert(name.to_owned(), value);
    }

    /// Whether a field is given and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// A field that must be there.
    pub(super) fn required<T>(&mut self, name: &str, parse: impl FnOnce(Value) -> Result<T, Why>) -> Option<T> {
        let faults_before = self.faults.len();
        let value = self.optional(name, parse);
        if value.is_none() && self.faults.len() == faults_before {
            self.fault(name, "is required");
        }
        value
    }

    /// A field that may be absent; null counts as absent.
    pub(super) fn optional<T>(&mut self, name: &str, parse: impl FnOnce(Value) -> Result<T, Why>) -> Option<T> {
        match self.map.remove(name) {
            None | Some(Value::Null) => None,
            Some(value) => match parse(value) {
                Ok(value) => Some(value),
                Err(why) => {
                    self.fault(name, why);
                    None
                }
            },
        }
    }

    /// A field of which null means something: absent, null, or a value.
    #[expect(clippy::option_option, reason = "absent, null and a value are three things")]
    pub(super) fn nullable<T>(&mut self, name: &str, parse: impl FnOnce(Value) -> Result<T, Why>) -> Option<Option<T>> {
        if matches!(self.map.get(name), Some(Value::Null)) {
            self.map.remove(name);
            return Some(None);
        }
        self.optional(name, parse).map(Some)
    }

    /// Builds the whole. `build` gives none only where a required field was faulty.
    pub(super) fn finish<T>(mut self, build: impl FnOnce() -> Option<T>) -> Result<T> {
        let unknown: Vec<String> = self.map.keys().cloned().collect();
        for name in unknown {
            self.fault(&name, "is not a known field");
        }
        if self.faults.is_empty() {
            build().ok_or_else(|| Error::Internal("a field is missing without a fault".to_owned()))
        } else {
            Err(Error::Invalid(self.faults))
        }
    }
}

/// A whole number within bounds.
pub(super) fn integer(bounds: RangeInclusive<i64>) -> impl Fn(Value) -> Result<i64, Why> {
    move |value| match whole(&value) {
        Some(number) if bounds.contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {} to {}", bounds.start(), bounds.end())),
    }
}

/// As [`integer`], of a query parameter.
pub(super) fn integer_text(bounds: RangeInclusive<i64>) -> impl Fn(Value) -> Result<i64, Why> {
    move |value| {
        let number = value.as_str().and_then(|text| text.parse::<i64>().ok());
        integer(bounds.clone())(number.map_or(Value::Null, Value::from))
    }
}

/// True or false.
pub(super) fn flag(value: Value) -> Result<bool, Why> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

/// As [`flag`], of a query parameter.
pub(super) fn flag_text(value: Value) -> Result<bool, Why> {
    match value.as_str() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// An e-mail address.
pub(super) fn email(value: Value) -> Result<String, Why> {
    let text = value.as_str().unwrap_or_default();
    parse_email(text, "").map_err(|_| "must be an e-mail address of at most 254 characters".to_owned())
}

/// One of the resources.
pub(super) fn resource(value: Value) -> Result<ResourceType, Why> {
    value.as_str().and_then(ResourceType::parse).ok_or_else(|| {
        let names: Vec<&str> = ResourceType::ALL.iter().map(|resource| resource.as_str()).collect();
        format!("must be one of {}", names.join(", "))
    })
}

/// Metadata of entries, settlements and runs.
pub(super) fn metadata(value: Value) -> Result<Value, Why> {
    object(METADATA_BYTES_MAX, METADATA_DEPTH_MAX)(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fault_of_a_body_is_named() {
        let mut fields = Fields::of_body(json!({"amount": 0, "colour": 1, "note": "a\0b"})).unwrap();
        let amount = fields.required("amount", integer(1..=5));
        let kind = fields.required("kind", text(1..=3));
        let note = fields.optional("note", text(1..=9));
        let Err(Error::Invalid(faults)) = fields.finish(|| Some((amount?, kind?, note))) else { panic!() };
        let named: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(named, ["amount", "kind", "note", "colour"]);
        assert_eq!(faults[0].message, "must be a whole number from 1 to 5");
    }

    #[test]
    fn numbers_are_whole_and_never_texts() {
        let parse = integer(1..=10);
        assert_eq!(parse(json!(7)), Ok(7));
        assert_eq!(parse(json!(7.0)), Ok(7));
        assert_eq!(integer(i64::MIN..=i64::MAX)(json!(9_007_199_254_740_991.0)), Ok(9_007_199_254_740_991));
        assert!(integer(i64::MIN..=i64::MAX)(json!(9_007_199_254_740_992.0)).is_err());
        for wrong in [json!(0), json!(11), json!(1.5), json!("5"), json!(1_u64 << 63), json!(true)] {
            assert!(parse(wrong).is_err());
        }
    }

    #[test]
    fn metadata_is_bounded_in_depth_and_size() {
        let parse = object(64, 2);
        assert!(parse(json!({"a": {"b": 1}})).is_ok());
        assert!(parse(json!({"a": {"b": []}})).unwrap_err().contains("deeper than 2"));
        assert!(parse(json!({"a": "x".repeat(64)})).unwrap_err().contains("64 bytes"));
        assert!(parse(json!({"a\0": 1})).unwrap_err().contains("NUL"));
        assert!(parse(json!([1])).is_err());
    }

    #[test]
    fn a_query_parameter_given_twice_is_a_fault() {
        let fields = Fields::of_query(Some("days=1&days=2")).unwrap();
        assert!(fields.finish(|| Some(())).is_err());
    }
}
