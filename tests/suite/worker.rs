//! The periodic work: each task has its turn, and none keeps the program from ending.

use serde_json::{Value, json};
use tallybox::config::{Config, Environment};
use tallybox::domain::auth::UserKey;
use tallybox::domain::calendar::Calendar;
use tallybox::domain::gateway::{OutputBounds, Wish};
use tallybox::domain::quota::Holder;
use tallybox::service::auth::account::{Changes, change, load_by_email};
use tallybox::service::quota::Policy;
use tallybox::service::{erasure, gateway, memory};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::calls::{id_of, tokens};
use super::support::{TestApp, TestUser};

const DAY_MS: i64 = 86_400_000;

async fn begin_erasure(app: &TestApp, email: &str) -> UserKey {
    let (by, email) = (app.by(), email.to_owned());
    let begun = app.app.store().write(move |writer| {
        let user = load_by_email(writer, &email)?;
        erasure::begin(writer, &by, &user)
    });
    begun.await.unwrap()
}

async fn is_erasing(app: &TestApp) -> bool {
    !app.app.store().read(erasure::list_begun).await.unwrap().is_empty()
}

/// Stores a memory that ends in a day.
async fn remember_for_a_day(app: &TestApp, user: &TestUser) -> String {
    let vector: Vec<f64> = (0..384_u32).map(|number| f64::from(number).cos()).collect();
    let memory = json!({"type": "n", "input_context": "a walnut", "tier": "stm", "embedding": vector});
    id_of(&app.tell(&user.token, "/memory/store", memory).await.expect(201))
}

fn policy() -> Policy {
    let tiers = Config::parse(None, &Environment::default()).unwrap().tiers;
    Policy { tiers, calendar: Calendar::new(chrono_tz::UTC) }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "past the program")]
async fn a_task_that_fails_for_good_keeps_no_other_from_its_turn() {
    let app = TestApp::with_config("[ledger]\nkeep_days = 35");
    let (user, other) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await);
    for _ in 0..2 {
        app.used_up(&user, 1).await;
    }
    remember_for_a_day(&app, &user).await;
    app.used_up(&other, 1).await;
    app.clock.advance_millis(40 * DAY_MS);
    begin_erasure(&app, "b@example.org").await;
    let connection = rusqlite::Connection::open(app.directory.path().join("tallybox.db")).unwrap();
    let fault = "CREATE TRIGGER fault BEFORE DELETE ON memories BEGIN SELECT RAISE(ABORT, 'damaged'); END";
    connection.execute_batch(fault).unwrap();
    app.app.worker().pass().await.unwrap_err();
    assert!(!is_erasing(&app).await);
    let listed = app.ask(&user.token, "/usage/ledger?resourceType=llm_tokens").await.expect(200).json;
    assert_eq!(listed["entries"][0]["metadata"], json!({"closedEntries": 2}), "{listed}");
    assert_eq!(app.memories_stored(), 1);
    connection.execute_batch("DROP TRIGGER fault").unwrap();
    app.pass().await;
    assert_eq!(app.memories_stored(), 0);
    app.proves();
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "past the program")]
async fn an_erasure_or_a_run_that_fails_for_good_keeps_no_other_from_its_end() {
    let app = TestApp::new();
    let gone = [app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await];
    let users = [app.user("c@example.org", "pro").await, app.user("d@example.org", "pro").await];
    for user in &gone {
        app.used_up(user, 1).await;
    }
    for user in &users {
        app.tell(&user.token, "/agents/runs", json!({})).await.expect(201);
    }
    app.clock.advance_millis(10 * 60_000);
    let keys = [begin_erasure(&app, "a@example.org").await, begin_erasure(&app, "b@example.org").await];
    let connection = rusqlite::Connection::open(app.directory.path().join("tallybox.db")).unwrap();
    let faults = "CREATE TRIGGER fault BEFORE DELETE ON accounts WHEN old.user_id = (SELECT min(user_id) FROM erasures)
        BEGIN SELECT RAISE(ABORT, 'damaged'); END;
        CREATE TRIGGER other BEFORE UPDATE ON runs WHEN old.user_id = (SELECT min(user_id) FROM runs)
        BEGIN SELECT RAISE(ABORT, 'damaged'); END";
    connection.execute_batch(faults).unwrap();
    app.app.worker().pass().await.unwrap_err();
    assert_eq!(app.app.store().read(erasure::list_begun).await.unwrap(), [keys[0]]);
    let booked = async |user: &TestUser| app.ask(&user.token, "/usage/ledger").await.json["entries"].clone();
    assert_eq!((booked(&users[0]).await, booked(&users[1]).await[0]["amount"].clone()), (json!([]), json!(1)));
    connection.execute_batch("DROP TRIGGER fault; DROP TRIGGER other").unwrap();
    app.pass().await;
    assert!(!is_erasing(&app).await);
    assert_eq!(booked(&users[0]).await[0]["amount"], 1);
    app.proves();
}

