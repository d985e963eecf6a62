//! Random work of several users, metering and memories, held against a second reckoning after every step.

mod memories;
mod reference;
mod shelf;

use std::fmt::Write;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, TimeZone};
use chrono_tz::Europe::Berlin;
use serde_json::{Value, json};
use tallybox::service::auth::account::Changes;

use super::memory::app_with;
use super::support::{NOON, Reply, TestApp, TestUser};
use memories::Act;
use reference::{Account, Fact, Fate, Resource, TIERS, day_of};

const TOML: &str = "[quota]\ntimezone = \"Europe/Berlin\"\n\
    [tiers.free_trial]\nllm_tokens_day = 500\nagent_minutes_month = 0\nmemory_storage_bytes = 20000\n\
    [tiers.basic]\nllm_tokens_day = 2000\nagent_minutes_month = 60\nmemory_storage_bytes = 60000\n\
    [memory]\nstm_bytes_max = 12000\nstm_ttl = \"18h\"\nitm_ttl = \"72h\"";
const DAY_MS: i64 = 86_400_000;
/// Resolved holds are forgotten after 60 days, at some pass of the worker: nobody asks for so old ones here.
const HOLD_AGE_MS_MAX: i64 = 55 * DAY_MS;

/// splitmix64: the same steps for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included.
    fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high - low + 1).unwrap();
        low + i64::try_from(self.roll() % span).unwrap()
    }

    fn one_in(&mut self, times: i64) -> bool {
        self.between(1, times) == 1
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(length).unwrap()).unwrap()
    }
}

/// One thing that somebody does.
#[derive(Clone, Debug)]
enum Step {
    Record { user: usize, fact: Fact, repeated: bool },
    Batch { user: usize, facts: Vec<Fact> },
    TakeBack { user: usize, owner: usize, entry: usize, amount: i64 },
    Hold { user: usize, resource: Resource, amount: i64, ttl_s: i64 },
    Settle { user: usize, owner: usize, hold: usize, amount: i64 },
    Release { user: usize, owner: usize, hold: usize },
    Check { user: usize, resource: Resource, amount: i64 },
    Tier { user: usize, tier: usize },
    Memory { user: usize, act: Act },
    Turn { to: i64 },
    Pass,
}

struct Model {
    app: TestApp,
    admin: TestUser,
    users: Vec<TestUser>,
    accounts: Vec<Account>,
    dice: Dice,
    /// What has been done, for whoever must find out what went wrong.
    story: String,
    steps: usize,
}

impl Model {
    async fn new(seed: u64) -> Self {
        let app = app_with(TOML);
        let admin = app.admin("admin@example.org").await;
        let mut users = Vec::new();
        let mut accounts = Vec::new();
        for (tier, (name, ..)) in TIERS.iter().enumerate() {
            users.push(app.user(&format!("{name}@example.org"), name).await);
            accounts.push(Account { tier, entries: Vec::new(), holds: Vec::new(), memories: Vec::new() });
        }
        app.clock.turn_to(NOON);
        let story = format!("seed {seed}\n");
        Self { app, admin, users, accounts, dice: Dice(seed), story, steps: 0 }
    }

    fn now(&self) -> i64 {
        self.app.clock.now().0
    }

    fn amount(&mut self, resource: Resource) -> i64 {
        let most = if resource == Resource::Tokens { 400 } else { 25 };
        if self.dice.one_in(8) { most * 6 } else { self.dice.between(1, most) }
    }

    fn resource(&mut self) -> Resource {
        if self.dice.one_in(3) { Resource::Minutes } else { Resource::Tokens }
    }

    fn fact(&mut self) -> Fact {
        let resource = self.resource();
        let offset_ms = match self.dice.between(1, 12) {
            1..=3 => Some(-self.dice.between(0, 2 * DAY_MS)),
            4 => Some(-self.dice.between(0, 36 * DAY_MS)),
            5 => Some(self.dice.between(0, 6 * 60_000)),
            6 => Some([-35 * DAY_MS - 1, -35 * DAY_MS, 300_000, 300_001][self.dice.index(4)]),
            _ => None,
        };
        Fact { resource, amount: self.amount(resource), offset_ms, enforce: !self.dice.one_in(3) }
    }

