//! The words in which the description speaks of values: JSON Schema, as `OpenAPI` 3.1 takes it.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

/// What can be said of a schema beside its kind.
pub(super) trait Told: Sized {
    /// What it means.
    fn about(self, text: &str) -> Self;

    /// What holds where nothing is given.
    fn default(self, value: impl Into<Value>) -> Self;
}

impl Told for Value {
    fn about(mut self, text: &str) -> Self {
        self["description"] = Self::from(text);
        self
    }

    fn default(mut self, value: impl Into<Value>) -> Self {
        self["default"] = value.into();
        self
    }
}

/// A text of a number of characters.
pub(super) fn text(characters: RangeInclusive<usize>) -> Value {
    json!({"type": "string", "minLength": characters.start(), "maxLength": characters.end()})
}

/// A text of at most so many bytes of UTF-8, which is at most as many characters.
pub(super) fn text_of_bytes(most: usize) -> Value {
    text(1..=most).about(&format!("At most {most} bytes of UTF-8."))
}

/// A text of any length, as answers hold.
pub(super) fn words() -> Value {
    json!({"type": "string"})
}

/// An instant in RFC 3339.
pub(super) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// A day of the configured zone.
pub(super) fn date() -> Value {
    json!({"type": "string", "format": "date"})
}

/// An id.
pub(super) fn id() -> Value {
    json!({"type": "string", "format": "uuid"})
}

/// One of some names.
pub(super) fn one_of<'n>(names: impl IntoIterator<Item = &'n str>) -> Value {
    json!({"type": "string", "enum": names.into_iter().collect::<Vec<&str>>()})
}

/// A whole number within bounds.
pub(super) fn whole(bounds: RangeInclusive<i64>) -> Value {
    json!({"type": "integer", "minimum": bounds.start(), "maximum": bounds.end()})
}

/// A whole number of 64 bits.
pub(super) fn number() -> Value {
    json!({"type": "integer", "format": "int64"})
}

/// A count: a whole number from 0.
pub(super) fn count() -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 0})
}

/// A number from 0 to 1.
pub(super) fn share() -> Value {
    json!({"type": "number", "minimum": 0, "maximum": 1})
}

/// True or false.
pub(super) fn flag() -> Value {
    json!({"type": "boolean"})
}

/// A list of any length.
pub(super) fn list(of: Value) -> Value {
    json!({"type": "array", "items": of})
}

/// A list of a number of elements.
pub(super) fn list_of(of: Value, elements: RangeInclusive<usize>) -> Value {
    json!({"type": "array", "items": of, "minItems": elements.start(), "maxItems": elements.end()})
}

/// An object of any members, of bounded size and depth.
pub(super) fn free_object(bytes: usize, depth: usize) -> Value {
    let bounds = format!("Any members; at most {bytes} bytes as compact JSON, nested at most {depth} deep.");
    json!({"type": "object", "additionalProperties": true}).about(&bounds)
}

/// What `components/schemas` has under that name.
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The same, or null.
pub(super) fn or_null(mut schema: Value) -> Value {
    if schema["$ref"].is_string() {
        return json!({"anyOf": [schema, {"type": "null"}]});
    }
    if let Some(kind) = schema["type"].as_str().filter(|kind| *kind != "null") {
        schema["type"] = json!([kind, "null"]);
    }
    if let Some(names) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        names.push(Value::Null);
    }
    schema
}

/// An object as it is described, field by field.
pub(super) struct Object {
    properties: Map<String, Value>,
    required: Vec<&'static str>,
    is_body: bool,
}

/// The object of a request: what is not named is refused, and null in an optional field counts as absent.
pub(super) fn body() -> Object {
    Object { properties: Map::new(), required: Vec::new(), is_body: true }
}

/// The object of an answer, to which later versions may add.
pub(super) fn answer() -> Object {
    Object { properties: Map::new(), required: Vec::new(), is_body: false }
}

impl Object {
    /// A field that is always there.
    pub(super) fn has(mut self, name: &'static str, schema: Value) -> Self {
        self.properties.insert(name.to_owned(), schema);
        self.required.push(name);
        self
    }

    /// A field that may be absent.
    pub(super) fn may(mut self, name: &'static str, schema: Value) -> Self {
        let schema = if self.is_body { or_null(schema) } else { schema };
        self.properties.insert(name.to_owned(), schema);
        self
    }

    /// The schema.
    pub(super) fn done(self) -> Value {
        let mut schema = json!({"type": "object", "properties": self.properties});
        if !self.required.is_empty() {
            schema["required"] = json!(self.required);
        }
        if self.is_body {
            schema["additionalProperties"] = json!(false);
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_absent_of_a_body_may_be_null() {
        let schema = body().has("a", whole(1..=2)).may("b", one_of(["x"])).may("c", named("D")).done();
        assert_eq!(schema["required"], json!(["a"]));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["b"], json!({"type": ["string", "null"], "enum": ["x", null]}));
        assert_eq!(schema["properties"]["c"]["anyOf"][1]["type"], "null");
        assert_eq!(or_null(words()), json!({"type": ["string", "null"]}));
        assert_eq!(answer().may("b", flag()).done()["properties"]["b"]["type"], "boolean");
    }
}
