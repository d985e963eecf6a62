//! Whole answers.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::fake::{Act, Fake, answer};
use super::{HELLO, HELLO_BOUND, TIERS, World, hello, upstream};
use crate::suite::support::TestApp;

#[tokio::test]
async fn a_call_is_held_forwarded_and_settled_as_one_entry() {
    let world = World::new().await;
    let mut said = answer("Well.", 12, 7);
    said["usage"]["prompt_tokens_details"] = json!({"cached_tokens": 4});
    said["usage"]["completion_tokens_details"] = json!({"reasoning_tokens": 2});
    world.fake.next(Act::Whole(200, said.to_string()));
    let reply = world.chat(hello(&json!({"max_tokens": 50}))).await.expect(200);
    assert_eq!(reply.text, said.to_string());
    assert_eq!(world.tokens().await, (19, 0));
    let (amount, metadata) = World::only(&world.entries().await);
    assert_eq!(amount, 19);
    for (name, value) in [
        ("model", json!("gpt-4o")),
        ("upstream", json!("first")),
        ("endpoint", json!("chat/completions")),
        ("promptTokens", json!(12)),
        ("completionTokens", json!(7)),
        ("cachedTokens", json!(4)),
        ("reasoningTokens", json!(2)),
        ("status", json!(200)),
        ("outcome", json!("complete")),
        ("counted", json!("upstream")),
        ("stream", json!(false)),
        ("requestId", json!(reply.header("x-request-id"))),
    ] {
        assert_eq!(metadata[name], value, "{name} in {metadata}");
    }
    assert!(metadata["durationMs"].is_u64() && metadata["firstTokenMs"].is_u64(), "{metadata}");
    world.app.proves();
}

#[tokio::test]
async fn what_need_not_change_passes_byte_for_byte_both_ways() {
    let world = World::new().await;
    let body = "{ \"temperature\" : 1.50e0, \"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9 \\ud83d\\ude00\"}],\n\
                \"tools\":[ ],\"unknown\":{\"b\":1,\"a\":[1.0,2]},\"max_tokens\":5,\"model\":\"gpt-4o\" }";
    let said = "{\"choices\": [ ],\n \"x\": 1.0e-3,\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1} }";
    world.fake.next(Act::Whole(200, said.to_owned()));
    let request = Request::post("/v1/chat/completions")
        .header("authorization", format!("Bearer {}", world.user.token))
        .header("content-type", "application/json")
        .header("cookie", "tallybox_session=x")
        .header("x-secret", "mine")
        .body(Body::from(body))
        .unwrap();
    let reply = world.app.send(request).await.expect(200);
    assert_eq!(reply.text, said);
    let seen = world.fake.last();
    assert_eq!(seen.body, body);
    assert!(seen.head.starts_with("post /v1/chat/completions "), "{}", seen.head);
    assert!(seen.head.contains("authorization: bearer sk-operator"), "{}", seen.head);
    for secret in [world.user.token.to_lowercase().as_str(), "cookie", "mine"] {
        assert!(!seen.head.contains(secret), "{secret} in {}", seen.head);
    }
    assert_eq!(reply.header("openai-version"), "2020-10-01");
    for hidden in ["openai-organization", "set-cookie", "retry-after"] {
        assert_eq!(reply.header(hidden), "", "{hidden}");
    }
}

#[tokio::test]
async fn the_headers_tell_what_is_left() {
    let world = World::new().await;
    world.fake.next(Act::Whole(200, answer("a", 90, 10).to_string()));
    let reply = world.chat(hello(&json!({}))).await.expect(200);
    assert_eq!(reply.header("ratelimit-policy"), "\"llm_tokens\";q=1000;w=86400");
    assert_eq!(reply.header("ratelimit"), "\"llm_tokens\";r=900;t=43200");
    assert_eq!(reply.header("x-ratelimit-limit-tokens"), "1000");
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), "900");
    assert_eq!(reply.header("x-ratelimit-reset-tokens"), "12h0m0s");
}

