//! Random work on memories: what is done, and what must be answered.

use chrono::{DateTime, Days, SecondsFormat};
use serde_json::{Map, Value, json};

use super::super::memory::axis;
use super::super::support::Reply;
use super::reference::{Account, Resource, TIERS, day_of};
use super::shelf::{Change, Draft, Memory, REST_BYTES, Refusal, SHELVES, Sieve, VECTOR_BYTES};
use super::{Dice, Model, id};

const WORDS: [&str; 8] = ["a", "walnut", "Crème", "brûlée", "🎉", "日本語", "straße", "of\u{301}"];
const KINDS: [&str; 3] = ["note", "plan", "x"];
const TAGS: [&str; 5] = ["red", "blue", "ÿ", "a \"quoted\" one", "back\\slash\n"];
const SESSIONS: [&str; 2] = ["s1", "s2"];
/// Longest text that is made to fit to the byte.
const FITTED_BYTES_MAX: i64 = 16_000;

/// One thing that somebody does with memories.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Keep { draft: Draft, repeated: bool },
    KeepAll { drafts: Vec<Draft> },
    Change { owner: usize, memory: usize, change: Change },
    Forget { owner: usize, memory: usize },
    Clear { sieve: Sieve },
    Look { owner: usize, memory: usize },
    Ask { amount: i64 },
}

/// A text of exactly `bytes`, where that is a sensible length.
fn fitted(bytes: i64) -> Option<String> {
    (1..=FITTED_BYTES_MAX).contains(&bytes).then(|| "x".repeat(usize::try_from(bytes).unwrap()))
}

impl Dice {
    fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words[self.index(words.len())]
    }

    fn maybe<T>(&mut self, times: i64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.one_in(times).then(|| make(self))
    }

    fn text(&mut self) -> String {
        let most = if self.one_in(6) { 130 } else { 8 };
        let words: Vec<&str> = (0..self.between(1, most)).map(|_| self.one_of(&WORDS)).collect();
        words.join(" ")
    }

    fn tags(&mut self) -> Vec<String> {
        (0..self.between(0, 4)).map(|_| self.one_of(&TAGS).to_owned()).collect()
    }

    fn metadata(&mut self) -> Map<String, Value> {
        let mut metadata = Map::new();
        for _ in 0..self.between(0, 3) {
            let value = match self.between(1, 5) {
                1 => json!(self.between(-1_000_000, 1_000_000)),
                2 => json!({"deep": [true, null, self.text()]}),
                3 => json!("é".repeat(self.index(300))),
                _ => json!(self.one_of(&TAGS)),
            };
            metadata.insert(self.one_of(&WORDS).to_owned(), value);
        }
        metadata
    }

    fn draft(&mut self) -> Draft {
        let plain = self.one_in(2);
        Draft {
            tier: self.index(SHELVES.len()),
            kind: self.one_of(&KINDS),
            text: self.text(),
            tags: if plain { Vec::new() } else { self.tags() },
            metadata: if plain { Map::new() } else { self.metadata() },
            session: self.maybe(2, |dice| dice.one_of(&SESSIONS)),
            given: !self.one_in(3),
        }
    }
}

impl Account {
    /// What a memory of `tier` may still grow by; none where there is no limit.
    fn room(&self, tier: usize, now: i64) -> Option<i64> {
        if tier == 0 {
            return Some(self.short_room(now));
        }
        self.limit(Resource::Storage).map(|limit| limit - self.level(now))
    }
}

