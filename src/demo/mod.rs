//! The demo: three users with 90 days of usage and memories, written by the services that real calls use, under a clock that
//! is turned from day to day. So all that holds of any database holds of this one too.

mod memories;
mod random;
mod usage;

use std::path::Path;
use std::sync::Arc;

use crate::adapter::embedder::Embedder;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::agent::Run;
use crate::domain::auth::{Caller, Role, UserKey};
use crate::domain::calendar::{Calendar, Day};
use crate::domain::ledger::{ResourceType, Source};
use crate::domain::memory::{Embedding, NewMemory};
use crate::domain::page::Paging;
use crate::domain::unit::{HOUR_MS, Timestamp};
use crate::domain::{Error, Result};
use crate::service::agent::{self, NewRun};
use crate::service::auth::account::{By, Changes, New, change, create};
use crate::service::auth::token::{NewToken, create_for};
use crate::service::auth::{self, Bearer, Identity, Presented, password};
use crate::service::ledger::Fact;
use crate::service::{ledger, memory, quota};
use crate::store::{Store, Writer};

/// Days that the demo looks back, today included.
pub const DAYS: i32 = 90;

/// Somebody who can sign in.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// E-mail address.
    pub email: &'static str,
    /// Password: known to everybody, as it opens nothing but a throw-away instance.
    pub password: &'static str,
    /// Name of the tier.
    pub tier: &'static str,
    /// What the account may do.
    pub role: Role,
    /// What there is to see, in a few words.
    pub about: &'static str,
}

/// Everybody who can sign in.
pub const ACCOUNTS: [Account; 3] = [
    Account {
        email: "studio@demo.example",
        password: "studio-tally-demo",
        tier: "basic",
        role: Role::User,
        about: "85 % of today's tokens used, some held",
    },
    Account {
        email: "trial@demo.example",
        password: "trial-tally-demo",
        tier: "free_trial",
        role: Role::User,
        about: "over the limit of the day, calls refused",
    },
    Account {
        email: "owner@demo.example",
        password: "owner-tally-demo",
        tier: "pro",
        role: Role::Admin,
        about: "no limits; administrator",
    },
];
/// Runs of an account among which one that goes on is found.
const RUNS_AT_ONCE_MAX: usize = 20;
const STUDIO: usize = 0;
const TRIAL: usize = 1;
const OWNER: usize = 2;

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// An API token of each account, in the order of [`ACCOUNTS`].
    pub tokens: Vec<String>,
    /// How many memories.
    pub memories: usize,
}

/// Something that an account did.
struct Step {
    at: Timestamp,
    account: usize,
    act: Act,
}

enum Act {
    /// The account is moved to its tier, from the default one.
    Upgrade,
    /// Something is used: refused where it shall keep to the limit and does not.
    Use { resource: ResourceType, amount: i64, enforce: bool, metadata: serde_json::Value },
    /// An agent's work of which nothing but the minutes is told: they are held, then settled.
    Work { minutes: i64, metadata: serde_json::Value },
    /// An agent's run begins. It may use so many minutes, and goes on for as long if nothing ends it before.
    Begin { agent: &'static str, minutes_max: i64 },
    /// The runs of the account that go on give a sign of life.
    Beat,
    /// The account's run that began at that instant is stopped.
    End { begun_at: Timestamp },
    /// Something is held, and stays so for a while.
    Hold { resource: ResourceType, amount: i64, ttl_s: i64 },
    /// Something is remembered.
    Remember(Box<NewMemory>),
}

/// The days that are told of.
#[derive(Clone, Copy)]
struct Span {
    calendar: Calendar,
    today: Day,
    now: Timestamp,
}

impl Act {
    /// Whether the act is told to the instant: a run counts the minutes between its steps.
    const fn is_timed(&self) -> bool {
        matches!(self, Self::Begin { .. } | Self::Beat | Self::End { .. })
    }
}

impl Span {
    /// The day `back` days before today.
    const fn day(&self, back: i32) -> Day {
        self.today.plus(-back)
    }

    /// Its first instant.
    fn start(&self, back: i32) -> Timestamp {
        self.calendar.end_of(self.day(back).plus(-1))
    }

