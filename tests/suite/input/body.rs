//! What is refused, as what, and that nothing comes of it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tallybox::app::{Access, App};

use super::{BODY_BYTES_MAX, Route, World};
use crate::suite::calls::{faults_of, tokens};
use crate::suite::support::{Reply, TestApp};

/// The shape of every problem.
fn is_problem(reply: &Reply, status: u16, code: &str, what: &str) {
    assert_eq!((reply.status, reply.code()), (status, code), "{what}: {}", reply.text);
    assert_eq!(reply.header("content-type"), "application/problem+json", "{what}");
    assert_eq!(reply.header("cache-control"), "no-store", "{what}");
    let body = &reply.json;
    assert_eq!(body["status"], status, "{what}");
    assert_eq!(body["type"], format!("urn:tallybox:problem:{code}"), "{what}");
    assert_eq!(body["requestId"].as_str(), Some(reply.header("x-request-id")), "{what}");
    for field in ["title", "detail"] {
        assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{what}: {field} in {}", reply.text);
    }
    if status == 422 {
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        assert!(!errors.is_empty(), "{what}: {}", reply.text);
        for error in errors {
            assert!(error["field"].is_string() && error["message"].is_string(), "{what}: {}", reply.text);
        }
    }
}

/// Sends a bad request to every route, and asks what came of it.
async fn refused(status: u16, code: &str, bad: impl Fn(&Route) -> Vec<(String, Request<Body>)>) {
    let world = World::new().await;
    let before = world.snapshot().await;
    for route in &world.routes {
        for (what, request) in bad(route) {
            let what = format!("{} {what}", route.name());
            is_problem(&world.send(request).await, status, code, &what);
        }
    }
    assert_eq!(world.snapshot().await, before);
}

#[tokio::test]
async fn the_table_holds_every_route_that_takes_a_json_body() {
    let world = World::new().await;
    let known: BTreeSet<String> = world.routes.iter().map(Route::name).collect();
    let has_body = |method: &http::Method| ["POST", "PATCH", "PUT"].contains(&method.as_str());
    let all = App::routes().into_iter().filter(|(method, _, access)| has_body(method) && *access != Access::Page);
    // The gateway's dialect is another one: see gateway/refusal.rs.
    let all = all.filter(|(_, path, _)| !path.starts_with("/v1/"));
    for (method, path, _) in all {
        let twin = path.strip_prefix("/api").map(|path| format!("{method} {path}"));
        let is_known = known.contains(&format!("{method} {path}")) || twin.is_some_and(|twin| known.contains(&twin));
        assert!(is_known, "{method} {path} is in no table of bad input");
    }
}

#[tokio::test]
async fn every_route_takes_its_good_body() {
    let world = World::new().await;
    // Those that end what others need come last.
    let mut routes: Vec<&Route> = world.routes.iter().collect();
    let ends = ["/api/", "/auth/password", "/auth/logout"];
    routes.sort_by_key(|route| ends.iter().position(|end| route.pattern.starts_with(end)).map_or(0, |place| place + 1));
    for route in routes {
        let reply = world.send(route.json(&route.body.to_string())).await;
        assert!((200..300).contains(&reply.status), "{}: {}", route.name(), reply.text);
    }
}

#[tokio::test]
async fn what_is_no_json_is_malformed() {
    refused(400, "malformed_json", |route| {
        let good = route.body.to_string();
        let texts = [
            "{\"a\":",
            "{\"amount\": NaN}",
            "{\"amount\": Infinity}",
            "[-Infinity]",
            "{\"amount\": 1e999",
            "{\"type\": \"\\ud800\"}",
            "{\"type\": \"\\udc00\\ud800\"}",
            "{'a': 1}",
            "{\"a\": 1,}",
            "{\"a\": 01}",
            "{\"a\": \"\u{1}\"}",
            "nul",
            " ",
            "\u{feff}{}",
            "{}{}",
            "// {}",
            &good[..good.len() - 1],
            &format!("{good} x"),
            &"[".repeat(10_000),
            "{\"amount\": 1e999, \"a\": 01}",
        ];
        let mut bad: Vec<(String, Request<Body>)> =
            texts.iter().map(|text| (text.chars().take(40).collect(), route.json(text))).collect();
        bad.push(("no UTF-8".to_owned(), route.bytes(b"{\"type\": \"\xff\"}")));
        bad.push(("cut UTF-8".to_owned(), route.bytes(b"{\"type\": \"\xc3\"}")));
        bad.push(("NUL bytes".to_owned(), route.bytes(b"\0\0\0\0")));
        if !route.optional {
            bad.push(("nothing".to_owned(), route.bytes(b"")));
            bad.push(("no body".to_owned(), route.request(Body::empty(), &[])));
        }
        bad
    })
    .await;
}

