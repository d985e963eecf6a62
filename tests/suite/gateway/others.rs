//! The other calls: completions, responses, embeddings.

use base64::Engine;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::World;
use super::fake::{Act, Piece, answer};
use crate::suite::support::{Reply, request};

impl World {
    async fn tell(&self, path: &str, body: Value) -> Reply {
        self.app.tell(&self.user.token, path, body).await
    }
}

#[tokio::test]
async fn best_of_and_every_prompt_multiply_what_a_completion_holds() {
    let world = World::new().await;
    let said = json!({"choices": [{"index": 0, "text": "One two", "finish_reason": "stop"}]});
    world.fake.next(Act::Whole(200, said.to_string()));
    let body = json!({"model": "gpt-3.5-turbo-instruct", "prompt": ["a", "b"], "best_of": 3, "n": 2});
    world.tell("/v1/completions", body).await.expect(200);
    // Two prompts are a token each, in two frames of 3 and one more, with margins of 8 each and 16.
    assert_eq!(world.fake.last().json()["max_tokens"], (1_000 - (2 + 9 + 16 + 16)) / 6);
    assert_eq!(world.tokens().await, (2 + 9 + 2, 0));
    assert_eq!(World::only(&world.entries().await).1["endpoint"], "completions");
}

fn response(usage: &Value) -> Value {
    let said = json!([{"type": "message", "id": "msg", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "One two", "annotations": []}]}]);
    json!({"id": "resp_1", "object": "response", "status": "completed", "model": "gpt-4o", "output": said, "usage": usage})
}

#[tokio::test]
async fn a_response_is_metered_and_keeps_nothing_at_the_upstream() {
    let world = World::new().await;
    let usage = json!({"input_tokens": 9, "output_tokens": 4, "total_tokens": 13, "output_tokens_details": {"reasoning_tokens": 3}});
    world.fake.next(Act::Whole(200, response(&usage).to_string()));
    let body = json!({"model": "gpt-4o", "input": "How are you today?", "store": true});
    world.tell("/v1/responses", body.clone()).await.expect(200);
    let sent = world.fake.last().json();
    assert_eq!((&sent["store"], sent["max_output_tokens"].is_u64()), (&json!(false), true));
    let entry = world.entries().await.remove(0);
    assert_eq!((&entry["amount"], &entry["metadata"]["reasoningTokens"]), (&json!(13), &json!(3)));
    world.fake.next(Act::Whole(200, response(&Value::Null).to_string()));
    world.tell("/v1/responses", body).await.expect(200);
    assert_eq!(world.entries().await[0]["amount"], super::HELLO + 2);
}

fn response_event(kind: &str, more: Value) -> Piece {
    let mut event = more;
    event["type"] = kind.into();
    Piece::Bytes(format!("event: {kind}\ndata: {event}\n\n").into_bytes())
}

