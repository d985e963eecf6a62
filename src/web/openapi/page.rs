//! The document as people read it: its calls with their fields flattened and their bounds in words.

use maud::Markup;
use serde_json::Value;

use crate::view::docs::{Call, Docs, Failure, Field, Group, Reply};

/// Deepest a field is told of: `a[].b.c`.
const DEPTH_MAX: usize = 4;
/// The methods of a path, in the order in which they are shown.
const METHODS: [&str; 4] = ["get", "post", "patch", "delete"];

/// The page.
pub(super) fn render(document: &Value) -> Markup {
    let reader = Reader { document };
    let groups = document["tags"].as_array().into_iter().flatten().map(|tag| reader.group(tag));
    Docs {
        about: paragraphs(&document["info"]["description"]),
        credentials: reader.credentials(),
        groups: groups.collect(),
        failures: reader.failures(),
    }
    .render()
}

struct Reader<'d> {
    document: &'d Value,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn paragraphs(value: &Value) -> Vec<String> {
    value.as_str().unwrap_or_default().split("\n\n").filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

impl Reader<'_> {
    /// What a reference stands for; anything else stands for itself.
    fn follow<'v>(&'v self, value: &'v Value) -> &'v Value {
        let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        pointer.and_then(|pointer| self.document.pointer(pointer)).unwrap_or(value)
    }

    fn credentials(&self) -> Vec<(String, String)> {
        let schemes = members(&self.document["components"]["securitySchemes"]);
        schemes.map(|(name, scheme)| (name.clone(), text(&scheme["description"]))).collect()
    }

    /// Each kind of failure once, as the API answers it.
    fn failures(&self) -> Vec<Failure> {
        let responses = members(&self.document["components"]["responses"]);
        let mut failures: Vec<Failure> = responses
            .filter_map(|(_, response)| {
                let example = &response["content"]["application/problem+json"]["example"];
                let status = example["status"].as_u64()?;
                Some(Failure {
                    status: status.to_string(),
                    meaning: text(&response["description"]),
                    example: pretty(example),
                })
            })
            .collect();
        failures.sort_by(|one, other| one.status.cmp(&other.status));
        failures
    }

    fn group(&self, tag: &Value) -> Group {
        let name = text(&tag["name"]);
        let mut calls = Vec::new();
        for (path, of_path) in members(&self.document["paths"]) {
            for method in METHODS {
                if items(&of_path[method]["tags"]).any(|tag| *tag == name) {
                    calls.push(self.call(path, method, of_path));
                }
            }
        }
        Group { anchor: name.to_lowercase(), about: paragraphs(&tag["description"]), name, calls }
    }

    fn call(&self, path: &str, method: &str, of_path: &Value) -> Call {
        let operation = &of_path[method];
        let parameters = items(&operation["parameters"]).map(|parameter| self.parameter(parameter)).collect();
        let contents = members(&operation["requestBody"]["content"]);
        let (mut media, mut body, mut example) = (Vec::new(), Vec::new(), None);
        for (kind, content) in contents {
            media.push(kind.clone());
            body.clear();
            self.fields(&content["schema"], "", 0, &mut body);
            example = Some(pretty(&content["example"]));
        }
        let (mut replies, mut failures) = (Vec::new(), Vec::new());
        for (status, response) in members(&operation["responses"]) {
            let is_failure = response["$ref"].is_string();
            let told = response.get("description").unwrap_or(&self.follow(response)["description"]);
            let (status, meaning) = (status.clone(), text(told));
            if is_failure {
                failures.push((status, meaning));
            } else {
                replies.push(self.reply(status, meaning, response));
            }
        }
        Call {
            anchor: text(&operation["operationId"]),
            method: method.to_ascii_uppercase(),
            path: path.to_owned(),
            has_twin: of_path["servers"].is_array(),
            summary: text(&operation["summary"]),
            about: paragraphs(&operation["description"]),
            parameters,
            media,
            body_may_be_absent: operation["requestBody"]["required"] == false,
            body,
            example,
            replies,
            failures,
        }
    }

    fn parameter(&self, parameter: &Value) -> Field {
        let parameter = self.follow(parameter);
        let place = match parameter["in"].as_str() {
            Some("path") => "in the path",
            Some("header") => "a header",
            _ => "in the query",
        };
        Field {
            name: text(&parameter["name"]),
            is_required: parameter["required"] == true,
            kind: format!("{place}, {}", self.kind(&parameter["schema"])),
            about: text(&parameter["description"]),
        }
    }

    fn reply(&self, status: String, meaning: String, response: &Value) -> Reply {
        let mut fields = Vec::new();
        let mut examples = Vec::new();
        for (media, content) in members(&response["content"]) {
            if fields.is_empty() {
                self.fields(&content["schema"], "", 0, &mut fields);
            }
            examples.push((media.clone(), pretty(&content["example"])));
        }
        Reply { status, meaning, fields, examples }
    }

    /// The fields of an object, and of what it holds.
    fn fields(&self, schema: &Value, prefix: &str, depth: usize, into: &mut Vec<Field>) {
        let schema = self.follow(schema);
        if depth >= DEPTH_MAX {
            return;
        }
        if schema["type"] == "array" {
            return self.fields(&schema["items"], &format!("{prefix}[]"), depth + 1, into);
        }
        if schema["properties"].is_null() {
            for form in items(&schema["oneOf"]).chain(items(&schema["anyOf"])) {
                self.form(form, prefix, depth, into);
            }
            return;
        }
        let is_required = |name: &str| items(&schema["required"]).any(|required| required == name);
        // What must be given comes first, in the order in which it is told.
        let first = items(&schema["required"]).filter_map(Value::as_str);
        let rest = members(&schema["properties"]).map(|(name, _)| name.as_str()).filter(|name| !is_required(name));
        for name in first.chain(rest) {
            let field = &schema["properties"][name];
            let path = match prefix {
                "" => name.to_owned(),
                prefix => format!("{prefix}.{name}"),
            };
            let about = field.get("description").or_else(|| self.follow(field).get("description"));
            into.push(Field {
                name: path.clone(),
                is_required: is_required(name),
                kind: self.kind(field),
                about: about.map(text).unwrap_or_default(),
            });
            self.fields(field, &path, depth + 1, into);
        }
    }

    /// One of several forms: only what is not told yet.
    fn form(&self, form: &Value, prefix: &str, depth: usize, into: &mut Vec<Field>) {
        let mut of_form = Vec::new();
        self.fields(form, prefix, depth, &mut of_form);
        for field in of_form {
            match into.iter_mut().find(|told| told.name == field.name) {
                Some(told) if told.kind == field.kind => {}
                Some(told) if told.kind == "null" => *told = field,
                Some(told) if field.kind != "null" => told.kind = format!("{}; or {}", told.kind, field.kind),
                Some(_) => {}
                None => into.push(Field { is_required: false, ..field }),
            }
        }
    }

    /// The kind of a value and its bounds, in words.
    fn kind(&self, schema: &Value) -> String {
        let schema = self.follow(schema);
        let forms: Vec<String> =
            items(&schema["anyOf"]).chain(items(&schema["oneOf"])).map(|form| self.kind(form)).collect();
        if schema["type"].is_null() && !forms.is_empty() {
            let mut told: Vec<String> = Vec::new();
            for form in forms {
                if !told.contains(&form) {
                    told.push(form);
                }
            }
            return told.join(" or ");
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            kinds => items(kinds).filter_map(Value::as_str).collect(),
        };
        let words: Vec<String> = kinds.iter().map(|kind| self.one_kind(kind, schema)).collect();
        let mut said = if words.is_empty() { "anything".to_owned() } else { words.join(" or ") };
        if let Some(value) = schema.get("default") {
            said = format!("{said}; {} where absent", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        said
    }

    fn one_kind(&self, kind: &str, schema: &Value) -> String {
        let bounds = |least: &str, most: &str, what: &str| match (schema.get(least), schema.get(most)) {
            (Some(least), Some(most)) if least == most => format!(", {least}{what}"),
            (Some(least), Some(most)) => format!(", {least} to {most}{what}"),
            (Some(least), None) => format!(", from {least}{what}"),
            (None, Some(most)) => format!(", up to {most}{what}"),
            (None, None) => String::new(),
        };
        let names: Vec<&str> = items(&schema["enum"]).filter_map(Value::as_str).collect();
        match kind {
            "string" if names.len() == 1 => format!("`{}`", names.concat()),
            "string" if !names.is_empty() => format!("one of `{}`", names.join("`, `")),
            "string" => match schema["format"].as_str() {
                Some("date-time") => "an instant".to_owned(),
                Some("date") => "a date".to_owned(),
                Some("uuid") => "an id".to_owned(),
                Some("email") => format!("an e-mail address{}", bounds("minLength", "maxLength", " characters")),
                _ => format!("text{}", bounds("minLength", "maxLength", " characters")),
            },
            "integer" => format!("whole number{}", bounds("minimum", "maximum", "")),
            "number" if schema["maximum"].as_f64().is_some_and(|most| most > 1.0) => "number".to_owned(),
            "number" => format!("number{}", bounds("minimum", "maximum", "")),
            "boolean" => "true or false".to_owned(),
            "array" => {
                format!("list of {}{}", self.kind(&schema["items"]), bounds("minItems", "maxItems", " elements"))
            }
            "object" => "object".to_owned(),
            other => other.to_owned(),
        }
    }
}

/// An example as it is read best: a text as it stands, anything else as JSON with its members apart.
fn pretty(example: &Value) -> String {
    match example {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}
