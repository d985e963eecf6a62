//! Answers that come in pieces.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tallybox::app::App;
use tallybox::config::{Config, Environment};
use tallybox::domain::auth::{Role, Scope};
use tallybox::service::auth::account::Changes;
use tower::ServiceExt;

use super::fake::{Act, Piece, chunk, ending, event, said};
use super::{HELLO, HELLO_BOUND, TIERS, World, hello};
use crate::suite::support::{TestApp, request};

impl World {
    /// Begins a stream, and gives the answer before its body is read.
    pub(super) async fn begin(&self, more: Value) -> Response {
        let mut body = hello(&json!({"stream": true}));
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.begin_by(&self.user.token, body, &[]).await
    }

    /// As [`World::begin`], with the whole body, by anyone.
    async fn begin_by(&self, secret: &str, body: Value, headers: &[(&str, &str)]) -> Response {
        let request = request("POST", "/v1/chat/completions", Some(secret), Some(body), headers);
        let response = self.app.app.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        response
    }
}

/// The next piece of a body.
async fn next(body: &mut Body) -> Option<String> {
    let frame = body.frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

pub(super) async fn text_of(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub(super) fn bytes_of(pieces: &[Piece]) -> String {
    let bytes = pieces.iter().filter_map(|piece| match piece {
        Piece::Bytes(bytes) => Some(bytes.clone()),
        _ => None,
    });
    String::from_utf8(bytes.flatten().collect()).unwrap()
}

fn conversation(prompt: i64, completion: i64) -> Vec<Piece> {
    let mut pieces = vec![Piece::Bytes(b": alive\n\n".to_vec()), said("Well"), said(" then"), said(".")];
    pieces.extend(ending(prompt, completion));
    pieces
}

#[tokio::test]
async fn a_stream_passes_as_it_came_and_is_settled_before_its_last_byte() {
    let world = World::new().await;
    let pieces = conversation(9, 4);
    world.fake.next(Act::Stream(pieces.clone()));
    let mut body = world.begin(json!({"stream_options": {"include_usage": true}, "max_tokens": 20})).await.into_body();
    let mut text = String::new();
    while let Some(piece) = next(&mut body).await {
        if piece.contains("[DONE]") {
            assert_eq!(world.tokens().await, (13, 0));
        }
        text.push_str(&piece);
    }
    assert_eq!(text, bytes_of(&pieces));
    let sent = hello(&json!({"stream": true, "stream_options": {"include_usage": true}, "max_tokens": 20}));
    assert_eq!(world.fake.last().json(), sent);
    let (amount, metadata) = World::only(&world.entries().await);
    assert_eq!((amount, &metadata["counted"], &metadata["stream"]), (13, &json!("upstream"), &json!(true)));
    assert!(metadata["firstTokenMs"].is_u64(), "{metadata}");
    world.app.proves();
}

#[tokio::test]
async fn what_a_stream_cost_is_asked_for_and_hidden_from_who_did_not_ask() {
    let world = World::new().await;
    let pieces = conversation(9, 4);
    let hidden = bytes_of(&pieces[pieces.len() - 2..pieces.len() - 1]);
    for options in
        [json!({}), json!({"stream_options": null}), json!({"stream_options": {"include_usage": false, "x": 1}})]
    {
        world.fake.next(Act::Stream(pieces.clone()));
        let text = text_of(world.begin(options).await).await;
        assert_eq!(text, bytes_of(&pieces).replace(&hidden, ""));
        assert_eq!(world.fake.last().json()["stream_options"]["include_usage"], true);
        assert_eq!(world.entries().await[0]["amount"], 13);
    }
}

#[tokio::test]
async fn a_stream_whose_count_passes_its_hold_ends_as_one_that_is_too_long() {
    let world = World::new().await;
    let mut pieces: Vec<Piece> = (0..100).map(|_| said(" word")).collect();
    pieces.extend(ending(9, 4));
    world.fake.next(Act::Stream(pieces));
    let text = text_of(world.begin(json!({"max_tokens": 10, "stream_options": {"include_usage": true}})).await).await;
    let events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    let allowance = usize::try_from(10 + HELLO_BOUND - HELLO).unwrap();
    assert_eq!(events.len(), allowance + 3, "{text}");
    let parse = |event: &str| serde_json::from_str::<Value>(event.strip_prefix("data: ").unwrap()).unwrap();
    let last = parse(events[allowance]);
    assert_eq!((&last["choices"][0]["finish_reason"], &last["id"]), (&json!("length"), &json!("chatcmpl-2")));
    assert_eq!(parse(events[allowance + 1])["usage"]["total_tokens"], 10 + HELLO_BOUND);
    assert_eq!(events[allowance + 2], "data: [DONE]");
    let (amount, metadata) = World::only(&world.entries().await);
    assert_eq!((amount, &metadata["outcome"]), (10 + HELLO_BOUND, &json!("cut_at_hold")));
    assert_eq!(world.tokens().await, (10 + HELLO_BOUND, 0));
    world.app.proves();
}

#[tokio::test]
async fn who_hangs_up_pays_for_what_was_delivered_within_a_second() {
    let world = World::new().await;
    world.fake.next(Act::Stream(vec![said("One"), said(" two"), Piece::Silence]));
    let mut body = world.begin(json!({})).await.into_body();
    next(&mut body).await.unwrap();
    next(&mut body).await.unwrap();
    assert!(world.tokens().await.1 > 0);
    drop(body);
    world.settled().await;
    let (amount, metadata) = World::only(&world.entries().await);
    assert_eq!((amount, &metadata["outcome"], &metadata["status"]), (HELLO + 2, &json!("client_gone"), &json!(499)));
    let begun = Instant::now();
    while world.fake.hung_up() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(1), "the upstream still talks");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One that hangs up before anything came has sent a prompt.
    world.fake.next(Act::Slow(Duration::from_secs(9), "{}".into()));
    tokio::select! {
        _ = world.chat(hello(&json!({}))) => unreachable!("it is not answered so soon"),
        () = world.fake.asked(2) => {}
    }
    world.settled().await;
    let entry = world.entries().await.remove(0);
    assert_eq!((&entry["amount"], &entry["metadata"]["upstream"]), (&json!(HELLO), &json!("first")));
    world.app.proves();
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_paid_for_what_it_said() {
    let world = World::new().await;
    let malformed = event("{\"choices\": [ nonsense");
    world.fake.next(Act::Stream(vec![said("One"), malformed.clone(), said(" two"), Piece::Break]));
    let text = text_of(world.begin(json!({})).await).await;
    let (passed, last) = text.trim_end().rsplit_once("\n\n").unwrap();
    assert_eq!(format!("{passed}\n\n"), bytes_of(&[said("One"), malformed, said(" two")]));
    assert!(last.contains("\"code\":\"upstream_broken\""), "{last}");
    let (amount, metadata) = World::only(&world.entries().await);
    // What is not of the dialect was delivered as well.
    assert!((HELLO + 4..HELLO + 14).contains(&amount), "{metadata}");
    assert_eq!((&metadata["counted"], &metadata["outcome"]), (&json!("tokenizer"), &json!("upstream_broke")));
}

#[tokio::test]
async fn characters_that_come_in_two_pieces_arrive_whole() {
    let world = World::new().await;
    let choice = json!([{"index": 0, "delta": {"content": "grüße 🦀"}, "finish_reason": null}]);
    let whole = format!("data: {}\r\n\r\ndata: [DONE]\r\n\r\n", chunk(&choice, &Value::Null));
    for cut in (1..whole.len()).step_by(7) {
        let (left, right) = whole.as_bytes().split_at(cut);
        let pause = Piece::Wait(Duration::from_millis(2));
        world.fake.next(Act::Stream(vec![Piece::Bytes(left.to_vec()), pause, Piece::Bytes(right.to_vec())]));
        assert_eq!(text_of(world.begin(json!({"max_tokens": 9})).await).await, whole, "cut at {cut}");
    }
}

#[tokio::test]
async fn choices_and_tools_count_and_an_end_without_a_last_event_is_one() {
    let world = World::new().await;
    let choices = json!([
        {"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "look", "arguments": ""}}]}},
        {"index": 1, "delta": {"content": "One"}},
    ]);
    world.fake.next(Act::Stream(vec![event(&chunk(&choices, &Value::Null).to_string())]));
    text_of(world.begin(json!({"n": 2})).await).await;
    let (amount, metadata) = World::only(&world.entries().await);
    assert_eq!((amount, &metadata["outcome"]), (HELLO + 2, &json!("complete")));
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_that_began_it() {
    let world = World::new().await;
    let admin = world.app.admin("admin@example.org").await;
    let session = world.app.log_in("admin@example.org").await;
    let path = format!("/api/admin/users/{}/tokens", world.user.id);
    let tokens = world.app.ask(&admin.token, &path).await.expect(200).json["tokens"].clone();
    let path = format!("{path}/{}", tokens[0]["id"].as_str().unwrap());
    world.fake.next(Act::Stream(vec![said("One"), Piece::Silence]));
    let mut body = world.begin(json!({})).await.into_body();
    next(&mut body).await.unwrap();
    world.app.drop_at(&session, &path).await.expect(204);
    let last = next(&mut body).await.unwrap();
    assert!(last.contains("credential_ended"), "{last}");
    assert_eq!(next(&mut body).await, None);
    let found = world.app.ask(&admin.token, &format!("/api/admin/users/{}/ledger", world.user.id)).await.expect(200);
    let entry = &found.json["entries"][0];
    assert_eq!((&entry["amount"], &entry["metadata"]["outcome"]), (&json!(HELLO + 1), &json!("credential_ended")));
    world.app.proves();
}

#[tokio::test]
async fn a_stream_outlives_the_lowering_of_the_role_that_began_it_and_not_what_comes_after() {
    let world = World::new().await;
    world.app.admin("root@example.org").await;
    world.app.admin("admin@example.org").await;
    let session = world.app.log_in("admin@example.org").await;
    let acting = world.app.token("admin@example.org", &[Scope::Gateway, Scope::ActAs]).await;
    let named = [("x-user-id", world.user.id.as_str())];
    let mut bodies = Vec::new();
    for (secret, headers) in [(&session, &[][..]), (&acting, &named[..])] {
        let pause = Piece::Wait(Duration::from_millis(800));
        world.fake.next(Act::Stream(vec![said("One"), pause, said(" two"), Piece::Silence]));
        let mut body = world.begin_by(secret, hello(&json!({"stream": true})), headers).await.into_body();
        next(&mut body).await.unwrap();
        bodies.push(body);
    }
    world.app.change("admin@example.org", Changes { role: Some(Role::User), ..Changes::default() }).await;
    world.app.ask(&session, "/auth/me").await.expect(401);
    world.app.call_with("GET", "/v1/models", Some(&acting), None, &named).await.expect(403);
    for body in &mut bodies {
        let went_on = next(body).await.unwrap();
        assert!(went_on.contains(" two"), "{went_on}");
    }
    // A disabling ends what a lowering left.
    world.app.change("admin@example.org", Changes { disabled: Some(true), ..Changes::default() }).await;
    for body in &mut bodies {
        let last = next(body).await.unwrap();
        assert!(last.contains("credential_ended"), "{last}");
    }
    world.app.proves();
}

#[tokio::test]
async fn a_stream_writes_down_how_far_it_is_and_the_next_start_settles_it() {
    let world = World::new().await;
    world.fake.next(Act::Stream(vec![said("One"), said(" two"), said(" three"), Piece::Silence]));
    let mut body = world.begin(json!({})).await.into_body();
    next(&mut body).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let World { app, user, .. } = world;
    // As a second start after a death would find it.
    let TestApp { app: first, clock, directory } = app;
    let config = Config::parse(Some(TIERS), &Environment::default()).unwrap();
    let second = App::build(config, directory.path(), clock.clone()).unwrap();
    let again = TestApp { app: second, clock, directory };
    drop(body);
    let found = again.call("GET", "/usage/ledger", Some(&user.token), None).await.expect(200);
    let entry = &found.json["entries"][0];
    assert_eq!((&entry["amount"], &entry["metadata"]["counted"]), (&json!(HELLO + 3), &json!("checkpoint")));
    assert_eq!((&entry["metadata"]["recovered"], &entry["metadata"]["model"]), (&json!(true), &json!("gpt-4o")));
    assert_eq!((&entry["metadata"]["completionTokens"], &entry["metadata"]["status"]), (&json!(3), &json!(200)));
    assert_eq!(entry["metadata"]["upstream"], "first");
    assert!(entry["metadata"]["durationMs"].is_u64() && entry["metadata"]["firstTokenMs"].is_u64(), "{entry}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The first one's own end finds it settled.
    let found = again.call("GET", "/usage/ledger", Some(&user.token), None).await.expect(200);
    assert_eq!(found.json["entries"].as_array().unwrap().len(), 1);
    assert_eq!(again.tokens(&user).await, (HELLO + 3, 0));
    again.proves();
    drop(first);
}

#[tokio::test]
async fn who_hangs_up_before_an_upstream_was_asked_pays_nothing() {
    let world = World::with("").await;
    let app =
        TestApp::with_config(&format!("{TIERS}{}max_concurrent = 1", super::upstream("one", &world.fake.url, "*")));
    let user = app.user("a@example.org", "free_trial").await;
    let ask = || app.tell(&user.token, "/v1/chat/completions", hello(&json!({"max_tokens": 20})));
    world.fake.next(Act::Slow(Duration::from_millis(500), super::fake::answer("a", 2, 3).to_string()));
    let impatient = async {
        world.fake.asked(1).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), ask()).await.is_err());
    };
    let (reply, ()) = tokio::join!(ask(), impatient);
    reply.expect(200);
    assert_eq!((app.tokens(&user).await, world.fake.seen().len()), ((5, 0), 1));
}