    /// Somewhere later: a moment, the edge of a day or month, a day of daylight saving.
    fn later(&mut self) -> i64 {
        let now = self.now();
        let today = day_of(now);
        let first = today.with_day(1).unwrap().checked_add_months(Months::new(1)).unwrap();
        let edge = |day: NaiveDate| midnight(day) + [-1, 0, 1][usize::try_from(now.rem_euclid(3)).unwrap()];
        let to = match self.dice.between(1, 20) {
            1..=8 => now + self.dice.between(1, 400_000),
            9..=12 => now + self.dice.between(1, 8 * 3_600_000),
            13..=16 => edge(today.checked_add_days(Days::new(1)).unwrap()),
            17 if now % 2 == 0 => edge(first),
            17..=18 if self.dice.one_in(2) => self.some_end().unwrap_or(now),
            18 => edge([first.with_day(28).unwrap(), first.with_day(25).unwrap()][self.dice.index(2)]),
            _ => now + self.dice.between(1, 3 * DAY_MS),
        };
        to.max(now + 1)
    }

    /// A hold of anybody's that is not too old, mostly the user's own.
    fn some_hold(&mut self, user: usize) -> Option<(usize, usize)> {
        let owner = if self.dice.one_in(10) { self.dice.index(self.users.len()) } else { user };
        let now = self.now();
        let holds = &self.accounts[owner].holds;
        let young = holds.iter().rposition(|hold| now - hold.made_at >= HOLD_AGE_MS_MAX).map_or(0, |oldest| oldest + 1);
        let count = holds.len() - young;
        // Mostly one of the newest.
        let back = if self.dice.one_in(4) { count } else { count.min(6) };
        (back > 0).then(|| (owner, holds.len() - 1 - self.dice.index(back)))
    }

    fn next_step(&mut self) -> Step {
        let user = self.dice.index(self.users.len());
        let resource = self.resource();
        match self.dice.between(1, 64) {
            1..=12 => Step::Record { user, fact: self.fact(), repeated: self.dice.one_in(6) },
            13..=15 => {
                let count = self.dice.between(1, 5);
                Step::Batch { user, facts: (0..count).map(|_| self.fact()).collect() }
            }
            16..=18 => {
                let owner = if self.dice.one_in(10) { self.dice.index(self.users.len()) } else { user };
                let count = self.accounts[owner].entries.len();
                let entry = self.dice.index(count.max(1));
                // What is booked for memories is never taken back.
                if count == 0 || self.accounts[owner].entries[entry].resource == Resource::Storage {
                    return Step::Pass;
                }
                let most = self.accounts[owner].entries[entry].amount.abs() + 2;
                Step::TakeBack { user, owner, entry, amount: self.dice.between(1, most) }
            }
            19..=24 => {
                let ttl_s = if self.dice.one_in(4) { self.dice.between(1, 86_400) } else { self.dice.between(1, 600) };
                Step::Hold { user, resource, amount: self.amount(resource), ttl_s }
            }
            25..=29 => match self.some_hold(user) {
                Some((owner, hold)) => {
                    let held = &self.accounts[owner].holds[hold];
                    let same = match held.fate {
                        Fate::Settled { amount, .. } => amount,
                        Fate::Open | Fate::Released => held.amount,
                    };
                    let amount = if self.dice.one_in(2) { same } else { self.dice.between(0, same + 50) };
                    Step::Settle { user, owner, hold, amount }
                }
                None => Step::Pass,
            },
            30..=31 => match self.some_hold(user) {
                Some((owner, hold)) => Step::Release { user, owner, hold },
                None => Step::Pass,
            },
            32 => Step::Check { user, resource, amount: self.amount(resource) },
            33 if self.dice.one_in(3) => Step::Tier { user, tier: self.dice.index(TIERS.len()) },
            33..=38 => Step::Turn { to: self.later() },
            39..=40 => Step::Pass,
            _ => Step::Memory { user, act: self.next_act(user) },
        }
    }
}

