//! Days and months of any zone: every instant lies in exactly one of each.

use chrono::{Datelike, NaiveTime, Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use proptest::prelude::*;
use tallybox::domain::calendar::{Calendar, Day};
use tallybox::domain::unit::Timestamp;

const HOUR_MS: i64 = 3_600_000;
/// 2012-01-01T00:00:00Z and 2100-01-01T00:00:00Z. Before, a few clocks were turned back from a minute past midnight, so that a
/// date began, ended and began again.
const YEARS: std::ops::Range<i64> = 1_325_376_000_000..4_102_444_800_000;

fn any_zone() -> impl Strategy<Value = Tz> {
    proptest::sample::select(&TZ_VARIANTS[..])
}

/// An instant anywhere, or within an hour of midnight somewhere.
fn any_instant() -> impl Strategy<Value = Timestamp> {
    let near = (YEARS.start / HOUR_MS..YEARS.end / HOUR_MS, -2_i64..3).prop_map(|(hour, off)| hour * HOUR_MS + off);
    prop_oneof![YEARS.prop_map(Timestamp), near.prop_map(Timestamp)]
}

fn offset_ms(zone: Tz, at: Timestamp) -> i64 {
    i64::from(zone.offset_from_utc_datetime(&at.to_utc().naive_utc()).fix().local_minus_utc()) * 1_000
}

/// How much of its day the clock of the zone skips before `at`, which is the first instant of a day there.
fn skipped_ms(calendar: Calendar, at: Timestamp) -> i64 {
    calendar.local(at).time().signed_duration_since(NaiveTime::MIN).num_milliseconds()
}

fn lies_in_one_day(zone: Tz, at: Timestamp) -> Result<(), TestCaseError> {
    let calendar = Calendar::new(zone);
    let day = calendar.day_of(at);
    let holds = |day: Day| calendar.start_of(day) <= at && at < calendar.end_of(day);
    prop_assert!(holds(day), "{zone} {at}: {day} is {} to {}", calendar.start_of(day), calendar.end_of(day));
    for other in [day.plus(-2), day.plus(-1), day.plus(1), day.plus(2)] {
        prop_assert!(!holds(other), "{zone} {at} lies in {day} and in {other}");
    }
    prop_assert_eq!(calendar.end_of(day), calendar.start_of(day.plus(1)));
    // The length is what the zone has: 24 hours and what its clock was turned by.
    let (start, end) = (calendar.start_of(day), calendar.end_of(day));
    let turned = offset_ms(zone, end) - offset_ms(zone, start);
    let expected = 24 * HOUR_MS - turned - skipped_ms(calendar, start) + skipped_ms(calendar, end);
    prop_assert_eq!(end.0 - start.0, expected, "{} {}", zone, day);
    prop_assert!((20 * HOUR_MS..=28 * HOUR_MS).contains(&(end.0 - start.0)), "{} {}", zone, day);
    let usual = turned.abs() <= HOUR_MS;
    prop_assert!(!usual || (23 * HOUR_MS..=25 * HOUR_MS).contains(&(end.0 - start.0)), "{} {}", zone, day);
    Ok(())
}

fn lies_in_one_month(zone: Tz, at: Timestamp) -> Result<(), TestCaseError> {
    let calendar = Calendar::new(zone);
    let day = calendar.day_of(at);
    let month = day.month();
    prop_assert!(month.contains(&day));
    prop_assert_eq!(month.start().to_date().day(), 1);
    prop_assert_eq!(month.end().plus(1).to_date().day(), 1);
    prop_assert!((28..=31).contains(&(month.end().0 - month.start().0 + 1)));
    for other in [month.start().plus(-1), month.end().plus(1)] {
        prop_assert!(!other.month().contains(&day));
    }
    let (start, end) = (calendar.start_of(*month.start()), calendar.end_of(*month.end()));
    prop_assert!(start <= at && at < end);
    prop_assert_eq!(calendar.end_of(*month.end()), calendar.start_of(month.end().plus(1)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn every_instant_lies_in_exactly_one_day_and_month(zone in any_zone(), at in any_instant()) {
        lies_in_one_day(zone, at)?;
        lies_in_one_month(zone, at)?;
    }
}

/// Days that a clock made longer or shorter, or began late, found by looking at each zone's nights; and the ends of dates.
#[test]
fn the_days_of_the_corpus_are_whole() {
    for (name, text) in super::corpus_texts("windows") {
        for line in text.lines() {
            let (zone, at) = line.split_once(' ').unwrap();
            let (zone, at): (Tz, _) = (zone.parse().unwrap(), Timestamp::parse_rfc3339(at).unwrap());
            for off in [-24 * HOUR_MS, -HOUR_MS, -1, 0, 1, HOUR_MS, 24 * HOUR_MS] {
                let held = lies_in_one_day(zone, at.plus_millis(off));
                let held = held.and_then(|()| lies_in_one_month(zone, at.plus_millis(off)));
                held.unwrap_or_else(|error| unreachable!("{name}: {line}: {error}"));
            }
        }
    }
}
