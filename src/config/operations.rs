//! What an operator sets up around the box: backups, metrics, logs.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::values::Values;

/// The fewest days for which entries are kept.
const BACKDATE_DAYS_MAX: i32 = 35;

/// Who may read the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Metrics {
    /// What is asked of them.
    pub access: MetricsAccess,
    /// A listener of their own, open to whoever reaches it; they are then nowhere else.
    pub listen: Option<SocketAddr>,
}

/// What is asked of whoever wants the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Nobody gets them.
    Off,
    /// Nothing.
    Open,
    /// A token with the scope `metrics`.
    Token,
}

/// Backups that are made by themselves.
#[derive(Clone, Debug)]
pub struct Backup {
    /// How often, in milliseconds; none: never.
    pub every_ms: Option<i64>,
    /// How many are kept, at least 1.
    pub keep: usize,
    /// Where they go; none: beside the database.
    pub directory: Option<PathBuf>,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// One JSON object a line.
    pub json: bool,
    /// Filter.
    pub level: String,
}

pub(super) fn metrics(values: &Values<'_>) -> Metrics {
    let known = [("off", MetricsAccess::Off), ("open", MetricsAccess::Open), ("token", MetricsAccess::Token)];
    let access = values.name("access", &known).unwrap_or(MetricsAccess::Token);
    let listen = values.parsed("listen", "an address and port").filter(|_| access != MetricsAccess::Off);
    Metrics { access, listen }
}

/// Days after which days are closed; none: never.
pub(super) fn ledger_keep_days(values: &Values<'_>) -> Option<i32> {
    let days = values.integer("keep_days", 0..=36_500_i32);
    if (1..BACKDATE_DAYS_MAX).contains(&days) {
        // What is recorded for a day may arrive until then.
        values.fault("keep_days", "must be 0 or at least 35");
    }
    Some(days).filter(|days| *days > 0)
}

pub(super) fn backup(values: &Values<'_>) -> Backup {
    Backup {
        every_ms: values.time_or_never("every"),
        keep: values.integer("keep", 1..=10_000),
        directory: Some(values.text("directory")).filter(|path| !path.is_empty()).map(PathBuf::from),
    }
}

pub(super) fn log(values: &Values<'_>) -> Log {
    let json = values.name("format", &[("text", false), ("json", true)]).unwrap_or(false);
    let level = values.text("level");
    if let Err(why) = tracing_subscriber::EnvFilter::try_new(&level) {
        values.fault("level", format!("must be a level or a filter such as tallybox=debug: {why}"));
    }
    Log { json, level }
}
