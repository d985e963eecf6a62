//! Calls of the gateway whose holds cannot be written. The upstream is asked while a hold is on its way to the disk.

use serde_json::json;

use super::{Fault, faulty};
use crate::suite::gateway::fake::{Act, Fake, Piece, answer};

#[tokio::test]
async fn a_call_whose_hold_is_lost_is_told_nothing_of_its_answer_and_leaves_nothing() {
    let fake = Fake::start().await;
    let (app, faults) = faulty(&format!(
        "[[gateway.upstreams]]\nname = 'first'\nbase_url = '{}'\napi_key = 'sk-operator'\nmodels = ['*']\n",
        fake.url
    ));
    let user = app.user("a@example.org", "basic").await;
    let said = answer("A secret.", 12, 7).to_string();
    let event = format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": "A secret."}}]}));
    let chat = |stream: bool| {
        let messages = json!([{"role": "user", "content": "How are you today?"}]);
        json!({"model": "gpt-4o", "messages": messages, "stream": stream, "max_tokens": 20})
    };
    let mut asked = 0;
    for fault in Fault::OF_WRITES {
        for stream in [false, true] {
            let act = if stream {
                Act::Stream(vec![Piece::Bytes(event.clone().into_bytes()), Piece::Silence])
            } else {
                Act::Whole(200, said.clone())
            };
            fake.always(act);
            faults.begin(fault, 0);
            let reply = app.tell(&user.token, "/v1/chat/completions", chat(stream)).await;
            assert!(faults.end() > 0, "{fault:?}");
            assert_eq!(reply.status, 503, "{fault:?}: {}", reply.text);
            assert_eq!(reply.json["error"]["code"], "unavailable", "{fault:?}: {}", reply.text);
            assert_eq!(app.tokens(&user).await, (0, 0), "{fault:?}");
            asked = fake.seen().len();
        }
    }
    assert!(asked > 0, "no upstream was asked while its hold was being written");
    fake.always(Act::Whole(200, said));
    app.tell(&user.token, "/v1/chat/completions", chat(false)).await.expect(200);
    assert_eq!(app.tokens(&user).await, (19, 0));
    app.pass().await;
    app.proves();
}
