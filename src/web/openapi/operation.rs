//! One call: what it takes, what it answers, and how it fails.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::schema::{Told, id, named, or_null, text, whole};
use crate::web::edge::Access;

/// The description of one route. What follows from the route itself, as its scope and the failures that go with it, is added
/// when the document is made.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    id: &'static str,
    summary: &'static str,
    about: String,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
    failures: BTreeMap<u16, Vec<&'static str>>,
    without: Vec<u16>,
}

/// A call by `GET`; `id` is the name that programs give it.
pub(super) fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::GET, path, id, summary)
}

/// As [`get`], by `POST`.
pub(super) fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::POST, path, id, summary)
}

/// As [`get`], by `PATCH`.
pub(super) fn patch(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::PATCH, path, id, summary)
}

/// As [`get`], by `DELETE`.
pub(super) fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::DELETE, path, id, summary)
}

/// The failures that every call with a body has.
const OF_BODIES: [u16; 4] = [400, 413, 415, 422];

impl Operation {
    fn new(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            about: String::new(),
            parameters: Vec::new(),
            body: None,
            answers: Map::new(),
            failures: BTreeMap::new(),
            without: Vec::new(),
        }
    }

    /// What there is to know about it.
    pub(super) fn about(mut self, text: impl Into<String>) -> Self {
        self.about = text.into();
        self
    }

    /// A parameter of the path that is an id.
    pub(super) fn of(mut self, name: &str, about: &str) -> Self {
        self.parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": about, "schema": id(),
        }));
        self.failures.entry(404).or_default();
        self
    }

    /// A parameter of the path that is one of some names.
    pub(super) fn of_names(mut self, name: &str, about: &str, schema: Value) -> Self {
        self.parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": about, "schema": schema,
        }));
        self
    }

    /// A parameter of the query that may be absent.
    pub(super) fn asks(mut self, name: &str, about: &str, schema: Value) -> Self {
        self.parameters.push(json!({"name": name, "in": "query", "description": about, "schema": schema}));
        self
    }

    /// A parameter of the query that must be given.
    pub(super) fn must_ask(mut self, name: &str, about: &str, schema: Value) -> Self {
        self.parameters.push(json!({
            "name": name, "in": "query", "required": true, "description": about, "schema": schema,
        }));
        self
    }

    /// A header that may be sent.
    pub(super) fn header(mut self, name: &str, about: &str, schema: Value) -> Self {
        self.parameters.push(json!({"name": name, "in": "header", "description": about, "schema": schema}));
        self
    }

    /// It is a list that comes in pages.
    pub(super) fn paged(self) -> Self {
        let cursor = text(1..=255);
        self.asks("limit", "Most elements of the page.", whole(1..=100).default(50)).asks(
            "cursor",
            "Where the page begins: what the page before it gave.",
            cursor,
        )
    }

    /// It may be sent again with the same key, and is done once.
    pub(super) fn idempotent(mut self) -> Self {
        self.parameters.push(json!({"$ref": "#/components/parameters/IdempotencyKey"}));
        self
    }

    /// The body it takes: a named schema and an example.
    pub(super) fn takes(mut self, schema: &str, example: Value) -> Self {
        let content = json!({"application/json": {"schema": named(schema), "example": example}});
        self.body = Some(json!({"required": true, "content": content}));
        self
    }

    /// As [`Operation::takes`]; it may be of another media type, too.
    pub(super) fn or_takes(mut self, media: &str, schema: Value, example: &str) -> Self {
        if let Some(body) = &mut self.body {
            body["content"][media] = json!({"schema": schema, "example": example});
        }
        self
    }

    /// As [`Operation::takes`]; nothing at all may be sent instead, or null.
    pub(super) fn may_take(mut self, schema: &str, example: Value) -> Self {
        self = self.takes(schema, example);
        if let Some(body) = &mut self.body {
            body["required"] = json!(false);
            body["content"]["application/json"]["schema"] = or_null(named(schema));
        }
        self
    }

    /// A JSON answer: a named schema and an example.
    pub(super) fn answers(self, status: u16, about: &str, schema: &str, example: Value) -> Self {
        self.answers_as(status, about, "application/json", named(schema), example)
    }

    /// An answer of another media type. The same status may be told of more than one.
    pub(super) fn answers_as(mut self, status: u16, about: &str, media: &str, schema: Value, example: Value) -> Self {
        let answer = self.answers.entry(status.to_string()).or_insert_with(|| json!({"content": {}}));
        answer["description"] = json!(about);
        answer["content"][media] = json!({"schema": schema, "example": example});
        self
    }

    /// An answer without a body.
    pub(super) fn answers_nothing(mut self, status: u16, about: &str) -> Self {
        self.answers.insert(status.to_string(), json!({"description": about}));
        self
    }

    /// A failure of its own: what a status means here, with the code.
    pub(super) fn fails(mut self, status: u16, meaning: &'static str) -> Self {
        self.failures.entry(status).or_default().push(meaning);
        self
    }

    /// A failure that other calls of its kind have, and it has not.
    pub(super) fn never(mut self, status: u16) -> Self {
        self.without.push(status);
        self
    }

    /// The call as the document has it. `group`: the heading it stands under.
    pub(super) fn describe(mut self, access: Access, group: &str) -> Value {
        let is_gateway = self.path.starts_with("/v1/");
        self.add_failures(access);
        let is_idempotent = self.parameters.iter().any(|parameter| parameter["$ref"].is_string());
        for (_, answer) in &mut self.answers {
            answer["headers"]["X-Request-Id"] = json!({"$ref": "#/components/headers/RequestId"});
            if is_idempotent {
                answer["headers"]["Idempotent-Replayed"] = json!({"$ref": "#/components/headers/IdempotentReplayed"});
            }
        }
        let mut responses = self.answers;
        for (status, meanings) in self.failures {
            if self.without.contains(&status) {
                continue;
            }
            let name = failure_name(status, is_gateway);
            let mut failure = json!({"$ref": format!("#/components/responses/{name}")});
            if !meanings.is_empty() {
                failure["description"] = json!(meanings.join(" "));
            }
            responses.insert(status.to_string(), failure);
        }
        let mut described = json!({
            "operationId": self.id,
            "tags": [group],
            "summary": self.summary,
            "description": with_access(&self.about, access),
            "responses": responses,
            "security": security(access),
        });
        if !self.parameters.is_empty() {
            described["parameters"] = json!(self.parameters);
        }
        if let Some(body) = self.body {
            described["requestBody"] = body;
        }
        described
    }

    fn add_failures(&mut self, access: Access) {
        let mut add = |statuses: &[u16]| {
            for status in statuses {
                self.failures.entry(*status).or_default();
            }
        };
        if access != Access::Open {
            // Unknown parameters and a wrong X-User-Tier are bad input of any call.
            add(&[401, 403, 422, 500, 503]);
        }
        if self.body.is_some() {
            add(&OF_BODIES);
            add(&[500, 503]);
        }
    }
}

/// What `components/responses` calls the answer of a failure.
pub(super) fn failure_name(status: u16, is_gateway: bool) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Failure");
    let name: String = reason.chars().filter(char::is_ascii_alphabetic).collect();
    if is_gateway { format!("Gateway{name}") } else { name }
}

fn with_access(about: &str, access: Access) -> String {
    let needs = match access {
        Access::Open | Access::Page => "Open to anyone.".to_owned(),
        Access::AnyCredential => "Takes any live credential.".to_owned(),
        Access::Scope(scope) => format!("Needs the scope `{}`.", scope.as_str()),
        Access::Session => "Takes the token of a session; an API token is refused.".to_owned(),
        Access::Admin => "Needs the scope `admin`.".to_owned(),
    };
    if about.is_empty() { needs } else { format!("{about}\n\n{needs}") }
}

fn security(access: Access) -> Value {
    match access {
        Access::Open | Access::Page => json!([]),
        Access::AnyCredential => json!([{"bearer": []}]),
        Access::Scope(scope) => json!([{"bearer": [scope.as_str()]}]),
        Access::Session => json!([{"session": []}]),
        Access::Admin => json!([{"bearer": ["admin"]}]),
    }
}
