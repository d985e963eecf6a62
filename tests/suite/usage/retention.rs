//! Retention: days that are old enough are closed, and nothing but the detail of their entries is gone.

use std::collections::BTreeMap;

use chrono_tz::Europe::Berlin;
use serde_json::{Value, json};
use tallybox::config::{Config, Environment};
use tallybox::domain::calendar::Calendar;
use tallybox::domain::unit::Timestamp;
use tallybox::service::auth::account::load_by_email;
use tallybox::service::ledger::report;
use tallybox::service::quota::Policy;

use crate::suite::calls::{id_of, tokens};
use crate::suite::support::{NOON, Reply, TestApp, TestUser};

const DAY_MS: i64 = 86_400_000;
const KEPT: &str = "[ledger]\nkeep_days = 35\n[quota]\ntimezone = \"Europe/Berlin\"";
const FOR_EVER: &str = "[quota]\ntimezone = \"Europe/Berlin\"";

/// The entries of a user, page by page.
async fn entries(app: &TestApp, user: &TestUser, query: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut path = format!("/usage/ledger?limit=7{query}");
    loop {
        let page = app.ask(&user.token, &path).await.expect(200).json;
        found.extend(page["entries"].as_array().unwrap().iter().cloned());
        let Some(cursor) = page["nextCursor"].as_str() else { return found };
        path = format!("/usage/ledger?limit=7{query}&cursor={cursor}");
    }
}

fn closings(entries: &[Value]) -> Vec<(i64, i64)> {
    let closed = entries.iter().filter_map(|entry| Some((entry, entry["metadata"]["closedEntries"].as_i64()?)));
    closed.map(|(entry, count)| (entry["amount"].as_i64().unwrap(), count)).collect()
}

async fn take_back(app: &TestApp, admin: &TestUser, user: &TestUser, entry: &str, amount: i64) -> Reply {
    let body = json!({"resourceType": "llm_tokens", "amount": -amount, "reverses": entry});
    app.tell_with(&admin.token, "/usage/record", body, &[("X-User-Id", &user.id)]).await
}

/// Lets so many days go by, with a pass of the worker after each.
async fn live(app: &TestApp, days: i64) {
    for _ in 0..days {
        app.clock.advance_millis(DAY_MS);
        app.pass().await;
    }
}

#[tokio::test]
async fn a_closed_day_is_one_entry_that_cannot_be_taken_back() {
    let app = TestApp::with_config(KEPT);
    let (user, admin) = (app.user("a@example.org", "pro").await, app.admin("admin@example.org").await);
    let first = app.used_up(&user, 100).await;
    let second = app.used_up(&user, 20).await;
    take_back(&app, &admin, &user, &first, 30).await.expect(201);
    let hold = app.hold(&user, 9).await;
    let settled = app.settle(&user, &hold, 7).await.expect(200).json;
    live(&app, 36).await;
    let late = take_back(&app, &admin, &user, &second, 5).await.expect(201);
    live(&app, 1).await;
    assert_eq!(entries(&app, &user, "").await.len(), 5, "kept for as long as it was said, and two days");
    live(&app, 1).await;
    let listed = entries(&app, &user, "").await;
    assert_eq!((closings(&listed), listed.len()), (vec![(77, 3)], 3), "{listed:?}");
    assert_eq!((&listed[0]["id"], &listed[1]["id"]), (&json!(id_of(&late)), &json!(second)), "too young to be gone");
    app.proves();
    let closing = listed[2]["id"].as_str().unwrap().to_owned();
    for id in [&first, &second, &id_of(&late), &closing] {
        let refused = take_back(&app, &admin, &user, id, 1).await.expect(409);
        assert_eq!(refused.code(), "day_closed", "{id}");
    }
    // The settlement asked for again answers as it did, with the entry that stands for its own.
    let again = app.settle(&user, &hold, 7).await.expect(200).json;
    assert_eq!((&again["amount"], &again["metadata"]), (&settled["amount"], &settled["metadata"]));
    assert_eq!(again["id"], closing);
    let other = app.user("b@example.org", "pro").await;
    let theirs = app.used_up(&other, 3).await;
    live(&app, 35).await;
    let listed = entries(&app, &user, "").await;
    assert_eq!((closings(&listed), listed.len()), (vec![(92, 5)], 1), "{listed:?}");
    app.proves();
    // Of another user nothing is told.
    take_back(&app, &admin, &user, &theirs, 1).await.expect(422);
    take_back(&app, &admin, &other, &first, 1).await.expect(422);
    let page = app.ask(&admin.token, &format!("/api/admin/users/{}/ledger", user.id)).await.expect(200).json;
    assert_eq!(page["entries"][0]["metadata"], json!({"closedEntries": 5}));
    let overview = app.ask(&admin.token, "/api/admin/overview").await.expect(200).json;
    assert_eq!(overview["sizes"]["ledgerEntries"], 2, "{overview}");
}