/// The first instant of a day in Berlin, which never skips midnight.
fn midnight(day: NaiveDate) -> i64 {
    Berlin.from_local_datetime(&day.and_hms_opt(0, 0, 0).unwrap()).unwrap().timestamp_millis()
}

impl Model {
    /// Does a step and holds the answer against what should be.
    async fn take(&mut self, step: &Step) {
        match step.clone() {
            Step::Record { user, fact, repeated } => self.record(user, &fact, repeated).await,
            Step::Batch { user, facts } => self.batch(user, &facts).await,
            Step::TakeBack { user, owner, entry, amount } => self.take_back(user, owner, entry, amount).await,
            Step::Hold { user, resource, amount, ttl_s } => {
                let now = self.now();
                let status = self.accounts[user].hold(resource, amount, ttl_s, now);
                let body = json!({"resourceType": resource.name(), "amount": amount, "ttlSeconds": ttl_s});
                let reply = self.tell(user, "/usage/reservations", body).await;
                self.same(&reply, status);
                if status == 201 {
                    self.accounts[user].holds.last_mut().unwrap().id = id(&reply.json);
                }
            }
            Step::Settle { user, owner, hold, amount } => self.settle(user, owner, hold, amount).await,
            Step::Release { user, owner, hold } => {
                let status = if user == owner { self.accounts[user].release(hold) } else { 404 };
                let path = format!("/usage/reservations/{}", self.accounts[owner].holds[hold].id);
                let reply = self.app.call("DELETE", &path, Some(&self.users[user].token), None).await;
                self.same(&reply, status);
            }
            Step::Check { user, resource, amount } => {
                let (now, account) = (self.now(), &self.accounts[user]);
                let today = day_of(now);
                let (used, reserved) = (account.used(resource, today), account.reserved(resource, today, now));
                let remaining = account.limit(resource).map_or(-1, |limit| (limit - used - reserved).max(0));
                let expected =
                    [json!(account.fits(resource, today, amount, now)), json!(used), json!(reserved), json!(remaining)];
                let body = json!({"resourceType": resource.name(), "amount": amount});
                let reply = self.tell(user, "/usage/check-quota", body).await;
                let found = ["hasQuota", "used", "reserved", "remaining"].map(|field| reply.json[field].clone());
                assert_eq!(found, expected, "{}", self.story);
            }
            Step::Tier { user, tier } => {
                let changes = Changes { tier: Some(TIERS[tier].0.to_owned()), ..Changes::default() };
                self.app.change(&self.users[user].email, changes).await;
                self.accounts[user].tier = tier;
            }
            Step::Turn { to } => self.app.clock.turn_to(tallybox::domain::unit::Timestamp(to)),
            Step::Memory { user, act } => self.act(user, act).await,
            Step::Pass => {
                self.app.pass().await;
                let now = self.now();
                for account in &mut self.accounts {
                    account.book_ends(now);
                }
            }
        }
    }

    async fn tell(&self, user: usize, path: &str, body: Value) -> Reply {
        self.app.call("POST", path, Some(&self.users[user].token), Some(body)).await
    }

    #[track_caller]
    fn same(&self, reply: &Reply, status: u16) {
        assert_eq!(reply.status, status, "{}\n{}", reply.text, self.story);
    }

    fn body_of(&self, fact: &Fact) -> Value {
        let mut body = json!({"resourceType": fact.resource.name(), "amount": fact.amount, "enforce": fact.enforce});
        if let Some(offset) = fact.offset_ms {
            let instant = DateTime::from_timestamp_millis(self.now() + offset).unwrap();
            body["timestamp"] = json!(instant.with_timezone(&Berlin).to_rfc3339());
        }
        body
    }

