//! Bad calls, in OpenAI's envelope, and that nothing comes of them.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tallybox::domain::auth::Scope;

use super::fake::{Act, answer};
use super::{World, hello};
use crate::suite::support::Reply;

const BAD: &str = "invalid_request_error";
const ROUTES: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"];

#[track_caller]
fn is_envelope(reply: &Reply, status: u16, kind: &str, code: &str, what: &str) {
    assert_eq!(reply.status, status, "{what}: {}", reply.text);
    assert_eq!(reply.header("content-type"), "application/json", "{what}");
    let error = &reply.json["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!(kind), &json!(code)), "{what}: {}", reply.text);
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {}", reply.text);
    assert!(error.get("param").is_some(), "{what}: {}", reply.text);
}

fn raw(world: &World, path: &str, media: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header("authorization", format!("Bearer {}", world.user.token));
    request.header("content-type", media).body(body.into()).unwrap()
}

#[tokio::test]
async fn every_failure_has_the_envelope_of_the_dialect() {
    let world = World::with("[server]\nbody_bytes_max = 32768").await;
    let lacks = world.app.token("a@example.org", &[Scope::UsageRead]).await;
    for path in ROUTES {
        let call = async |method: &str, token: Option<&str>| {
            world.app.call(method, path, token, Some(hello(&json!({})))).await
        };
        is_envelope(&call("POST", None).await, 401, "authentication_error", "unauthenticated", path);
        assert_eq!(call("POST", None).await.header("www-authenticate"), "Bearer");
        is_envelope(&call("POST", Some(&lacks)).await, 403, "permission_error", "scope_required", path);
        is_envelope(&call("PUT", Some(&lacks)).await, 405, BAD, "method_not_allowed", path);
        let send = async |media: &str, body: &str| world.app.send(raw(&world, path, media, body.to_owned())).await;
        let json = "application/json";
        is_envelope(&send("text/plain", "{}").await, 415, BAD, "unsupported_media_type", path);
        for encoding in ["gzip", "br", "x-gzip", "gzip, identity"] {
            let mut packed = raw(&world, path, json, "{}");
            packed.headers_mut().insert("content-encoding", encoding.parse().unwrap());
            is_envelope(&world.app.send(packed).await, 415, BAD, "unsupported_media_type", encoding);
        }
        is_envelope(&send(json, &" ".repeat(32_769)).await, 413, BAD, "too_large", path);
        for text in ["", "{", "{\"model\":}", "{\"model\":\"m\"} x", "nul", "{\"model\": NaN}"] {
            is_envelope(&send(json, text).await, 400, BAD, "malformed_json", text);
        }
        let deep = format!(
            "{{\"model\":\"m\",\"messages\":{0}{1},\"prompt\":{0}{1},\"input\":{0}{1}}}",
            "[".repeat(500),
            "]".repeat(500)
        );
        is_envelope(&send(json, &deep).await, 400, BAD, "malformed_json", path);
        for text in ["[]", "null", "{}", "{\"model\":5}", "{\"model\":\"\"}", "{\"model\":\"m\",\"model\":\"m\"}"] {
            is_envelope(&send(json, text).await, 422, BAD, "invalid", text);
        }
        assert_eq!(send(json, "{}").await.json["error"]["param"], "model");
        let bytes = world.app.send(raw(&world, path, json, vec![b'{', 0xff, b'}'])).await;
        is_envelope(&bytes, 400, BAD, "malformed_json", path);
    }
    let nowhere = world.app.tell(&world.user.token, "/v1/nowhere", json!({})).await;
    is_envelope(&nowhere, 404, BAD, "not_found", "nowhere");
    assert_eq!((world.fake.seen().len(), world.tokens().await), (0, (0, 0)));
    world.app.proves();
}

#[tokio::test]
async fn a_model_that_nobody_serves_is_not_found() {
    let fake = super::Fake::start().await;
    let toml = format!(
        "[embedding]\nprovider = 'openai'\nurl = '{0}'\nmodel = 'm'\n{1}",
        fake.url,
        super::upstream("one", &fake.url, "gpt-*")
    );
    let app = crate::suite::support::TestApp::with_config(&toml);
    let user = app.user("a@example.org", "basic").await;
    for (path, model) in [("/v1/chat/completions", "claude-3"), ("/v1/embeddings", "all-minilm-l6-v2")] {
        let reply = app.tell(&user.token, path, json!({"model": model, "input": "x", "messages": []})).await;
        is_envelope(&reply, 404, "invalid_request_error", "model_not_found", path);
    }
}

#[tokio::test]
async fn state_of_the_upstream_is_refused_unless_the_operator_offers_it() {
    let world = World::new().await;
    let bodies = [
        json!({"model": "m", "input": "x", "previous_response_id": "resp_1"}),
        json!({"model": "m", "input": "x", "background": true}),
        json!({"model": "m", "input": "x", "tools": [{"type": "web_search"}]}),
        json!({"model": "m", "input": "x", "tools": {"type": "web_search"}}),
        json!({"model": "m", "input": "x", "tool_choice": {"type": "web_search_preview"}}),
    ];
    for body in &bodies {
        let reply = world.app.tell(&world.user.token, "/v1/responses", body.clone()).await;
        is_envelope(&reply, 400, "invalid_request_error", "stateful", "responses");
        assert!(reply.json["error"]["param"].is_string());
    }
    assert_eq!(world.fake.seen().len(), 0);
    let world = World::with("[gateway]\nstateful = true").await;
    for body in &bodies {
        world.fake.next(Act::Whole(200, answer("a", 1, 1).to_string()));
        world.app.tell(&world.user.token, "/v1/responses", body.clone()).await.expect(200);
        assert_eq!(world.fake.last().json().get("store"), None);
    }
}

#[tokio::test]
async fn a_text_is_held_for_wherever_it_stands_in_a_body() {
    let world = World::with("[gateway]\nimage_tokens_max = 10\naudio_tokens_max = 10").await;
    let long = "word ".repeat(400);
    let call = |id: &str| json!([{"role": "assistant", "tool_calls": [{"id": id, "type": "function", "function": {"name": "f", "arguments": ""}}]}]);
    let role = format!("user{long}");
    for messages in [
        json!([{"role": "user", "type": "image_url", "content": long}]),
        json!([{"role": "tool", "type": "audio", "content": long}]),
        json!([{"role": role, "content": "x"}]),
        json!([{"role": "user", "content": [{"type": "text", "text": "x", "detail": long}]}]),
        call(&long),
    ] {
        world.chat(json!({"model": "llama-3", "messages": messages, "max_tokens": 1})).await.expect(429);
    }
    for member in ["chat_template", "documents", "chat_template_kwargs", "functions", "response_format", "prediction"] {
        let mut body = hello(&json!({"model": "llama-3", "max_tokens": 1}));
        body[member] = json!([{"content": long}]);
        world.chat(body).await.expect(429);
    }
    assert_eq!((world.fake.seen().len(), world.tokens().await), (0, (0, 0)));
}

#[tokio::test]
async fn a_member_that_is_there_twice_is_refused_at_any_depth() {
    let world = World::new().await;
    for (path, body) in [
        ("/v1/chat/completions", r#"{"model":"m","messages":[{"role":"user","content":"long","content":"x"}]}"#),
        ("/v1/chat/completions", r#"{"model":"m","messages":[],"unknown":{"a":[{"b":1,"\u0062":2}]}}"#),
        (
            "/v1/responses",
            r#"{"model":"m","input":[{"content":[{"type":"input_file","file_id":"f","file_id":null}]}]}"#,
        ),
    ] {
        let reply = world.app.send(raw(&world, path, "application/json", body)).await;
        is_envelope(&reply, 422, BAD, "invalid", body);
    }
    assert_eq!(world.fake.seen().len(), 0);
}

#[tokio::test]
async fn checks_come_in_the_order_of_all_other_routes() {
    let world = World::new().await;
    let lacks = world.app.token("a@example.org", &[Scope::Gateway]).await;
    let body = hello(&json!({"n": 0, "tallybox": {"memory": true}}));
    let reply = world.app.tell(&lacks, "/v1/chat/completions", body.clone()).await;
    is_envelope(&reply, 403, "permission_error", "scope_required", "a scope before a bound");
    is_envelope(&world.chat(body).await, 422, BAD, "invalid", "a bound");
    let bad = json!({"model": "m", "input": "x", "previous_response_id": "r", "max_output_tokens": -1});
    let reply = world.app.tell(&world.user.token, "/v1/responses", bad).await;
    is_envelope(&reply, 400, BAD, "stateful", "what is not offered before a bound");
    let bad = json!({"model": "m", "prompt": "x", "n": 0, "tallybox": {"memory": true}});
    let reply = world.app.tell(&world.user.token, "/v1/completions", bad).await;
    is_envelope(&reply, 400, BAD, "memory_not_offered", "what is not offered before a bound");
}

#[tokio::test]
async fn a_full_upstream_is_waited_for_and_then_said_to_be_busy() {
    let fake = super::Fake::start().await;
    let toml = format!(
        "{}[gateway]\nplace_timeout = '1s'\n{}max_concurrent = 1",
        super::TIERS,
        super::upstream("one", &fake.url, "*")
    );
    let app = crate::suite::support::TestApp::with_config(&toml);
    let user = app.user("a@example.org", "free_trial").await;
    let ask = || app.tell(&user.token, "/v1/chat/completions", hello(&json!({"max_tokens": 20})));
    let slow = |millis| Act::Slow(std::time::Duration::from_millis(millis), answer("a", 2, 3).to_string());
    fake.next(slow(400));
    fake.next(slow(0));
    let (one, two) = tokio::join!(ask(), ask());
    assert_eq!((one.status, two.status), (200, 200));
    fake.next(slow(1_600));
    let (one, two) = tokio::join!(ask(), ask());
    let (good, busy) = if one.status == 200 { (one, two) } else { (two, one) };
    good.expect(200);
    is_envelope(&busy, 503, "server_error", "busy", "full");
    assert_eq!(busy.header("retry-after"), "1");
    assert_eq!(app.tokens(&user).await, (15, 0));
}

#[tokio::test]
async fn models_are_those_that_the_configuration_names() {
    let fake = super::Fake::start().await;
    let toml = format!("[gateway.aliases]\nfast = 'gpt-4o'\n{}", super::upstream("one", &fake.url, "gpt-*','o3"));
    let app = crate::suite::support::TestApp::with_config(&toml);
    let user = app.user("a@example.org", "basic").await;
    let list = app.ask(&user.token, "/v1/models").await.expect(200).json;
    assert_eq!(list["object"], "list");
    let names: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["all-minilm-l6-v2", "fast", "o3"]);
}
