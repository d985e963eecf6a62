//! The index in memory: it answers as the tables do, whoever writes, and however little room it has.

use std::sync::Arc;

use serde_json::{Value, json};
use tallybox::app::App;
use tallybox::config::{Config, Environment};
use tallybox::service::auth::account::By;
use tallybox::service::auth::account::load_by_email;
use tallybox::service::erasure;
use tokio::task::JoinSet;

use super::{WordModel, app_with, texts};
use crate::suite::support::{TestApp, TestUser};

const WORDS: [&str; 24] = [
    "harbour", "ferry", "peanut", "boiler", "window", "garden", "letter", "ticket", "lantern", "bridge", "kettle",
    "watch", "river", "market", "teacher", "violin", "winter", "orchard", "cellar", "mirror", "candle", "journal",
    "saddle", "anchor",
];

/// A sentence of six words, the same for the same number.
fn sentence(number: usize) -> String {
    let word = |place: usize| WORDS[(number * 7 + place * place * 5 + number / 24 * (place + 1)) % WORDS.len()];
    (0..6).map(word).collect::<Vec<_>>().join(" ")
}

fn memory(number: usize) -> Value {
    let session = (!number.is_multiple_of(3)).then(|| format!("s{}", number / 10));
    json!({"type": if number.is_multiple_of(50) { "rare" } else { "note" }, "input_context": sentence(number),
        "tier": if number % 7 == 3 { "stm" } else { "ltm" }, "session": session,
        "timestamp": format!("2025-01-{:02}T10:{:02}:00Z", 1 + number / 60 % 28, number % 60)})
}

impl TestApp {
    /// Another process on the same directory: nothing of its index is shared.
    fn elsewhere(&self, toml: &str) -> Elsewhere {
        let config = Config::parse(Some(toml), &Environment::default()).unwrap();
        Elsewhere(App::build_with(config, self.directory.path(), self.clock.clone(), Arc::new(WordModel)).unwrap())
    }

    /// What reads every row finds.
    fn oracle(&self) -> Elsewhere {
        self.elsewhere("[memory]\nindex_bytes_max = 0")
    }

    async fn fill(&self, user: &TestUser, numbers: std::ops::Range<usize>) {
        let memories: Vec<Value> = numbers.map(memory).collect();
        for batch in memories.chunks(256) {
            let body = json!({"memories": batch});
            self.call("POST", "/memory/store/batch", Some(&user.token), Some(body)).await.expect(201);
        }
    }
}

struct Elsewhere(App);

