//! What is exported is imported as it was, whatever it says.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::suite::memory::app_with;
use crate::suite::support::{Reply, TestApp, TestUser, request};

fn any_name() -> impl Strategy<Value = String> {
    "[^\u{0}]{1,12}".prop_filter("some are trimmed or empty", |name| name.trim() == name && !name.trim().is_empty())
}

fn any_metadata() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(|number| json!(number)),
        "[^\u{0}]{0,12}".prop_map(Value::from),
    ];
    let inner = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[^\u{0}]{0,6}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    proptest::collection::vec(("[^\u{0}]{1,6}", inner), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn any_memory() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[^\u{0}]{1,40}", "[a-z ]{1,40}", Just("{\"a\": [1,\n2]}\r\n\u{2028}".to_owned())];
    let text = text.prop_filter("blank is no text", |text| !text.trim().is_empty());
    (
        text,
        any_name(),
        proptest::sample::select(vec!["stm", "itm", "ltm"]),
        proptest::collection::vec(any_name(), 0..4),
        any_metadata(),
        proptest::option::of(any_name()),
        0_i64..1_773_144_000_000,
    )
        .prop_map(|(text, kind, tier, tags, metadata, session, at)| {
            let at = tallybox::domain::unit::Timestamp(at).to_string();
            let mut memory = json!({"type": kind, "input_context": text, "tier": tier, "tags": tags,
                "metadata": metadata, "timestamp": at});
            if let Some(session) = session {
                memory["session"] = json!(session);
            }
            memory
        })
}

async fn export(app: &TestApp, user: &TestUser) -> String {
    app.ask(&user.token, "/memory/export").await.expect(200).text
}

async fn import(app: &TestApp, user: &TestUser, lines: &str) -> Reply {
    let mut import =
        request("POST", "/memory/import", Some(&user.token), None, &[("content-type", "application/jsonl")]);
    *import.body_mut() = axum::body::Body::from(lines.to_owned());
    app.send(import).await
}

/// What a line says, without what is of the box it comes from.
fn told(lines: &str) -> Vec<Value> {
    let one = |line: &str| {
        let mut memory: Value = serde_json::from_str(line).unwrap();
        for own in ["id", "user_id", "user", "created_at"] {
            memory.as_object_mut().unwrap().remove(own);
        }
        memory
    };
    // By the end of a line of JSON lines alone: a text may hold other line ends.
    lines.split('\n').filter(|line| !line.is_empty()).map(one).collect()
}

#[test]
fn what_is_exported_and_imported_is_the_same() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(async { app_with("") });
    let number = std::cell::Cell::new(0);
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(32) };
    let found = TestRunner::new(config).run(&proptest::collection::vec(any_memory(), 1..12), |memories| {
        let at = number.replace(number.get() + 1);
        let (from, to, again) = runtime.block_on(async {
            let from = app.user(&format!("from-{at}@example.org"), "pro").await;
            let to = app.user(&format!("to-{at}@example.org"), "pro").await;
            for memory in &memories {
                app.tell(&from.token, "/memory/store", memory.clone()).await.expect(201);
            }
            let lines = export(&app, &from).await;
            import(&app, &to, &lines).await.expect(200);
            let there = export(&app, &to).await;
            // And once more, where nothing is new.
            let again = import(&app, &to, &lines).await.expect(200);
            (lines, there, again.json)
        });
        prop_assert_eq!(told(&from), told(&to));
        prop_assert_eq!(told(&from).len(), memories.len());
        prop_assert_eq!(&again["imported"], &json!(0), "{}", again);
        Ok(())
    });
    if let Err(error) = found {
        unreachable!("{error}");
    }
    app.proves();
}

#[tokio::test]
async fn whatever_the_corpus_brings_is_imported_or_refused() {
    let app = app_with("");
    let user = app.user("a@example.org", "pro").await;
    for format in ["tallybox", "mem0", "chroma", "mcp-jsonl"] {
        for (name, bytes) in super::corpus("imports") {
            let path = format!("/memory/import?format={format}");
            for media in ["application/jsonl", "application/json"] {
                let mut import = request("POST", &path, Some(&user.token), None, &[("content-type", media)]);
                *import.body_mut() = axum::body::Body::from(bytes.clone());
                let reply = app.send(import).await;
                assert!(reply.status < 500, "{name} as {format}, {media}: {}", reply.text);
            }
        }
    }
    let ours = super::corpus_texts("imports").into_iter().find(|(name, _)| name == "ours.jsonl").unwrap().1;
    let again = import(&app, &user, &ours).await.expect(200).json;
    assert_eq!((&again["imported"], &again["already_there"]), (&json!(0), &json!(2)), "{again}");
    app.proves();
}
