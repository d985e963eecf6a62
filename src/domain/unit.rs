//! Ids, instants and amounts, and how people read them.

use std::fmt;

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use uuid::Uuid;

/// The largest amount a single entry may carry: 2^53 - 1, exact in every JSON client.
pub const AMOUNT_MAX: i64 = (1 << 53) - 1;

/// An hour, in milliseconds.
pub const HOUR_MS: i64 = 3_600_000;

/// A day of 24 hours, in milliseconds.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// `milliseconds` later (earlier where negative), saturating at the ends of time.
    #[must_use]
    pub const fn plus_millis(self, milliseconds: i64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// `seconds` later (earlier where negative).
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        self.plus_millis(seconds.saturating_mul(1_000))
    }

    /// When its hour (of UTC) began.
    #[must_use]
    pub const fn start_of_hour(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(HOUR_MS)))
    }

    /// Whole seconds from `self` until `later`, rounded up, at least 0.
    pub fn seconds_until(self, later: Self) -> u64 {
        let milliseconds = later.0.saturating_sub(self.0).max(0);
        milliseconds.unsigned_abs().div_ceil(1_000)
    }

    /// As a calendar instant, clamped to what chrono can express.
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }

    /// Parses RFC 3339, any offset. In UTC too it lies in the years 0 to 9999, so that it can be written again.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        // Chrono takes the minus sign of typographers, and a second 60 in every minute, as a fraction of more than one.
        let instant = DateTime::parse_from_rfc3339(text).ok().filter(|_| text.is_ascii())?.to_utc();
        let may_be_leap = (instant.hour(), instant.minute()) == (23, 59)
            && matches!((instant.month(), instant.day()), (6, 30) | (12, 31));
        let is_time = instant.nanosecond() < 1_000_000_000 || may_be_leap;
        (is_time && (0..=9_999).contains(&instant.year())).then(|| Self(instant.timestamp_millis()))
    }
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_utc().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Parses any textual form of a UUID.
            pub fn parse(text: &str) -> Option<Self> {
                Uuid::try_parse(text).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

uuid_id!(
    /// A user.
    UserId
);
uuid_id!(
    /// A ledger entry.
    EntryId
);
uuid_id!(
    /// A reservation.
    ReservationId
);
uuid_id!(
    /// A memory.
    MemoryId
);
uuid_id!(
    /// An API token (its name in lists, not its secret).
    TokenId
);
uuid_id!(
    /// An agent run.
    RunId
);

/// `1234567` as `1,234,567`.
pub fn thousands(amount: i64) -> String {
    let digits = amount.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len().saturating_mul(4).saturating_div(3).saturating_add(1));
    if amount < 0 {
        text.push('-');
    }
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && digits.len().saturating_sub(position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in 1024-based units: `512 B`, `6.59 KB`, `500.00 MB`, `1.00 GB`; two decimals, half up.
pub fn human_bytes(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["KB", "MB", "GB", "TB", "PB"];
    let magnitude = u128::from(bytes.unsigned_abs());
    let sign = if bytes < 0 { "-" } else { "" };
    if magnitude < 1024 {
        return format!("{sign}{magnitude} B");
    }
    let mut unit = 0_usize;
    let mut size = 1024_u128;
    while unit < UNITS.len().saturating_sub(1) && magnitude >= size.saturating_mul(1024) {
        unit = unit.saturating_add(1);
        size = size.saturating_mul(1024);
    }
    let hundredths = hundredths_half_up(magnitude, size);
    format!("{sign}{}.{:02} {}", hundredths.saturating_div(100), hundredths % 100, UNITS.get(unit).unwrap_or(&"PB"))
}

/// `numerator / denominator` in hundredths, rounded half up. A zero denominator gives 0.
pub fn hundredths_half_up(numerator: u128, denominator: u128) -> u128 {
    numerator.saturating_mul(200).saturating_add(denominator).checked_div(denominator.saturating_mul(2)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_people_write_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1023, "1023 B"),
            (1024, "1.00 KB"),
            (6750, "6.59 KB"),
            (262_144, "256.00 KB"),
            (524_288_000, "500.00 MB"),
            (1 << 30, "1.00 GB"),
            (10 << 30, "10.00 GB"),
            (-2048, "-2.00 KB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn thousands_are_grouped() {
        for (amount, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (45_000, "45,000"), (-1_234_567, "-1,234,567")]
        {
            assert_eq!(thousands(amount), text);
        }
    }

    #[test]
    fn an_instant_that_is_taken_can_be_written_again() {
        for text in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "2025-11-09T21:00:00+01:00"] {
            let instant = Timestamp::parse_rfc3339(text).unwrap();
            assert_eq!(Timestamp::parse_rfc3339(&instant.to_string()), Some(instant), "{text}");
        }
        for text in ["0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-00:01"] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn a_second_60_is_one_only_where_leap_seconds_are() {
        let new_year = Timestamp::parse_rfc3339("2017-01-01T00:00:00Z");
        for text in ["2016-12-31T23:59:60Z", "2016-12-31T15:59:60-08:00"] {
            assert_eq!(Timestamp::parse_rfc3339(text), new_year, "{text}");
        }
        for text in
            ["2016-12-31T23:58:60Z", "2016-12-31T23:59:60+01:00", "2025-03-10T12:00:60Z", "2025-03-31T23:59:60Z"]
        {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
        assert_eq!(Timestamp::parse_rfc3339("2025-03-10T12:00:00\u{2212}01:00"), None);
    }

    #[test]
    fn seconds_until_rounds_up_and_never_goes_below_zero() {
        assert_eq!(Timestamp(0).seconds_until(Timestamp(1)), 1);
        assert_eq!(Timestamp(0).seconds_until(Timestamp(2_000)), 2);
        assert_eq!(Timestamp(5).seconds_until(Timestamp(0)), 0);
    }
}
