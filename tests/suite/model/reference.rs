//! What should be, by a second reckoning: plain lists that are summed anew for every question, and a calendar of its own.

use chrono::{DateTime, Datelike, NaiveDate};
use chrono_tz::Europe::Berlin;

use super::shelf::Memory;

const DAY_MS: i64 = 86_400_000;

/// What is metered: the first two by hand, storage by memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Tokens,
    Minutes,
    Storage,
}

impl Resource {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "llm_tokens",
            Self::Minutes => "agent_minutes",
            Self::Storage => "memory_storage",
        }
    }
}

/// Name, and tokens a day, minutes a month, bytes; none is no limit.
pub(super) const TIERS: [(&str, [Option<i64>; 3]); 3] = [
    ("free_trial", [Some(500), Some(0), Some(20_000)]),
    ("basic", [Some(2_000), Some(60), Some(60_000)]),
    ("pro", [None, None, None]),
];

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) resource: Resource,
    pub(super) amount: i64,
    pub(super) day: NaiveDate,
    pub(super) taken_back: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    Settled { amount: i64, late: bool },
    Released,
}

#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) id: String,
    pub(super) resource: Resource,
    pub(super) amount: i64,
    pub(super) day: NaiveDate,
    pub(super) made_at: i64,
    pub(super) expires_at: i64,
    pub(super) fate: Fate,
}

/// A user.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) tier: usize,
    pub(super) entries: Vec<Entry>,
    pub(super) holds: Vec<Hold>,
    pub(super) memories: Vec<Memory>,
}

/// A fact that somebody wants recorded.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) resource: Resource,
    pub(super) amount: i64,
    /// Milliseconds from now; none: now, without a timestamp.
    pub(super) offset_ms: Option<i64>,
    pub(super) enforce: bool,
}

pub(super) fn day_of(instant: i64) -> NaiveDate {
    DateTime::from_timestamp_millis(instant).unwrap().with_timezone(&Berlin).date_naive()
}

fn same_window(resource: Resource, one: NaiveDate, other: NaiveDate) -> bool {
    match resource {
        Resource::Tokens => one == other,
        Resource::Minutes => (one.year(), one.month()) == (other.year(), other.month()),
        Resource::Storage => true,
    }
}

impl Account {
    pub(super) fn limit(&self, resource: Resource) -> Option<i64> {
        let (_, [tokens, minutes, storage]) = TIERS[self.tier];
        match resource {
            Resource::Tokens => tokens,
            Resource::Minutes => minutes,
            Resource::Storage => storage,
        }
    }

    pub(super) fn used(&self, resource: Resource, day: NaiveDate) -> i64 {
        let counted = self.entries.iter().filter(|entry| entry.resource == resource);
        counted.filter(|entry| same_window(resource, entry.day, day)).map(|entry| entry.amount).sum()
    }

    pub(super) fn reserved(&self, resource: Resource, day: NaiveDate, now: i64) -> i64 {
        let open = self.holds.iter().filter(|hold| hold.fate == Fate::Open && now < hold.expires_at);
        let counted = open.filter(|hold| hold.resource == resource && same_window(resource, hold.day, day));
        counted.map(|hold| hold.amount).sum()
    }

    pub(super) fn on_day(&self, resource: Resource, day: NaiveDate) -> i64 {
        let counted = self.entries.iter().filter(|entry| entry.resource == resource && entry.day == day);
        counted.map(|entry| entry.amount).sum()
    }

    pub(super) fn fits(&self, resource: Resource, day: NaiveDate, amount: i64, now: i64) -> bool {
        let taken = self.used(resource, day) + self.reserved(resource, day, now);
        self.limit(resource).is_none_or(|limit| taken + amount <= limit)
    }

    /// The status of an answer to a fact; what is recorded has no id yet.
    pub(super) fn record(&mut self, fact: &Fact, now: i64) -> u16 {
        let offset = fact.offset_ms.unwrap_or(0);
        if !(-35 * DAY_MS..=5 * 60_000).contains(&offset) {
            return 422;
        }
        let day = day_of(now + offset);
        if fact.enforce && !self.fits(fact.resource, day, fact.amount, now) {
            return 429;
        }
        self.push(fact.resource, fact.amount, day);
        201
    }

    pub(super) fn push(&mut self, resource: Resource, amount: i64, day: NaiveDate) {
        self.entries.push(Entry { id: String::new(), resource, amount, day, taken_back: 0 });
    }

    /// The status of an answer to the taking back of `amount` of an entry.
    pub(super) fn take_back(&mut self, index: usize, amount: i64) -> u16 {
        let entry = &mut self.entries[index];
        if entry.amount < 0 || entry.taken_back + amount > entry.amount {
            return 422;
        }
        entry.taken_back += amount;
        let (resource, day) = (entry.resource, entry.day);
        self.push(resource, -amount, day);
        201
    }

    pub(super) fn hold(&mut self, resource: Resource, amount: i64, ttl_s: i64, now: i64) -> u16 {
        let day = day_of(now);
        if !self.fits(resource, day, amount, now) {
            return 429;
        }
        let expires_at = now + ttl_s * 1_000;
        self.holds.push(Hold { id: String::new(), resource, amount, day, made_at: now, expires_at, fate: Fate::Open });
        201
    }

    pub(super) fn settle(&mut self, index: usize, amount: i64, now: i64) -> u16 {
        let hold = &mut self.holds[index];
        match hold.fate {
            Fate::Settled { amount: settled, .. } if settled == amount => 200,
            Fate::Settled { .. } | Fate::Released => 409,
            Fate::Open if now - hold.made_at >= 30 * DAY_MS => 409,
            Fate::Open => {
                hold.fate = Fate::Settled { amount, late: now >= hold.expires_at };
                let (resource, day) = (hold.resource, hold.day);
                if amount > 0 {
                    self.push(resource, amount, day);
                }
                200
            }
        }
    }

    pub(super) fn release(&mut self, index: usize) -> u16 {
        let hold = &mut self.holds[index];
        match hold.fate {
            Fate::Settled { .. } => 409,
            Fate::Released => 204,
            Fate::Open => {
                hold.fate = Fate::Released;
                204
            }
        }
    }
}
