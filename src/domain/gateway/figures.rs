//! How an upstream does: how often it was asked, what failed, how long it took.

/// Why an attempt at an upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It had as many calls as it takes, so it was not asked.
    Busy,
    /// No connection, or one that broke before the answer began.
    Unreachable,
    /// It was silent for too long.
    Timeout,
    /// It answered 429.
    RateLimited,
    /// It answered 5xx, or did not take the key.
    Failed,
    /// Its answer ended before its end, or passed what is taken.
    Broken,
}

impl FaultKind {
    /// Every kind, in the order in which [`Figures::faults`] counts them.
    pub const ALL: [Self; 6] =
        [Self::Busy, Self::Unreachable, Self::Timeout, Self::RateLimited, Self::Failed, Self::Broken];

    /// As answers name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::RateLimited => "rateLimited",
            Self::Failed => "failed",
            Self::Broken => "broken",
        }
    }

    /// As people read it, behind a number.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timed out",
            Self::RateLimited => "rate limited",
            Self::Failed => "failed",
            Self::Broken => "broke off",
        }
    }
}

/// What came of attempts at an upstream. An attempt after which the next upstream was asked is one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Attempts.
    pub calls: i64,
    /// Those that failed, by kind.
    pub faults: [i64; FaultKind::ALL.len()],
    /// How long answers took that came to their end, in milliseconds.
    pub durations: Histogram,
    /// How long it was until a stream said something, in milliseconds.
    pub first_tokens: Histogram,
}

impl Figures {
    /// Counts an attempt that failed for this reason, or did not.
    pub fn count(&mut self, fault: Option<FaultKind>) {
        self.calls = self.calls.saturating_add(1);
        for (count, _) in self.faults.iter_mut().zip(FaultKind::ALL).filter(|(_, kind)| Some(*kind) == fault) {
            *count = count.saturating_add(1);
        }
    }

    /// Adds other attempts.
    pub fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        for (count, more) in self.faults.iter_mut().zip(other.faults) {
            *count = count.saturating_add(more);
        }
        self.durations.add(&other.durations);
        self.first_tokens.add(&other.first_tokens);
    }

    /// Attempts that failed.
    pub fn errors(&self) -> i64 {
        self.faults.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Buckets to each doubling: a bucket is at most an eighth wider than where it begins.
const STEPS: u64 = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// What is longer counts as this, in milliseconds: 70 minutes.
const LONGEST_MS: u64 = (1 << 22) - 1;

/// How often which time was taken, in buckets that grow with the time: exact below 16 ms, and from there on within a sixteenth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Counts by bucket, without the empty ones at the end.
    buckets: Vec<u32>,
}

impl Histogram {
    /// Counts a time.
    pub fn record(&mut self, millis: u64) {
        self.raise(bucket_of(millis), 1);
    }

    fn raise(&mut self, bucket: usize, by: u32) {
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket.saturating_add(1), 0);
        }
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count = count.saturating_add(by);
        }
    }

    /// Adds other times.
    pub fn add(&mut self, other: &Self) {
        for (bucket, count) in other.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.raise(bucket, *count);
        }
    }

    /// The time that `percent` of all do not pass, in milliseconds; none where there are none.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let all = self.buckets.iter().fold(0_u64, |sum, count| sum.saturating_add(u64::from(*count)));
        let rank = all.saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0_u64;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(u64::from(*count));
            if seen >= rank {
                return Some(middle_of(bucket));
            }
        }
        None
    }

    /// As it is stored: the counts, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.buckets.iter().flat_map(|count| count.to_le_bytes()).collect()
    }

    /// From what is stored.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let counts =
            bytes.chunks_exact(4).map(|count| count.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        Self { buckets: counts.take(bucket_of(LONGEST_MS).saturating_add(1)).collect() }
    }
}

fn bucket_of(millis: u64) -> usize {
    let millis = millis.min(LONGEST_MS);
    let doublings = millis.checked_ilog2().unwrap_or(0).saturating_sub(STEP_BITS);
    // The bits below the leading one say which of the steps it is; below `STEPS` each number is a bucket of its own.
    let step = (millis >> doublings).saturating_add(STEPS.saturating_mul(u64::from(doublings)));
    usize::try_from(step).unwrap_or(usize::MAX)
}

/// The time in the middle of a bucket.
fn middle_of(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    let doublings = (bucket >> STEP_BITS).saturating_sub(1);
    let begin = bucket.saturating_sub(STEPS.saturating_mul(doublings)) << doublings.min(u64::from(u64::BITS / 2));
    begin.saturating_add((1_u64 << doublings.min(u64::from(u64::BITS / 2))) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_near_every_time_in_it() {
        let mut last = 0;
        for millis in (0..5_000).chain([65_536, 120_000, 3_600_000, LONGEST_MS, LONGEST_MS + 1, u64::MAX]) {
            let bucket = bucket_of(millis);
            assert!(bucket >= last, "{millis}");
            last = bucket;
            let (told, true_time) = (middle_of(bucket), millis.min(LONGEST_MS));
            assert!(told.abs_diff(true_time) <= true_time / 16, "{millis} ms is told as {told}");
        }
        assert_eq!(bucket_of(u64::MAX), 159, "so many buckets at most");
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut times = Histogram::default();
        assert_eq!(times.percentile(50), None);
        for millis in 1..=100 {
            times.record(millis * 10);
        }
        for (percent, millis) in [(0, 10), (1, 10), (50, 500), (99, 990), (100, 1_000)] {
            let told = times.percentile(percent).unwrap();
            assert!(told.abs_diff(millis) <= millis / 16, "{percent}: {told}");
        }
        let mut other = Histogram::default();
        other.record(60_000);
        other.add(&times);
        assert_eq!(Histogram::from_bytes(&other.to_bytes()), other);
        assert!(other.percentile(100).unwrap() > 55_000);
        assert_eq!(Histogram::from_bytes(&[1, 2, 3]), Histogram::default());
    }

    #[test]
    fn figures_add_up() {
        let mut figures = Figures::default();
        for kind in FaultKind::ALL {
            figures.count(Some(kind));
        }
        figures.count(None);
        let mut both = figures.clone();
        both.add(&figures);
        assert_eq!((both.calls, both.errors(), both.faults), (14, 12, [2; 6]));
    }
}