#[tokio::test]
async fn a_page_that_leads_to_closed_entries_goes_on_behind_them() {
    let app = TestApp::with_config(KEPT);
    let user = app.user("a@example.org", "pro").await;
    for amount in 1..=9 {
        app.used_up(&user, amount).await;
        let minutes = json!({"resourceType": "agent_minutes", "amount": amount});
        app.tell(&user.token, "/usage/record", minutes).await.expect(201);
        app.clock.advance_millis(DAY_MS / 3);
    }
    let page = app.ask(&user.token, "/usage/ledger?limit=5").await.expect(200).json;
    let seen: i64 = page["entries"].as_array().unwrap().iter().map(|entry| entry["amount"].as_i64().unwrap()).sum();
    assert_eq!(seen, 9 + 9 + 8 + 8 + 7);
    let cursor = page["nextCursor"].as_str().unwrap().to_owned();
    let turned = app.clock.now().plus_millis(36 * DAY_MS + DAY_MS / 2);
    app.clock.turn_to(turned);
    app.pass().await;
    app.proves();
    let rest = entries(&app, &user, &format!("&cursor={cursor}")).await;
    let sum: i64 = rest.iter().map(|entry| entry["amount"].as_i64().unwrap()).sum();
    let all: i64 = entries(&app, &user, "").await.iter().map(|entry| entry["amount"].as_i64().unwrap()).sum();
    assert_eq!(all, 90);
    // What lies behind is whole, and some of what was seen is in it again.
    assert!((90 - 41..=90).contains(&sum), "{sum} of {rest:?}");
    assert!(rest.iter().any(|entry| entry["resourceType"] == "llm_tokens"));
    assert!(rest.iter().any(|entry| entry["resourceType"] == "agent_minutes"));
}

#[tokio::test]
async fn a_page_that_stops_within_a_day_goes_on_with_the_whole_of_it_once_it_is_closed() {
    let app = TestApp::with_config(KEPT);
    let (user, other) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await);
    for amount in 1..=6 {
        app.used_up(&user, amount).await;
        app.clock.advance_millis(60_000);
    }
    let page = app.ask(&user.token, "/usage/ledger?limit=2").await.expect(200).json;
    let cursor = page["nextCursor"].as_str().unwrap().to_owned();
    app.clock.advance_millis(DAY_MS);
    app.used_up(&other, 1).await;
    live(&app, 38).await;
    let rest = entries(&app, &user, &format!("&cursor={cursor}")).await;
    assert_eq!((closings(&rest), rest.len()), (vec![(21, 6)], 1), "{rest:?}");
    // The newest of its chain is gone; the next one follows what is left.
    app.used_up(&user, 7).await;
    app.proves();
}

#[tokio::test]
async fn what_is_recorded_long_after_its_day_is_kept_as_long_as_anything() {
    let app = TestApp::with_config(KEPT);
    let (user, other) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await);
    app.tell(&user.token, "/agents/runs", json!({"name": "research"})).await.expect(201);
    // As where the box stood still: the run is booked on the day on which it ended.
    app.clock.advance_millis(60 * DAY_MS);
    app.pass().await;
    app.used_up(&other, 1).await;
    for (days, closed) in [(0, 0), (36, 0), (1, 1)] {
        live(&app, days).await;
        let listed = entries(&app, &user, "").await;
        assert_eq!((listed.len(), closings(&listed).len()), (1, closed), "{days}: {listed:?}");
        app.proves();
    }
}

#[test]
fn days_are_kept_for_as_long_as_something_may_be_recorded_for_them() {
    for days in [1, 20, 34] {
        let toml = format!("[ledger]\nkeep_days = {days}");
        let faults = Config::parse(Some(&toml), &Environment::default()).unwrap_err();
        assert_eq!((faults.len(), faults[0].field.as_str()), (1, "ledger.keep_days"), "{faults:?}");
    }
    for days in [0, 35] {
        Config::parse(Some(&format!("[ledger]\nkeep_days = {days}")), &Environment::default()).unwrap();
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "past the program")]
async fn nothing_else_leaves_the_ledger_and_no_closing_comes_otherwise() {
    let app = TestApp::with_config(KEPT);
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 1).await;
    let directory = app.stop();
    let connection = rusqlite::Connection::open(directory.path().join("tallybox.db")).unwrap();
    let insert = "INSERT INTO ledger (user_id, resource, amount, timestamp, recorded_at, day, source) \
                  SELECT user_id, resource, 1, 1, 1, day, 4 FROM ledger";
    for sql in ["DELETE FROM ledger", "UPDATE ledger SET previous = 7", "UPDATE ledger SET amount = 2", insert] {
        let refused = connection.execute(sql, []).unwrap_err().to_string();
        assert!(refused.contains("append-only") || refused.contains("only retention"), "{refused}");
    }
    connection.execute("INSERT INTO ledger_door SELECT id, 'retention' FROM users", []).unwrap();
    for sql in ["UPDATE ledger SET amount = 2", "UPDATE ledger SET day = 2", "UPDATE ledger SET metadata = '{}'"] {
        assert!(connection.execute(sql, []).unwrap_err().to_string().contains("append-only"), "{sql}");
    }
    assert_eq!(connection.execute("UPDATE ledger SET previous = NULL", []).unwrap(), 1);
}