impl Model {
    /// Some act of a user on memories, often one that just fits or just does not.
    pub(super) fn next_act(&mut self, user: usize) -> Act {
        let now = self.now();
        match self.dice.between(1, 20) {
            1..=7 => {
                let mut draft = self.dice.draft();
                if self.dice.one_in(3)
                    && let Some(room) = self.accounts[user].room(draft.tier, now)
                    && let Some(text) = fitted(room + self.dice.between(-1, 2) - VECTOR_BYTES - REST_BYTES)
                {
                    draft = Draft { text, tags: Vec::new(), metadata: Map::new(), ..draft };
                }
                Act::Keep { draft, repeated: self.dice.one_in(6) }
            }
            8..=9 => {
                let most = if self.dice.one_in(6) { 40 } else { 5 };
                let mut drafts: Vec<Draft> = (0..self.dice.between(1, most)).map(|_| self.dice.draft()).collect();
                if self.dice.one_in(2) {
                    let tier = drafts[0].tier;
                    for draft in &mut drafts {
                        draft.tier = tier;
                    }
                }
                Act::KeepAll { drafts }
            }
            10..=14 => match self.some_memory(user) {
                Some((owner, memory)) => Act::Change { owner, memory, change: self.some_change(owner, memory) },
                None => Act::Ask { amount: 1 },
            },
            15..=16 => match self.some_memory(user) {
                Some((owner, memory)) => Act::Forget { owner, memory },
                None => Act::Ask { amount: 1 },
            },
            17 if self.dice.one_in(2) => {
                let sieve = Sieve {
                    tier: self.dice.maybe(2, |dice| dice.index(SHELVES.len())),
                    kind: self.dice.maybe(3, |dice| dice.one_of(&KINDS)),
                    tag: self.dice.maybe(5, |dice| dice.one_of(&TAGS[..2])),
                    session: self.dice.maybe(4, |dice| dice.one_of(&SESSIONS)),
                };
                Act::Clear { sieve }
            }
            18 => {
                let room = self.accounts[user].room(2, now).unwrap_or(1_000);
                Act::Ask { amount: (room + self.dice.between(-1, 2)).max(1) }
            }
            _ => match self.some_memory(user) {
                Some((owner, memory)) => Act::Look { owner, memory },
                None => Act::Ask { amount: 1 },
            },
        }
    }

    /// A memory of anybody's, mostly one of the user's own that lives.
    fn some_memory(&mut self, user: usize) -> Option<(usize, usize)> {
        let owner = if self.dice.one_in(10) { self.dice.index(self.users.len()) } else { user };
        let now = self.now();
        let kind = self.dice.between(1, 8);
        // The short-lived ones would else be changed but rarely.
        let fits = |memory: &Memory| kind == 1 || memory.lives(now) && (kind > 4 || memory.is_short());
        let memories = self.accounts[owner].memories.iter().enumerate();
        let found: Vec<usize> = memories.filter(|(_, memory)| fits(memory)).map(|(at, _)| at).collect();
        (!found.is_empty()).then(|| (owner, found[self.dice.index(found.len())]))
    }

    fn some_change(&mut self, owner: usize, index: usize) -> Change {
        let (now, dice) = (self.now(), &mut self.dice);
        let account = &self.accounts[owner];
        let memory = &account.memories[index];
        let tier = dice.maybe(2, |dice| dice.index(SHELVES.len()));
        let to = tier.unwrap_or(memory.tier);
        if dice.one_in(3)
            && let Some(room) = account.room(to, now)
        {
            let in_it = if to == 0 && !memory.is_short() { 0 } else { memory.size() };
            let spare = in_it - memory.notes_bytes() - VECTOR_BYTES - REST_BYTES;
            if let Some(text) = fitted(room + spare + dice.between(-1, 2)) {
                return Change { tier, text: Some(text), ..Change::default() };
            }
        }
        Change {
            tier,
            kind: dice.maybe(5, |dice| dice.one_of(&KINDS)),
            text: dice.maybe(3, Dice::text),
            tags: dice.maybe(3, Dice::tags),
            metadata: dice.maybe(3, Dice::metadata),
            session: dice.maybe(5, |dice| dice.one_of(&["", "s1", "s2"])),
        }
    }

