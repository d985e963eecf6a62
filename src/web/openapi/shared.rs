//! What many calls share: failures, headers, parameters, and how a caller proves who it is.

use serde_json::{Map, Value, json};

use super::operation::failure_name;
use super::schema::{Told, answer, count, id, list, named, number, one_of, text, time, whole, words};
use crate::domain::auth::Scope;
use crate::domain::ledger::ResourceType;

/// An id, for examples.
pub(super) const ID: &str = "019a6b1e-7c2d-7f3a-9b1c-2d3e4f5a6b7c";
/// Another one.
pub(super) const OTHER_ID: &str = "019a6b1f-0a4b-7c11-8d2e-3f405162738a";
/// An instant, for examples.
pub(super) const AT: &str = "2025-11-09T21:00:00.000Z";
/// A later one.
pub(super) const LATER: &str = "2025-11-10T00:00:00.000Z";

/// The names of the resources.
pub(super) fn resource() -> Value {
    one_of(ResourceType::ALL.map(ResourceType::as_str))
}

/// The names of the resources that are recorded and reserved by hand.
pub(super) fn resource_by_hand() -> Value {
    one_of([ResourceType::LlmTokens, ResourceType::AgentMinutes].map(ResourceType::as_str))
}

/// A used part of a limit in percent.
pub(super) fn percentage() -> Value {
    json!({"type": "number", "minimum": 0})
        .about("Used part of the limit in percent, two decimals; 0 where there is no limit.")
}

/// A limit, -1 where there is none.
pub(super) fn limit() -> Value {
    json!({"type": "integer", "format": "int64", "minimum": -1}).about("-1: unlimited.")
}

/// Where the next page of a list begins.
pub(super) fn next_cursor() -> Value {
    json!({"type": ["string", "null"], "pattern": "^[A-Za-z0-9_-]+$"})
        .about("What to send as `cursor` for the next page; null at the end.")
}

/// The names of all scopes.
pub(super) fn scope() -> Value {
    one_of(Scope::ALL.map(Scope::as_str))
}

/// The schemas of failures.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let fault = answer()
        .has("field", words().about("Path of the field, as `entries[3].amount`."))
        .has("message", words().about("What is wrong, with the bound."));
    let problem = answer()
        .has("type", words().about("A URN that ends with the code."))
        .has("title", words())
        .has("status", whole(400..=599))
        .has("detail", words().about("For people."))
        .has("code", words().about("For programs; never changes."))
        .has("requestId", words().about("As in X-Request-Id."))
        .may("errors", list(named("Fault")).about("Of 422: every fault at once."))
        .may("scope", scope().about("Of `scope_required`: the scope that lacks."))
        .may("resource", resource().about("Of `quota_exceeded`: what is used up."))
        .may("limit", limit())
        .may("used", number())
        .may("reserved", count())
        .may("requested", number())
        .may("resetsAt", time().about("When the window ends."))
        .may("retryAfter", count().about("Seconds, as in Retry-After."))
        .may("index", count().about("Which element of a batch was refused."))
        .may("record", count().about("Of an import: the record that was refused."))
        .may("imported", count().about("Of an import: what was imported before."))
        .may("already_there", count())
        .may("skipped_count", count());
    let error = answer()
        .has("message", words())
        .has("type", words().about("As `invalid_request_error`, `authentication_error`, `insufficient_quota`."))
        .has("param", json!({"type": ["string", "null"]}).about("The member that is wrong."))
        .has("code", json!({"type": ["string", "null"]}));
    vec![
        ("Fault", fault.done()),
        ("Problem", problem.done()),
        ("GatewayError", answer().has("error", error.done()).done().about("A failure, as OpenAI's clients read it.")),
    ]
}

/// What each status of a failure means, with the code and an example's detail.
const FAILURES: [(u16, &str, &str, &str); 15] = [
    (400, "malformed_json", "The body is not JSON.", "malformed JSON: expected value at line 1 column 1"),
    (
        401,
        "unauthenticated",
        "No bearer, or one that is unknown, expired or revoked.",
        "a valid bearer token is required",
    ),
    (
        403,
        "scope_required",
        "The credential may not do this: it lacks a scope, or the code says what else.",
        "this needs the scope usage:write",
    ),
    (404, "not_found", "There is no such thing, or it is not the caller's.", "the memory was not found"),
    (409, "conflict", "It contradicts the present state.", "the reservation was settled"),
    (410, "erased", "It was erased and does not come back.", "the user was erased"),
    (413, "too_large", "The body is too large.", "the body is larger than 4194304 bytes (server.body_bytes_max)"),
    (
        415,
        "unsupported_media_type",
        "The body is of another media type, or compressed.",
        "the body must be application/json",
    ),
    (
        422,
        "invalid",
        "Fields or parameters are unknown, of the wrong kind or out of bounds; each is named.",
        "amount: must be a whole number from 1 to 9007199254740991",
    ),
    (
        429,
        "quota_exceeded",
        "A limit would be passed. Retry-After is there where waiting helps.",
        "llm_tokens: 200 requested, 100 of 1000 left",
    ),
    (500, "internal", "A fault of the server.", "internal error"),
    (502, "upstream_failed", "The model's server failed or cannot be reached.", "the model's server failed"),
    (
        503,
        "busy",
        "A bounded queue is full, the request took too long, or the disk does not take it.",
        "the writer is busy, try again in a moment",
    ),
    (
        504,
        "upstream_timeout",
        "The model's server was silent for too long.",
        "the model's server was silent for too long",
    ),
    (405, "method_not_allowed", "The path does not take that method.", "this path does not take that method"),
];

