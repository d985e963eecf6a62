//! The ledger's listing.

use serde_json::{Value, json};

use crate::suite::calls::{faults_of, tokens};
use crate::suite::support::{TestApp, TestUser};

fn amounts(page: &Value) -> Vec<i64> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["amount"].as_i64().unwrap()).collect()
}

async fn list(app: &TestApp, user: &TestUser, query: &str) -> Value {
    app.ask(&user.token, &format!("/usage/ledger?{query}")).await.expect(200).json
}

/// Every page of a listing, with `between` run after each.
async fn walk(app: &TestApp, user: &TestUser, query: &str, between: impl AsyncFn()) -> Vec<i64> {
    let mut found = Vec::new();
    let mut page = list(app, user, query).await;
    loop {
        found.extend(amounts(&page));
        between().await;
        let Some(cursor) = page["nextCursor"].as_str() else { return found };
        assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{cursor}");
        page = list(app, user, &format!("{query}&cursor={cursor}")).await;
        assert!(!amounts(&page).is_empty(), "a cursor leads to something");
    }
}

#[tokio::test]
async fn entries_are_listed_by_when_they_were_recorded_so_that_a_poller_misses_none() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 1).await;
    app.clock.advance_millis(1_000);
    let backdated =
        json!({"resourceType": "llm_tokens", "amount": 2, "timestamp": "2026-02-20T00:00:00Z", "metadata": {"x": 1}});
    let id = app.tell(&user.token, "/usage/record", backdated).await.expect(201).json["id"].clone();
    app.clock.advance_millis(1_000);
    app.tell(&user.token, "/usage/record", json!({"resourceType": "agent_minutes", "amount": 3})).await.expect(201);
    let page = list(&app, &user, "").await;
    assert_eq!((amounts(&page), &page["nextCursor"]), (vec![3, 2, 1], &Value::Null));
    let expected = json!({
        "id": id, "resourceType": "llm_tokens", "amount": 2, "timestamp": "2026-02-20T00:00:00.000Z",
        "metadata": {"x": 1}, "reverses": null, "recordedAt": "2026-03-10T12:00:01.000Z",
    });
    assert_eq!(page["entries"][1], expected);
    assert_eq!(amounts(&list(&app, &user, "from=2026-03-10T12:00:01Z").await), [3, 2]);
    assert_eq!(amounts(&list(&app, &user, "to=2026-03-10T12:00:01Z").await), [1]);
}

#[tokio::test]
async fn pages_stay_right_while_entries_come() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let mut expected = Vec::new();
    for amount in 1..=25 {
        let resource = if amount % 3 == 0 { "agent_minutes" } else { "llm_tokens" };
        app.tell(&user.token, "/usage/record", json!({"resourceType": resource, "amount": amount})).await.expect(201);
        expected.insert(0, amount);
        app.clock.advance_millis(3_600_000);
    }
    for limit in [1, 4, 25] {
        let query = format!("limit={limit}");
        let found = walk(&app, &user, &query, async || {
            app.used_up(&user, 1_000).await;
            app.clock.advance_millis(1);
        });
        let found: Vec<i64> = found.await.into_iter().filter(|amount| *amount < 1_000).collect();
        assert_eq!(found, expected, "limit={limit}");
    }
    let minutes: Vec<i64> = expected.iter().copied().filter(|amount| amount % 3 == 0).collect();
    assert_eq!(walk(&app, &user, "resourceType=agent_minutes&limit=3", async || ()).await, minutes);
}

#[tokio::test]
async fn from_is_included_and_to_is_not_over_days_months_and_gaps() {
    let app = TestApp::with_config("[quota]\ntimezone = \"Europe/Berlin\"");
    let user = app.user("a@example.org", "pro").await;
    let instants = [
        "2026-01-01T00:00:00Z",
        "2026-03-28T22:59:59.999Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T21:59:59.999Z",
        "2026-03-29T22:00:00Z",
        "2026-12-31T23:00:00Z",
        "2028-02-29T12:00:00Z",
    ];
    for (number, instant) in instants.iter().enumerate() {
        app.turn_to(instant);
        let resource = if number % 2 == 0 { "llm_tokens" } else { "agent_minutes" };
        app.tell(&user.token, "/usage/record", json!({"resourceType": resource, "amount": number + 1}))
            .await
            .expect(201);
    }
    for (low, from) in instants.iter().enumerate() {
        for (high, to) in instants.iter().enumerate() {
            let expected: Vec<i64> = (low..high).rev().map(|number| i64::try_from(number).unwrap() + 1).collect();
            assert_eq!(
                walk(&app, &user, &format!("from={from}&to={to}&limit=2"), async || ()).await,
                expected,
                "{from} {to}"
            );
        }
        let before: Vec<i64> = (0..low).rev().map(|number| i64::try_from(number).unwrap() + 1).collect();
        assert_eq!(walk(&app, &user, &format!("to={from}&limit=3"), async || ()).await, before, "to {from}");
    }
    assert_eq!(amounts(&list(&app, &user, "to=1999-01-01T00:00:00Z").await), Vec::<i64>::new());
    assert_eq!(amounts(&list(&app, &user, "from=2029-01-01T00:00:00Z").await), Vec::<i64>::new());
    assert_eq!(amounts(&list(&app, &user, "to=9999-12-31T23:59:59Z&limit=1").await), [7]);
    assert_eq!(amounts(&list(&app, &user, "to=0000-01-01T00:00:00Z").await), Vec::<i64>::new());
}

#[tokio::test]
async fn a_cursor_never_leads_out_of_what_is_asked_for() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let other = app.user("b@example.org", "pro").await;
    for amount in 1..=3 {
        app.used_up(&user, amount).await;
        app.tell(&user.token, "/usage/record", json!({"resourceType": "agent_minutes", "amount": 10 * amount}))
            .await
            .expect(201);
        app.used_up(&other, 100 * amount).await;
    }
    let cursor = list(&app, &user, "limit=1").await["nextCursor"].as_str().unwrap().to_owned();
    let narrowed = list(&app, &user, &format!("resourceType=llm_tokens&cursor={cursor}")).await;
    assert!(amounts(&narrowed).iter().all(|amount| *amount < 10), "{narrowed}");
    let theirs = list(&app, &other, &format!("cursor={cursor}")).await;
    assert!(amounts(&theirs).iter().all(|amount| *amount >= 100), "{theirs}");
    let row = cursor.split('-').next().unwrap();
    let twice = list(&app, &user, &format!("cursor={row}-{row}")).await;
    let mut unique = amounts(&twice);
    unique.dedup();
    assert_eq!(unique, amounts(&twice));
}

#[tokio::test]
async fn a_listing_names_what_it_does_not_take() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    app.tell(&user.token, "/usage/record", tokens(1)).await.expect(201);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("cursor=zz", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=1-2-3-4", "cursor"),
        ("from=yesterday", "from"),
        ("to=2026", "to"),
        ("resourceType=x", "resourceType"),
        ("colour=1", "colour"),
        ("limit=1&limit=1", "limit"),
        ("cursor=%2B1", "cursor"),
        ("cursor=--1", "cursor"),
    ] {
        let reply = app.ask(&user.token, &format!("/usage/ledger?{query}")).await.expect(422);
        assert_eq!(faults_of(&reply), [field], "{query}");
    }
    let reply = app.ask(&user.token, "/usage/ledger?limit=0&from=x&colour=1").await.expect(422);
    assert_eq!(faults_of(&reply), ["from", "limit", "colour"], "every fault at once");
}