#[tokio::test]
async fn what_is_json_and_past_all_bounds_is_invalid_and_named() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let texts = [
        ("amount", "{\"amount\": 1e999}".to_owned()),
        ("metadata", "{\"amount\": 5, \"metadata\": {\"a\": [1, -1e400]}}".to_owned()),
        ("amount", format!("{{\"amount\": {deep}}}")),
        ("body", deep),
        ("body", "[1e400]".to_owned()),
    ];
    let world = World::new().await;
    let before = world.snapshot().await;
    for route in &world.routes {
        for (field, text) in &texts {
            let reply = world.send(route.json(text)).await;
            let what = format!("{} {field}", route.name());
            is_problem(&reply, 422, "invalid", &what);
            assert_eq!(faults_of(&reply), [*field], "{what}");
        }
    }
    assert_eq!(world.snapshot().await, before);
}

#[tokio::test]
async fn what_an_import_is_asked_for_is_looked_at_after_its_body() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    for (path, key, body, status) in [
        ("/memory/import?format=x", "k", "{\"memories\": [", 400),
        ("/memory/import?format=x", "k", "{\"memories\": []}", 422),
        ("/memory/import", "a b", "{\"memories\": [", 400),
        ("/memory/import", "a b", "{\"memories\": []}", 422),
    ] {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let mut request = crate::suite::support::request("POST", path, Some(&user.token), None, &headers);
        *request.body_mut() = Body::from(body);
        app.send(request).await.expect(status);
    }
}

#[tokio::test]
async fn another_media_type_or_a_compressed_body_is_not_taken() {
    refused(415, "unsupported_media_type", |route| {
        let good = route.body.to_string();
        let length = good.len().to_string();
        let types = [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            "text/json",
            "",
            "json",
            "application/json-seq",
            "image/svg+json",
        ];
        let mut bad: Vec<(String, Request<Body>)> = types
            .iter()
            .map(|media| {
                let headers = [("content-type", *media), ("content-length", length.as_str())];
                ((*media).to_owned(), route.request(good.clone(), &headers))
            })
            .collect();
        bad.push(("none".to_owned(), route.request(good.clone(), &[("content-length", &length)])));
        if !route.optional {
            bad.push(("of nothing".to_owned(), route.request(Body::empty(), &[("content-type", "text/plain")])));
        }
        for encoding in ["gzip", "br", "deflate", "zstd", "identity, gzip"] {
            let headers = [("content-type", "application/json"), ("content-encoding", encoding)];
            bad.push((encoding.to_owned(), route.request(good.clone(), &headers)));
        }
        bad
    })
    .await;
}

/// A body that is sent piece by piece, without a length: so many pieces of 1,000 bytes are still to come.
struct Pieces(usize);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
        self.0 = left;
        Poll::Ready(Some(Ok(hyper::body::Frame::data(Bytes::from_static(&[b' '; 1_000])))))
    }
}

