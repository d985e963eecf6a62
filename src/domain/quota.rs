//! Tiers, limits and the one decision: does it still fit?

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::auth::UserKey;
use super::calendar::Day;
use super::ledger::{ResourceType, Window};
use super::unit::{DAY_MS, EntryId, ReservationId, Timestamp, hundredths_half_up};

/// Life of a reservation when none is named, in seconds.
pub const RESERVATION_TTL_S: i64 = 300;
/// Longest life of a reservation, in seconds.
pub const RESERVATION_TTL_S_MAX: i64 = 86_400;
/// A hold may be settled this long after it was made: 30 days, in milliseconds.
pub const SETTLE_MS_MAX: i64 = 30 * DAY_MS;

/// A bound of a resource in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No bound, written -1.
    Unlimited,
    /// At most this much, in the resource's unit, at least 0.
    AtMost(i64),
}

impl Limit {
    /// From its written form: -1 is unlimited, below that is none.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            -1 => Some(Self::Unlimited),
            0.. => Some(Self::AtMost(number)),
            _ => None,
        }
    }

    /// The written form.
    pub const fn to_number(self) -> i64 {
        match self {
            Self::Unlimited => -1,
            Self::AtMost(amount) => amount,
        }
    }
}

/// The limits of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens a day.
    pub llm_tokens_day: Limit,
    /// Bytes held.
    pub memory_storage_bytes: Limit,
    /// Minutes a month.
    pub agent_minutes_month: Limit,
}

impl Limits {
    /// The limit of `resource`.
    pub const fn of(&self, resource: ResourceType) -> Limit {
        match resource {
            ResourceType::LlmTokens => self.llm_tokens_day,
            ResourceType::MemoryStorage => self.memory_storage_bytes,
            ResourceType::AgentMinutes => self.agent_minutes_month,
        }
    }
}

impl Limits {
    /// The limits as numbers that compare: no limit is the highest.
    fn heights(&self) -> [i64; 3] {
        ResourceType::ALL.map(|resource| match self.of(resource) {
            Limit::Unlimited => i64::MAX,
            Limit::AtMost(limit) => limit,
        })
    }
}

/// The tiers of the configuration, by name.
#[derive(Clone, Debug, Default)]
pub struct Tiers(pub BTreeMap<String, Limits>);

impl Tiers {
    /// The limits of the tier `name`. A tier that the file no longer has allows nothing: `serve` refuses to start with
    /// one in use, and what slips through must not become a licence.
    pub fn limits(&self, name: &str) -> Limits {
        let nothing = Limit::AtMost(0);
        self.0.get(name).copied().unwrap_or(Limits {
            llm_tokens_day: nothing,
            memory_storage_bytes: nothing,
            agent_minutes_month: nothing,
        })
    }

    /// Whether there is such a tier.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The tier above `name`: the lowest of those that allow at least as much of every resource, and more of one.
    pub fn next_above(&self, name: &str) -> Option<(&str, Limits)> {
        let own = self.limits(name).heights();
        let is_above = |other: [i64; 3]| other != own && other.iter().zip(own).all(|(other, own)| *other >= own);
        let above = self.0.iter().filter(|(_, limits)| is_above(limits.heights()));
        above.min_by_key(|(_, limits)| limits.heights()).map(|(name, limits)| (name.as_str(), *limits))
    }

    /// Names in order, for messages.
    pub fn names(&self) -> String {
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The names of all tiers, each by itself.
    pub fn each_name(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Whose usage counts, and by which tier's limits.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// Whose.
    pub user: UserKey,
    /// Name of the tier.
    pub tier: &'a str,
}

/// What is used and held in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Sum of the window's entries; the level for a level.
    pub used: i64,
    /// Held by reservations that neither ended nor were resolved.
    pub reserved: i64,
}

/// A window's usage against its limit, as answers show it.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Of what.
    pub resource: ResourceType,
    /// Used and held.
    pub usage: Usage,
    /// The bound.
    pub limit: Limit,
    /// When the window ends; none for a level.
    pub resets_at: Option<Timestamp>,
}

impl Standing {
    /// used / limit x 100.
    pub fn percentage(&self) -> f64 {
        percentage(self.usage.used, self.limit)
    }

    /// What can still be asked for; none where there is no bound.
    pub fn remaining(&self) -> Option<i64> {
        match self.limit {
            Limit::Unlimited => None,
            Limit::AtMost(limit) => {
                let taken = i128::from(self.usage.used).saturating_add(i128::from(self.usage.reserved));
                Some(i64::try_from(i128::from(limit).saturating_sub(taken).max(0)).unwrap_or(i64::MAX))
            }
        }
    }