    /// Does an act and holds the answer against what should be.
    pub(super) async fn act(&mut self, user: usize, act: Act) {
        match act {
            Act::Keep { draft, repeated } => self.keep(user, &draft, repeated).await,
            Act::KeepAll { drafts } => self.keep_all(user, &drafts).await,
            Act::Change { owner, memory, change } => self.change(user, owner, memory, &change).await,
            Act::Forget { owner, memory } => {
                let now = self.now();
                let status = if user == owner { self.accounts[user].forget(memory, now) } else { 404 };
                let path = format!("/memory/{}", self.accounts[owner].memories[memory].id);
                let reply = self.app.call("DELETE", &path, Some(&self.users[user].token), None).await;
                self.same(&reply, status);
            }
            Act::Clear { sieve } => {
                let now = self.now();
                let (deleted, freed) = self.accounts[user].clear(&sieve, now);
                let reply = self.app.call("DELETE", &path_of(&sieve), Some(&self.users[user].token), None).await;
                self.same(&reply, 200);
                assert_eq!(reply.json, json!({"deleted": deleted, "freed_bytes": freed}), "{}", self.story);
            }
            Act::Look { owner, memory } => {
                let memory = &self.accounts[owner].memories[memory];
                let path = format!("/memory/{}", memory.id);
                let reply = self.app.call("GET", &path, Some(&self.users[user].token), None).await;
                let there = user == owner && memory.lives(self.now());
                self.same(&reply, if there { 200 } else { 404 });
                if there {
                    assert_eq!(shown(&reply.json), whole(memory), "{}", self.story);
                }
            }
            Act::Ask { amount } => {
                let (account, used) = (&self.accounts[user], self.accounts[user].level(self.now()));
                let limit = account.limit(Resource::Storage);
                let has = limit.is_none_or(|limit| used + amount <= limit);
                let remaining = limit.map_or(-1, |limit| (limit - used).max(0));
                let body = json!({"resourceType": "memory_storage", "amount": amount});
                let reply = self.tell(user, "/usage/check-quota", body).await;
                let found = ["hasQuota", "used", "remaining"].map(|field| reply.json[field].clone());
                assert_eq!(found, [json!(has), json!(used), json!(remaining)], "{}", self.story);
            }
        }
    }

    #[track_caller]
    fn refused(&self, reply: &Reply, refusal: &Refusal) {
        self.same(reply, 429);
        let found = ["limit", "used", "requested"].map(|field| reply.json[field].as_i64().unwrap());
        assert_eq!(Refusal(found[0], found[1], found[2]), *refusal, "{}", self.story);
        assert_eq!(reply.header("retry-after"), "", "{}", self.story);
    }

    /// Notes the id of a new memory, and holds its answer against it.
    fn adopt(&mut self, user: usize, index: usize, answer: &Value) {
        let memory = &mut self.accounts[user].memories[index];
        memory.id = id(answer);
        let wanted = whole(memory);
        for field in ["id", "type", "tier", "size_bytes", "created_at", "expires_at"] {
            assert_eq!(answer[field], wanted[field], "{field}\n{}", self.story);
        }
    }

    async fn keep(&mut self, user: usize, draft: &Draft, repeated: bool) {
        let (now, body) = (self.now(), self.body_of_draft(draft));
        let outcome = self.accounts[user].keep(draft, now);
        let key = format!("step-{}", self.steps);
        let headers: &[(&str, &str)] = if repeated { &[("Idempotency-Key", &key)] } else { &[] };
        let token = self.users[user].token.clone();
        let reply = self.app.call_with("POST", "/memory/store", Some(&token), Some(body.clone()), headers).await;
        match &outcome {
            Ok(()) => {
                self.same(&reply, 201);
                self.adopt(user, self.accounts[user].memories.len() - 1, &reply.json);
            }
            Err(refusal) => self.refused(&reply, refusal),
        }
        if repeated {
            let again = self.app.call_with("POST", "/memory/store", Some(&token), Some(body), headers).await;
            self.same(&again, reply.status);
            assert_eq!(again.header("idempotent-replayed") == "true", outcome.is_ok(), "{}", self.story);
            assert_eq!(id(&again.json), id(&reply.json), "{}", self.story);
        }
    }