#[tokio::test]
async fn an_answer_is_bounded_by_what_remains() {
    let world = World::new().await;
    world.fake.always(Act::Whole(200, answer("a", 1, 1).to_string()));
    let room = 1_000 - HELLO_BOUND;
    // None named: the default does not fit a day of 1,000.
    world.chat(hello(&json!({}))).await.expect(200);
    assert_eq!(world.fake.last().json()["max_tokens"], room);
    // Each name is heeded, and `n` divides.
    world.chat(hello(&json!({"max_completion_tokens": 5_000, "n": 3}))).await.expect(200);
    assert_eq!(world.fake.last().json()["max_completion_tokens"], (room - 2) / 3);
    assert_eq!(world.fake.last().json().get("max_tokens"), None);
    // Of two names, each is its own bound at most.
    world.chat(hello(&json!({"max_completion_tokens": 5_000, "max_tokens": 20}))).await.expect(200);
    let sent = world.fake.last().json();
    assert_eq!((&sent["max_completion_tokens"], &sent["max_tokens"]), (&json!(room - 4), &json!(20)));
    // What fits is left alone.
    world.chat(hello(&json!({"max_tokens": 10}))).await.expect(200);
    assert_eq!(world.fake.last().json(), hello(&json!({"max_tokens": 10})));
    // Without a limit nothing is set.
    let pro = world.app.user("pro@example.org", "pro").await;
    world.app.tell(&pro.token, "/v1/chat/completions", hello(&json!({}))).await.expect(200);
    assert_eq!(world.fake.last().json(), hello(&json!({})));
}

#[tokio::test]
async fn where_not_even_the_least_answer_fits_nobody_is_asked() {
    let world = World::new().await;
    world.app.used_up(&world.user, 1_000 - HELLO_BOUND - 16).await;
    world.fake.next(Act::Whole(200, answer("a", 1, 1).to_string()));
    world.chat(hello(&json!({}))).await.expect(200);
    assert_eq!(world.fake.last().json()["max_tokens"], 16);
    let reply = world.chat(hello(&json!({}))).await.expect(429);
    assert_eq!(world.fake.seen().len(), 1);
    let error = &reply.json["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("insufficient_quota"), &json!("insufficient_quota")));
    assert_eq!(error["param"], Value::Null);
    assert!(error["message"].as_str().unwrap().contains("quota exceeded"), "{error}");
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!((reply.header("retry-after"), reply.header("x-should-retry")), ("43200", "false"));
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), (HELLO_BOUND + 14).to_string());
    // Close to the reset a client may wait for it.
    world.app.clock.advance_millis(43_200_000 - 30_000);
    let reply = world.chat(hello(&json!({}))).await.expect(429);
    assert_eq!((reply.header("retry-after"), reply.header("x-should-retry")), ("30", ""));
    world.app.clock.advance_millis(30_000);
    world.fake.next(Act::Whole(200, answer("a", 1, 1).to_string()));
    world.chat(hello(&json!({}))).await.expect(200);
    world.app.proves();
}

#[tokio::test]
async fn what_the_upstream_does_not_tell_is_counted() {
    let world = World::new().await;
    let mut said = answer("One two three four.", 0, 0);
    let parts = json!({"prompt_tokens": 12});
    for usage in [Value::Null, json!({}), json!({"prompt_tokens": -4, "completion_tokens": 1e99}), parts] {
        said["usage"] = usage;
        world.fake.next(Act::Whole(200, said.to_string()));
        world.chat(hello(&json!({}))).await.expect(200);
        let entry = world.entries().await.remove(0);
        assert_eq!(entry["amount"], HELLO + 5, "{entry}");
        assert_eq!(entry["metadata"]["counted"], "tokenizer");
    }
    world.fake.next(Act::Whole(200, said.to_string()));
    world.chat(hello(&json!({"model": "llama-3"}))).await.expect(200);
    assert_eq!(world.entries().await[0]["metadata"]["counted"], "estimate");
}

#[tokio::test]
async fn an_unknown_family_is_held_by_its_bytes() {
    let world = World::new().await;
    let text = "x".repeat(900);
    let body = json!({"model": "other", "messages": [{"role": "user", "content": text}]});
    world.fake.next(Act::Whole(200, answer("a", 200, 1).to_string()));
    world.chat(body.clone()).await.expect(200);
    assert_eq!(world.fake.last().json()["max_tokens"], 1_000 - 900 - 16);
    assert_eq!(world.tokens().await, (201, 0));
    world.chat(body).await.expect(429);
}

