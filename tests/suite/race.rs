//! Many at once: the last units, one hold, one entry, a full queue, and a neighbour that panics.

use std::sync::mpsc::{Sender, channel};

use serde_json::{Value, json};
use tallybox::config::{Config, Environment};
use tallybox::domain::Error;
use tallybox::domain::auth::Role;
use tallybox::domain::unit::TokenId;
use tallybox::service::auth::account::{Changes, New, create, load_by_email};
use tallybox::service::auth::token::revoke_for;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::calls::{id_of, tokens};
use super::memory::{axis, damage};
use super::support::{Reply, TestApp, TestUser, request};

const TASKS: usize = 64;
const LIMIT: &str = "[tiers.free_trial]\nllm_tokens_day = 1007";
/// How often 7 fits into 1,007.
const FITTING: usize = 143;

impl TestApp {
    /// Sends requests all at once, in process, and gives the status of each and its id.
    async fn at_once(&self, requests: Vec<http::Request<axum::body::Body>>) -> Vec<(u16, Value)> {
        let mut calls = JoinSet::new();
        for request in requests {
            let router = self.app.router();
            calls.spawn(async move {
                let response = router.oneshot(request).await.unwrap();
                let status = response.status().as_u16();
                let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
                (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
            });
        }
        calls.join_all().await
    }
}

/// A write that the writer does not get past until it is opened: what waits behind it becomes one group.
struct Gate {
    held: JoinSet<()>,
    key: Sender<()>,
}

impl Gate {
    async fn shut(app: &TestApp) -> Self {
        let store = app.app.store().clone();
        let (begun, has_begun) = channel::<()>();
        let (key, opened) = channel::<()>();
        let mut held = JoinSet::new();
        held.spawn(async move {
            let write = store.write(move |_| {
                let _ = begun.send(());
                let _ = opened.recv();
                Ok(())
            });
            write.await.unwrap();
        });
        tokio::task::spawn_blocking(move || has_begun.recv()).await.unwrap().unwrap();
        Self { held, key }
    }

    async fn open(self) {
        drop(self.key);
        self.held.join_all().await;
    }

    /// Opens it once what was asked before has long been let in, and waits.
    async fn open_in_a_while(self, app: &TestApp, user: &TestUser) {
        for _ in 0..200 {
            app.ask(&user.token, "/usage/tokens").await.expect(200);
        }
        self.open().await;
    }
}

fn post(user: &TestUser, path: &str, body: Value) -> http::Request<axum::body::Body> {
    request("POST", path, Some(&user.token), Some(body), &[])
}

fn enforced() -> Value {
    json!({"resourceType": "llm_tokens", "amount": 7, "enforce": true})
}

fn count(answers: &[(u16, Value)], status: u16) -> usize {
    answers.iter().filter(|answer| answer.0 == status).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_real_connections_exactly_what_fits_is_admitted() {
    let app = TestApp::with_config(&format!("[server]\nlisten = \"127.0.0.1:0\"\n{LIMIT}"));
    let user = app.user("a@example.org", "free_trial").await;
    let TestApp { app, clock: _, directory } = app;
    let store = app.store().clone();
    let listener = app.bind().await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = watch::channel(false);
    // Whoever comes first installs it; no connection of this test is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let compete = async {
        let client = reqwest::Client::new();
        let mut clients = JoinSet::new();
        for _ in 0..TASKS {
            clients.spawn(ask_five_times(client.clone(), url.clone(), user.token.clone()));
        }
        let statuses: Vec<u16> = clients.join_all().await.concat();
        let standing = client.get(format!("{url}/usage/tokens")).bearer_auth(&user.token).send().await.unwrap();
        let standing: Value = standing.json().await.unwrap();
        assert!(tallybox::service::check::run(&store).unwrap().is_empty());
        stop.send(true).unwrap();
        (statuses, standing)
    };
    let (served, (statuses, standing)) = tokio::join!(app.serve(listener, stopped), compete);
    served.unwrap();
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(429)), (FITTING, 5 * TASKS - FITTING));
    assert_eq!((&standing["used"], &standing["reserved"]), (&json!(7 * FITTING), &json!(0)));
    drop(directory);
}

