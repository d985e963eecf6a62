//! Axes: how high a chart reaches, where its lines are ruled, which of its days are named.

use chrono::{Datelike, Weekday};

use crate::domain::calendar::Day;
use crate::domain::ledger::ResourceType;
use crate::domain::quota::Limit;
use crate::domain::unit::thousands;

/// What lies above the highest figure: 15 hundredths of it.
const HEADROOM_PERCENT: i128 = 115;
/// How far to the right days are named, in percent of the width: beyond, a name would touch the "today" of a narrow chart.
const NAMED_PERCENT: usize = 80;
/// Most ruled lines above the base.
const LINES_MAX: i128 = 5;

/// The vertical axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    /// The amount at the upper edge.
    top: i64,
    /// The amount between two ruled lines.
    step: i64,
    /// The unit of the labels, as an amount; 1 for figures without one.
    unit: i64,
    /// Whether the limit lies on the scale.
    pub(super) shows_limit: bool,
}

impl Scale {
    /// For figures up to `peak`, with the limit on the scale unless that would flatten them.
    pub(super) fn new(resource: ResourceType, peak: i64, limit: Limit) -> Self {
        let peak = peak.max(0);
        let (shows_limit, highest) = match limit {
            Limit::AtMost(limit) if limit > 0 && peak >= limit / 2 => (true, peak.max(limit)),
            _ => (false, peak),
        };
        let top =
            i64::try_from(i128::from(highest.max(1)) * HEADROOM_PERCENT / 100).unwrap_or(i64::MAX).max(highest + 1);
        let unit = match resource {
            ResourceType::MemoryStorage => {
                (0..5).map(|power| 1_i64 << (10 * power)).rfind(|unit| *unit <= top).unwrap_or(1)
            }
            ResourceType::LlmTokens | ResourceType::AgentMinutes => 1,
        };
        Self { top, step: step(top, unit), unit, shows_limit }
    }

    /// How far `amount` reaches up from the base, in pixels of a chart of `height`.
    pub(super) fn pixels(&self, amount: i64, height: u32) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a drawing: a tenth of a pixel is enough")]
        let share = amount.clamp(0, self.top) as f64 / self.top as f64;
        share * f64::from(height)
    }

    /// The amounts at which lines are ruled, the base among them.
    pub(super) fn lines(&self) -> impl Iterator<Item = i64> {
        let (top, step) = (self.top, self.step);
        (0..).map(move |line| step.saturating_mul(line)).take_while(move |amount| *amount <= top && *amount < i64::MAX)
    }

    /// The label of a ruled line.
    pub(super) fn label(&self, amount: i64) -> String {
        const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
        if amount == 0 {
            return "0".to_owned();
        }
        if self.unit == 1 {
            return compact(amount);
        }
        let name = UNITS.get(self.unit.ilog2() as usize / 10).copied().unwrap_or_default();
        format!("{} {name}", thousands(amount / self.unit))
    }
}

/// The smallest of 1, 2, 5, 10, 20, ... units that rules at most [`LINES_MAX`] lines below `top`.
fn step(top: i64, unit: i64) -> i64 {
    let mut power: i128 = 1;
    loop {
        for factor in [1, 2, 5] {
            let step = i128::from(unit) * power * factor;
            if step * LINES_MAX >= i128::from(top) {
                return i64::try_from(step).unwrap_or(i64::MAX);
            }
        }
        power *= 10;
    }
}

/// `10k`, `1.5M`; in full what would lose figures.
fn compact(amount: i64) -> String {
    for (size, letter) in [(1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")] {
        if amount >= size && amount % (size / 10) == 0 {
            let (whole, tenths) = (amount / size, amount % size * 10 / size);
            return if tenths == 0 { format!("{whole}{letter}") } else { format!("{whole}.{tenths}{letter}") };
        }
    }
    thousands(amount)
}

/// A named day of the horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    /// Which slot, from 0.
    pub(super) slot: usize,
    /// Whether it is left out where there is little room.
    pub(super) is_for_wide: bool,
}