impl Elsewhere {
    async fn call(&self, user: &TestUser, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = crate::suite::support::request(method, path, Some(&user.token), body, &[]);
        let response = tower::ServiceExt::oneshot(self.0.router(), request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn search(&self, user: &TestUser, search: &Value) -> Vec<Value> {
        let (status, answer) = self.call(user, "POST", "/memory/search", Some(search.clone())).await;
        assert_eq!(status, 200, "{answer}");
        answer["results"].as_array().unwrap().clone()
    }
}

fn searches() -> Vec<Value> {
    let mut searches = Vec::new();
    for number in [3, 50, 77, 401] {
        let query = sentence(number);
        for mode in ["hybrid", "semantic", "keyword"] {
            searches.push(json!({"query": query, "mode": mode}));
            searches.push(json!({"query": query, "mode": mode, "limit": 100, "context": 2}));
            searches.push(json!({"query": query, "mode": mode, "types": ["rare"]}));
            searches.push(json!({"query": query, "mode": mode, "session": "s5"}));
        }
    }
    searches.push(json!({"query": "What did we see in January 2025?"}));
    searches
}

/// Every search answers like one that reads every row.
async fn agrees(app: &TestApp, user: &TestUser) {
    let oracle = app.oracle();
    for search in searches() {
        assert_eq!(app.search(user, search.clone()).await, oracle.search(user, &search).await, "{search}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_written_is_found_at_once_and_what_was_deleted_never_again() {
    let app = Arc::new(app_with("[memory]\nstm_ttl = \"1h\""));
    let user = app.user("a@example.org", "pro").await;
    app.fill(&user, 0..60).await;
    let mut tasks = JoinSet::new();
    for task in 0..4_usize {
        let (app, user) = (Arc::clone(&app), user.clone());
        tasks.spawn(async move {
            for round in 0..25 {
                // One word each, without parts that others share.
                let letter = |number: usize| char::from(b'a' + u8::try_from(number).unwrap());
                let unique = format!("uniq{}{}k", letter(task), letter(round));
                let text = format!("{unique} {}", sentence(round));
                let body = json!({"type": "note", "input_context": text, "session": format!("s{task}")});
                let id = app.store(&user, body).await.expect(201).json["id"].as_str().unwrap().to_owned();
                for (mode, query) in [("hybrid", &text), ("semantic", &text), ("keyword", &unique)] {
                    let found = app.search(&user, json!({"query": query, "mode": mode, "limit": 5})).await;
                    // A few words may mean the same to the model of the tests.
                    assert!(
                        found.iter().any(|hit| hit["id"] == id.as_str() && hit["score"] == 1.0),
                        "{mode}: {found:?}"
                    );
                }
                let changed = format!("chang{}{}k", letter(task), letter(round));
                let patch = json!({"input_context": format!("{changed} {}", sentence(round + 1))});
                app.call("PATCH", &format!("/memory/{id}"), Some(&user.token), Some(patch)).await.expect(200);
                let found = app.search(&user, json!({"query": changed, "mode": "keyword"})).await;
                assert_eq!(found[0]["id"], id.as_str());
                assert!(app.search(&user, json!({"query": unique, "mode": "keyword"})).await.is_empty());
                if round % 3 > 0 {
                    app.call("DELETE", &format!("/memory/{id}"), Some(&user.token), None).await.expect(204);
                    assert!(app.search(&user, json!({"query": changed, "mode": "keyword"})).await.is_empty());
                    let found = app.search(&user, json!({"query": changed, "mode": "semantic", "limit": 100})).await;
                    assert!(found.iter().all(|hit| hit["id"] != id.as_str()));
                }
            }
        });
    }
    tasks.join_all().await;
    let app = Arc::into_inner(app).unwrap();
    agrees(&app, &user).await;
    assert!(app.app.store().index_bytes() > 0);
    // Short-term memories end at their instant, before anything takes them away.
    let short = json!({"query": sentence(3), "tiers": ["stm"], "limit": 100});
    let before = app.search(&user, json!({"query": sentence(3), "limit": 100})).await.len();
    let ending = app.search(&user, short.clone()).await.len();
    assert!(ending > 5);
    app.clock.advance_millis(3_599_000);
    assert_eq!(app.search(&user, short.clone()).await.len(), ending);
    app.clock.advance_millis(1_000);
    assert!(app.search(&user, short).await.is_empty());
    assert_eq!(app.search(&user, json!({"query": sentence(3), "limit": 100})).await.len(), before - ending);
    agrees(&app, &user).await;
    app.app.worker().pass().await.unwrap();
    agrees(&app, &user).await;
    app.holds();
}

#[tokio::test]
async fn of_many_the_nearest_are_found_and_filters_hold_before_the_cut() {
    let app = app_with("");
    let user = app.user("a@example.org", "pro").await;
    app.fill(&user, 0..2_500).await;
    let oracle = app.oracle();
    let (mut found_of_ten, mut wanted) = (0, 0);
    for number in (0..2_500).step_by(97) {
        // Not the text itself, so that the rest of the ten is not only its repetitions.
        let query = format!("{} {}", &sentence(number)[..20], sentence(number + 1));
        let search = json!({"query": query, "mode": "semantic", "limit": 10});
        let exact = oracle.search(&user, &search).await;
        let least = exact[9]["score"].as_f64().unwrap();
        let found = app.search(&user, search).await;
        assert_eq!(found.len(), 10);
        // Those that are as near as the tenth are as good as it.
        found_of_ten += found.iter().filter(|hit| hit["score"].as_f64().unwrap() >= least).count();
        wanted += 10;
        for mode in ["hybrid", "semantic"] {
            let search = json!({"query": query, "mode": mode, "types": ["rare"], "limit": 50});
            let rare = app.search(&user, search.clone()).await;
            assert_eq!(rare.len(), 50, "{mode}");
            assert_eq!(rare, oracle.search(&user, &search).await);
            let search = json!({"query": query, "mode": mode, "tiers": ["stm"], "limit": 100});
            assert_eq!(app.search(&user, search).await.len(), 100);
        }
        let words = json!({"query": query, "mode": "keyword", "limit": 100});
        assert_eq!(app.search(&user, words.clone()).await, oracle.search(&user, &words).await);
    }
    assert!(found_of_ten * 100 >= wanted * 99, "{found_of_ten} of {wanted}");
}

#[tokio::test]
async fn what_another_process_wrote_is_found_and_what_it_erased_is_gone() {
    let app = app_with("");
    let user = app.user("a@example.org", "pro").await;
    app.fill(&user, 0..90).await;
    agrees(&app, &user).await;
    let other = app.elsewhere("");
    for round in 0..6 {
        let (status, stored) = other.call(&user, "POST", "/memory/store", Some(memory(100 + round))).await;
        assert_eq!(status, 201);
        let found = app.search(&user, json!({"query": sentence(100 + round), "limit": 100})).await;
        assert!(found.iter().any(|hit| hit["id"] == stored["id"]));
        // Here, and there again, in turns.
        app.store(&user, memory(200 + round)).await.expect(201);
        agrees(&app, &user).await;
        let path = format!("/memory/{}", stored["id"].as_str().unwrap());
        assert_eq!(other.call(&user, "DELETE", &path, None).await.0, 204);
        assert_eq!(other.search(&user, &json!({"query": sentence(200 + round)})).await.len(), 10);
        agrees(&app, &user).await;
    }
    let before = app.app.store().index_bytes();
    let by = By::command_line(app.clock.clone());
    let erased = app.app.store().write(move |writer| {
        let user = load_by_email(writer, "a@example.org")?;
        erasure::begin(writer, &by, &user)
    });
    erasure::finish(app.app.store(), erased.await.unwrap()).await.unwrap();
    assert!(app.app.store().index_bytes() < before / 4);
    app.holds();
}

#[tokio::test]
async fn a_write_that_fails_leaves_nothing_behind() {
    let app = app_with("[memory]\non_duplicate = \"refuse\"");
    let user = app.user("a@example.org", "pro").await;
    app.store(&user, memory(1)).await.expect(201);
    agrees(&app, &user).await;
    let batch = json!({"memories": [
        {"type": "note", "input_context": "a lighthouse keeper"}, memory(1),
    ]});
    app.call("POST", "/memory/store/batch", Some(&user.token), Some(batch)).await.expect(409);
    assert!(app.search(&user, json!({"query": "lighthouse", "mode": "keyword"})).await.is_empty());
    assert_eq!(texts(&app.search(&user, json!({"query": "lighthouse"})).await), [sentence(1)]);
    app.store(&user, memory(2)).await.expect(201);
    agrees(&app, &user).await;
}

#[tokio::test]
async fn with_little_room_or_none_searches_read_the_tables() {
    let app = app_with("[memory]\nindex_bytes_max = 60000");
    let (one, many) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await);
    app.fill(&one, 0..60).await;
    app.fill(&many, 0..900).await;
    for _ in 0..3 {
        agrees(&app, &many).await;
        assert!(app.app.store().index_bytes() <= 60_000);
        agrees(&app, &one).await;
        assert!((1_000..=60_000).contains(&app.app.store().index_bytes()));
    }
    // Fewer than half of them may find room.
    let reply = app.call("DELETE", "/memory?confirm=true&type=note", Some(&many.token), None).await.expect(200);
    assert!(reply.json["deleted"].as_i64().unwrap() > 800);
    agrees(&app, &many).await;
    // Users come and go.
    for number in 0..40 {
        let user = app.user(&format!("u{number}@example.org"), "pro").await;
        app.fill(&user, number..number + 40).await;
        assert_eq!(app.search(&user, json!({"query": sentence(number)})).await.len(), 10);
        assert!(app.app.store().index_bytes() <= 60_000);
    }
    agrees(&app, &one).await;
}

#[tokio::test]
async fn a_restart_finds_the_same() {
    let app = app_with("");
    let user = app.user("a@example.org", "pro").await;
    app.fill(&user, 0..120).await;
    let mut before = Vec::new();
    for search in searches() {
        before.push(app.search(&user, search).await);
    }
    let again = app.elsewhere("");
    for (search, before) in searches().iter().zip(before) {
        assert_eq!(again.search(&user, search).await, before, "{search}");
    }
}