async fn ask_five_times(client: reqwest::Client, url: String, token: String) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let post = client.post(format!("{url}/usage/record")).bearer_auth(&token).json(&enforced());
        statuses.push(post.send().await.unwrap().status().as_u16());
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_and_records_share_the_last_units_exactly() {
    let app = TestApp::with_config(LIMIT);
    let user = app.user("a@example.org", "free_trial").await;
    let mut requests = Vec::new();
    for number in 0..4 * TASKS {
        let (path, body) =
            if number % 2 == 0 { ("/usage/record", enforced()) } else { ("/usage/reservations", tokens(7)) };
        requests.push(post(&user, path, body));
    }
    let answers = app.at_once(requests).await;
    assert_eq!((count(&answers, 201), count(&answers, 429)), (FITTING, 4 * TASKS - FITTING));
    let (used, reserved) = app.tokens(&user).await;
    assert_eq!(used + reserved, 1_001);
    // Settling what is held, while others still ask, lets nothing over the limit.
    let holds: Vec<String> = answers
        .iter()
        .filter(|(status, answer)| *status == 201 && answer.get("expiresAt").is_some())
        .map(|(_, answer)| answer["id"].as_str().unwrap().to_owned())
        .collect();
    let mut requests = Vec::new();
    for hold in &holds {
        requests.push(post(&user, &format!("/usage/reservations/{hold}/settle"), json!({"amount": 7})));
        requests.push(post(&user, "/usage/record", enforced()));
    }
    let answers = app.at_once(requests).await;
    assert_eq!((count(&answers, 200), count(&answers, 429)), (holds.len(), holds.len()));
    assert_eq!(app.tokens(&user).await, (1_001, 0));
    // Settling for less gives back exactly the rest.
    app.clock.advance_millis(86_400_000);
    let mut holds = Vec::new();
    for _ in 0..FITTING {
        holds.push(app.hold(&user, 7).await);
    }
    let mut requests: Vec<_> = holds
        .iter()
        .map(|hold| post(&user, &format!("/usage/reservations/{hold}/settle"), json!({"amount": 3})))
        .collect();
    requests.extend((0..2 * TASKS).map(|_| post(&user, "/usage/record", enforced())));
    let answers = app.at_once(requests).await;
    let (used, reserved) = app.tokens(&user).await;
    let admitted = i64::try_from(count(&answers, 201)).unwrap();
    assert_eq!((used, reserved), (3 * 143 + 7 * admitted, 0));
    assert!(used <= 1_007);
    app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_resolved_once_however_many_try() {
    let app = TestApp::with_config(LIMIT);
    let user = app.user("a@example.org", "free_trial").await;
    for _ in 0..8 {
        let before = app.tokens(&user).await.0;
        let hold = app.hold(&user, 50).await;
        let path = format!("/usage/reservations/{hold}");
        let mut requests = Vec::new();
        for number in 0..TASKS {
            requests.push(match number % 3 {
                0 => post(&user, &format!("{path}/settle"), json!({"amount": 40})),
                1 => post(&user, &format!("{path}/settle"), json!({"amount": 41})),
                _ => request("DELETE", &path, Some(&user.token), None, &[]),
            });
        }
        let answers = app.at_once(requests).await;
        let settled: Vec<&Value> =
            answers.iter().filter(|answer| answer.0 == 200).map(|answer| &answer.1["id"]).collect();
        let released = count(&answers, 204);
        assert!((released == 0) != settled.is_empty(), "one of the two: {released} and {}", settled.len());
        assert!(settled.windows(2).all(|two| two[0] == two[1]), "one entry");
        assert_eq!(settled.len() + released + count(&answers, 409), TASKS);
        let (used, reserved) = app.tokens(&user).await;
        assert_eq!((used > before, reserved), (!settled.is_empty(), 0));
    }
    app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_taken_back_no_more_than_once_over_however_many_try() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let admin = app.admin("admin@example.org").await;
    let entry = app.used_up(&user, 105).await;
    let back = json!({"resourceType": "llm_tokens", "amount": -10, "reverses": entry});
    let headers = [("X-User-Id", user.id.as_str())];
    let requests = (0..TASKS)
        .map(|_| request("POST", "/usage/record", Some(&admin.token), Some(back.clone()), &headers))
        .collect();
    let answers = app.at_once(requests).await;
    assert_eq!((count(&answers, 201), count(&answers, 422)), (10, TASKS - 10));
    assert_eq!(app.tokens(&user).await, (5, 0));
    app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_panics_or_fails_leaves_its_neighbours_as_they_were() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let store = app.app.store().clone();
    let tiers = Config::parse(None, &Environment::default()).unwrap().tiers;
    let make = |email: &str, end: fn() -> Result<(), Error>| {
        let (by, tiers) = (app.by(), tiers.clone());
        let new = New { email: Some(email.to_owned()), role: Role::User, tier: "pro".to_owned(), password_hash: None };
        store.write(move |writer| {
            create(writer, &by, &tiers, &new)?;
            end()
        })
    };
    let gate = Gate::shut(&app).await;
    let record = app.call("POST", "/usage/record", Some(&user.token), Some(tokens(5)));
    let first = make("first@example.org", || Ok(()));
    let panics = make("panics@example.org", || panic!("as the test wants it"));
    let fails = make("fails@example.org", || Err(Error::conflict("as_wanted", "as the test wants it")));
    let last = make("last@example.org", || Ok(()));
    let opening = gate.open();
    let (first, record, panics, fails, last, ()) = tokio::join!(biased; first, record, panics, fails, last, opening);
    assert!(first.is_ok() && last.is_ok());
    record.expect(201);
    assert!(matches!(panics, Err(Error::Internal(_))), "{panics:?}");
    assert!(matches!(fails, Err(Error::Conflict { .. })), "{fails:?}");
    // Alone in its commit none has a savepoint to go back to.
    let panics = make("panics_alone@example.org", || panic!("as the test wants it")).await;
    assert!(matches!(panics, Err(Error::Internal(_))), "{panics:?}");
    let fails = make("fails_alone@example.org", || Err(Error::conflict("as_wanted", "as the test wants it"))).await;
    assert!(matches!(fails, Err(Error::Conflict { .. })), "{fails:?}");
    let gone = ["panics", "fails", "panics_alone", "fails_alone"].map(|email| (email, false));
    for (email, is_there) in [("first", true), ("last", true)].into_iter().chain(gone) {
        let found = store.read(move |reader| load_by_email(reader, &format!("{email}@example.org"))).await;
        assert_eq!(found.is_ok(), is_there, "{email}");
    }
    assert_eq!(app.tokens(&user).await, (5, 0));
    app.used_up(&user, 1).await;
    app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_write_queue_says_so_and_when_to_come_back() {
    let app = TestApp::with_config("[store]\nwrite_queue = 4");
    let user = app.user("a@example.org", "pro").await;
    let gate = Gate::shut(&app).await;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let (router, request) = (app.app.router(), post(&user, "/usage/record", tokens(1)));
        calls.spawn(async move { super::support::read(router.oneshot(request).await.unwrap()).await });
    }
    for _ in 0..6 {
        let busy: Reply = calls.join_next().await.unwrap().unwrap();
        assert_eq!((busy.status, busy.code(), busy.header("retry-after")), (503, "busy", "1"), "{}", busy.text);
        assert_eq!(busy.header("content-type"), "application/problem+json");
    }
    // Reading goes on meanwhile.
    assert_eq!(app.tokens(&user).await, (0, 0));
    gate.open().await;
    for reply in calls.join_all().await {
        id_of(&reply.expect(201));
    }
    assert_eq!(app.tokens(&user).await, (4, 0));
    app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_in_the_queue_holds_for_what_waits_behind_it() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let lowered = app.user("lowered@example.org", "basic").await;
    let disabled = app.user("disabled@example.org", "basic").await;
    let revoked = app.user("revoked@example.org", "basic").await;
    let tokens_of = format!("/api/admin/users/{}/tokens", revoked.id);
    let listed = app.ask(&admin.token, &tokens_of).await.expect(200);
    let token = TokenId::parse(listed.json["tokens"][0]["id"].as_str().unwrap()).unwrap();
    let by = app.by();
    let revoke = app.app.store().write(move |writer| revoke_for(writer, &by, None, token));
    let lower = Changes { tier: Some("free_trial".to_owned()), ..Changes::default() };
    let disable = Changes { disabled: Some(true), ..Changes::default() };
    let big = json!({"resourceType": "llm_tokens", "amount": 1_001, "enforce": true});
    let gate = Gate::shut(&app).await;
    // The changes are queued at once, the requests once they have been let in by what held when they came.
    let opening = gate.open_in_a_while(&app, &admin);
    let (revoked_there, (), (), lowered, disabled, revoked, ()) = tokio::join!(
        biased;
        revoke,
        app.change(&lowered.email, lower),
        app.change(&disabled.email, disable),
        app.send(post(&lowered, "/usage/record", big)),
        app.send(post(&disabled, "/usage/record", tokens(1))),
        app.send(post(&revoked, "/usage/record", tokens(1))),
        opening,
    );
    revoked_there.unwrap();
    assert_eq!([lowered, disabled, revoked].map(|reply| reply.status), [429, 401, 401]);
    app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_index_of_words_loses_one_group_and_then_fails_what_changes_words_alone() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let memory = |text: &str| json!({"type": "n", "input_context": text, "embedding": axis(0)});
    app.tell(&user.token, "/memory/store", memory("a ferry")).await.expect(201);
    let record = || app.send(post(&user, "/usage/record", tokens(1)));
    let store = |text: &str| app.send(post(&user, "/memory/store", memory(text)));
    damage(app.directory.path(), "UPDATE words_data SET id = -10 WHERE id = 10");
    for records in [503, 201, 201] {
        let gate = Gate::shut(&app).await;
        let opening = gate.open_in_a_while(&app, &user);
        let (first, stored, last, ()) = tokio::join!(biased; record(), store("a boiler"), record(), opening);
        assert_eq!((stored.status, stored.code()), (503, "unavailable"), "{}", stored.text);
        assert_eq!([first.status, last.status], [records; 2], "{} {}", first.text, last.text);
    }
    assert_eq!(app.tokens(&user).await, (4, 0));
    // Job by job, words are written as in one go.
    damage(app.directory.path(), "UPDATE words_data SET id = 10 WHERE id = -10");
    let gate = Gate::shut(&app).await;
    let opening = gate.open_in_a_while(&app, &user);
    let (first, record, second, ()) = tokio::join!(biased; store("a peanut"), record(), store("a lantern"), opening);
    assert_eq!([first.status, record.status, second.status], [201; 3]);
    for word in ["ferry", "peanut", "lantern"] {
        let search = json!({"query": word, "mode": "keyword"});
        let found = app.tell(&user.token, "/memory/search", search).await.expect(200).json;
        assert_eq!(found["results"][0]["input_context"], format!("a {word}"));
    }
    app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_deletion_looks_before_it_writes_and_leaves_what_changed_since() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let memory =
            json!({"type": "n", "input_context": format!("{number}"), "tags": ["red"], "embedding": axis(number)});
        ids.push(id_of(&app.tell(&user.token, "/memory/store", memory).await.expect(201)));
    }
    let gate = Gate::shut(&app).await;
    // What is nowhere is looked for without the one that writes.
    let none = app.drop_at(&user.token, "/memory?confirm=true&tag=blue").await.expect(200);
    assert_eq!(none.json, json!({"deleted": 0, "freed_bytes": 0}));
    let path = format!("/memory/{}", ids[1]);
    let (changed, deleted, ()) = tokio::join!(
        biased;
        app.call("PATCH", &path, Some(&user.token), Some(json!({"tags": ["blue"]}))),
        async {
            for _ in 0..100 {
                app.ask(&user.token, "/usage/tokens").await.expect(200);
            }
            app.drop_at(&user.token, "/memory?confirm=true&tag=red").await
        },
        async {
            for _ in 0..100 {
                app.ask(&user.token, "/usage/tokens").await.expect(200);
            }
            gate.open_in_a_while(&app, &user).await;
        },
    );
    changed.expect(200);
    assert_eq!(deleted.expect(200).json["deleted"], 2);
    let left = app.ask(&user.token, "/memory").await.expect(200).json;
    assert_eq!(left["memories"].as_array().unwrap().len(), 1);
    assert_eq!(left["memories"][0]["id"], ids[1].as_str());
    app.proves();
}