    async fn record(&mut self, user: usize, fact: &Fact, repeated: bool) {
        let (now, body) = (self.now(), self.body_of(fact));
        let status = self.accounts[user].record(fact, now);
        let key = format!("step-{}", self.steps);
        let headers: &[(&str, &str)] = if repeated { &[("Idempotency-Key", &key)] } else { &[] };
        let token = self.users[user].token.clone();
        let reply = self.app.call_with("POST", "/usage/record", Some(&token), Some(body.clone()), headers).await;
        self.same(&reply, status);
        if status == 201 {
            let last = self.accounts[user].entries.last_mut().unwrap();
            last.id = id(&reply.json);
            let day = last.day;
            let used = self.accounts[user].used(fact.resource, day);
            assert_eq!(reply.json["quota"]["used"], used, "{}", self.story);
        }
        if repeated {
            let again = self.app.call_with("POST", "/usage/record", Some(&token), Some(body), headers).await;
            self.same(&again, status);
            assert_eq!(again.header("idempotent-replayed") == "true", status == 201, "{}", self.story);
        }
    }

    async fn batch(&mut self, user: usize, facts: &[Fact]) {
        let now = self.now();
        let mut after = self.accounts[user].clone();
        let statuses: Vec<u16> = facts.iter().map(|fact| after.record(fact, now)).collect();
        let refused = statuses.iter().position(|status| *status != 201);
        let entries: Vec<Value> = facts.iter().map(|fact| self.body_of(fact)).collect();
        let reply = self.tell(user, "/usage/record/batch", json!({"entries": entries})).await;
        self.same(&reply, refused.map_or(201, |index| statuses[index]));
        match refused {
            Some(index) if statuses[index] == 429 => assert_eq!(reply.json["index"], index, "{}", self.story),
            Some(index) => {
                let field = format!("entries[{index}].timestamp");
                assert_eq!(reply.json["errors"][0]["field"], field, "{}", self.story);
            }
            None => {
                let first = after.entries.len() - facts.len();
                for (entry, answer) in after.entries[first..].iter_mut().zip(reply.json["entries"].as_array().unwrap())
                {
                    entry.id = id(answer);
                }
                self.accounts[user] = after;
            }
        }
    }

    async fn take_back(&mut self, user: usize, owner: usize, entry: usize, amount: i64) {
        let reversed = self.accounts[owner].entries[entry].clone();
        let status = if user == owner { self.accounts[user].take_back(entry, amount) } else { 422 };
        let body = json!({"resourceType": reversed.resource.name(), "amount": -amount, "reverses": reversed.id});
        let headers = [("X-User-Id", self.users[user].id.as_str())];
        let reply = self.app.call_with("POST", "/usage/record", Some(&self.admin.token), Some(body), &headers).await;
        self.same(&reply, status);
        if status == 201 {
            self.accounts[user].entries.last_mut().unwrap().id = id(&reply.json);
        }
    }

    async fn settle(&mut self, user: usize, owner: usize, hold: usize, amount: i64) {
        let now = self.now();
        let entries_before = self.accounts[user].entries.len();
        let status = if user == owner { self.accounts[user].settle(hold, amount, now) } else { 404 };
        let held = self.accounts[owner].holds[hold].clone();
        let path = format!("/usage/reservations/{}/settle", held.id);
        let reply = self.tell(user, &path, json!({"amount": amount})).await;
        self.same(&reply, status);
        if let (200, Fate::Settled { late, .. }) = (status, held.fate) {
            let found = (reply.json["late"].clone(), reply.json["overrun"].clone(), reply.json["id"].is_null());
            assert_eq!(found, (json!(late), json!(amount > held.amount), amount == 0), "{}", self.story);
        }
        if self.accounts[user].entries.len() > entries_before {
            self.accounts[user].entries.last_mut().unwrap().id = id(&reply.json);
        }
    }

