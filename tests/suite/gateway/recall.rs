//! Memories that go with a call, and exchanges that are kept.

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tallybox::domain::auth::Scope;
use tower::ServiceExt;

use super::fake::{Act, answer, ending, said};
use super::{HELLO_BOUND, World, hello};
use crate::suite::support::request;

const PEANUTS: &str = "Maria is allergic to peanuts.";

fn question(memory: Value) -> Value {
    let mut body =
        hello(&json!({"messages": [{"role": "user", "content": "What is Maria allergic to?"}], "max_tokens": 20}));
    body["tallybox"] = json!({"memory": memory});
    body
}

impl World {
    async fn remember(&self, text: &str) {
        let body = json!({"type": "note", "input_context": text});
        self.app.tell(&self.user.token, "/memory/store", body).await.expect(201);
    }

    async fn exchanges(&self) -> Vec<Value> {
        for _ in 0..100 {
            let list = self.app.ask(&self.user.token, "/memory?type=exchange").await.expect(200).json;
            if list["memories"].as_array().is_some_and(|memories| !memories.is_empty()) {
                return list["memories"].as_array().unwrap().clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Vec::new()
    }
}

#[tokio::test]
async fn what_is_remembered_goes_with_the_question_and_is_told_and_counted() {
    let world = World::new().await;
    world.remember(PEANUTS).await;
    world.fake.always(Act::Whole(200, answer("Peanuts.", 40, 3).to_string()));
    let reply = world.chat(question(json!(true))).await.expect(200);
    let sent = world.fake.last().json();
    assert_eq!(sent.get("tallybox"), None);
    assert_eq!((&sent["messages"][0]["role"], sent["messages"].as_array().unwrap().len()), (&json!("system"), 2));
    assert!(sent["messages"][0]["content"].as_str().unwrap().contains(PEANUTS), "{sent}");
    assert_eq!(sent["messages"][1], question(json!(true))["messages"][0]);
    assert_eq!(reply.header("x-tallybox-recalled-memories"), "1");
    let tokens: i64 = reply.header("x-tallybox-recalled-tokens").parse().unwrap();
    assert!((10..40).contains(&tokens), "{tokens}");
    let metadata = world.entries().await[0]["metadata"].clone();
    assert_eq!((&metadata["recalledMemories"], &metadata["recalledTokens"]), (&json!(1), &json!(tokens)));
    // Nothing is recalled unasked, beyond the budget, or for nobody's question.
    for (body, recalled) in [
        (hello(&json!({"max_tokens": 20})), ""),
        (question(json!(false)), ""),
        (question(json!({"budget": tokens - 1})), "0"),
        (question(json!({"budget": tokens, "limit": 1})), "1"),
    ] {
        let reply = world.chat(body.clone()).await.expect(200);
        assert_eq!(reply.header("x-tallybox-recalled-memories"), recalled, "{body}");
        assert_eq!(world.fake.last().json().get("tallybox"), None);
    }
    // By header, and another user's memories never.
    let headers = [("X-Tallybox-Memory", "recall")];
    let mut plain = question(json!(true));
    plain.as_object_mut().unwrap().remove("tallybox");
    let path = "/v1/chat/completions";
    let reply = world.app.tell_with(&world.user.token, path, plain.clone(), &headers).await.expect(200);
    assert_eq!(reply.header("x-tallybox-recalled-memories"), "1");
    for word in ["true", "1", "on", "Yes", " Recall , keep"] {
        let headers = [("X-Tallybox-Memory", word)];
        let reply = world.app.tell_with(&world.user.token, path, plain.clone(), &headers).await.expect(200);
        assert_eq!(reply.header("x-tallybox-recalled-memories"), "1", "{word}");
    }
    for (word, status) in [("no", 200), ("remember", 422), ("recall, all", 422)] {
        let headers = [("X-Tallybox-Memory", word)];
        let reply = world.app.tell_with(&world.user.token, path, plain.clone(), &headers).await.expect(status);
        assert_eq!(reply.header("x-tallybox-recalled-memories"), "");
        assert_eq!(reply.text.contains("x-tallybox-memory"), status == 422, "{}", reply.text);
    }
    let other = world.app.user("b@example.org", "free_trial").await;
    let reply = world.app.tell_with(&other.token, path, plain, &headers).await.expect(200);
    assert_eq!(reply.header("x-tallybox-recalled-memories"), "0");
    world.app.proves();
}

#[tokio::test]
async fn memories_leave_room_for_the_least_answer() {
    let world = World::new().await;
    world.remember(PEANUTS).await;
    world.app.used_up(&world.user, 1_000 - HELLO_BOUND - 18).await;
    world.fake.next(Act::Whole(200, answer("Peanuts.", 12, 3).to_string()));
    let reply = world.chat(question(json!(true))).await.expect(200);
    assert_eq!(reply.header("x-tallybox-recalled-memories"), "0");
    assert_eq!(world.fake.last().json()["messages"].as_array().unwrap().len(), 1);
}

/// Each of two calls at once sees room for its memories before the other holds: none may be refused for them.
#[tokio::test]
async fn memories_that_do_not_fit_any_more_are_left_out() {
    let world = World::new().await;
    world.remember(&format!("{PEANUTS} {}", "She is allergic to nothing else. ".repeat(20))).await;
    let slow = |millis| Act::Slow(std::time::Duration::from_millis(millis), answer("Peanuts.", 30, 3).to_string());
    world.fake.always(slow(0));
    let recalled = world.chat(question(json!(true))).await.expect(200).header("x-tallybox-recalled-tokens").to_owned();
    let recalled: i64 = recalled.parse().unwrap();
    assert!(recalled > 100, "{recalled}");
    // Two plain calls fit beside one text of memories, and two such texts do not.
    let (used, _) = world.tokens().await;
    world.app.used_up(&world.user, 1_000 - used - 2 * (HELLO_BOUND + 24) - recalled - 40).await;
    world.fake.always(slow(400));
    let (one, two) = tokio::join!(world.chat(question(json!(true))), world.chat(question(json!(true))));
    let mut told = [one, two].map(|reply| reply.expect(200).header("x-tallybox-recalled-memories").to_owned());
    told.sort();
    assert_eq!(told, ["0", "1"]);
    world.app.proves();
}

#[tokio::test]
async fn an_exchange_is_kept_as_a_short_term_memory() {
    let world = World::new().await;
    world.fake.next(Act::Whole(200, answer("Peanuts.", 12, 3).to_string()));
    let memory = json!({"recall": false, "keep": true, "session": "talk"});
    let reply = world.chat(question(memory.clone())).await.expect(200);
    assert_eq!(reply.header("x-tallybox-recalled-memories"), "0");
    let kept = world.exchanges().await;
    assert_eq!(kept[0]["input_context"], "User: What is Maria allergic to?\nAssistant: Peanuts.");
    assert_eq!((&kept[0]["tier"], &kept[0]["session"]), (&json!("stm"), &json!("talk")));
    // A streamed one as well.
    let world = World::new().await;
    let mut pieces = vec![said("Pea"), said("nuts.")];
    pieces.extend(ending(12, 3));
    world.fake.next(Act::Stream(pieces));
    let mut body = question(memory);
    body["stream"] = json!(true);
    let request = request("POST", "/v1/chat/completions", Some(&world.user.token), Some(body), &[]);
    world.app.app.router().oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(world.exchanges().await[0]["input_context"], "User: What is Maria allergic to?\nAssistant: Peanuts.");
    world.app.proves();
}

#[tokio::test]
async fn a_response_recalls_and_keeps_as_a_chat_does() {
    let world = World::new().await;
    world.remember(PEANUTS).await;
    let said = json!([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Peanuts."}]}]);
    let usage = json!({"input_tokens": 40, "output_tokens": 3, "total_tokens": 43});
    world.fake.always(Act::Whole(200, json!({"object": "response", "output": said, "usage": usage}).to_string()));
    let asked = "What is Maria allergic to?";
    for input in [json!(asked), json!([{"role": "user", "content": [{"type": "input_text", "text": asked}]}])] {
        let body = json!({"model": "gpt-4o", "input": input, "max_output_tokens": 20,
            "tallybox": {"memory": {"keep": true, "limit": 1}}});
        let reply = world.app.tell(&world.user.token, "/v1/responses", body).await.expect(200);
        assert_eq!(reply.header("x-tallybox-recalled-memories"), "1");
        let sent = world.fake.last().json()["input"].clone();
        assert_eq!((&sent[0]["role"], sent.as_array().unwrap().len()), (&json!("system"), 2));
        assert!(sent[0]["content"].as_str().unwrap().contains(PEANUTS), "{sent}");
        let kept = if input.is_string() { json!({"role": "user", "content": asked}) } else { input[0].clone() };
        assert_eq!(sent[1], kept);
    }
    assert_eq!(world.exchanges().await[0]["input_context"], "User: What is Maria allergic to?\nAssistant: Peanuts.");
    world.app.proves();
}

#[tokio::test]
async fn recall_asks_for_its_scopes_and_names_its_faults() {
    let world = World::new().await;
    let token = world.app.token("a@example.org", &[Scope::Gateway]).await;
    for (memory, scope) in [(json!(true), "memory:read"), (json!({"recall": false, "keep": true}), "memory:write")] {
        let reply = world.app.tell(&token, "/v1/chat/completions", question(memory)).await.expect(403);
        assert!(reply.text.contains(scope), "{}", reply.text);
    }
    for memory in
        [json!(5), json!({"budget": 0}), json!({"limit": "many"}), json!({"colour": 1}), json!({"session": ""})]
    {
        let reply = world.chat(question(memory.clone())).await.expect(422);
        assert!(
            reply.json["error"]["param"].as_str().unwrap().starts_with("tallybox.memory"),
            "{memory} {}",
            reply.text
        );
    }
    let body = json!({"model": "gpt-4o", "prompt": "x", "tallybox": {"memory": true}});
    let reply = world.app.tell(&world.user.token, "/v1/completions", body).await.expect(400);
    assert_eq!(reply.code(), "memory_not_offered");
    assert_eq!((world.fake.seen().len(), world.tokens().await), (0, (0, 0)));
}