#[tokio::test]
async fn a_long_erasure_is_gone_on_with_pass_by_pass_and_nothing_waits_for_its_end() {
    let app = TestApp::new();
    let (user, other) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await);
    for _ in 0..33 {
        let entries = json!({"entries": vec![tokens(1); 1_000]});
        app.tell(&user.token, "/usage/record/batch", entries).await.expect(201);
    }
    begin_erasure(&app, "a@example.org").await;
    app.pass().await;
    assert!(is_erasing(&app).await, "one pass does not do all of it");
    remember_for_a_day(&app, &other).await;
    app.clock.advance_millis(DAY_MS);
    app.pass().await;
    assert_eq!(app.memories_stored(), 0);
    app.pass().await;
    assert!(!is_erasing(&app).await);
    app.proves();
}

#[tokio::test]
async fn rows_that_an_erasure_gave_back_are_closed_in_their_turn() {
    let app = TestApp::with_config("[ledger]\nkeep_days = 35");
    let (user, gone) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await);
    app.used_up(&user, 1).await;
    for _ in 0..9 {
        app.used_up(&gone, 1).await;
    }
    app.clock.advance_millis(40 * DAY_MS);
    // The newest entry of all stays as it is.
    app.used_up(&gone, 1).await;
    app.pass().await;
    let key = begin_erasure(&app, "b@example.org").await;
    erasure::finish(app.app.store(), key).await.unwrap();
    // SQLite gives the rows of what was erased again.
    for _ in 0..2 {
        app.used_up(&user, 1).await;
    }
    app.clock.advance_millis(40 * DAY_MS);
    app.used_up(&user, 1).await;
    app.pass().await;
    let listed = app.ask(&user.token, "/usage/ledger").await.expect(200).json["entries"].clone();
    assert_eq!(listed[1]["metadata"], json!({"closedEntries": 2}), "{listed}");
    app.proves();
}

#[tokio::test]
async fn the_end_of_the_program_waits_for_no_erasure_and_loses_no_note() {
    let app = TestApp::new();
    let (user, other) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "free_trial").await);
    app.used_up(&user, 1).await;
    app.enforce(&other, 1 << 40).await.expect(429);
    begin_erasure(&app, "a@example.org").await;
    let (_stop, stopped) = watch::channel(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    app.app.clone().serve(listener, stopped).await.unwrap();
    let app = TestApp::at(app.stop());
    assert!(is_erasing(&app).await);
    let admin = app.admin("admin@example.org").await;
    let refusals = app.ask(&admin.token, "/api/admin/overview").await.expect(200).json["recentRefusals"].clone();
    assert_eq!(refusals.as_array().map(Vec::len), Some(1), "{refusals}");
    app.pass().await;
    assert!(!is_erasing(&app).await);
    app.proves();
}

