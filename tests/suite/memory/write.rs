//! Storing, reading, changing, deleting.

use std::time::Duration;

use serde_json::json;

use super::{app_with, axis, bytes, size_of};
use crate::suite::support::TestApp;

#[tokio::test]
async fn a_memory_is_stored_and_read_back_and_counts_to_the_byte() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let memory = json!({"type": "note", "input_context": "Crème brûlée 🎉", "tier": "itm", "tags": ["food", "ÿ", "food"],
        "metadata": {"from": {"app": "kitchen"}}, "session": "s1", "timestamp": "2020-02-29T10:00:00+02:00"});
    let stored = app.store(&user, memory).await.expect(201).json;
    let size = size_of("Crème brûlée 🎉") + bytes(r#"["food","ÿ"]{"from":{"app":"kitchen"}}"#);
    assert_eq!(stored["size_bytes"], size);
    assert_eq!(stored["size_human_readable"], "1.72 KB");
    assert_eq!(stored["user_id"], user.id);
    assert_eq!((&stored["type"], &stored["tier"]), (&json!("note"), &json!("itm")));
    assert_eq!(stored["timestamp"], "2020-02-29T08:00:00.000Z");
    assert_eq!(stored["created_at"], "2026-03-10T12:00:00.000Z");
    assert!(stored["expires_at"].is_null());
    let names: Vec<&String> = stored.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 9, "{names:?}");
    let read = app.get(&user, &format!("/api/memory/{}", stored["id"].as_str().unwrap())).await.expect(200).json;
    assert_eq!(read["input_context"], "Crème brûlée 🎉");
    assert_eq!(read["tags"], json!(["food", "ÿ"]));
    assert_eq!(read["metadata"], json!({"from": {"app": "kitchen"}}));
    assert_eq!(read["session"], "s1");
    assert_eq!(read["size_bytes"], size);
    assert_eq!(app.level(&user).await, size);
    assert_eq!(app.entries(&user).await, [(size, "store".to_owned())]);
    app.holds();
}

#[tokio::test]
async fn a_long_text_has_an_embedding_a_window_and_a_given_one_is_the_only_one() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let long = vec!["word"; 120].join(" ");
    let stored = app.store(&user, json!({"type": "note", "input_context": long})).await.expect(201).json;
    assert_eq!(stored["size_bytes"], bytes(&long) + 3 * 1_536 + 162);
    let given = json!({"type": "note", "input_context": long, "embedding": axis(3)});
    let stored = app.store(&user, given).await.expect(201).json;
    assert_eq!(stored["size_bytes"], size_of(&long));
    app.holds();
}

#[tokio::test]
async fn another_users_memory_is_one_that_never_was() {
    let app = app_with("");
    let owner = app.user("a@example.org", "basic").await;
    let other = app.user("b@example.org", "basic").await;
    let id = app.note(&owner, "The safe opens at nine.").await;
    let never = uuid_of_nobody();
    for (method, body) in [("GET", None), ("PATCH", Some(json!({"type": "x"}))), ("DELETE", None)] {
        let theirs = app.call(method, &format!("/memory/{id}"), Some(&other.token), body.clone()).await.expect(404);
        let nobodys = app.call(method, &format!("/memory/{never}"), Some(&other.token), body.clone()).await.expect(404);
        let malformed = app.call(method, "/memory/rust", Some(&other.token), body).await.expect(404);
        assert_eq!((&theirs.json["detail"], theirs.code()), (&nobodys.json["detail"], nobodys.code()));
        assert_eq!(theirs.json["detail"], malformed.json["detail"]);
    }
    app.get(&other, &format!("/memory/{id}/similar")).await.expect(404);
    assert!(app.search(&other, json!({"query": "safe"})).await.is_empty());
    assert_eq!(app.get(&other, "/memory").await.json["memories"], json!([]));
    app.call("DELETE", "/memory?confirm=true", Some(&other.token), None).await.expect(200);
    app.get(&owner, &format!("/memory/{id}")).await.expect(200);
}

fn uuid_of_nobody() -> &'static str {
    "0198c0de-0000-7003-8000-0000000fffff"
}