    /// Holds the figures of every user against the second reckoning.
    async fn compare(&self, deeply: bool) {
        let now = self.now();
        let today = day_of(now);
        for (user, account) in self.users.iter().zip(&self.accounts) {
            for (path, resource) in [("tokens", Resource::Tokens), ("agent-minutes", Resource::Minutes)] {
                let found = self.app.ask(&user.token, &format!("/usage/{path}")).await.json;
                let used = account.used(resource, today);
                let reserved = account.reserved(resource, today, now);
                let limit = account.limit(resource).unwrap_or(-1);
                let found = ["used", "reserved", "limit"].map(|field| found[field].as_i64().unwrap());
                assert_eq!(found, [used, reserved, limit], "{path} of {}\n{}", user.email, self.story);
                if deeply {
                    let path = format!("/usage/timeseries/{}?days=45", resource.name());
                    let series = self.app.ask(&user.token, &path).await.json;
                    let expected: Vec<Value> = (0..45)
                        .rev()
                        .map(|back| today.checked_sub_days(Days::new(back)).unwrap())
                        .map(|day| json!({"date": day.to_string(), "amount": account.on_day(resource, day)}))
                        .collect();
                    assert_eq!(series, Value::from(expected), "{path} of {}\n{}", user.email, self.story);
                }
            }
        }
    }

    /// The whole ledger of every user, page by page, is what was acknowledged, in its order.
    async fn compare_ledgers(&self) {
        for (user, account) in self.users.iter().zip(&self.accounts) {
            let mut found = Vec::new();
            let mut query = "limit=100".to_owned();
            loop {
                let page = self.app.ask(&user.token, &format!("/usage/ledger?{query}")).await.json;
                let entries = page["entries"].as_array().unwrap().iter();
                // No answer tells the id of an entry that a memory made.
                let id_of =
                    |entry: &Value| if entry["resourceType"] == "memory_storage" { String::new() } else { id(entry) };
                found.extend(entries.map(|entry| (id_of(entry), entry["amount"].as_i64().unwrap())));
                let Some(cursor) = page["nextCursor"].as_str() else { break };
                query = format!("limit=100&cursor={cursor}");
            }
            let expected: Vec<(String, i64)> =
                account.entries.iter().rev().map(|entry| (entry.id.clone(), entry.amount)).collect();
            assert_eq!(found, expected, "the ledger of {}\n{}", user.email, self.story);
        }
    }
}

fn id(answer: &Value) -> String {
    answer["id"].as_str().unwrap_or_default().to_owned()
}

async fn run(seed: u64, steps: usize) {
    let mut model = Model::new(seed).await;
    for number in 0..steps {
        let step = model.next_step();
        model.steps = number;
        let instant = DateTime::from_timestamp_millis(model.now()).unwrap();
        writeln!(model.story, "{number} {instant}: {step:?}").unwrap();
        model.take(&step).await;
        model.compare(number % 50 == 0).await;
        // All others have their turn too.
        let user = if let Step::Memory { user, .. } = step { user } else { number % TIERS.len() };
        model.compare_memories(user, number % 50 == 0).await;
    }
    model.compare(true).await;
    model.compare_memories(0, true).await;
    model.compare_ledgers().await;
    model.app.proves();
}

#[tokio::test]
async fn random_work_is_metered_as_by_a_second_reckoning_1() {
    run(1, 1_500).await;
}

#[tokio::test]
async fn random_work_is_metered_as_by_a_second_reckoning_2() {
    run(20_260_329, 1_500).await;
}

#[tokio::test]
async fn random_work_is_metered_as_by_a_second_reckoning_3() {
    run(0xdead_beef, 1_500).await;
}

/// Any seed, and as many steps as whoever hunts wants: `MODEL_SEED=7 MODEL_STEPS=100000 cargo test any_seed`.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a knob of this test alone")]
async fn random_work_of_any_seed() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("MODEL_SEED").unwrap_or(7);
    run(seed, usize::try_from(number("MODEL_STEPS").unwrap_or(500)).unwrap()).await;
}