    async fn keep_all(&mut self, user: usize, drafts: &[Draft]) {
        let now = self.now();
        let outcome = self.accounts[user].keep_all(drafts, now);
        let memories: Vec<Value> = drafts.iter().map(|draft| self.body_of_draft(draft)).collect();
        let reply = self.tell(user, "/memory/store/batch", json!({"memories": memories})).await;
        match outcome {
            Ok(()) => {
                self.same(&reply, 201);
                let answers = reply.json["memories"].as_array().unwrap();
                assert_eq!(answers.len(), drafts.len(), "{}", self.story);
                let first = self.accounts[user].memories.len() - drafts.len();
                for (index, answer) in answers.iter().enumerate() {
                    self.adopt(user, first + index, answer);
                }
            }
            Err((index, refusal)) => {
                self.refused(&reply, &refusal);
                assert_eq!(reply.json["index"], index, "{}", self.story);
            }
        }
    }

    async fn change(&mut self, user: usize, owner: usize, memory: usize, change: &Change) {
        let now = self.now();
        let there = user == owner && self.accounts[owner].memories[memory].lives(now);
        let outcome = if there { self.accounts[owner].change(memory, change, now) } else { Ok(()) };
        let path = format!("/memory/{}", self.accounts[owner].memories[memory].id);
        let reply = self.app.call("PATCH", &path, Some(&self.users[user].token), Some(body_of_change(change))).await;
        match outcome {
            Ok(()) if there => {
                self.same(&reply, 200);
                assert_eq!(shown(&reply.json), whole(&self.accounts[owner].memories[memory]), "{}", self.story);
            }
            Ok(()) => self.same(&reply, 404),
            Err(refusal) => self.refused(&reply, &refusal),
        }
    }

    fn body_of_draft(&self, draft: &Draft) -> Value {
        let mut body = json!({"type": draft.kind, "input_context": draft.text, "tier": SHELVES[draft.tier].0});
        if !draft.tags.is_empty() {
            body["tags"] = json!(draft.tags);
        }
        if !draft.metadata.is_empty() {
            body["metadata"] = json!(draft.metadata);
        }
        if draft.given {
            body["embedding"] = axis(self.steps % 384);
        }
        body["session"] = json!(draft.session);
        body
    }

    /// Holds what a user stores against the second reckoning, or `deeply` what every user does.
    pub(super) async fn compare_memories(&self, user: usize, deeply: bool) {
        let users = if deeply { 0..TIERS.len() } else { user..user + 1 };
        for (user, account) in users.map(|user| (&self.users[user], &self.accounts[user])) {
            let (now, level) = (self.now(), account.level(self.now()));
            let limit = account.limit(Resource::Storage);
            let found = self.app.ask(&user.token, "/usage/storage").await.json;
            let found = ["used", "limit"].map(|field| found[field].as_i64().unwrap());
            assert_eq!(found, [level, limit.unwrap_or(-1)], "storage of {}\n{}", user.email, self.story);
            let found = self.app.ask(&user.token, "/memory/usage").await.json;
            let mut parts = ["memory_counts", "tier_stats"].map(|part| found[part].clone());
            for tier in parts[1].as_object_mut().unwrap().values_mut() {
                tier.as_object_mut().unwrap().remove("total_text_human");
            }
            assert_eq!(parts, usage_of(account, now), "memories of {}\n{}", user.email, self.story);
            assert_eq!(found["storage"]["total_bytes"], level, "bytes of {}\n{}", user.email, self.story);
            if deeply {
                let found = self.app.ask(&user.token, "/memory/usage/quota-check").await.json;
                let has = limit.is_none_or(|limit| level < limit);
                assert_eq!(found["has_quota"], has, "quota of {}\n{}", user.email, self.story);
                let today = day_of(now);
                let series = self.app.ask(&user.token, "/usage/timeseries/memory_storage?days=45").await.json;
                let days = (0..45).rev().map(|back| today.checked_sub_days(Days::new(back)).unwrap());
                // What has ended is no longer stored today, booked or not.
                let ended = account.stored_on(|_| true) - level;
                let expected = days.map(|day| {
                    let ended = if day == today { ended } else { 0 };
                    let amount = account.stored_on(|on| on == day) - ended;
                    let total = account.stored_on(|on| on <= day) - ended;
                    json!({"date": day.to_string(), "amount": amount, "total": total})
                });
                assert_eq!(series, expected.collect::<Value>(), "days of {}\n{}", user.email, self.story);
                self.compare_list(&user.token, account).await;
            }
        }
    }