#[tokio::test]
async fn a_body_is_too_large_by_its_length_or_by_its_pieces() {
    refused(413, "too_large", |route| {
        let json = ("content-type", "application/json");
        let large = format!("{{\"type\": \"{}\"}}", "x".repeat(BODY_BYTES_MAX));
        let length = large.len().to_string();
        vec![
            ("by its length".to_owned(), route.request(large.clone(), &[json, ("content-length", &length)])),
            ("by what it says".to_owned(), route.request("{}", &[json, ("content-length", "99999999999")])),
            ("in one piece".to_owned(), route.request(large, &[json])),
            (
                "by pieces".to_owned(),
                route.request(Body::new(Pieces(BODY_BYTES_MAX / 1_000 + 1)), &[json, ("transfer-encoding", "chunked")]),
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn fields_that_nobody_knows_and_bodies_that_are_no_objects_are_invalid() {
    refused(422, "invalid", |route| {
        let mut more = route.body.clone();
        more["colour"] = json!("red");
        let mut bad = vec![("unknown field".to_owned(), route.json(&more.to_string()))];
        for text in ["[]", "\"text\"", "5", "true", "[{}]"] {
            bad.push((text.to_owned(), route.json(text)));
        }
        if !route.optional {
            bad.push(("null".to_owned(), route.json("null")));
        }
        bad
    })
    .await;
    let world = World::new().await;
    for route in &world.routes {
        let mut more = route.body.clone();
        more["colour"] = json!(null);
        let reply = world.send(route.json(&more.to_string())).await.expect(422);
        assert_eq!(faults_of(&reply), ["colour"], "{}", route.name());
    }
}

#[tokio::test]
async fn a_field_of_the_wrong_type_is_named() {
    let world = World::new().await;
    let before = world.snapshot().await;
    for route in &world.routes {
        for (field, value) in route.body.as_object().unwrap() {
            let mut bodies = Vec::new();
            for wrong in [json!({"wrong": true}), json!(["wrong"]), json!("\0"), json!(-5), json!(1.5), json!(true)] {
                // An object is right for metadata, a flag is right for a flag.
                if std::mem::discriminant(&wrong) != std::mem::discriminant(value)
                    || wrong == "\0"
                    || wrong == -5
                    || wrong == 1.5
                {
                    bodies.push(wrong);
                }
            }
            for wrong in bodies {
                let mut body = route.body.clone();
                body[field] = wrong.clone();
                let what = format!("{} with {field} {wrong}", route.name());
                let reply = world.send(route.json(&body.to_string())).await;
                is_problem(&reply, 422, "invalid", &what);
                let named = faults_of(&reply);
                assert!(named.iter().any(|name| name.starts_with(field.as_str())), "{what}: {named:?}");
            }
        }
    }
    assert_eq!(world.snapshot().await, before);
}

#[tokio::test]
async fn what_is_required_is_named_when_it_is_missing_or_null() {
    const REQUIRED: [(&str, &[&str]); 12] = [
        ("/usage/check-quota", &["resourceType", "amount"]),
        ("/usage/record", &["resourceType", "amount"]),
        ("/usage/record/batch", &["entries"]),
        ("/usage/reservations", &["resourceType", "amount"]),
        ("/usage/reservations/{id}/settle", &["amount"]),
        ("/memory/store", &["type", "input_context"]),
        ("/memory/store/batch", &["memories"]),
        ("/memory/import", &["memories"]),
        ("/auth/login", &["email", "password"]),
        ("/auth/password", &["currentPassword", "newPassword"]),
        ("/auth/tokens", &["name"]),
        ("/api/admin/users", &["email"]),
    ];
    let world = World::new().await;
    let before = world.snapshot().await;
    for (pattern, required) in REQUIRED {
        let route = world.routes.iter().find(|route| route.pattern == pattern).unwrap();
        let reply = world.send(route.json("{}")).await.expect(422);
        assert_eq!(faults_of(&reply), *required, "{}", route.name());
        for field in required {
            let mut body = route.body.clone();
            body[*field] = Value::Null;
            let reply = world.send(route.json(&body.to_string())).await.expect(422);
            assert_eq!(faults_of(&reply), [*field], "{}", route.name());
            assert_eq!(reply.json["errors"][0]["message"], "is required", "{}", route.name());
        }
    }
    assert_eq!(world.snapshot().await, before);
}

#[tokio::test]
async fn a_body_needs_no_length_to_be_read() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    // As by HTTP/2, where there is neither a length nor an encoding.
    let request = Request::post("/usage/record")
        .header("authorization", format!("Bearer {}", user.token))
        .header("content-type", "application/vnd.example+json")
        .body(Body::from(tokens(5).to_string()))
        .unwrap();
    app.send(request).await.expect(201);
    assert_eq!(app.tokens(&user).await, (5, 0));
}
