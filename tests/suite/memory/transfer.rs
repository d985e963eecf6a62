//! Memories move out and in over HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http::Request;
use serde_json::{Value, json};
use tallybox::adapter::embedder::{EmbedError, Embedder};
use tallybox::domain::auth::Scope;
use tallybox::domain::memory::Embedding;
use tokio::sync::oneshot;

use super::{WordModel, app_of, app_with, axis, size_of};
use crate::suite::calls::faults_of;
use crate::suite::support::{Reply, TestApp, TestUser};

impl TestApp {
    async fn import(&self, user: &TestUser, query: &str, body: &Value) -> Reply {
        self.call("POST", &format!("/memory/import{query}"), Some(&user.token), Some(body.clone())).await
    }

    async fn import_lines(&self, user: &TestUser, query: &str, lines: &str) -> Reply {
        let request = Request::post(format!("/memory/import{query}"))
            .header("authorization", format!("Bearer {}", user.token))
            .header("content-type", "application/x-ndjson")
            .body(Body::from(lines.to_owned()));
        self.send(request.unwrap()).await
    }

    async fn export(&self, user: &TestUser, query: &str) -> String {
        let reply = self.get(user, &format!("/memory/export{query}")).await.expect(200);
        assert_eq!(reply.header("content-type"), "application/x-ndjson");
        reply.text
    }
}

/// How many were imported, were there, were skipped.
fn counts(reply: &Reply) -> [i64; 3] {
    ["imported", "already_there", "skipped_count"].map(|name| reply.json[name].as_i64().unwrap())
}

fn records(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a memory is, wherever it is.
fn moved(lines: &str) -> Vec<Value> {
    let mut records = records(lines);
    for record in &mut records {
        for own in ["id", "user", "created_at"] {
            assert!(record.as_object_mut().unwrap().remove(own).is_some());
        }
    }
    records
}

async fn furnish(app: &TestApp, user: &TestUser) {
    let long = "word ".repeat(120);
    for memory in [
        json!({"type": "note", "input_context": "plain"}),
        json!({"type": "turn", "input_context": "said \u{1F600} \"so\"\n", "tags": ["b", "a"], "session": "s 1",
            "metadata": {"n": 1.5, "deep": {"list": [1, null]}}, "timestamp": "2024-02-29T23:59:59.123+02:00"}),
        json!({"type": "note", "input_context": long, "tier": "itm"}),
        json!({"type": "note", "input_context": "for a day", "tier": "stm"}),
    ] {
        app.store(user, memory).await.expect(201);
    }
}

#[tokio::test]
async fn what_is_exported_is_imported_elsewhere_as_it_was() {
    let (here, there) = (app_with(""), app_with(""));
    let (a, b) = (here.user("a@example.org", "pro").await, there.user("b@example.org", "pro").await);
    furnish(&here, &a).await;
    let exported = here.export(&a, "").await;
    let first = &records(&exported)[0];
    assert_eq!((&first["user"], &first["input_context"]), (&json!("a@example.org"), &json!("plain")));
    assert!(first.get("embedding").is_none());
    there.clock.advance_millis(3_600_000);
    let reply = there.import_lines(&b, "", &exported).await.expect(200);
    assert_eq!(reply.json, json!({"imported": 4, "already_there": 0, "skipped": [], "skipped_count": 0}));
    assert_eq!(moved(&there.export(&b, "").await), moved(&exported));
    let found = there.search(&b, json!({"query": "plain", "limit": 1})).await;
    assert_eq!(found[0]["input_context"], "plain");
    // Again, also as the document that a listing is.
    assert_eq!(counts(&there.import_lines(&b, "?format=tallybox", &exported).await.expect(200)), [0, 4, 0]);
    let listed = here.get(&a, "/api/memory").await.expect(200).json;
    assert_eq!(counts(&there.import(&b, "", &listed).await.expect(200)), [0, 4, 0]);
    // What has been deleted is imported again, what has ended is not.
    let id = records(&there.export(&b, "?type=turn").await)[0]["id"].as_str().unwrap().to_owned();
    there.call("DELETE", &format!("/memory/{id}"), Some(&b.token), None).await.expect(204);
    there.clock.advance_millis(24 * 3_600_000);
    let reply = there.import_lines(&b, "", &exported).await.expect(200);
    assert_eq!(counts(&reply), [1, 2, 1]);
    assert_eq!(reply.json["skipped"][0], json!({"record": 4, "reason": "expires_at: lies in the past"}));
    there.holds();
}

#[tokio::test]
async fn an_own_export_adds_nothing_and_another_boxs_ids_mean_nothing() {
    let (here, there) = (app_with(""), app_with(""));
    let (a, b) = (here.user("a@example.org", "pro").await, there.user("b@example.org", "pro").await);
    furnish(&here, &a).await;
    let exported = here.export(&a, "").await;
    assert_eq!(counts(&here.import_lines(&a, "", &exported).await.expect(200)), [0, 4, 0]);
    // Made at the same instant, this one has the id of another box's first.
    let id = there.note(&b, "another text").await;
    assert_eq!(id, records(&exported)[0]["id"].as_str().unwrap());
    assert_eq!(counts(&there.import_lines(&b, "", &exported).await.expect(200)), [4, 0, 0]);
    assert_eq!(records(&there.export(&b, "").await).len(), 5);
}

/// A model that can do nothing.
struct NoModel;

impl Embedder for NoModel {
    fn model(&self) -> &'static str {
        WordModel.model()
    }

    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
        WordModel.windows(text)
    }

    fn embed(&self, _: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        Err(EmbedError::Unavailable { detail: "as asked".to_owned() })
    }
}