#[tokio::test]
async fn a_change_re_embeds_re_indexes_and_re_books() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let id = app.note(&user, "The boiler is old.").await;
    let path = format!("/memory/{id}");
    let change = json!({"input_context": "The ferry leaves at dawn.", "tags": ["travel"], "metadata": {"n": 1},
        "session": "trip", "type": "plan", "timestamp": "2021-01-01T00:00:00Z"});
    let changed = app.call("PATCH", &path, Some(&user.token), Some(change)).await.expect(200).json;
    let size = size_of("The ferry leaves at dawn.") + bytes(r#"["travel"]{"n":1}"#);
    assert_eq!(changed["size_bytes"], size);
    assert_eq!((&changed["session"], &changed["type"]), (&json!("trip"), &json!("plan")));
    assert_eq!(app.level(&user).await, size);
    assert!(app.search(&user, json!({"query": "boiler", "mode": "keyword"})).await.is_empty());
    let found = app.search(&user, json!({"query": "ferry"})).await;
    assert!(found[0]["score_breakdown"]["semantic"].as_f64().unwrap() > 0.3, "{found:?}");
    assert_eq!(found[0]["score_breakdown"]["keyword"], 1.0);
    let cleared = app
        .call("PATCH", &path, Some(&user.token), Some(json!({"tags": null, "metadata": {}, "session": null})))
        .await
        .expect(200)
        .json;
    assert_eq!((&cleared["tags"], &cleared["session"]), (&json!([]), &json!(null)));
    assert_eq!(app.level(&user).await, size_of("The ferry leaves at dawn."));
    let same = app.call("PATCH", &path, Some(&user.token), Some(json!({}))).await.expect(200).json;
    assert_eq!(same, cleared);
    assert_eq!(app.entries(&user).await.len(), 3);
    app.call("PATCH", &path, Some(&user.token), Some(json!({"embedding": axis(1)}))).await.expect(422);
    app.holds();
}

#[tokio::test]
async fn what_is_deleted_is_found_no_more_and_books_its_bytes_back() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let kept = app.note(&user, "Keep the receipts.").await;
    let id = app.note(&user, "Throw the leaflets away.").await;
    app.call("DELETE", &format!("/memory/{id}"), Some(&user.token), None).await.expect(204);
    app.call("DELETE", &format!("/memory/{id}"), Some(&user.token), None).await.expect(404);
    app.get(&user, &format!("/memory/{id}")).await.expect(404);
    assert!(app.search(&user, json!({"query": "leaflets", "mode": "keyword"})).await.is_empty());
    assert_eq!(app.search(&user, json!({"query": "leaflets"})).await[0]["id"], kept.as_str());
    assert_eq!(app.level(&user).await, size_of("Keep the receipts."));
    let size = size_of("Throw the leaflets away.");
    assert_eq!(app.entries(&user).await[0], (-size, "delete".to_owned()));
    app.holds();
}

#[tokio::test]
async fn a_bulk_deletion_asks_for_a_confirmation_and_minds_its_filters() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    for number in 0..30 {
        let (kind, tag) = (["note", "plan"][number % 2], ["red", "blue", "green"][number % 3]);
        let memory = json!({"type": kind, "input_context": format!("number {number}"), "tags": [tag],
            "embedding": axis(number)});
        app.store(&user, memory).await.expect(201);
    }
    app.call("DELETE", "/memory", Some(&user.token), None).await.expect(422);
    app.call("DELETE", "/memory?confirm=false", Some(&user.token), None).await.expect(422);
    app.call("DELETE", "/memory?confirm=true&colour=red", Some(&user.token), None).await.expect(422);
    let before = app.level(&user).await;
    let path = "/memory?confirm=true&type=plan&tag=red";
    let deleted = app.call("DELETE", path, Some(&user.token), None).await.expect(200).json;
    assert_eq!(deleted["deleted"], 5);
    assert_eq!(app.level(&user).await, before - deleted["freed_bytes"].as_i64().unwrap());
    let deleted = app.call("DELETE", "/memory?confirm=true", Some(&user.token), None).await.expect(200).json;
    assert_eq!(deleted["deleted"], 25);
    assert_eq!(app.level(&user).await, 0);
    app.holds();
}