    /// How far `requested` passes the limit; none where it fits: `used + reserved + requested <= limit`.
    pub fn shortfall(&self, requested: i64) -> Option<i64> {
        let Limit::AtMost(limit) = self.limit else { return None };
        let wanted = i128::from(self.usage.used)
            .saturating_add(i128::from(self.usage.reserved))
            .saturating_add(i128::from(requested));
        let over = wanted.saturating_sub(i128::from(limit));
        (over > 0).then(|| i64::try_from(over).unwrap_or(i64::MAX))
    }

    /// The refusal of `requested`, with all that a caller needs to know.
    pub fn refuse(&self, requested: i64, now: Timestamp) -> Refusal {
        let bears = matches!(self.limit, Limit::AtMost(limit) if limit > 0 && limit >= requested);
        let retry_after_s = self.resets_at.filter(|at| bears && *at > now).map(|at| now.seconds_until(at));
        Refusal {
            resource: self.resource,
            limit: self.limit.to_number(),
            used: self.usage.used,
            reserved: self.usage.reserved,
            requested,
            resets_at: self.resets_at,
            retry_after_s,
            index: None,
        }
    }
}

/// Why a write was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of what there was not enough.
    pub resource: ResourceType,
    /// The bound.
    pub limit: i64,
    /// Used in the window.
    pub used: i64,
    /// Held in the window.
    pub reserved: i64,
    /// What was asked for.
    pub requested: i64,
    /// When the window ends; none for a level.
    pub resets_at: Option<Timestamp>,
    /// Seconds after which asking again may succeed; none where waiting does not help.
    pub retry_after_s: Option<u64>,
    /// Which element of a batch was refused.
    pub index: Option<usize>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.resource;
        if let Some(index) = self.index {
            write!(f, "element {index}: ")?;
        }
        write!(
            f,
            "{} quota exceeded: {} used, {} reserved and {} requested pass the limit of {}",
            kind.as_str(),
            kind.human(self.used),
            kind.human(self.reserved),
            kind.human(self.requested),
            kind.human(self.limit),
        )
    }
}

/// used / limit x 100 with two decimals, half up. Unlimited: 0; a limit of 0: 0, once anything is used 100.
pub fn percentage(used: i64, limit: Limit) -> f64 {
    let hundredths = match limit {
        Limit::Unlimited => 0,
        Limit::AtMost(0) if used > 0 => 10_000,
        Limit::AtMost(limit) => {
            let hundred_used = u128::from(used.max(0).unsigned_abs()).saturating_mul(100);
            hundredths_half_up(hundred_used, u128::from(limit.unsigned_abs()))
        }
    };
    #[expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "a score for people, exact below 2^53")]
    let percent = hundredths as f64 / 100.0;
    percent
}

/// How a resource stands, in the three colours of the dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Below 80 %.
    Ok,
    /// 80 to 99 %.
    Warn,
    /// 100 % or more.
    Stop,
}

impl State {
    /// From used / limit, rounded down; what is held does not count.
    pub fn of(used: i64, limit: Limit) -> Self {
        let Limit::AtMost(limit) = limit else { return Self::Ok };
        let (used, limit) = (i128::from(used.max(0)), i128::from(limit));
        if used >= limit && (limit > 0 || used > 0) {
            Self::Stop
        } else if limit > 0 && used.saturating_mul(100) >= limit.saturating_mul(80) {
            Self::Warn
        } else {
            Self::Ok
        }
    }
}

/// Who made a hold, and so who may resolve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The user's own credentials.
    User,
    /// A caller with `act-as`, by the user behind the credential.
    Acting(UserKey),
    /// A trusted proxy.
    Proxy,
    /// The gateway.
    Gateway,
    /// An agent run.
    Agent,
}

impl Maker {
    /// The `kind` that lists show.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::User | Self::Acting(_) | Self::Proxy => "api",
            Self::Gateway => "gateway",
            Self::Agent => "agent",
        }
    }
}

/// Where a hold stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// Neither settled nor released. `freed` once its expiry has been booked: it no longer holds anything.
    Open {
        /// Whether its amount no longer counts as reserved.
        freed: bool,
    },
    /// Settled with an amount, as the entry where the amount was not 0.
    Settled {
        /// The entry; none for an amount of 0.
        entry: Option<EntryId>,
        /// What was settled.
        amount: i64,
        /// The metadata it was settled with.
        metadata: Option<Value>,
        /// Whether the hold had expired before.
        late: bool,
    },
    /// Released without use.
    Released,
}

