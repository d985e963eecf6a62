//! Getting more than one's own: quota out of nothing, refunds to oneself, other people's rights.

use serde_json::{Value, json};

use super::ids::embedding;
use crate::suite::calls::id_of;
use crate::suite::support::{TestApp, TestUser};

/// What a user has used and may still use, of everything.
async fn standing(app: &TestApp, user: &TestUser) -> Vec<Value> {
    let mut found = Vec::new();
    for path in ["/usage/tokens", "/usage/agent-minutes", "/usage/storage"] {
        let reply = app.ask(&user.token, path).await.expect(200).json;
        found.push(json!([reply["used"], reply["reserved"], reply["limit"]]));
    }
    found
}

#[tokio::test]
async fn no_negative_amount_anywhere_mints_quota() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let entry = app.used_up(&user, 100).await;
    let hold = app.hold(&user, 10).await;
    let run = id_of(&app.tell(&user.token, "/agents/runs", json!({"maxMinutes": 2})).await.expect(201));
    let before = standing(&app, &user).await;
    let mut tries = Vec::new();
    for amount in [json!(-1), json!(-100), json!(i64::MIN), json!(-0.5), json!("-1"), json!(-9_007_199_254_740_991_i64)]
    {
        for resource in ["llm_tokens", "agent_minutes", "memory_storage"] {
            let of = |more: Value| {
                let mut body = json!({"resourceType": resource, "amount": amount});
                body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                body
            };
            tries.push(("/usage/record".to_owned(), of(json!({}))));
            tries.push(("/usage/record".to_owned(), of(json!({"enforce": true}))));
            tries.push(("/usage/record".to_owned(), of(json!({"reverses": entry}))));
            tries.push(("/usage/record".to_owned(), of(json!({"reverses": hold}))));
            tries.push(("/usage/record/batch".to_owned(), json!({"entries": [of(json!({})), of(json!({}))]})));
            tries.push(("/usage/reservations".to_owned(), of(json!({}))));
            tries.push(("/usage/reservations".to_owned(), of(json!({"ttlSeconds": -1}))));
            tries.push(("/usage/check-quota".to_owned(), of(json!({}))));
        }
        tries.push((format!("/usage/reservations/{hold}/settle"), json!({"amount": amount})));
        tries.push(("/agents/runs".to_owned(), json!({"maxMinutes": amount})));
        let chat = json!({"model": "m", "messages": [], "max_tokens": amount, "n": amount});
        tries.push(("/v1/chat/completions".to_owned(), chat));
    }
    for (path, body) in tries {
        let reply = app.tell(&user.token, &path, body.clone()).await;
        assert!([400, 403, 404, 422].contains(&reply.status), "{path} {body}: {} {}", reply.status, reply.text);
    }
    assert_eq!(standing(&app, &user).await, before);
    app.tell(&user.token, &format!("/agents/runs/{run}/stop"), json!({})).await.expect(200);
    app.proves();
}

#[tokio::test]
async fn nobody_takes_back_what_they_have_used() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let root = app.admin("root@example.org").await;
    let entry = app.used_up(&user, 100).await;
    let own = app.used_up(&root, 100).await;
    let refund = |entry: &str| json!({"resourceType": "llm_tokens", "amount": -1, "reverses": entry});
    let before = [standing(&app, &user).await, standing(&app, &root).await];
    // Neither a user, nor an administrator without acting for somebody, nor by naming oneself.
    for (token, id, entry) in [(&user.token, &user.id, &entry), (&user.token, &root.id, &own)] {
        let refused = app.tell_with(token, "/usage/record", refund(entry), &[("x-user-id", id)]).await;
        assert_eq!(refused.status, 403, "{}", refused.text);
        app.tell(token, "/usage/record", refund(entry)).await.expect(403);
        let path = format!("/api/admin/users/{id}/ledger");
        let body = json!({"resourceType": "llm_tokens", "amount": -1, "reverses": entry, "reason": "mine"});
        app.tell(token, &path, body).await.expect(403);
    }
    // A hold is resolved once: neither twice, nor after it was given back.
    let hold = app.hold(&user, 50).await;
    app.settle(&user, &hold, 50).await.expect(200);
    app.settle(&user, &hold, 1).await.expect(409);
    app.release(&user, &hold).await.expect(409);
    let hold = app.hold(&user, 50).await;
    app.release(&user, &hold).await.expect(204);
    app.settle(&user, &hold, 0).await.expect(409);
    let used = standing(&app, &user).await[0].clone();
    assert_eq!(used, json!([150, 0, 50_000]));
    assert_eq!(standing(&app, &root).await, before[1]);
    app.proves();
}

#[tokio::test]
async fn storage_is_given_back_once_however_a_memory_ends() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let store = async |text: &str| {
        let memory = json!({"type": "n", "input_context": text, "embedding": embedding()});
        id_of(&app.tell(&user.token, "/memory/store", memory).await.expect(201))
    };
    let kept = store("kept").await;
    let level = app.ask(&user.token, "/usage/storage").await.expect(200).json["used"].clone();
    let gone = store("gone").await;
    app.drop_at(&user.token, &format!("/memory/{gone}")).await.expect(204);
    app.drop_at(&user.token, &format!("/memory/{gone}")).await.expect(404);
    app.drop_at(&user.token, "/memory?confirm=true&tag=nothing").await.expect(200);
    // A change to and fro books what it takes back.
    for text in ["longer than before", "kept"] {
        let path = format!("/memory/{kept}");
        app.call("PATCH", &path, Some(&user.token), Some(json!({"input_context": text}))).await.expect(200);
    }
    assert_eq!(app.ask(&user.token, "/usage/storage").await.expect(200).json["used"], level);
    app.proves();
}

#[tokio::test]
async fn a_user_gives_itself_neither_a_tier_nor_a_role() {
    let app = TestApp::new();
    app.admin("root@example.org").await;
    let user = app.user("a@example.org", "basic").await;
    let raised = json!({"tier": "pro", "role": "admin"});
    for path in [format!("/api/admin/users/{}", user.id), "/auth/me".to_owned(), "/usage/tier".to_owned()] {
        for method in ["PATCH", "POST", "PUT"] {
            let reply = app.call(method, &path, Some(&user.token), Some(raised.clone())).await;
            assert!([403, 405].contains(&reply.status), "{method} {path}: {}", reply.text);
        }
    }
    // Nor as more than was asked for.
    let body = json!({"resourceType": "llm_tokens", "amount": 1, "tier": "pro", "userId": user.id});
    app.tell(&user.token, "/usage/record", body).await.expect(422);
    let me = app.ask(&user.token, "/auth/me").await.expect(200).json;
    assert_eq!((&me["tier"], &me["role"]), (&json!("basic"), &json!("user")));
}