#[tokio::test]
async fn a_batch_is_stored_in_order_or_not_at_all() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let batch = json!({"memories": [{"type": "a", "input_context": "first"},
        {"type": "b", "input_context": "second", "tier": "stm"},
        {"type": "c", "input_context": "third", "embedding": axis(0)}]});
    let stored = app.call("POST", "/memory/store/batch", Some(&user.token), Some(batch)).await.expect(201).json;
    let kinds: Vec<&str> =
        stored["memories"].as_array().unwrap().iter().map(|memory| memory["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["a", "b", "c"]);
    assert_eq!(app.level(&user).await, size_of("first") + size_of("second") + size_of("third"));
    let faulty =
        json!({"memories": [{"type": "a", "input_context": "x"}, {"type": "", "input_context": "y", "tier": "xl"}]});
    let refused = app.call("POST", "/memory/store/batch", Some(&user.token), Some(faulty)).await.expect(422).json;
    let fields: Vec<&str> =
        refused["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["memories[1].type", "memories[1].tier"]);
    for memories in [json!([]), json!(vec![json!({"type": "a", "input_context": "x"}); 257])] {
        app.call("POST", "/memory/store/batch", Some(&user.token), Some(json!({"memories": memories})))
            .await
            .expect(422);
    }
    assert_eq!(app.get(&user, "/memory").await.json["memories"].as_array().unwrap().len(), 3);
    app.holds();
}

#[tokio::test]
async fn pages_stay_right_while_memories_come_and_go() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let mut ids = Vec::new();
    for number in 0..10 {
        let memory = json!({"type": "n", "input_context": format!("number {number}"), "embedding": axis(number)});
        ids.push(app.store(&user, memory).await.expect(201).json["id"].as_str().unwrap().to_owned());
    }
    let mut seen = Vec::new();
    let mut path = "/memory?limit=3".to_owned();
    for page in 0.. {
        let reply = app.get(&user, &path).await.expect(200).json;
        seen.extend(
            reply["memories"].as_array().unwrap().iter().map(|memory| memory["id"].as_str().unwrap().to_owned()),
        );
        if page == 0 {
            // The last one of the page, and one that the next page would begin with.
            for gone in [&ids[7], &ids[6]] {
                app.call("DELETE", &format!("/memory/{gone}"), Some(&user.token), None).await.expect(204);
            }
            app.note(&user, "a newer one").await;
        }
        let Some(cursor) = reply["next_cursor"].as_str() else { break };
        path = format!("/memory?limit=3&cursor={cursor}");
    }
    let wanted: Vec<String> = [9, 8, 7, 5, 4, 3, 2, 1, 0].iter().map(|number| ids[*number].clone()).collect();
    assert_eq!(seen, wanted);
    app.get(&user, "/memory?cursor=rust").await.expect(422);
    app.get(&user, "/memory?limit=0").await.expect(422);
    assert_eq!(app.get(&user, "/memory?limit=10").await.expect(200).json["next_cursor"], json!(null));
}

#[tokio::test]
async fn a_store_is_done_once_a_key() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let memory = json!({"type": "note", "input_context": "once"});
    let headers = [("idempotency-key", "k1")];
    let first =
        app.call_with("POST", "/memory/store", Some(&user.token), Some(memory.clone()), &headers).await.expect(201);
    let again = app.call_with("POST", "/api/memory/store", Some(&user.token), Some(memory), &headers).await.expect(201);
    assert_eq!((first.json, again.header("idempotent-replayed")), (again.json.clone(), "true"));
    let other = json!({"type": "note", "input_context": "twice"});
    app.call_with("POST", "/memory/store", Some(&user.token), Some(other), &headers).await.expect(422);
    assert_eq!(app.level(&user).await, size_of("once"));
}

async fn repeat(app: &TestApp) -> (crate::suite::support::TestUser, crate::suite::support::Reply) {
    let user = app.user("a@example.org", "basic").await;
    let memory = json!({"type": "note", "input_context": "Café", "tags": ["a"], "metadata": {"n": 1}});
    app.store(&user, memory).await.expect(201);
    for other in [
        json!({"type": "plan", "input_context": "Café"}),
        json!({"type": "note", "input_context": "Café", "session": "s"}),
        json!({"type": "note", "input_context": "Café", "tier": "itm"}),
    ] {
        app.store(&user, other).await.expect(201);
    }
    app.clock.advance_millis(1_000);
    let again =
        json!({"type": "note", "input_context": " Cafe\u{301} ", "tags": ["b", "a"], "metadata": {"n": 2, "m": 0}});
    let reply = app.store(&user, again).await;
    (user, reply)
}