#[tokio::test]
async fn an_import_with_a_key_answers_once() {
    let app = app_with("");
    let user = app.user("a@example.org", "pro").await;
    let send = async |query: &str, body: &Value, key: &str| {
        let path = format!("/memory/import{query}");
        app.tell_with(&user.token, &path, body.clone(), &[("Idempotency-Key", key)]).await
    };
    let body = json!({"memories": [{"type": "note", "input_context": "a text"}]});
    let first = send("", &body, "k").await.expect(200);
    assert_eq!((counts(&first), first.header("idempotent-replayed")), ([1, 0, 0], ""));
    let again = send("", &body, "k").await.expect(200);
    assert_eq!((&again.text, again.header("idempotent-replayed")), (&first.text, "true"));
    assert_eq!(counts(&send("", &body, "other").await.expect(200)), [0, 1, 0]);
    let other = json!({"memories": []});
    for refused in [send("", &other, "k").await, send("?embeddings=true", &body, "k").await, send("", &body, "").await]
    {
        assert_eq!(faults_of(&refused.expect(422)), ["Idempotency-Key"]);
    }
}

#[tokio::test]
async fn embeddings_move_along_where_they_are_wanted() {
    let (here, there) = (app_with(""), app_of("", Arc::new(NoModel)));
    let (a, b) = (here.user("a@example.org", "pro").await, there.user("b@example.org", "pro").await);
    furnish(&here, &a).await;
    let exported = here.export(&a, "?embeddings=true").await;
    // The long text has windows.
    let with: Vec<bool> = records(&exported).iter().map(|record| record["embedding"].is_array()).collect();
    assert_eq!(with, [true, true, false, true]);
    let short: Vec<&str> = exported.lines().filter(|line| line.contains("embedding_model")).collect();
    let short = short.join("\n");
    assert_eq!(counts(&there.import_lines(&b, "", &short).await.expect(200)), [3, 0, 0]);
    assert_eq!(there.export(&b, "?embeddings=true").await.matches("embedding_model").count(), 3);
    // Without them the model is asked, and says no; what was imported before stays.
    let refused = there.import_lines(&b, "", &here.export(&a, "").await).await.expect(503);
    assert_eq!((refused.code(), &refused.json["imported"]), ("unavailable", &json!(0)));
    let chroma = json!({"ids": ["1"], "documents": ["text"], "metadatas": null, "embeddings": [axis(3)]});
    there.import(&b, "?format=chroma", &chroma).await.expect(503);
    assert_eq!(counts(&there.import(&b, "?format=chroma&embeddings=true", &chroma).await.expect(200)), [1, 0, 0]);
    there.holds();
}

