//! Anything that is JSON, to every route that takes JSON: an answer, never a fault of ours.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use super::{Route, World};
use crate::suite::property::corpus;
use crate::suite::support::TestApp;

/// Names that routes know, so that what is tried gets past the first look.
const NAMES: [&str; 30] = [
    "resourceType",
    "amount",
    "metadata",
    "timestamp",
    "enforce",
    "reverses",
    "entries",
    "ttlSeconds",
    "name",
    "maxMinutes",
    "type",
    "input_context",
    "tier",
    "tags",
    "session",
    "embedding",
    "memories",
    "query",
    "limit",
    "mode",
    "tiers",
    "types",
    "created_after",
    "min_score",
    "context",
    "email",
    "role",
    "scopes",
    "expiresInDays",
    "reason",
];

/// Texts that mean something to some route.
const WORDS: [&str; 12] = [
    "llm_tokens",
    "memory_storage",
    "agent_minutes",
    "ltm",
    "stm",
    "note",
    "keyword",
    "hybrid",
    "2026-03-10T12:00:00Z",
    "pro",
    "usage:read",
    "00000000-0000-7000-8000-000000000000",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..2_000).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::from),
        proptest::sample::select(&WORDS[..]).prop_map(Value::from),
        // As NUL, surrogates and the like come in JSON.
        Just(json!("a\u{0}b")),
        Just(super::embedding()),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let name = prop_oneof![4 => proptest::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => ".{0,6}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The good body of a route with some of its members changed for anything, or anything at all.
fn body_like(good: &Value, places: &[usize], others: &[Value]) -> Value {
    let Value::Object(members) = good else { return others[0].clone() };
    let mut members = members.clone();
    let names: Vec<String> = members.keys().cloned().collect();
    for (place, other) in places.iter().zip(others) {
        if let Some(name) = names.get(place % names.len().max(1)) {
            members.insert(name.clone(), other.clone());
        }
    }
    Value::Object(members)
}

/// Those that end what the others need are tried by the tests of bad input.
fn is_safe(route: &Route) -> bool {
    !["/auth/logout", "/auth/password", "/auth/login"].contains(&route.pattern) && !route.pattern.ends_with("/password")
}

#[test]
fn any_json_to_any_route_is_answered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    for (name, body) in corpus("bodies") {
        for route in world.routes.iter().filter(|route| is_safe(route)) {
            let length = body.len().to_string();
            let headers = [("content-type", "application/json"), ("content-length", length.as_str())];
            let reply = runtime.block_on(world.send(route.request(body.clone(), &headers)));
            assert!(reply.status < 500, "{} {name}: {} {}", route.name(), reply.status, reply.text);
        }
    }
    let config = Config { source_file: Some(file!()), ..Config::with_cases(96) };
    let strategy = (
        any_json(),
        proptest::collection::vec(any::<proptest::sample::Index>(), 2),
        proptest::collection::vec(any_json(), 2),
    );
    let found = TestRunner::new(config).run(&strategy, |(whole, places, others)| {
        let places: Vec<usize> = places.iter().map(|place| place.index(64)).collect();
        for route in world.routes.iter().filter(|route| is_safe(route)) {
            for body in [whole.clone(), body_like(&route.body, &places, &others)] {
                let reply = runtime.block_on(world.send(route.json(&body.to_string())));
                // 503: an import that is still under way, a queue that is full.
                prop_assert!(reply.status < 500, "{} {body}: {} {}", route.name(), reply.status, reply.text);
            }
        }
        Ok(())
    });
    if let Err(error) = found {
        unreachable!("{error}");
    }
    world.app.proves();
}

/// Names that the gateway's dialect knows.
const DIALECT: [&str; 22] = [
    "messages",
    "prompt",
    "input",
    "instructions",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "best_of",
    "stream",
    "stream_options",
    "include_usage",
    "tools",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "encoding_format",
    "dimensions",
    "user",
    "store",
];

fn any_call() -> impl Strategy<Value = Value> {
    let name = prop_oneof![5 => proptest::sample::select(&DIALECT[..]).prop_map(str::to_owned), 1 => ".{0,6}"];
    proptest::collection::vec((name, any_json()), 0..8).prop_map(|members| {
        let mut call: Map<String, Value> = members.into_iter().collect();
        call.insert("model".to_owned(), json!("m"));
        Value::Object(call)
    })
}

#[test]
fn any_json_to_the_gateway_is_answered_and_nothing_stays_held() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Nobody listens there.
    let upstream = "[[gateway.upstreams]]\nname = 'nobody'\nbase_url = 'http://127.0.0.1:9/v1'\nmodels = ['m']";
    let (app, user) = runtime.block_on(async {
        let app = TestApp::with_config(upstream);
        let user = app.user("a@example.org", "basic").await;
        (app, user)
    });
    let config = Config { source_file: Some(file!()), ..Config::with_cases(192) };
    let found = TestRunner::new(config).run(&(any_call(), any_json()), |(call, whole)| {
        for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"] {
            for body in [&call, &whole] {
                let reply = runtime.block_on(app.tell(&user.token, path, body.clone()));
                prop_assert!([400, 404, 422, 429, 502].contains(&reply.status), "{path} {body}: {}", reply.text);
                prop_assert!(reply.json["error"].is_object(), "{path} {body}: {}", reply.text);
            }
        }
        prop_assert_eq!(runtime.block_on(app.tokens(&user)), (0, 0));
        Ok(())
    });
    if let Err(error) = found {
        unreachable!("{error}");
    }
    app.proves();
}