/// A promise: an amount held in a window until it is settled, released or expires.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// Whose quota it holds.
    pub user: UserKey,
    /// Of what.
    pub resource: ResourceType,
    /// How much.
    pub amount: i64,
    /// The day it counts in, decided once.
    pub day: Day,
    /// Who made it.
    pub maker: Maker,
    /// When it was made.
    pub made_at: Timestamp,
    /// When it stops to hold; none for those that only their maker ends.
    pub expires_at: Option<Timestamp>,
    /// Where it stands.
    pub resolution: Resolution,
}

impl Reservation {
    /// Whether its time is over.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| now >= at)
    }
}

/// First and last day of the window of `resource` that `day` lies in; a level has none.
pub fn window_days(resource: ResourceType, day: Day) -> Option<std::ops::RangeInclusive<Day>> {
    match resource.window() {
        Window::Day => Some(day..=day),
        Window::Month => Some(day.month()),
        Window::Level => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(limit: i64, used: i64, reserved: i64) -> Standing {
        Standing {
            resource: ResourceType::LlmTokens,
            usage: Usage { used, reserved },
            limit: Limit::from_number(limit).unwrap(),
            resets_at: Some(Timestamp(10_000)),
        }
    }

    #[test]
    fn the_tier_above_allows_no_less_of_anything() {
        let limits = |tokens, bytes, minutes| Limits {
            llm_tokens_day: Limit::from_number(tokens).unwrap(),
            memory_storage_bytes: Limit::from_number(bytes).unwrap(),
            agent_minutes_month: Limit::from_number(minutes).unwrap(),
        };
        let tiers = [
            ("a", limits(1, 1, 0)),
            ("b", limits(5, 1, 6)),
            ("c", limits(9, 0, -1)),
            ("d", limits(9, 9, 9)),
            ("e", limits(-1, -1, -1)),
        ];
        let tiers = Tiers(tiers.map(|(name, limits)| (name.to_owned(), limits)).into());
        let above = |name| tiers.next_above(name).map(|(name, _)| name);
        assert_eq!(above("a"), Some("b"));
        assert_eq!(above("b"), Some("d"));
        assert_eq!(above("c"), Some("e"));
        assert_eq!(above("d"), Some("e"));
        assert_eq!(above("e"), None);
    }

    #[test]
    fn percentages_have_two_decimals_half_up() {
        let of = |used, limit| percentage(used, Limit::from_number(limit).unwrap());
        assert_eq!(of(524_288_000, 10 << 30).to_string(), "4.88");
        assert_eq!(of(524_288_000, 1 << 30).to_string(), "48.83");
        assert_eq!(of(1, 8_000).to_string(), "0.01");
        assert_eq!(of(5, -1).to_string(), "0");
        assert_eq!((of(0, 0).to_string(), of(1, 0).to_string()), ("0".into(), "100".into()));
        assert_eq!(of(i64::MAX, 1).to_string(), "922337203685477600000");
    }

    #[test]
    fn the_rule_is_used_plus_reserved_plus_requested() {
        assert_eq!(standing(1_000, 700, 100).shortfall(200), None);
        assert_eq!(standing(1_000, 700, 100).shortfall(201), Some(1));
        assert_eq!(standing(-1, i64::MAX, 0).shortfall(i64::MAX), None);
        assert_eq!(standing(0, 0, 0).shortfall(1), Some(1));
        assert_eq!(standing(i64::MAX, i64::MAX, i64::MAX).shortfall(i64::MAX), Some(i64::MAX));
    }

    #[test]
    fn retry_after_is_said_only_where_waiting_helps() {
        let now = Timestamp(4_000);
        assert_eq!(standing(1_000, 900, 0).refuse(200, now).retry_after_s, Some(6));
        assert_eq!(standing(1_000, 900, 0).refuse(1_001, now).retry_after_s, None);
        assert_eq!(standing(0, 0, 0).refuse(1, now).retry_after_s, None);
    }

    #[test]
    fn colours_change_at_80_and_100_percent_exactly() {
        let of = |used| State::of(used, Limit::AtMost(1_000));
        assert_eq!([of(799), of(800), of(999), of(1_000)], [State::Ok, State::Warn, State::Warn, State::Stop]);
        assert_eq!(State::of(0, Limit::AtMost(0)), State::Ok);
        assert_eq!(State::of(1, Limit::AtMost(0)), State::Stop);
    }
}