#[tokio::test]
async fn an_export_is_of_ones_own_page_by_page_and_filtered() {
    let app = app_with("");
    let (a, b) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await);
    for number in 0..70 {
        let kind = if number % 2 == 0 { "even" } else { "odd" };
        let memory =
            json!({"type": kind, "input_context": format!("text {number}"), "embedding": axis(number), "tags": [kind]});
        app.store(&a, memory.clone()).await.expect(201);
        if number < 3 {
            app.store(&b, memory).await.expect(201);
        }
    }
    let texts = |lines: String| -> Vec<String> {
        records(&lines).iter().map(|record| record["input_context"].as_str().unwrap().to_owned()).collect()
    };
    let all: Vec<String> = (0..70).map(|number| format!("text {number}")).collect();
    assert_eq!(texts(app.export(&a, "").await), all);
    assert_eq!(texts(app.export(&b, "").await), all[..3]);
    assert_eq!(texts(app.export(&a, "?type=odd&tag=odd").await).len(), 35);
    assert_eq!(app.export(&a, "?session=none").await, "");
    app.get(&a, "/memory/export?limit=3").await.expect(422);
    app.get(&a, "/memory/export?embeddings=1").await.expect(422);
    // Who acts for another exports that one's.
    app.admin("admin@example.org").await;
    let token = app.token("admin@example.org", &[Scope::MemoryRead, Scope::ActAs]).await;
    let reply = app.call_with("GET", "/memory/export", Some(&token), None, &[("X-User-Id", &b.id)]).await.expect(200);
    assert_eq!(reply.text.lines().count(), 3);
}

fn mem0() -> Value {
    json!({"results": [
        {"id": "0b2c1d3e-9d3f-4a77-8f5e-6d7c8b9a0f11", "memory": "Name is Alice and enjoys hiking", "hash": "8f1c",
         "metadata": {"topic": "hobbies"}, "created_at": "2025-04-01T09:15:00.000001-07:00", "updated_at": null,
         "user_id": "alice", "run_id": "run-7", "role": "user"},
        {"id": "5d8e7f60-2a3b-4c5d-9e8f-7a6b5c4d3e2f", "memory": "Allergic to nuts", "metadata": null,
         "categories": ["health", "food"], "created_at": "2025-04-02T10:00:00+00:00", "user_id": "alice"},
        {"id": "6d8e7f60-2a3b-4c5d-9e8f-7a6b5c4d3e2f", "memory": ""},
    ]})
}

const GRAPH: &str = concat!(
    r#"{"type":"entity","name":"Ada_Lovelace","entityType":"person","observations":["Speaks French","Graduated in 1833"]}"#,
    "\n",
    r#"{"type":"relation","from":"Ada_Lovelace","to":"Analytical_Engine","relationType":"wrote_for"}"#,
    "\n\n",
    r#"{"type":"entity","name":"Analytical_Engine","entityType":"machine"}"#,
    "\n{\"type\": \"ent",
);

#[tokio::test]
async fn what_others_keep_is_taken_in_once() {
    let app = app_with("");
    let user = app.user("a@example.org", "pro").await;
    let chroma = json!({"ids": ["id1", "id2"], "documents": ["A document on pineapple", "One on oranges"],
        "metadatas": [{"page": 3, "draft": false}, null], "embeddings": null, "uris": null, "data": null});
    for times in 0..2 {
        let expected = |new: i64, skipped: i64| if times == 0 { [new, 0, skipped] } else { [0, new, skipped] };
        let reply = app.import(&user, "?format=mem0", &mem0()).await.expect(200);
        assert_eq!(counts(&reply), expected(2, 1));
        assert_eq!(reply.json["skipped"][0]["reason"], "memory: must be a text of 1 to 262144 bytes of UTF-8");
        let reply = app.call("POST", "/api/memory/import?format=chroma", Some(&user.token), Some(chroma.clone())).await;
        assert_eq!(counts(&reply.expect(200)), expected(2, 0));
        let reply = app.import_lines(&user, "?format=mcp-jsonl", GRAPH).await.expect(200);
        assert_eq!(counts(&reply), expected(3, 2));
        let numbers: Vec<&Value> = reply.json["skipped"].as_array().unwrap().iter().map(|one| &one["record"]).collect();
        assert_eq!(numbers, [4, 5]);
    }
    let all = records(&app.export(&user, "").await);
    let texts: Vec<&str> = all.iter().map(|record| record["input_context"].as_str().unwrap()).collect();
    let wanted = [
        "Name is Alice and enjoys hiking",
        "Allergic to nuts",
        "A document on pineapple",
        "One on oranges",
        "Ada_Lovelace: Speaks French",
        "Ada_Lovelace: Graduated in 1833",
        "Ada_Lovelace wrote_for Analytical_Engine",
    ];
    assert_eq!(texts, wanted);
    assert_eq!((&all[0]["session"], &all[0]["timestamp"]), (&json!("run-7"), &json!("2025-04-01T16:15:00.000Z")));
    assert_eq!(all[0]["metadata"], json!({"topic": "hobbies", "user_id": "alice", "role": "user"}));
    assert_eq!(all[1]["tags"], json!(["health", "food"]));
    assert_eq!(all[2]["metadata"], json!({"page": 3, "draft": false}));
    assert_eq!(all[6]["metadata"]["relationType"], "wrote_for");
    app.holds();
}