#[tokio::test]
async fn what_the_upstream_refuses_costs_nothing_and_is_told() {
    let world = World::new().await;
    let refusal =
        "{\"error\":{\"message\":\"bad tool\",\"type\":\"invalid_request_error\",\"param\":\"tools\",\"code\":null}}";
    world.fake.next(Act::Whole(400, refusal.to_owned()));
    let reply = world.chat(hello(&json!({}))).await.expect(400);
    assert_eq!(reply.text, refusal);
    assert_eq!((world.tokens().await, world.entries().await.len()), ((0, 0), 0));
    // What it says of the key is not.
    for status in [401, 403] {
        world.fake.next(Act::Whole(status, "{\"error\":\"sk-operator is wrong\"}".to_owned()));
        let reply = world.chat(hello(&json!({}))).await.expect(502);
        assert_eq!(reply.json["error"]["code"], "upstream_failed");
        assert!(!reply.text.contains("sk-"), "{}", reply.text);
    }
    world.app.proves();
}

#[tokio::test]
async fn the_next_upstream_is_asked_where_one_fails_before_its_answer() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    let nobody = upstream("nobody", "http://127.0.0.1:9/v1", "gpt-*");
    let other = upstream("other", &first.url, "claude-*");
    let toml = format!(
        "{TIERS}[gateway.aliases]\nfast = 'gpt-4o'\n{other}{nobody}{}{}",
        upstream("first", &first.url, "gpt-*"),
        upstream("second", &second.url, "*")
    );
    let app = TestApp::with_config(&toml);
    let user = app.user("a@example.org", "free_trial").await;
    let ask =
        async || app.tell(&user.token, "/v1/chat/completions", hello(&json!({"model": "fast", "max_tokens": 9}))).await;
    for failure in
        [Act::Whole(500, "{}".into()), Act::Whole(429, "{}".into()), Act::Whole(503, "<html>".into()), Act::Close]
    {
        first.next(failure);
        second.next(Act::Whole(200, answer("a", 2, 3).to_string()));
        ask().await.expect(200);
        assert_eq!(second.last().json()["model"], "gpt-4o");
    }
    let entries = app.ask(&user.token, "/usage/ledger").await.expect(200).json["entries"].clone();
    assert_eq!(entries.as_array().unwrap().len(), 4);
    assert_eq!(
        (&entries[0]["metadata"]["upstream"], &entries[0]["metadata"]["model"]),
        (&json!("second"), &json!("fast"))
    );
    // The last one's failure is the call's.
    first.always(Act::Whole(500, "{}".into()));
    for (failure, status, code) in [
        (Act::Whole(500, "{\"secret\":1}".into()), 502, "upstream_failed"),
        (Act::Whole(429, "{}".into()), 429, "upstream_rate_limited"),
        (Act::Half, 502, "upstream_broken"),
        (Act::Close, 502, "upstream_unreachable"),
    ] {
        second.next(failure);
        let reply = ask().await.expect(status);
        assert_eq!(reply.json["error"]["code"], code);
        assert_eq!(reply.header("retry-after"), if status == 429 { "7" } else { "" });
    }
    assert_eq!(app.tokens(&user).await, (20, 0));
    app.proves();
}

#[tokio::test]
async fn the_next_upstream_is_asked_where_a_connection_does_not_come_about() {
    let second = Fake::start().await;
    second.always(Act::Whole(200, answer("a", 2, 3).to_string()));
    // It takes a connection and never says who it is.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/v1", silent.local_addr().unwrap());
    let toml =
        format!("{TIERS}{}timeout = '2s'\n{}", upstream("silent", &url, "*"), upstream("second", &second.url, "*"));
    let app = TestApp::with_config(&toml);
    let user = app.user("a@example.org", "free_trial").await;
    app.tell(&user.token, "/v1/chat/completions", hello(&json!({}))).await.expect(200);
    assert_eq!(app.tokens(&user).await, (5, 0));
}