/// The answers of failures.
pub(super) fn responses() -> Map<String, Value> {
    let mut responses = Map::new();
    for (status, code, meaning, detail) in FAILURES {
        for is_gateway in [false, true] {
            let mut headers = json!({"X-Request-Id": {"$ref": "#/components/headers/RequestId"}});
            if status == 401 {
                headers["WWW-Authenticate"] = json!({"$ref": "#/components/headers/WwwAuthenticate"});
            }
            if matches!(status, 429 | 503) {
                headers["Retry-After"] = json!({"$ref": "#/components/headers/RetryAfter"});
            }
            let (media, schema, example) = if is_gateway {
                ("application/json", "GatewayError", envelope(status, code, detail))
            } else {
                ("application/problem+json", "Problem", problem(status, code, detail))
            };
            let response = json!({
                "description": meaning,
                "headers": headers,
                "content": {media: {"schema": named(schema), "example": example}},
            });
            responses.insert(failure_name(status, is_gateway), response);
        }
    }
    responses
}

fn problem(status: u16, code: &str, detail: &str) -> Value {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let mut problem = json!({
        "type": format!("urn:tallybox:problem:{code}"), "title": reason, "status": status, "detail": detail, "code": code,
        "requestId": ID,
    });
    match status {
        403 => problem["scope"] = json!("usage:write"),
        422 => {
            problem["errors"] =
                json!([{"field": "amount", "message": "must be a whole number from 1 to 9007199254740991"}]);
        }
        429 => {
            for (name, value) in [("limit", 1_000), ("used", 900), ("reserved", 0), ("requested", 200)] {
                problem[name] = json!(value);
            }
            problem["resource"] = json!("llm_tokens");
            problem["resetsAt"] = json!(LATER);
            problem["retryAfter"] = json!(10_800);
        }
        503 => problem["retryAfter"] = json!(1),
        _ => {}
    }
    problem
}

fn envelope(status: u16, code: &str, detail: &str) -> Value {
    let (kind, code) = match status {
        401 => ("authentication_error", code),
        403 => ("permission_error", code),
        429 => ("insufficient_quota", "insufficient_quota"),
        500.. => ("server_error", code),
        _ => ("invalid_request_error", code),
    };
    let param = if status == 422 { json!("model") } else { Value::Null };
    let detail = if status == 422 { "model: must be a text of 1 to 256 characters" } else { detail };
    json!({"error": {"message": detail, "type": kind, "param": param, "code": code}})
}

/// The headers of answers.
pub(super) fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "Names the request in the log. A caller's own is kept if it is 1 to 64 of `A-Z a-z 0-9 . _ -`.",
            "required": true,
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        },
        "WwwAuthenticate": {"description": "Always `Bearer`.", "required": true, "schema": {"type": "string"}},
        "RetryAfter": {"description": "Seconds after which asking again may help.", "schema": count()},
        "IdempotentReplayed": {
            "description": "`true` where this is the first answer again.",
            "schema": {"type": "string", "enum": ["true"]},
        },
    })
}

/// The parameters of many calls.
pub(super) fn parameters() -> Value {
    let key = text(1..=255);
    let mut key = key;
    key["pattern"] = json!("^[!-~]+$");
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Makes the write repeatable for 24 hours: the same key with the same body gives the first answer again, with another body 422.",
            "schema": key,
        },
    })
}

/// How a caller proves who it is.
pub(super) fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API token (`tbx_...`), which opens what its scopes say, or the token of a session (`tbs_...`), which opens what its user's role may.",
        },
        "session": {
            "type": "http",
            "scheme": "bearer",
            "description": "The token of a session, as POST /auth/login gives it. The API takes it as a bearer and never as a cookie.",
        },
    })
}

/// An id of something, told.
pub(super) fn id_of(what: &str) -> Value {
    id().about(what)
}