fn notes(texts: &[&str]) -> Value {
    let memories: Vec<Value> = texts.iter().map(|text| json!({"type": "note", "input_context": text})).collect();
    json!({"memories": memories})
}

#[tokio::test]
async fn the_quota_ends_an_import_at_the_first_that_does_not_fit() {
    let toml = |memories: i64| format!("[tiers.basic]\nmemory_storage_bytes = {}\n", memories * size_of("12345"));
    let app = app_with(&toml(2));
    let user = app.user("a@example.org", "basic").await;
    let given = notes(&["12345", "", "67890", "abcde", "x"]);
    for imported in [2, 0] {
        let refused = app.import(&user, "", &given).await.expect(429);
        assert_eq!((refused.code(), &refused.json["record"]), ("quota_exceeded", &json!(4)));
        assert_eq!(counts(&refused), [imported, 2 - imported, 1]);
        assert_eq!((&refused.json["used"], &refused.json["requested"]), (&json!(3_406), &json!(1_703)));
    }
    assert_eq!(app.level(&user).await, 2 * size_of("12345"));
    app.pass().await;
    app.holds();

    let app = app_with(&format!("[memory]\nstm_bytes_max = {}\n", size_of("12345")));
    let user = app.user("a@example.org", "pro").await;
    let short = |text: &str| json!({"type": "note", "input_context": text, "tier": "stm"});
    let given = json!({"memories": [short("12345"), short("6")]});
    let refused = app.import(&user, "", &given).await.expect(429);
    assert_eq!((counts(&refused), &refused.json["record"]), ([1, 0, 0], &json!(2)));
    // A day later the first has ended, makes room, and is no longer there.
    app.clock.advance_millis(24 * 3_600_000);
    let refused = app.import(&user, "", &given).await.expect(429);
    assert_eq!((counts(&refused), &refused.json["record"]), ([1, 0, 0], &json!(2)));
    app.holds();
}

#[tokio::test]
async fn repetitions_are_merged_or_refused_as_the_setting_says() {
    let app = app_with("[memory]\non_duplicate = \"merge\"\n");
    let user = app.user("a@example.org", "pro").await;
    let id = app.note(&user, "the same").await;
    let given = json!({"memories": [{"type": "note", "input_context": " the same ", "tags": ["new"]}]});
    for _ in 0..2 {
        assert_eq!(counts(&app.import(&user, "", &given).await.expect(200)), [0, 1, 0]);
    }
    assert_eq!(app.get(&user, &format!("/memory/{id}")).await.json["tags"], json!(["new"]));
    let many: Vec<String> = (0..32).map(|tag| tag.to_string()).collect();
    let given = json!({"memories": [{"type": "note", "input_context": "the same", "tags": many}]});
    let reply = app.import(&user, "", &given).await.expect(200);
    assert!(
        reply.json["skipped"][0]["reason"].as_str().unwrap().starts_with("tags: must be at most 32"),
        "{}",
        reply.text
    );
    app.holds();

    let app = app_with("[memory]\non_duplicate = \"refuse\"\n");
    let user = app.user("a@example.org", "pro").await;
    app.note(&user, "the same").await;
    let reply = app.import(&user, "", &notes(&["the same", "another"])).await.expect(200);
    assert_eq!((counts(&reply), &reply.json["skipped"][0]["record"]), ([1, 0, 1], &json!(1)));
    assert_eq!(counts(&app.import(&user, "", &notes(&["another"])).await.expect(200)), [0, 1, 0]);
    app.holds();
}

