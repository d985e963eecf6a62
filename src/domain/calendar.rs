//! Days and months of one time zone: the windows in which usage is counted.

use std::ops::RangeInclusive;

use chrono::{Datelike, Days, Months, NaiveDate, NaiveDateTime};
use chrono_tz::Tz;

use super::unit::{DAY_MS, Timestamp};

/// A calendar day: days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

impl Day {
    /// As a date, clamped to what chrono can express.
    pub fn to_date(self) -> NaiveDate {
        NaiveDate::from_epoch_days(self.0).unwrap_or(if self.0 < 0 { NaiveDate::MIN } else { NaiveDate::MAX })
    }

    /// The day of a date.
    pub fn from_date(date: NaiveDate) -> Self {
        Self(date.to_epoch_days())
    }

    /// `count` days later (earlier where negative).
    #[must_use]
    pub const fn plus(self, count: i32) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// First and last day of this day's month.
    pub fn month(self) -> RangeInclusive<Self> {
        let date = self.to_date();
        let first = date.with_day(1).unwrap_or(date);
        let last = first
            .checked_add_months(Months::new(1))
            .and_then(|next| next.checked_sub_days(Days::new(1)))
            .unwrap_or(date);
        Self::from_date(first)..=Self::from_date(last)
    }
}

/// `2025-11-09`.
impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_date().fmt(f)
    }
}

/// The calendar of `quota.timezone`: daylight saving included, a day is 23, 24 or 25 hours.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    zone: Tz,
}

impl Calendar {
    /// The calendar of an IANA zone.
    pub const fn new(zone: Tz) -> Self {
        Self { zone }
    }

    /// The IANA name.
    pub fn zone_name(&self) -> &'static str {
        self.zone.name()
    }

    /// The day an instant lies in.
    pub fn day_of(&self, instant: Timestamp) -> Day {
        Day::from_date(instant.to_utc().with_timezone(&self.zone).date_naive())
    }

    /// An instant on the clocks of the zone.
    pub fn local(&self, instant: Timestamp) -> NaiveDateTime {
        instant.to_utc().with_timezone(&self.zone).naive_local()
    }

    /// The first instant of `day`.
    pub fn start_of(&self, day: Day) -> Timestamp {
        self.end_of(day.plus(-1))
    }

    /// The first instant after `day`: where its window ends.
    ///
    /// Found by bisection on the local date, so that a midnight that daylight saving skips, or a whole day that a zone
    /// dropped, needs no case of its own.
    pub fn end_of(&self, day: Day) -> Timestamp {
        let utc_midnight = i64::from(day.0).saturating_add(1).saturating_mul(DAY_MS);
        let mut inside = utc_midnight.saturating_sub(DAY_MS.saturating_mul(2));
        let mut outside = utc_midnight.saturating_add(DAY_MS.saturating_mul(2));
        while outside.saturating_sub(inside) > 1 {
            let middle = inside.midpoint(outside);
            if self.day_of(Timestamp(middle)) > day {
                outside = middle;
            } else {
                inside = middle;
            }
        }
        Timestamp(outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Day {
        Day::from_date(text.parse().unwrap())
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_day_of_daylight_saving_is_23_or_25_hours() {
        let berlin = Calendar::new(chrono_tz::Europe::Berlin);
        let length = |text| (berlin.end_of(day(text)).0 - berlin.end_of(day(text).plus(-1)).0) / 3_600_000;
        assert_eq!(length("2026-03-29"), 23);
        assert_eq!(length("2026-03-30"), 24);
        assert_eq!(length("2026-10-25"), 25);
    }

    #[test]
    fn an_instant_lies_in_the_day_of_the_zone() {
        let auckland = Calendar::new(chrono_tz::Pacific::Auckland);
        assert_eq!(auckland.day_of(at("2026-06-30T12:00:00Z")), day("2026-07-01"));
        assert_eq!(auckland.day_of(at("2026-06-30T11:59:59.999Z")), day("2026-06-30"));
        assert_eq!(auckland.end_of(day("2026-06-30")), at("2026-06-30T12:00:00Z"));
        assert_eq!(auckland.start_of(day("2026-07-01")), at("2026-06-30T12:00:00Z"));
        assert_eq!(auckland.local(at("2026-06-30T12:00:00Z")).to_string(), "2026-07-01 00:00:00");
    }

    #[test]
    fn a_day_that_a_zone_dropped_ends_where_it_would_have_begun() {
        let apia = Calendar::new(chrono_tz::Pacific::Apia);
        assert_eq!(apia.end_of(day("2011-12-29")), apia.end_of(day("2011-12-30")));
    }

    #[test]
    fn a_month_knows_its_first_and_last_day() {
        assert_eq!(day("2028-02-11").month(), day("2028-02-01")..=day("2028-02-29"));
        assert_eq!(day("2026-12-31").month(), day("2026-12-01")..=day("2026-12-31"));
    }
}
