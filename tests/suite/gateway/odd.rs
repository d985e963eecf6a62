//! Upstreams that say what nobody expects: it is counted, hidden or cut all the same.

use serde_json::{Value, json};

use super::fake::{Act, Piece, answer, chunk, ending, event, named, said};
use super::stream::{bytes_of, text_of};
use super::{HELLO, HELLO_BOUND, World, hello};
use crate::suite::support::request;

#[tokio::test]
async fn a_cost_that_only_we_asked_for_is_hidden_whatever_it_says() {
    let world = World::new().await;
    for cost in [
        json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
        json!({"prompt_tokens": -5, "completion_tokens": 3}),
        json!({"prompt_tokens": 1.5, "completion_tokens": 3}),
        json!({"prompt_tokens": "7"}),
        json!({"prompt_tokens": 12}),
        json!({"prompt_tokens": 12, "total_tokens": 12}),
        json!("nonsense"),
        json!({}),
    ] {
        let untold = [event(&chunk(&json!([]), &Value::Null).to_string()), said("Well")];
        let told = event(&chunk(&json!([]), &cost).to_string());
        let pieces = [untold.to_vec(), vec![told, event("[DONE]")]].concat();
        world.fake.next(Act::Stream(pieces.clone()));
        let text = text_of(world.begin(json!({"max_tokens": 20})).await).await;
        assert_eq!(text, bytes_of(&[untold.to_vec(), vec![event("[DONE]")]].concat()), "{cost}");
        let entry = world.entries().await.remove(0);
        assert_eq!(
            (&entry["amount"], &entry["metadata"]["counted"]),
            (&json!(HELLO + 1), &json!("tokenizer")),
            "{cost}"
        );
        world.fake.next(Act::Stream(pieces.clone()));
        let options = json!({"max_tokens": 20, "stream_options": {"include_usage": true}});
        assert_eq!(text_of(world.begin(options).await).await, bytes_of(&pieces), "{cost}");
    }
}

#[tokio::test]
async fn a_stream_that_is_not_of_the_dialect_counts_and_is_cut_at_its_hold() {
    let world = World::new().await;
    let message = json!([{"index": 0, "message": {"role": "assistant", "content": " word"}}]);
    let other = json!({"model": "m", "message": {"role": "assistant", "content": " word"}});
    for piece in [
        event(" word"),
        event("\" word\""),
        event(&other.to_string()),
        event(&chunk(&message, &Value::Null).to_string()),
        Piece::Bytes(b" word\n\n".to_vec()),
    ] {
        let (used, _) = world.tokens().await;
        world.fake.next(Act::Stream(vec![piece.clone(); 3]));
        assert_eq!(text_of(world.begin(json!({"max_tokens": 5})).await).await, bytes_of(&vec![piece.clone(); 3]));
        let entry = world.entries().await.remove(0);
        assert_eq!(entry["metadata"]["completionTokens"], 3, "{piece:?}");
        world.fake.next(Act::Stream(vec![piece.clone(); 100]));
        let text = text_of(world.begin(json!({"max_tokens": 5})).await).await;
        assert!(text.contains("\"finish_reason\":\"length\""), "{text}");
        assert!(world.tokens().await.0 <= used + HELLO + 3 + 5 + HELLO_BOUND);
    }
    // What is no stream by its name is one where it was asked for.
    let mut pieces = vec![said("Well"), said(" then")];
    pieces.extend(ending(9, 4));
    world.fake.next(named("Content-Type: text/plain", &bytes_of(&pieces)));
    let body = hello(&json!({"stream": true, "max_tokens": 5, "stream_options": {"include_usage": true}}));
    let reply = world.chat(body).await.expect(200);
    assert_eq!((reply.text.as_str(), reply.header("content-type")), (bytes_of(&pieces).as_str(), "text/plain"));
    let entry = world.entries().await.remove(0);
    assert_eq!((&entry["amount"], &entry["metadata"]["counted"]), (&json!(13), &json!("upstream")));
    world.app.proves();
}

