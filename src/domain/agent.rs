//! Agent runs: time that is held ahead and counted by started minutes.

use serde_json::Value;

use super::auth::UserKey;
use super::unit::{RunId, Timestamp};

/// Milliseconds of a minute.
pub const MINUTE_MS: i64 = 60_000;
/// Characters of a run's name.
pub const NAME_CHARACTERS: std::ops::RangeInclusive<usize> = 1..=128;
/// Minutes that a run may be bounded to: up to a year.
pub const MAX_MINUTES: std::ops::RangeInclusive<i64> = 1..=527_040;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// It was stopped.
    Stopped,
    /// No heartbeat came for `agents.heartbeat_timeout`: it ended at its last sign of life.
    Silent,
    /// No more could be held: it ended where its hold ended.
    QuotaExceeded,
    /// It reached the minutes it was bounded to.
    MaxMinutes,
    /// Its user was disabled.
    Disabled,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Stopped, Self::Silent, Self::QuotaExceeded, Self::MaxMinutes, Self::Disabled];

    /// As answers name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Silent => "no_heartbeat",
            Self::QuotaExceeded => "quota_exceeded",
            Self::MaxMinutes => "max_minutes",
            Self::Disabled => "user_disabled",
        }
    }
}

/// A run of an agent.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Whose minutes it uses.
    pub user: UserKey,
    /// What it is called.
    pub name: Option<String>,
    /// Free-form.
    pub metadata: Option<Value>,
    /// The tier it was opened with, whose limits it keeps.
    pub tier: String,
    /// Most minutes it may use; none: as many as the quota bears.
    pub max_minutes: Option<i64>,
    /// When it began.
    pub started_at: Timestamp,
    /// Its last sign of life.
    pub seen_at: Timestamp,
    /// Minutes held since its beginning, those already booked among them.
    pub held: i64,
    /// When it is over without another sign of life; none once its minutes are booked.
    pub due_at: Option<Timestamp>,
    /// When and why it ended; none while it runs.
    pub end: Option<(Timestamp, EndReason)>,
}

impl Run {
    /// The instant at which minute `minute` (from 1) begins.
    pub const fn start_of(&self, minute: i64) -> Timestamp {
        self.started_at.plus_millis(minute.saturating_sub(1).saturating_mul(MINUTE_MS))
    }

    /// Minutes that begin before `instant`: as many as must be held to reach it.
    pub fn minutes_before(&self, instant: Timestamp) -> i64 {
        let elapsed = instant.0.saturating_sub(self.started_at.0).max(0);
        elapsed.saturating_add(MINUTE_MS.saturating_sub(1)).checked_div(MINUTE_MS).unwrap_or(0)
    }

    /// Minutes used by a run that ends at `end`: those it has begun, at least one.
    pub fn minutes_used(&self, end: Timestamp) -> i64 {
        self.minutes_before(end).max(1)
    }

    /// Where what is held ends.
    pub const fn held_until(&self) -> Timestamp {
        self.start_of(self.held.saturating_add(1))
    }

    /// Minutes to hold so that the run reaches the heartbeat time-out and a minute past a sign of life at `now`.
    pub fn minutes_wanted(&self, now: Timestamp, timeout_ms: i64) -> i64 {
        let wanted = self.minutes_before(now.plus_millis(timeout_ms).plus_millis(MINUTE_MS));
        wanted.min(self.max_minutes.unwrap_or(i64::MAX))
    }

    /// When it is over without another sign of life.
    pub fn next_due(&self, timeout_ms: i64) -> Timestamp {
        self.held_until().min(self.seen_at.plus_millis(timeout_ms))
    }

    /// When and why it ended, as of `now`: also where that has not been written down yet.
    pub fn end_as_of(&self, now: Timestamp) -> Option<(Timestamp, EndReason)> {
        if self.end.is_some() {
            return self.end;
        }
        let due_at = self.due_at.filter(|due_at| now >= *due_at)?;
        if due_at < self.held_until() {
            return Some((self.seen_at, EndReason::Silent));
        }
        let is_bounded = self.max_minutes.is_some_and(|max| self.held >= max);
        Some((self.held_until(), if is_bounded { EndReason::MaxMinutes } else { EndReason::QuotaExceeded }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(held: i64, max_minutes: Option<i64>) -> Run {
        let mut run = Run {
            id: RunId(uuid::Uuid::nil()),
            user: UserKey(1),
            name: None,
            metadata: None,
            tier: "basic".to_owned(),
            max_minutes,
            started_at: Timestamp(1_000),
            seen_at: Timestamp(1_000),
            held,
            due_at: None,
            end: None,
        };
        run.due_at = Some(run.next_due(120_000));
        run
    }

    #[test]
    fn begun_minutes_count_and_at_least_one() {
        let run = run(3, None);
        for (elapsed, minutes) in [(0, 1), (1, 1), (59_999, 1), (60_000, 1), (60_001, 2), (120_000, 2), (120_001, 3)] {
            assert_eq!(run.minutes_used(Timestamp(1_000 + elapsed)), minutes, "{elapsed}");
        }
    }

    #[test]
    fn a_hold_reaches_the_time_out_and_a_minute_past_the_last_sign_of_life() {
        assert_eq!(run(0, None).minutes_wanted(Timestamp(1_000), 120_000), 3);
        assert_eq!(run(0, None).minutes_wanted(Timestamp(1_001), 120_000), 4);
        assert_eq!(run(0, Some(2)).minutes_wanted(Timestamp(1_000), 120_000), 2);
        assert_eq!(run(3, None).held_until(), Timestamp(181_000));
    }

    #[test]
    fn a_run_is_over_at_its_last_sign_of_life_or_where_its_hold_ends() {
        let at = |run: &Run, elapsed: i64| run.end_as_of(Timestamp(1_000 + elapsed));
        let silent = run(3, None);
        assert_eq!(at(&silent, 119_999), None);
        assert_eq!(at(&silent, 120_000), Some((Timestamp(1_000), EndReason::Silent)));
        assert_eq!(at(&run(1, None), 60_000), Some((Timestamp(61_000), EndReason::QuotaExceeded)));
        assert_eq!(at(&run(2, Some(2)), 120_000), Some((Timestamp(121_000), EndReason::MaxMinutes)));
        assert_eq!(at(&run(1, None), 59_999), None);
    }
}