    /// `minutes` after the beginning of that day, but never later than now.
    fn at(&self, back: i32, minutes: i64) -> Timestamp {
        self.start(back).plus_millis(minutes.saturating_mul(60_000)).min(self.now)
    }
}

/// Makes the demo's data in `directory`, as if it were `now`. The same `now` gives the same data, but for secrets and ids.
///
/// # Errors
/// Where the directory cannot be used, or the embedder fails.
pub fn fill(directory: &Path, config: &Config, now: Timestamp, embedder: &dyn Embedder) -> Result<Made> {
    let span = Span { calendar: config.calendar, today: config.calendar.day_of(now), now };
    let clock = Clock::manual(span.start(DAYS - 1));
    let store = Store::open(directory, clock.clone(), &config.store)?;
    let contents = memories::all(&span);
    let texts: Vec<&str> = contents.iter().map(|(_, content)| content.text.as_str()).collect();
    let embeddings = embed(embedder, &texts)?;
    let memories = contents.len();
    let mut steps = usage::plan(&span);
    steps.extend(contents.into_iter().zip(embeddings).map(|((account, content), embeddings)| {
        let at = content.timestamp;
        Step { at, account, act: Act::Remember(Box::new(NewMemory::new(content, embeddings))) }
    }));
    steps.sort_by_key(|step| step.at);

    let model = embedder.model().to_owned();
    store.write_blocking(move |writer| memory::adopt_model(writer, &model))?;
    let (cast, tokens) = open_accounts(&store, config)?;
    let cast = Arc::new(cast);
    while let Some(until) = steps.first().map(|step| end_of_slot(step.at)) {
        let timed = steps.iter().position(|step| step.act.is_timed());
        // What is told to the instant is committed by itself.
        let end = timed.map_or(steps.len(), |position| position.max(1));
        let later = steps.split_off(steps.partition_point(|step| step.at < until).min(end));
        let slot = std::mem::replace(&mut steps, later);
        if let Some(last) = slot.last() {
            clock.turn_to(last.at);
        }
        let cast = Arc::clone(&cast);
        store.write_blocking(move |writer| slot.into_iter().try_for_each(|step| cast.play(writer, step)))?;
    }
    clock.turn_to(now);
    store.write_blocking(move |writer| {
        let used = (0..ACCOUNTS.len()).map(|account| Ok((cast.caller(writer, account)?.credential, writer.now())));
        auth::note_uses(writer, &used.collect::<Result<Vec<_>>>()?)
    })?;
    store.close();
    Ok(Made { tokens, memories })
}

/// A commit waits for the disk, so all that happens within these six hours shares one.
const fn end_of_slot(at: Timestamp) -> Timestamp {
    const SLOT_MS: i64 = 6 * HOUR_MS;
    Timestamp(at.0.div_euclid(SLOT_MS).saturating_add(1).saturating_mul(SLOT_MS))
}

/// The embeddings of each text, made on all cores: the model is by far the longest part of the start.
fn embed(embedder: &dyn Embedder, texts: &[&str]) -> Result<Vec<Vec<Embedding>>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = texts.len().div_ceil(cores).max(1);
    let embed_share = |texts: &[&str]| {
        texts.iter().map(|text| Ok(embedder.embed(&embedder.windows(text))?)).collect::<Result<Vec<_>>>()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = texts.chunks(share).map(|share| scope.spawn(move || embed_share(share))).collect();
        let mut embeddings = Vec::with_capacity(texts.len());
        for thread in threads {
            embeddings.extend(thread.join().map_err(|_| Error::Internal("embedding the demo panicked".to_owned()))??);
        }
        Ok(embeddings)
    })
}

/// Makes the accounts, each with a token, in the order of [`ACCOUNTS`].
fn open_accounts(store: &Store, config: &Config) -> Result<(Cast, Vec<String>)> {
    let hashes = ACCOUNTS.iter().map(|account| password::hash(account.password)).collect::<Result<Vec<_>>>()?;
    let tiers = config.tiers.clone();
    let by = By::command_line(store.clock().clone());
    let first_tier = config.auth.default_tier.clone();
    let by_there = by.clone();
    let tokens = store.write_blocking(move |writer| {
        let mut tokens = Vec::new();
        for (account, hash) in ACCOUNTS.iter().zip(hashes) {
            let tier = if account.role == Role::Admin { account.tier.to_owned() } else { first_tier.clone() };
            let email = Some(account.email.to_owned());
            let new = New { email, role: account.role, tier, password_hash: Some(hash) };
            let (user, _) = create(writer, &by_there, &tiers, &new)?;
            let token = NewToken { name: "assistant".to_owned(), scopes: None, expires_in_days: None };
            tokens.push(create_for(writer, &by_there, &user, &token)?.1);
        }
        Ok(tokens)
    })?;
    Ok((Cast::new(config, by, &tokens), tokens))
}

/// The signs of life of the runs that go on, which their agents would send: to be given while somebody looks, at least twice in
/// the time-out of a real one.
///
/// # Errors
/// Where the store cannot be written.
pub async fn beat(store: &Store, config: &Config, made: &Made) -> Result<()> {
    let cast = Cast::new(config, By::command_line(store.clock().clone()), &made.tokens);
    let beat_all = move |writer: &mut Writer<'_>| {
        (0..ACCOUNTS.len()).try_for_each(|account| {
            let caller = cast.caller(writer, account)?;
            cast.beat(writer, &caller)
        })
    };
    store.write(beat_all).await
}

