//! Texts and numbers that mean to be more: in every place of every body, in paths, queries and headers.

use serde_json::{Map, Value, json};

use super::{Route, World};
use crate::suite::support::{Reply, TestApp};

/// Texts that are SQL, FTS5 queries, paths, format strings or markup somewhere else.
const TEXTS: [&str; 14] = [
    "'; DROP TABLE users; --",
    "\" OR \"\"=\"",
    "' OR '1'='1",
    "1); DELETE FROM entries; --",
    "' UNION SELECT password_hash FROM users --",
    "x') ON CONFLICT DO UPDATE SET role='admin' --",
    "words MATCH 'a* OR b NEAR/2 c' AND NOT \"d",
    "{body} : ^foo + -bar (\"",
    "%s%n%x{}{{0}}",
    "../../../../etc/passwd",
    "..\\..\\tallybox.db",
    "file:tallybox.db?mode=rwc&cache=shared",
    "<script>alert(1)</script>",
    "\u{202e}\u{feff}\u{fffe}\u{10ffff}",
];

/// Numbers at and past the ends of what we and JSON's readers hold.
const NUMBERS: [&str; 16] = [
    "-1",
    "0",
    "-0",
    "0.1",
    "1e3",
    "1e308",
    "-1e308",
    "5e-324",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
];

/// Every version of `value` in which one leaf is `other`; names of members stay.
fn each_leaf(value: &Value, other: &Value) -> Vec<Value> {
    match value {
        Value::Object(members) if !members.is_empty() => members
            .iter()
            .flat_map(|(name, member)| {
                each_leaf(member, other).into_iter().map(|changed| {
                    let mut members: Map<String, Value> = members.clone();
                    members.insert(name.clone(), changed);
                    Value::Object(members)
                })
            })
            .collect(),
        // An embedding's numbers are alike.
        Value::Array(elements) if !elements.is_empty() => each_leaf(&elements[0], other)
            .into_iter()
            .map(|changed| {
                let mut elements = elements.clone();
                elements[0] = changed;
                Value::Array(elements)
            })
            .collect(),
        _ => vec![other.clone()],
    }
}

/// Routes whose acts would end what the others need: their bodies are tried by the tests of bad input.
fn is_safe(route: &Route) -> bool {
    !["/auth/logout", "/auth/password"].contains(&route.pattern) && !route.pattern.ends_with("/password")
}

#[track_caller]
fn is_answered(reply: &Reply, what: &str) {
    assert!(reply.status < 500 || reply.status == 503, "{what}: {} {}", reply.status, reply.text);
    assert!(
        !reply.text.to_lowercase().contains("sqlite") && !reply.text.contains("syntax error"),
        "{what}: {}",
        reply.text
    );
}

/// What nothing that is sent may change: who there is, and what they may.
async fn people(world: &World) -> String {
    let list = world.app.ask(&world.admin.token, "/api/admin/users").await.expect(200).json;
    let of = |user: &Value| json!([user["id"], user["role"], user["disabled"]]);
    let known = [&world.user.id, &world.admin.id];
    let users = list["users"].as_array().unwrap().iter().filter(|user| known.iter().any(|id| user["id"] == **id));
    Value::from(users.map(of).collect::<Vec<Value>>()).to_string()
}

#[tokio::test]
async fn sql_in_any_text_of_any_body_is_text() {
    let world = World::new().await;
    let before = people(&world).await;
    for route in world.routes.iter().filter(|route| is_safe(route)) {
        for text in TEXTS {
            let mut bodies = each_leaf(&route.body, &json!(text));
            // As the name of a member, too.
            bodies.push(json!({text: text}));
            for body in bodies {
                let reply = world.send(route.json(&body.to_string())).await;
                is_answered(&reply, &format!("{} {body}", route.name()));
            }
        }
    }
    assert_eq!(people(&world).await, before);
    world.app.proves();
}

#[tokio::test]
async fn sql_in_a_path_a_query_a_header_or_a_bearer_is_text() {
    let world = World::new().await;
    let before = people(&world).await;
    let (app, admin) = (&world.app, &world.admin.token);
    for text in TEXTS {
        let quoted = serde_urlencoded::to_string([("q", text)]).unwrap().split_off(2);
        let in_path = quoted.replace('+', "%20");
        for (method, path, access) in tallybox::app::App::routes() {
            let is_page = access == tallybox::app::Access::Page;
            if is_page || !path.contains('{') || method.as_str() != "GET" {
                continue;
            }
            let path = ["{id}", "{resource}", "{name}"].iter().fold(path, |path, name| path.replace(name, &in_path));
            is_answered(&app.ask(admin, &path).await, &path);
        }
        for path in [
            "/usage/ledger?resourceType=Q&cursor=Q&from=Q",
            "/usage/stats?days=Q",
            "/memory?tier=Q",
            "/memory?type=Q&tag=Q&session=Q",
            "/memory?cursor=Q",
            "/memory/export?tag=Q",
            "/memory/import?format=Q",
            "/api/admin/users?q=Q",
            "/api/admin/users?tier=Q",
            "/api/admin/audit?actor=Q&action=Q&cursor=Q",
            "/api/admin/usage?from=Q&to=Q",
        ] {
            let path = path.replace('Q', &quoted);
            is_answered(&app.ask(admin, &path).await, &path);
        }
        let ascii: String = text.chars().filter(|c| c.is_ascii() && !c.is_control()).collect();
        let ours = format!("tbx_{ascii}");
        for bearer in [ascii.as_str(), &ours, &ours.replace("tbx", "tbs")] {
            app.ask(bearer, "/usage/tier").await.expect(401);
            let cookie = format!("tallybox_session={}", bearer.replace(';', ","));
            app.call_with("GET", "/usage", None, None, &[("cookie", &cookie)]).await.expect(303);
        }
        for name in ["x-user-id", "x-user-tier", "x-user-email", "idempotency-key", "x-request-id", "user-agent"] {
            let body = json!({"resourceType": "llm_tokens", "amount": 1});
            let reply = app.call_with("POST", "/usage/record", Some(admin), Some(body), &[(name, &ascii)]).await;
            is_answered(&reply, name);
        }
    }
    assert_eq!(people(&world).await, before);
    world.app.proves();
}