#[tokio::test]
async fn a_repetition_is_stored_merged_or_refused_as_configured() {
    let app = app_with("");
    let (user, reply) = repeat(&app).await;
    reply.expect(201);
    assert_eq!(app.get(&user, "/memory").await.json["memories"].as_array().unwrap().len(), 5);

    let app = app_with("[memory]\non_duplicate = \"refuse\"");
    let (user, reply) = repeat(&app).await;
    assert_eq!(reply.expect(409).code(), "duplicate");
    assert_eq!(app.get(&user, "/memory").await.json["memories"].as_array().unwrap().len(), 4);
    let batch = json!({"memories": [{"type": "x", "input_context": "twin"}, {"type": "x", "input_context": "twin"}]});
    app.call("POST", "/memory/store/batch", Some(&user.token), Some(batch)).await.expect(409);
    app.holds();

    let app = app_with("[memory]\non_duplicate = \"merge\"");
    let (user, reply) = repeat(&app).await;
    let merged = reply.expect(200).json;
    let size = size_of("Café") + bytes(r#"["a","b"]{"m":0,"n":2}"#);
    assert_eq!(merged["size_bytes"], size);
    assert_eq!(merged["last_seen_at"], "2026-03-10T12:00:01.000Z");
    let read = app.get(&user, &format!("/memory/{}", merged["id"].as_str().unwrap())).await.expect(200).json;
    assert_eq!((&read["tags"], &read["metadata"]), (&json!(["a", "b"]), &json!({"m": 0, "n": 2})));
    assert_eq!(read["created_at"], "2026-03-10T12:00:00.000Z");
    // It is not like itself.
    let again = json!({"type": "note", "input_context": "Café", "report_similar": true});
    let again = app.store(&user, again).await.expect(200).json;
    let similar = again["similar"].as_array().unwrap();
    assert_eq!((&again["id"], similar.len()), (&merged["id"], 3), "{again}");
    assert!(similar.iter().all(|other| other["id"] != merged["id"]), "{again}");
    // Within a batch too.
    let twin = |tag: &str| json!({"type": "x", "input_context": "twin", "tags": [tag]});
    let batch = json!({"memories": [twin("a"), twin("b")]});
    let stored = app.call("POST", "/memory/store/batch", Some(&user.token), Some(batch)).await.expect(201).json;
    assert_eq!(stored["memories"][0]["id"], stored["memories"][1]["id"]);
    assert_eq!(stored["memories"][1]["size_bytes"], size_of("twin") + bytes(r#"["a","b"]"#));
    assert_eq!(app.get(&user, "/memory?type=x").await.json["memories"].as_array().unwrap().len(), 1);
    // What was changed into another is that one's duplicate.
    let path = format!("/memory/{}", merged["id"].as_str().unwrap());
    app.call("PATCH", &path, Some(&user.token), Some(json!({"session": "t"}))).await.expect(200);
    app.store(&user, json!({"type": "note", "input_context": "Café"})).await.expect(201);
    let there = app.store(&user, json!({"type": "note", "input_context": "Café", "session": "t"})).await.expect(200);
    assert_eq!(there.json["id"], merged["id"]);
    app.holds();
}

#[tokio::test]
async fn a_long_deletion_of_many_is_not_cut_by_the_time_limit_of_requests() {
    let app = app_with("[server]\nrequest_timeout = \"1s\"\n");
    let user = app.user("a@example.org", "pro").await;
    for text in ["one", "two"] {
        app.note(&user, text).await;
    }
    // It waits for a write that takes longer.
    let long = app.app.store().write(|_| {
        std::thread::sleep(Duration::from_millis(1_300));
        Ok(())
    });
    let (long, deleted) = tokio::join!(long, app.call("DELETE", "/memory?confirm=true", Some(&user.token), None));
    long.unwrap();
    assert_eq!(deleted.expect(200).json["deleted"], 2);
}