/// Who acts, and by which rules.
struct Cast {
    presented: Vec<Presented>,
    by: By,
    identity: auth::Policy,
    quota: Arc<quota::Policy>,
    agent: agent::Policy,
    memory: memory::Policy,
}

impl Cast {
    fn new(config: &Config, by: By, tokens: &[String]) -> Self {
        let quota = Arc::new(quota::Policy { tiers: config.tiers.clone(), calendar: config.calendar });
        let identity = auth::Policy {
            auto_provision: false,
            default_tier: config.auth.default_tier.clone(),
            tiers: config.tiers.clone(),
        };
        let show = |token: &String| Presented { bearer: Bearer::parse(token), ..Presented::default() };
        Self {
            presented: tokens.iter().map(show).collect(),
            by,
            identity,
            // A machine that sleeps sends no signs of life: all the same the runs go on until they reach their bound.
            agent: agent::Policy { quota: Arc::clone(&quota), heartbeat_timeout_ms: 24 * 3_600_000 },
            memory: memory::Policy::new(&config.memory, Arc::clone(&quota)),
            quota,
        }
    }

    /// The account as a call with its token is seen.
    fn caller(&self, writer: &Writer<'_>, account: usize) -> Result<Caller> {
        let presented = self.presented.get(account).ok_or(Error::NotFound("the account"))?;
        match auth::authenticate(writer, presented, &self.identity, None)? {
            Identity::Known(known) => Ok(known.caller),
            Identity::ToProvision => Err(Error::NotFound("the account")),
        }
    }

    /// Does what a call would have done, refusals included.
    fn play(&self, writer: &mut Writer<'_>, step: Step) -> Result<()> {
        let caller = self.caller(writer, step.account)?;
        let done = match step.act {
            Act::Upgrade => {
                let tier = ACCOUNTS.get(step.account).map(|account| account.tier.to_owned());
                let changes = Changes { tier, ..Changes::default() };
                change(writer, &self.by, &self.quota.tiers, &caller.user, &changes).map(drop)
            }
            Act::Use { resource, amount, enforce, metadata } => {
                let (timestamp, metadata) = (Some(step.at), Some(metadata));
                let fact = Fact { resource, amount, timestamp, enforce, reverses: None, metadata };
                ledger::record(writer, &self.quota, caller.holder(), &fact, Source::Record).map(drop)
            }
            Act::Work { minutes, metadata } => self.work(writer, &caller, minutes, metadata),
            Act::Begin { agent, minutes_max } => {
                let new = NewRun { name: Some(agent.to_owned()), metadata: None, max_minutes: Some(minutes_max) };
                agent::start(writer, &self.agent, &caller, &new).map(drop)
            }
            Act::Beat => self.beat(writer, &caller),
            Act::End { begun_at } => {
                let newest = agent::list(writer, caller.user.key, Paging::first(RUNS_AT_ONCE_MAX))?;
                let is_meant = |run: &&Run| run.started_at == begun_at && run.end.is_none();
                let run = newest.items.iter().find(is_meant).ok_or(Error::NotFound("the run"))?;
                agent::stop(writer, &self.agent, &caller, run.id).map(drop)
            }
            Act::Hold { resource, amount, ttl_s } => {
                quota::reserve(writer, &self.quota, &caller, resource, amount, ttl_s).map(drop)
            }
            Act::Remember(new) => memory::store(writer, &self.memory, &caller, *new).map(drop),
        };
        match done {
            Err(Error::QuotaExceeded(refusal)) => note_refusal(writer, caller.user.key, refusal.resource, step.at),
            done => done,
        }
    }

    /// A sign of life of each run that goes on.
    fn beat(&self, writer: &mut Writer<'_>, caller: &Caller) -> Result<()> {
        let newest = agent::list(writer, caller.user.key, Paging::first(RUNS_AT_ONCE_MAX))?;
        let now = writer.now();
        let mut going_on = newest.items.iter().filter(|run| run.end_as_of(now).is_none());
        going_on.try_for_each(|run| agent::heartbeat(writer, &self.agent, caller, run.id).map(drop))
    }

    fn work(&self, writer: &mut Writer<'_>, caller: &Caller, minutes: i64, metadata: serde_json::Value) -> Result<()> {
        const TTL_S: i64 = 3_600;
        let hold = quota::reserve(writer, &self.quota, caller, ResourceType::AgentMinutes, minutes, TTL_S)?;
        quota::settle(writer, &self.quota, caller, hold.id, minutes, Some(metadata)).map(drop)
    }
}

fn note_refusal(writer: &mut Writer<'_>, user: UserKey, resource: ResourceType, at: Timestamp) -> Result<()> {
    quota::note_refusals(writer, &[((user, resource, at.start_of_hour()), 1)])
}