/// splitmix64: the same steps for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        i64::try_from((mixed ^ (mixed >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }
}

/// One of two boxes that live through the same, of which one closes its days.
struct Twin {
    app: TestApp,
    users: Vec<TestUser>,
    admin: TestUser,
    recorded: Vec<Vec<(String, i64, i64)>>,
    holds: Vec<Vec<String>>,
}

impl Twin {
    async fn new(toml: &str) -> Self {
        let app = TestApp::with_config(toml);
        let admin = app.admin("admin@example.org").await;
        let mut users = Vec::new();
        for name in ["a@example.org", "b@example.org", "c@example.org"] {
            users.push(app.user(name, "pro").await);
        }
        Self { app, users, admin, recorded: vec![Vec::new(); 3], holds: vec![Vec::new(); 3] }
    }

    /// Does one thing, the same for the same dice.
    async fn step(&mut self, dice: &mut Dice) {
        let whose = usize::try_from(dice.below(3)).unwrap();
        let (user, amount, kind) = (self.users[whose].clone(), 1 + dice.below(50), dice.below(10));
        let back = [0, 0, 0, 1, 3, 20, 34][usize::try_from(dice.below(7)).unwrap()];
        let (which, resource) = (dice.below(1_000), ["llm_tokens", "agent_minutes"][usize::from(dice.below(4) == 0)]);
        let now = self.app.clock.now();
        match kind {
            0..=4 => {
                let at = now.plus_millis(-back * DAY_MS - dice.below(DAY_MS));
                let at = if dice.below(9) == 0 { now.plus_millis(dice.below(300_000)) } else { at };
                let model = json!({"model": format!("m{}", dice.below(3)), "promptTokens": 1});
                let body =
                    json!({"resourceType": resource, "amount": amount, "timestamp": at.to_string(), "metadata": model});
                let entry = id_of(&self.app.tell(&user.token, "/usage/record", body).await.expect(201));
                if resource == "llm_tokens" {
                    self.recorded[whose].push((entry, amount, at.0));
                }
            }
            5 => {
                let recent: Vec<usize> = (0..self.recorded[whose].len())
                    .filter(|index| self.recorded[whose][*index].2 > now.0 - 30 * DAY_MS)
                    .collect();
                let Some(index) = recent.get(usize::try_from(which).unwrap() % recent.len().max(1)) else { return };
                let (entry, left, _) = self.recorded[whose][*index].clone();
                let part = if dice.below(2) == 0 { left } else { 1.min(left) };
                if part > 0 {
                    take_back(&self.app, &self.admin, &user, &entry, part).await.expect(201);
                    self.recorded[whose][*index].1 -= part;
                }
            }
            6 => {
                let body = json!({"resourceType": "llm_tokens", "amount": amount, "ttlSeconds": 86_400});
                let hold = self.app.tell(&user.token, "/usage/reservations", body).await.expect(201);
                self.holds[whose].push(id_of(&hold));
            }
            7 if !self.holds[whose].is_empty() => {
                let index = usize::try_from(which).unwrap() % self.holds[whose].len();
                let hold = self.holds[whose].swap_remove(index);
                // Too old is refused in both alike.
                self.app.settle(&user, &hold, amount).await;
            }
            _ => self.app.clock.advance_millis(dice.below(2 * 3_600_000)),
        }
    }

