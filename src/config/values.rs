//! Typed reading of the merged table. Every fault is kept, none stops the reading.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::{Table, Value};

use crate::domain::Fault;

/// A section of the table and the faults found so far.
pub(super) struct Values<'t> {
    pub(super) table: &'t Table,
    pub(super) section: &'t str,
    pub(super) faults: &'t RefCell<Vec<Fault>>,
}

impl Values<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.table.get(self.section).and_then(|section| section.get(key))
    }

    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        self.faults.borrow_mut().push(Fault::new(format!("{}.{key}", self.section), message));
    }

    pub(super) fn text(&self, key: &str) -> String {
        let Some(Value::String(text)) = self.get(key) else {
            self.fault(key, "must be a text");
            return String::new();
        };
        text.clone()
    }

    /// One of the names that `parse` knows.
    pub(super) fn name<T>(&self, key: &str, known: &[(&str, T)]) -> Option<T>
    where
        T: Copy,
    {
        let text = self.text(key);
        let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            self.fault(key, format!("must be one of {}", names.join(", ")));
        }
        found
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        let Some(Value::Boolean(flag)) = self.get(key) else {
            self.fault(key, "must be true or false");
            return false;
        };
        *flag
    }

    /// A whole number within bounds, as the type that is wanted.
    pub(super) fn integer<T>(&self, key: &str, bounds: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + Copy + Display,
    {
        if let Some(Value::Integer(number)) = self.get(key)
            && let Ok(number) = T::try_from(*number)
            && bounds.contains(&number)
        {
            return number;
        }
        self.fault(key, format!("must be a whole number from {} to {}", bounds.start(), bounds.end()));
        *bounds.start()
    }

    /// A time in milliseconds; none where it is empty.
    pub(super) fn time_or_never(&self, key: &str) -> Option<i64> {
        let seconds = match self.get(key) {
            Some(Value::Integer(seconds)) => Some(*seconds).filter(|seconds| *seconds >= 0),
            Some(Value::String(text)) if text.trim().is_empty() => return None,
            Some(Value::String(text)) => parse_seconds(text),
            _ => None,
        };
        match seconds.and_then(|seconds| seconds.checked_mul(1_000)) {
            Some(0) => None,
            Some(milliseconds) => Some(milliseconds),
            None => {
                self.fault(key, "must be a time such as 90, \"90s\", \"15m\", \"24h\" or \"7d\"");
                None
            }
        }
    }

    /// A time in milliseconds that must be there.
    pub(super) fn time(&self, key: &str) -> i64 {
        let faults = self.faults.borrow().len();
        let time = self.time_or_never(key);
        if time.is_none() && self.faults.borrow().len() == faults {
            self.fault(key, "must be a time above 0");
        }
        time.unwrap_or(1)
    }

    /// A list of texts that each parse.
    pub(super) fn list<T: FromStr>(&self, key: &str, what: &str) -> Vec<T> {
        let Some(Value::Array(items)) = self.get(key) else {
            self.fault(key, "must be a list");
            return Vec::new();
        };
        let parsed: Vec<Option<T>> =
            items.iter().map(|item| item.as_str().and_then(|text| text.trim().parse().ok())).collect();
        if parsed.iter().any(Option::is_none) {
            self.fault(key, format!("each must be {what}"));
        }
        parsed.into_iter().flatten().collect()
    }

    /// A text that parses, or none where it is empty.
    pub(super) fn parsed<T: FromStr>(&self, key: &str, what: &str) -> Option<T> {
        let text = self.text(key);
        if text.trim().is_empty() {
            return None;
        }
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            self.fault(key, format!("must be {what}"));
        }
        parsed
    }

    /// As [`Values::parsed`], for what may not be left empty.
    pub(super) fn required<T: FromStr>(&self, key: &str, what: &str) -> Option<T> {
        if self.text(key).trim().is_empty() {
            self.fault(key, format!("must be {what}"));
        }
        self.parsed(key, what)
    }
}

/// `90s`, `15m`, `24h`, `7d`, or a bare number of seconds.
fn parse_seconds(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    digits.trim_end().parse::<i64>().ok().filter(|number| *number >= 0)?.checked_mul(factor)
}