async fn stream_of(world: &World, more: Value) -> String {
    let mut body = json!({"model": "gpt-4o", "input": "How are you today?", "stream": true});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let request = request("POST", "/v1/responses", Some(&world.user.token), Some(body), &[]);
    let response = world.app.app.router().oneshot(request).await.unwrap();
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_streamed_response_is_settled_by_its_last_event_and_cut_at_its_hold() {
    let world = World::new().await;
    let mut pieces =
        vec![response_event("response.created", json!({"sequence_number": 0, "response": response(&Value::Null)}))];
    for number in 1..60 {
        pieces.push(response_event(
            "response.output_text.delta",
            json!({"sequence_number": number, "output_index": 0, "delta": " word"}),
        ));
    }
    let usage = json!({"input_tokens": 9, "output_tokens": 60, "total_tokens": 69});
    pieces.push(response_event("response.completed", json!({"sequence_number": 60, "response": response(&usage)})));
    world.fake.next(Act::Stream(pieces.clone()));
    let text = stream_of(&world, json!({})).await;
    assert!(text.trim_end().ends_with('}') && text.contains("response.completed"), "{text}");
    assert_eq!(world.tokens().await, (69, 0));
    assert_eq!(world.fake.last().json().get("stream_options"), None);
    world.fake.next(Act::Stream(pieces));
    let text = stream_of(&world, json!({"max_output_tokens": 10})).await;
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    let event: Value = serde_json::from_str(last.strip_prefix("event: response.incomplete\ndata: ").unwrap()).unwrap();
    assert_eq!(event["response"]["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!((&event["response"]["id"], &event["sequence_number"]), (&json!("resp_1"), &json!(35)));
    assert_eq!(event["response"]["usage"]["total_tokens"], 10 + super::HELLO_BOUND);
    assert_eq!(world.tokens().await, (69 + 10 + super::HELLO_BOUND, 0));
}

#[tokio::test]
async fn the_numbers_of_a_broken_response_go_on_and_a_mark_after_its_end_passes() {
    let world = World::new().await;
    let begun = response_event("response.created", json!({"sequence_number": 0, "response": response(&Value::Null)}));
    let delta = json!({"sequence_number": 1, "output_index": 0, "delta": "One"});
    let delta = response_event("response.output_text.delta", delta);
    world.fake.next(Act::Stream(vec![begun.clone(), delta.clone(), Piece::Break]));
    let text = stream_of(&world, json!({})).await;
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    let event: Value = serde_json::from_str(last.strip_prefix("event: error\ndata: ").unwrap()).unwrap();
    assert_eq!((&event["code"], &event["sequence_number"]), (&json!("upstream_broken"), &json!(2)));
    let usage = json!({"input_tokens": 9, "output_tokens": 1, "total_tokens": 10});
    let completed = json!({"sequence_number": 2, "response": response(&usage)});
    let pause = Piece::Wait(std::time::Duration::from_millis(20));
    for pause in [vec![], vec![pause]] {
        let completed = response_event("response.completed", completed.clone());
        let pieces =
            [vec![begun.clone(), delta.clone(), completed], pause, vec![super::fake::event("[DONE]")]].concat();
        world.fake.next(Act::Stream(pieces.clone()));
        assert_eq!(stream_of(&world, json!({})).await, super::stream::bytes_of(&pieces));
        assert_eq!(world.entries().await[0]["amount"], 10);
    }
}

#[tokio::test]
async fn a_response_that_comes_without_its_pieces_counts_as_one_with_them() {
    let world = World::new().await;
    let begun = response_event("response.created", json!({"response": {"id": "resp_1", "object": "response"}}));
    let item = |text: &str| {
        json!({"type": "message", "id": "msg", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]})
    };
    let done = |text: &str| response_event("response.output_item.done", json!({"output_index": 0, "item": item(text)}));
    let completed = |text: &str| response_event("response.completed", json!({"response": {"output": [item(text)]}}));
    let delta = |text: &str| response_event("response.output_text.delta", json!({"output_index": 0, "delta": text}));
    for pieces in [
        vec![done("One two"), completed("One two")],
        vec![completed("One two")],
        vec![delta("One"), completed("One two")],
        vec![delta("One"), delta(" two"), done("One two"), completed("One two")],
        vec![done("One two")],
    ] {
        let pieces = [vec![begun.clone()], pieces].concat();
        world.fake.next(Act::Stream(pieces.clone()));
        assert_eq!(stream_of(&world, json!({"max_output_tokens": 9})).await, super::stream::bytes_of(&pieces));
        assert_eq!(world.entries().await[0]["amount"], super::HELLO + 2, "{pieces:?}");
    }
    let long = "word ".repeat(100);
    for last in [done(&long), completed(&long)] {
        world.fake.next(Act::Stream(vec![begun.clone(), last]));
        let text = stream_of(&world, json!({"max_output_tokens": 9})).await;
        assert!(text.contains("response.incomplete") && !text.contains("word"), "{text}");
        assert_eq!(world.entries().await[0]["amount"], super::HELLO);
    }
    world.app.proves();
}

#[tokio::test]
async fn embeddings_of_an_upstream_are_metered() {
    let world = World::new().await;
    let said = json!({"object": "list", "data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}});
    world.fake.next(Act::Whole(200, said.to_string()));
    let body = json!({"model": "text-embedding-3-small", "input": "How are you today?"});
    world.tell("/v1/embeddings", body.clone()).await.expect(200);
    assert_eq!(world.fake.last().json(), body);
    assert_eq!(world.tokens().await, (5, 0));
    world.app.used_up(&world.user, 990).await;
    world.tell("/v1/embeddings", body).await.expect(429);
}

#[tokio::test]
async fn the_model_inside_makes_embeddings_and_they_are_metered() {
    let world = World::new().await;
    let body = json!({"model": "all-minilm-l6-v2", "input": ["How are you today?", "Well."]});
    let reply = world.tell("/v1/embeddings", body.clone()).await.expect(200);
    let tokens = reply.json["usage"]["total_tokens"].as_i64().unwrap();
    // Words and marks, each text between two more.
    assert_eq!(tokens, 5 + 2 + 2 + 2);
    let vector: Vec<f64> = serde_json::from_value(reply.json["data"][1]["embedding"].clone()).unwrap();
    let length: f64 = vector.iter().map(|number| number * number).sum();
    assert_eq!(vector.len(), 384);
    assert!((length - 1.0).abs() < 1e-4, "{length}");
    let mut packed = body.clone();
    packed["encoding_format"] = "base64".into();
    let reply = world.tell("/v1/embeddings", packed).await.expect(200);
    let bytes = base64::engine::general_purpose::STANDARD.decode(reply.json["data"][1]["embedding"].as_str().unwrap());
    let bytes = bytes.unwrap();
    let (numbers, _) = bytes.as_chunks::<4>();
    for (number, expected) in numbers.iter().zip(&vector) {
        assert!((f64::from(f32::from_le_bytes(*number)) - expected).abs() < 1e-6);
    }
    assert_eq!((world.tokens().await, world.fake.seen().len()), ((2 * tokens, 0), 0));
    let entry = world.entries().await.remove(0);
    assert_eq!(
        (&entry["metadata"]["upstream"], &entry["metadata"]["endpoint"]),
        (&json!("builtin"), &json!("embeddings"))
    );
    // A long text is one vector too; what cannot be heeded is refused, and what does not fit as well.
    let long = json!({"model": "all-minilm-l6-v2", "input": "word ".repeat(600)});
    assert_eq!(world.tell("/v1/embeddings", long.clone()).await.expect(200).json["usage"]["total_tokens"], 602);
    world.tell("/v1/embeddings", long).await.expect(429);
    for bad in [
        json!({"input": ""}),
        json!({"input": []}),
        json!({"input": [1, 2]}),
        json!({"input": "x", "dimensions": 10}),
        json!({"input": "x", "encoding_format": "bits"}),
    ] {
        let mut body = bad;
        body["model"] = "all-minilm-l6-v2".into();
        world.tell("/v1/embeddings", body).await.expect(422);
    }
    world.app.proves();
}

#[tokio::test]
async fn the_holds_of_calls_are_theirs_alone() {
    let world = World::new().await;
    let slow = Act::Slow(std::time::Duration::from_millis(600), answer("a", 1, 1).to_string());
    world.fake.next(slow);
    let look = async {
        world.fake.asked(1).await;
        // The upstream is asked while the hold is being synced.
        let hold = loop {
            let list = world.app.ask(&world.user.token, "/usage/reservations").await.expect(200).json;
            match list["reservations"].get(0) {
                Some(hold) => break hold.clone(),
                None => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        };
        assert_eq!((&hold["kind"], &hold["expiresAt"]), (&json!("gateway"), &Value::Null), "{hold}");
        let id = hold["id"].as_str().unwrap();
        assert_eq!(world.app.settle(&world.user, id, 1).await.expect(409).code(), "not_the_maker");
        assert_eq!(world.app.release(&world.user, id).await.expect(409).code(), "not_the_maker");
    };
    let (reply, ()) = tokio::join!(world.chat(super::hello(&json!({}))), look);
    reply.expect(200);
    assert_eq!(world.tokens().await, (2, 0));
}