#[tokio::test]
async fn a_whole_answer_that_cannot_be_read_counts_up_to_its_hold() {
    let world = World::new().await;
    let long = "word ".repeat(5_000);
    let other = json!({"model": "m", "message": {"role": "assistant", "content": "One two three four."}}).to_string();
    for (said, cost) in
        [("One two three four.", HELLO + 5), (other.as_str(), HELLO + 5), (long.as_str(), HELLO_BOUND + 10)]
    {
        world.fake.next(Act::Whole(200, said.to_owned()));
        let reply = world.chat(hello(&json!({"max_tokens": 10}))).await.expect(200);
        assert!(reply.text == said);
        let entry = world.entries().await.remove(0);
        assert_eq!((&entry["amount"], &entry["metadata"]["counted"]), (&json!(cost), &json!("tokenizer")));
    }
    world.app.proves();
}

#[tokio::test]
async fn a_cut_books_what_was_delivered() {
    let world = World::new().await;
    for before in 0..2_usize {
        let pieces = [vec![said("One"); before], vec![said(&"word ".repeat(1_000)), event("[DONE]")]].concat();
        world.fake.next(Act::Stream(pieces));
        let options = json!({"max_tokens": 10, "stream_options": {"include_usage": true}});
        let text = text_of(world.begin(options).await).await;
        assert!(!text.contains("word") && text.contains("\"finish_reason\":\"length\""), "{text}");
        let cost = json!(HELLO + i64::try_from(before).unwrap());
        assert!(text.contains(&format!("\"total_tokens\":{cost}")), "{text}");
        let entry = world.entries().await.remove(0);
        assert_eq!((&entry["amount"], &entry["metadata"]["outcome"]), (&cost, &json!("cut_at_hold")));
    }
}

#[tokio::test]
async fn a_prompt_that_comes_back_is_no_answer() {
    let world = World::new().await;
    let prompt = " word".repeat(100);
    let body = json!({"model": "gpt-3.5-turbo-instruct", "prompt": prompt, "n": 2, "max_tokens": 10, "echo": true});
    let choice = |index: i64, text: &str| json!({"index": index, "text": text, "finish_reason": "stop"});
    let echoed = format!("{prompt} One two");
    world.fake.next(Act::Whole(200, json!({"choices": [choice(0, &echoed), choice(1, &echoed)]}).to_string()));
    world.app.tell(&world.user.token, "/v1/completions", body.clone()).await.expect(200);
    let (_, metadata) = World::only(&world.entries().await);
    assert_eq!((&metadata["promptTokens"], &metadata["completionTokens"]), (&json!(100 + 6), &json!(4)));
    let mut pieces: Vec<Piece> = Vec::new();
    for text in [vec![prompt.as_str()], vec![" One"; 10]].concat() {
        pieces.extend((0..2).map(|index| event(&json!({"choices": [choice(index, text)]}).to_string())));
    }
    pieces.push(event("[DONE]"));
    world.fake.next(Act::Stream(pieces.clone()));
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let request = request("POST", "/v1/completions", Some(&world.user.token), Some(streamed), &[]);
    assert_eq!(world.app.send(request).await.expect(200).text, bytes_of(&pieces));
    assert_eq!(world.entries().await[0]["metadata"]["completionTokens"], 20);
}

#[tokio::test]
async fn what_was_packed_unasked_is_no_answer_and_a_key_is_never_passed_on() {
    let world = World::new().await;
    world.fake.next(named("Content-Type: application/json\r\nContent-Encoding: gzip", "packed"));
    let reply = world.chat(hello(&json!({}))).await.expect(502);
    assert_eq!(reply.json["error"]["code"], "upstream_broken");
    assert!(world.fake.last().head.contains("accept-encoding: identity"), "{}", world.fake.last().head);
    for status in [400, 404, 422] {
        let said = "{\"error\":{\"message\":\"Incorrect API key sk-operator given\"}}";
        world.fake.next(Act::Whole(status, said.to_owned()));
        let reply = world.chat(hello(&json!({}))).await.expect(status);
        assert_eq!(reply.text, said.replace("sk-operator", "[key]"));
    }
    assert_eq!(world.tokens().await, (0, 0));
    let said = answer("Well.", 9, 4).to_string();
    world.fake.next(named("Content-Type: application/json\r\nOpenAI-Version: of sk-operator", &said));
    let reply = world.chat(hello(&json!({}))).await.expect(200);
    assert_eq!((reply.text.as_str(), reply.header("openai-version")), (said.as_str(), ""));
}