#[tokio::test]
async fn numbers_at_and_past_every_end_are_taken_or_named() {
    let world = World::new().await;
    let marker = json!("the number");
    for route in world.routes.iter().filter(|route| is_safe(route)) {
        for body in each_leaf(&route.body, &marker) {
            for number in NUMBERS {
                let text = body.to_string().replace(&marker.to_string(), number);
                let reply = world.send(route.json(&text)).await;
                assert!([200, 201, 204, 400, 404, 409, 422, 429].contains(&reply.status), "{text}: {}", reply.text);
                is_answered(&reply, &text);
            }
        }
    }
    world.app.proves();
}

#[tokio::test]
async fn what_is_deep_long_or_blown_up_is_refused_before_it_is_built() {
    let world = World::new().await;
    let before = world.snapshot().await;
    // An import skips what it does not take, record by record, and its report has a bound.
    for route in world.routes.iter().filter(|route| route.pattern != "/memory/import") {
        // Below the depth at which the reader gives up, and above what any field takes.
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        for name in ["metadata", "amount", "input_context", "memories", "entries", "scopes", "tags"] {
            let reply = world.send(route.json(&format!("{{\"{name}\": {deep}}}"))).await;
            assert_eq!(reply.status, 422, "{} {name}: {}", route.name(), reply.text);
        }
        let wide = format!("{{{}}}", (0..2_000).map(|n| format!("\"a{n}\":{n}")).collect::<Vec<_>>().join(","));
        let long = format!("[{}]", "0,".repeat(10_000) + "0");
        for (name, value) in
            [("memories", &long), ("entries", &long), ("tags", &long), ("embedding", &long), ("metadata", &wide)]
        {
            let reply = world.send(route.json(&format!("{{\"{name}\": {value}}}"))).await;
            assert_eq!(reply.status, 422, "{} {name}: {}", route.name(), reply.text);
            // An answer that names each of ten thousand would itself be a flood.
            assert!(reply.text.len() < 2_000_000, "{} bytes", reply.text.len());
        }
    }
    assert_eq!(world.snapshot().await, before);
}

/// A body that unpacks to a thousand times its size: it is not unpacked at all.
#[tokio::test]
async fn a_gzip_bomb_is_not_opened_anywhere() {
    // The head of a gzip stream, and nonsense: whoever opened it would answer that it is broken.
    let bomb: Vec<u8> = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].into_iter().chain([0xff; 1_000]).collect();
    let world = World::new().await;
    for route in &world.routes {
        for encoding in ["gzip", "GZip", "x-gzip", "gzip, identity"] {
            let length = bomb.len().to_string();
            let headers =
                [("content-type", "application/json"), ("content-encoding", encoding), ("content-length", &length)];
            let reply = world.send(route.request(bomb.clone(), &headers)).await;
            assert_eq!((reply.status, reply.code()), (415, "unsupported_media_type"), "{}", route.name());
        }
    }
}

#[tokio::test]
async fn a_vector_that_is_none_is_never_kept() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let with = |numbers: &str, count: usize| {
        let rest = ",0".repeat(count - 1);
        format!("{{\"type\":\"n\",\"input_context\":\"x\",\"embedding\":[{numbers}{rest}]}}")
    };
    for (number, count, status) in [
        ("NaN", 384, 400),
        ("Infinity", 384, 400),
        ("1e999", 384, 422),
        ("1e39", 384, 422),
        ("-3.5e38", 384, 422),
        ("null", 384, 422),
        ("\"1\"", 384, 422),
        ("[1]", 384, 422),
        ("0", 384, 422),
        ("1e-46", 384, 422),
        ("1", 383, 422),
        ("1", 385, 422),
        ("1", 384, 201),
    ] {
        let text = with(number, count);
        let send = async |path: &str, text: String| {
            let mut request = crate::suite::support::request("POST", path, Some(&user.token), Some(json!({})), &[]);
            request.headers_mut().insert("content-length", text.len().into());
            *request.body_mut() = axum::body::Body::from(text);
            app.send(request).await
        };
        let reply = send("/memory/store", text.clone()).await;
        assert_eq!(reply.status, status, "{number} x {count}: {}", reply.text);
        let searched = text.replace("\"type\":\"n\",\"input_context\":\"x\",", "");
        let status = if status == 201 { 200 } else { status };
        assert_eq!(send("/memory/search", searched).await.status, status, "{number} x {count}");
    }
    app.proves();
}