    /// Everything that tells sums.
    async fn figures(&self) -> Vec<Value> {
        let mut figures = Vec::new();
        for user in &self.users {
            let paths = ["stats?days=365", "stats?days=30", "tokens", "storage", "agent-minutes"];
            let series = ["timeseries/llm_tokens?days=365", "timeseries/agent_minutes?days=365"];
            for path in paths.iter().chain(&series) {
                let mut answer = self.app.ask(&user.token, &format!("/usage/{path}")).await.expect(200).json;
                if let Some(answer) = answer.as_object_mut() {
                    answer.remove("userId");
                }
                figures.push(answer);
            }
            let mut sums: BTreeMap<String, i64> = BTreeMap::new();
            for entry in entries(&self.app, user, "").await {
                let sum = sums.entry(entry["resourceType"].as_str().unwrap().to_owned()).or_default();
                *sum += entry["amount"].as_i64().unwrap();
            }
            figures.push(json!(sums));
            let email = user.email.clone();
            let models = self.app.app.store().read(move |reader| {
                let tiers = Config::parse(None, &Environment::default()).unwrap().tiers;
                let policy = Policy { tiers, calendar: Calendar::new(Berlin) };
                let user = load_by_email(reader, &email)?;
                Ok(report(reader, &policy, &user, "pro", 366)?.models)
            });
            figures.push(json!(format!("{:?}", models.await.unwrap())));
        }
        for days in ["", "?from=2026-02-01&to=2026-12-31"] {
            let path = format!("/api/admin/usage{days}");
            let mut answer = self.app.ask(&self.admin.token, &path).await.expect(200).json;
            for total in answer["totals"].as_array_mut().into_iter().flatten() {
                total["userId"].take();
            }
            figures.push(answer);
        }
        figures
    }

    /// The entries of the last so many days, without what differs between boxes.
    async fn recent(&self, since: Timestamp, until: Timestamp) -> Vec<(Value, Value, Value)> {
        let mut recent = Vec::new();
        for user in &self.users {
            for entry in entries(&self.app, user, &format!("&from={since}&to={until}")).await {
                recent.push((entry["amount"].clone(), entry["recordedAt"].clone(), entry["timestamp"].clone()));
            }
        }
        recent
    }
}

/// Both live through the same days; after each everything that tells sums is equal.
async fn live_alike(seed: u64, days: i64) {
    let (mut kept, mut closed) = (Twin::new(FOR_EVER).await, Twin::new(KEPT).await);
    let (mut one, mut other) = (Dice(seed), Dice(seed));
    let mut gone = 0;
    for day in 0..days {
        for _ in 0..12 {
            kept.step(&mut one).await;
            closed.step(&mut other).await;
        }
        let morning = NOON.plus_millis((day + 1) * DAY_MS).max(kept.app.clock.now());
        for twin in [&kept, &closed] {
            twin.app.clock.turn_to(morning);
            twin.app.pass().await;
        }
        closed.app.proves();
        if day % 9 == 0 || day + 1 == days {
            assert_eq!(kept.figures().await, closed.figures().await, "seed {seed}, day {day}");
            // Nothing that is kept was touched, for whichever day it was recorded.
            let until = morning.plus_millis(-DAY_MS / 2);
            for user in 0..3 {
                let listed = entries(&closed.app, &closed.users[user], "").await;
                let order: Vec<&str> = listed.iter().map(|entry| entry["recordedAt"].as_str().unwrap()).collect();
                assert!(order.is_sorted_by(|newer, older| newer >= older), "{order:?}");
                gone = gone.max(closings(&listed).iter().map(|(_, count)| *count).sum());
            }
            let since = morning.plus_millis(-35 * DAY_MS);
            assert_eq!(kept.recent(since, until).await, closed.recent(since, until).await, "seed {seed}, day {day}");
        }
    }
    kept.app.proves();
    assert!(gone > 30, "{gone} entries are behind closing ones");
}

#[tokio::test]
async fn closing_days_changes_no_total_1() {
    live_alike(1, 75).await;
}

#[tokio::test]
async fn closing_days_changes_no_total_2() {
    live_alike(20_260_329, 75).await;
}

#[tokio::test]
async fn closing_at_once_what_was_kept_for_long_changes_no_total() {
    let mut twin = Twin::new(FOR_EVER).await;
    let mut dice = Dice(9);
    for _ in 0..70 {
        for _ in 0..25 {
            twin.step(&mut dice).await;
        }
        twin.app.clock.advance_millis(DAY_MS);
        twin.app.pass().await;
    }
    let (before, now) = (twin.figures().await, twin.app.clock.now());
    let app = TestApp::at_with(KEPT, twin.app.stop());
    app.clock.turn_to(now);
    app.pass().await;
    app.proves();
    twin.app = app;
    assert_eq!(twin.figures().await, before);
    let mut counted = 0;
    for user in &twin.users {
        counted += closings(&entries(&twin.app, user, "").await).iter().map(|(_, count)| *count).sum::<i64>();
    }
    assert!(counted > 300, "{counted} entries are behind closing ones");
    // A settled hold is still answered, and a new entry is recorded.
    twin.app.tell(&twin.users[0].token, "/usage/record", tokens(1)).await.expect(201);
    twin.app.proves();
}