    /// The whole list, page by page, is what lives, the newest first.
    async fn compare_list(&self, token: &str, account: &Account) {
        let mut found = Vec::new();
        let mut query = "limit=100".to_owned();
        loop {
            let page = self.app.ask(token, &format!("/memory?{query}")).await.json;
            found.extend(page["memories"].as_array().unwrap().iter().map(shown));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            query = format!("limit=100&cursor={cursor}");
        }
        let mut expected: Vec<Value> = account.living(self.now()).map(whole).collect();
        expected.reverse();
        assert_eq!(found, expected, "{}", self.story);
    }

    /// An instant at which a memory of somebody's ends, or just before or after.
    pub(super) fn some_end(&mut self) -> Option<i64> {
        let account = &self.accounts[self.dice.index(TIERS.len())];
        let now = self.app.clock.now().0;
        let ends: Vec<i64> = account.living(now).filter_map(|memory| memory.expires_at).collect();
        (!ends.is_empty()).then(|| ends[self.dice.index(ends.len())] + self.dice.between(-1, 1))
    }
}

fn path_of(sieve: &Sieve) -> String {
    let parts = [
        ("tier", sieve.tier.map(|tier| SHELVES[tier].0)),
        ("type", sieve.kind),
        ("tag", sieve.tag),
        ("session", sieve.session),
    ];
    let parts = parts.into_iter().filter_map(|(name, value)| value.map(|value| format!("&{name}={value}")));
    format!("/memory?confirm=true{}", parts.collect::<String>())
}

/// What is empty is taken away by null.
fn body_of_change(change: &Change) -> Value {
    let mut body = Map::new();
    let mut say = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
    say("tier", change.tier.map(|tier| json!(SHELVES[tier].0)));
    say("type", change.kind.map(|kind| json!(kind)));
    say("input_context", change.text.as_ref().map(|text| json!(text)));
    say("tags", change.tags.as_ref().map(|tags| if tags.is_empty() { Value::Null } else { json!(tags) }));
    let metadata = change.metadata.as_ref();
    say("metadata", metadata.map(|metadata| if metadata.is_empty() { Value::Null } else { json!(metadata) }));
    say("session", change.session.map(|session| if session.is_empty() { Value::Null } else { json!(session) }));
    Value::Object(body)
}

fn written(instant: i64) -> String {
    DateTime::from_timestamp_millis(instant).unwrap().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A memory as an answer shows it.
fn whole(memory: &Memory) -> Value {
    json!({
        "id": memory.id, "type": memory.kind, "tier": SHELVES[memory.tier].0, "input_context": memory.text,
        "tags": memory.tags, "metadata": memory.metadata, "session": memory.session, "size_bytes": memory.size(),
        "created_at": written(memory.created_at), "expires_at": memory.expires_at.map(written),
    })
}

/// The part of an answer that [`whole`] knows.
fn shown(answer: &Value) -> Value {
    let mut shown = answer.as_object().unwrap().clone();
    shown.retain(|name, _| !["user_id", "timestamp", "last_seen_at", "size_human_readable"].contains(&name.as_str()));
    Value::Object(shown)
}

/// The counts by tier, and what is said of their texts without its words.
fn usage_of(account: &Account, now: i64) -> [Value; 2] {
    let (mut counts, mut stats) = (Map::new(), Map::new());
    let mut total = 0;
    for (tier, (name, _)) in SHELVES.iter().enumerate() {
        let texts: Vec<usize> =
            account.living(now).filter(|memory| memory.tier == tier).map(|memory| memory.text.len()).collect();
        let (count, size) = (texts.len(), texts.iter().sum::<usize>());
        let mean = if count == 0 { 0 } else { (2 * size + count) / (2 * count) };
        total += count;
        counts.insert((*name).to_owned(), json!(count));
        let of_tier = json!({"memory_count": count, "avg_text_size": mean, "total_text_size": size});
        stats.insert((*name).to_owned(), of_tier);
    }
    counts.insert("total".to_owned(), json!(total));
    [Value::Object(counts), Value::Object(stats)]
}