#[tokio::test]
async fn of_who_is_erased_meanwhile_no_end_of_a_memory_is_booked() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    remember_for_a_day(&app, &user).await;
    app.clock.advance_millis(DAY_MS);
    let due = app.app.store().read(memory::due_users).await.unwrap();
    assert_eq!(due.len(), 1);
    let key = begin_erasure(&app, "a@example.org").await;
    app.app.store().write(move |writer| memory::book_due(writer, &policy(), &due)).await.unwrap();
    let receipt = erasure::finish(app.app.store(), key).await.unwrap();
    assert_eq!((receipt.counts["ledger_entries"], receipt.counts["memories"]), (1, 1));
    app.proves();
}

/// The instants of the acts of the audit log, newest first.
async fn acts(app: &TestApp, token: &str) -> Vec<String> {
    let mut acts: Vec<String> = Vec::new();
    let mut path = "/api/admin/audit?limit=100".to_owned();
    loop {
        let page = app.ask(token, &path).await.expect(200).json;
        let listed = page["acts"].as_array().unwrap().iter();
        acts.extend(listed.map(|act| act["at"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { return acts };
        path = format!("/api/admin/audit?limit=100&cursor={cursor}");
    }
}

#[tokio::test]
async fn acts_older_than_they_are_kept_go_and_younger_ones_stay() {
    let app = TestApp::with_config("[audit]\nkeep_days = 30");
    let admin = app.admin("admin@example.org").await;
    app.user("a@example.org", "pro").await;
    let (by, tiers) = (app.by(), policy().tiers);
    let acted = app.app.store().write(move |writer| {
        for number in 0..1_100 {
            let user = load_by_email(writer, "a@example.org")?;
            let tier = ["basic", "pro"][number % 2].to_owned();
            change(writer, &by, &tiers, &user, &Changes { tier: Some(tier), ..Changes::default() })?;
        }
        Ok(())
    });
    acted.await.unwrap();
    let old = acts(&app, &admin.token).await;
    assert!(old.len() >= 1_100, "{}", old.len());
    app.clock.advance_millis(30 * DAY_MS - 1);
    let young = app.clock.now().to_string();
    app.change("a@example.org", Changes { disabled: Some(true), ..Changes::default() }).await;
    app.pass().await;
    assert_eq!(acts(&app, &admin.token).await.len(), old.len() + 1, "not a millisecond too early");
    app.clock.advance_millis(3_600_000);
    app.pass().await;
    assert_eq!(acts(&app, &admin.token).await, [young]);
    app.proves();
}

/// Opens a call of the gateway and gives its hold.
async fn open_call(app: &TestApp, user: &TestUser) -> tallybox::domain::unit::ReservationId {
    let email = user.email.clone();
    let opened = app.app.store().write(move |writer| {
        let user = load_by_email(writer, &email)?;
        let holder = Holder { user: user.key, tier: "pro" };
        let wish = Wish { prompt: 10, output: Some(20), choices: 1 };
        let (bounds, facts) = (OutputBounds { default: 20, min: 1 }, json!({"promptTokens": 10}));
        gateway::open(writer, &policy(), holder, (wish, bounds), 10, &facts)
    });
    opened.await.unwrap().hold
}

#[tokio::test]
async fn what_is_heard_of_the_call_of_who_was_erased_counts_for_nobody_else() {
    let app = TestApp::new();
    let (gone, user) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await);
    let lost = open_call(&app, &gone).await;
    let key = begin_erasure(&app, "a@example.org").await;
    erasure::finish(app.app.store(), key).await.unwrap();
    app.clock.advance_millis(1);
    let note = async |call, delivered| {
        let facts = json!({"promptTokens": 10});
        let noted = app.app.store().write(move |writer| gateway::checkpoint(writer, call, delivered, &facts));
        noted.await.unwrap();
    };
    // SQLite gives its row again.
    let hold = open_call(&app, &user).await;
    note(lost, 29).await;
    note(hold, 13).await;
    note(lost, 29).await;
    // As the next start finds it.
    let app = TestApp::at(app.stop());
    let listed: Value = app.ask(&user.token, "/usage/ledger").await.expect(200).json;
    assert_eq!(listed["entries"][0]["amount"], 13, "{listed}");
    app.proves();
}