/// Which of `days` are named: each of a week, Mondays of a month, the 1st and 15th of more; never one that would touch the
/// "today" at the right end.
pub(super) fn ticks(days: &[Day]) -> Vec<Tick> {
    let count = days.len();
    let is_named = |day: &Day| {
        let date = day.to_date();
        match count {
            0..=10 => true,
            11..=45 => date.weekday() == Weekday::Mon,
            _ => matches!(date.day(), 1 | 15),
        }
    };
    let slots = days.iter().enumerate().filter(|(_, day)| is_named(day)).map(|(slot, _)| slot);
    let slots = slots.filter(|slot| slot + 1 < count && slot * 100 + 50 < count * NAMED_PERCENT);
    slots.enumerate().map(|(index, slot)| Tick { slot, is_for_wide: index % 2 == 1 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(resource: ResourceType, peak: i64, limit: i64) -> Vec<String> {
        let scale = Scale::new(resource, peak, Limit::from_number(limit).unwrap());
        scale.lines().map(|amount| scale.label(amount)).collect()
    }

    #[test]
    fn lines_are_ruled_at_round_amounts() {
        assert_eq!(labels(ResourceType::LlmTokens, 42_500, 50_000), ["0", "20k", "40k"]);
        assert_eq!(labels(ResourceType::LlmTokens, 1_300_000, -1), ["0", "500k", "1M"]);
        assert_eq!(labels(ResourceType::AgentMinutes, 0, 60), ["0", "1"]);
        assert_eq!(labels(ResourceType::AgentMinutes, 44, 60), ["0", "20", "40", "60"]);
        assert_eq!(labels(ResourceType::MemoryStorage, 500 << 20, 10 << 30), ["0", "200 MB", "400 MB"]);
        assert_eq!(labels(ResourceType::MemoryStorage, 9 << 30, 10 << 30), ["0", "5 GB", "10 GB"]);
    }

    #[test]
    fn no_figure_leaves_the_chart() {
        for peak in [0, 1, 2, 999, 1 << 20, i64::MAX / 2, i64::MAX - 1] {
            for limit in [-1, 0, 1, 1_000, i64::MAX - 1] {
                for resource in ResourceType::ALL {
                    let scale = Scale::new(resource, peak, Limit::from_number(limit).unwrap());
                    let reached = scale.pixels(peak, 200);
                    assert!((0.0..200.1).contains(&reached), "{peak} {limit} {reached}");
                    assert!((1..=6).contains(&scale.lines().count()), "{peak} {limit}");
                }
            }
        }
    }

    #[test]
    fn a_limit_far_above_is_not_drawn_to_scale() {
        let shows = |peak| Scale::new(ResourceType::LlmTokens, peak, Limit::AtMost(1_000)).shows_limit;
        assert!(!shows(0) && !shows(499));
        assert!(shows(500) && shows(2_000));
    }

    #[test]
    fn named_days_keep_clear_of_today() {
        let from = Day::from_date("2026-08-26".parse().unwrap());
        let days: Vec<Day> = (0..90).map(|count| from.plus(count)).collect();
        let named: Vec<String> =
            ticks(&days).iter().map(|tick| days[tick.slot].to_date().format("%-d %b").to_string()).collect();
        assert_eq!(named, ["1 Sep", "15 Sep", "1 Oct", "15 Oct", "1 Nov"]);
        let month = ticks(&days[60..]);
        let named: Vec<usize> = month.iter().map(|tick| tick.slot).collect();
        assert_eq!(named, [1, 8, 15, 22], "the Monday before today is too close to it");
        assert_eq!(ticks(&days[83..]).len(), 6, "a week names each day but the last, which is today");
        assert_eq!(ticks(&[]), []);
    }
}