#[tokio::test]
async fn an_import_is_bounded_in_what_it_takes_and_tells() {
    let app = app_with("[server]\nbody_bytes_max = 1024\n[memory]\nimport_bytes_max = 65536\n");
    let user = app.user("a@example.org", "pro").await;
    for (query, status) in [("?format=xml", 422), ("?embeddings=1", 422), ("?colour=red", 422)] {
        app.import(&user, query, &notes(&["x"])).await.expect(status);
    }
    app.import_lines(&user, "?format=mem0", "{}").await.expect(415);
    app.import(&user, "?format=mem0", &json!({"memories": []})).await.expect(422);
    app.import(&user, "?format=chroma", &json!({"ids": ["a"], "documents": []})).await.expect(422);
    let large = app.import(&user, "", &notes(&["x".repeat(65_536).as_str()])).await.expect(413);
    assert!(large.json["detail"].as_str().unwrap().contains("65536 bytes (memory.import_bytes_max)"), "{}", large.text);
    // Larger than other bodies, and full of mistakes.
    let bad = "{\"type\": \"note\"}\n".repeat(100) + "[1]\n" + &"[".repeat(300) + "\n";
    let reply =
        app.import_lines(&user, "", &(bad + "{\"type\": \"note\", \"input_context\": \"good\"}")).await.expect(200);
    assert_eq!(counts(&reply), [1, 0, 102]);
    assert_eq!(reply.json["skipped"].as_array().unwrap().len(), 20);
    let more = json!([{"reason": "input_context: is required", "count": 80},
        {"reason": "the record: malformed JSON, recursion limit exceeded", "count": 1},
        {"reason": "the record: must be an object", "count": 1}]);
    assert_eq!(reply.json["more_skipped"], more);
    app.holds();
}

/// A body that never comes, and tells when it is waited for.
struct Never(Option<oneshot::Sender<()>>);

impl HttpBody for Never {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        if let Some(waited_for) = self.0.take() {
            waited_for.send(()).unwrap();
        }
        Poll::Pending
    }
}

#[tokio::test]
async fn a_user_has_one_import_at_a_time_and_a_hang_up_ends_it() {
    let app = app_with("");
    let user = app.user("a@example.org", "pro").await;
    let other = app.user("b@example.org", "pro").await;
    let (sender, waited_for) = oneshot::channel();
    let request = Request::post("/memory/import")
        .header("authorization", format!("Bearer {}", user.token))
        .header("content-type", "application/jsonl")
        .body(Body::new(Never(Some(sender))));
    let mut first = Box::pin(app.send(request.unwrap()));
    tokio::select! {
        reply = &mut first => unreachable!("{}", reply.text),
        waited_for = waited_for => waited_for.unwrap(),
    }
    let busy = app.import(&user, "", &notes(&["x"])).await.expect(503);
    assert_eq!((busy.code(), busy.header("retry-after")), ("busy", "1"));
    app.import(&other, "", &notes(&["x"])).await.expect(200);
    drop(first);
    app.import(&user, "", &notes(&["x"])).await.expect(200);
}

/// A model that takes its time.
struct SlowModel;

impl Embedder for SlowModel {
    fn model(&self) -> &'static str {
        WordModel.model()
    }

    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
        WordModel.windows(text)
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        std::thread::sleep(Duration::from_millis(25));
        WordModel.embed(texts)
    }
}

#[tokio::test]
async fn a_long_import_is_not_cut_by_the_time_limit_of_requests() {
    let app = app_of("[server]\nrequest_timeout = \"1s\"\n", Arc::new(SlowModel));
    let user = app.user("a@example.org", "pro").await;
    // Two threads take more than a second for so many.
    let texts: Vec<String> = (0..120).map(|number| format!("text {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(counts(&app.import(&user, "", &notes(&texts)).await.expect(200)), [120, 0, 0]);
}