#[tokio::test]
async fn a_large_answer_passes_and_one_that_is_too_large_does_not() {
    let world = World::with("[gateway]\nanswer_bytes_max = 20000000").await;
    let large = answer(&"word ".repeat(2_000_000), 5, 6).to_string();
    world.fake.next(Act::Whole(200, large.clone()));
    assert!(world.chat(hello(&json!({}))).await.expect(200).text == large);
    assert_eq!(world.tokens().await, (11, 0));
    world.fake.next(Act::Whole(200, answer(&"word ".repeat(5_000_000), 5, 6).to_string()));
    world.chat(hello(&json!({}))).await.expect(502);
    assert_eq!(world.tokens().await, (11, 0));
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_past_the_time_of_other_requests_and_silence_is_not() {
    let fake = Fake::start().await;
    let toml = format!("[server]\nrequest_timeout = '1s'\n{TIERS}{}timeout = '2s'", upstream("slow", &fake.url, "*"));
    let app = TestApp::with_config(&toml);
    let user = app.user("a@example.org", "free_trial").await;
    fake.next(Act::Slow(Duration::from_millis(1_300), answer("a", 2, 3).to_string()));
    app.tell(&user.token, "/v1/chat/completions", hello(&json!({}))).await.expect(200);
    fake.next(Act::Slow(Duration::from_secs(9), answer("a", 2, 3).to_string()));
    let reply = app.tell(&user.token, "/v1/chat/completions", hello(&json!({}))).await.expect(504);
    assert_eq!(reply.json["error"]["code"], "upstream_timeout");
    assert_eq!(app.tokens(&user).await, (5, 0));
}

#[tokio::test]
async fn a_call_counts_in_the_day_in_which_it_was_held() {
    let world = World::new().await;
    world.fake.next(Act::Slow(Duration::from_millis(400), answer("a", 2, 3).to_string()));
    let midnight = async {
        world.fake.asked(1).await;
        world.app.clock.advance_millis(13 * 3_600_000);
        assert_eq!(world.tokens().await, (0, 0), "nothing is held in the new day");
    };
    let (reply, ()) = tokio::join!(world.chat(hello(&json!({"max_tokens": 20}))), midnight);
    reply.expect(200);
    assert_eq!(world.tokens().await, (0, 0));
    let series = world.app.ask(&world.user.token, "/usage/timeseries/llm_tokens?days=2").await.expect(200).json;
    assert_eq!((&series[0]["amount"], &series[1]["amount"]), (&json!(5), &json!(0)));
    world.app.proves();
}

#[tokio::test]
async fn a_disabled_user_is_cut_and_an_erased_one_leaves_nothing() {
    let world = World::new().await;
    let admin = world.app.admin("admin@example.org").await;
    let session = world.app.log_in("admin@example.org").await;
    let path = format!("/api/admin/users/{}", world.user.id);
    let slow = || world.fake.next(Act::Slow(Duration::from_secs(9), answer("a", 2, 3).to_string()));
    let soon = async |method: &str, path: &str, body: Option<Value>| {
        world.fake.asked(if method == "PATCH" { 1 } else { 2 }).await;
        let reply = world.app.call(method, path, Some(&session), body).await;
        assert!((200..300).contains(&reply.status), "{}", reply.text);
    };
    slow();
    let disable = soon("PATCH", &path, Some(json!({"disabled": true})));
    let (reply, ()) = tokio::join!(world.chat(hello(&json!({}))), disable);
    reply.expect(401);
    let ledger = world.app.ask(&admin.token, &format!("{path}/ledger")).await.expect(200).json;
    assert_eq!(
        (&ledger["entries"][0]["amount"], &ledger["entries"][0]["metadata"]["outcome"]),
        (&json!(HELLO), &json!("credential_ended"))
    );
    world.app.call("PATCH", &path, Some(&session), Some(json!({"disabled": false}))).await.expect(200);
    assert_eq!(world.tokens().await, (HELLO, 0));
    slow();
    let erased = format!("{path}?erase=true");
    let (reply, ()) = tokio::join!(world.chat(hello(&json!({}))), soon("DELETE", &erased, None));
    reply.expect(401);
    world.app.proves();
}
