//! What the store tells of itself to whoever watches it.

use prometheus::core::Collector;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Opts};

use crate::domain::Result;
use crate::domain::ledger::ResourceType;
use crate::meter::{histogram, unusable};

/// From a tenth of a millisecond to 3 s.
const TIMES: [f64; 10] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Jobs of a commit.
const JOBS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The instruments of the writer.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    /// Writes that wait.
    pub(super) queue_depth: IntGauge,
    /// How long they waited, in seconds.
    pub(super) queue_wait: Histogram,
    /// Writes of a commit.
    pub(super) commit_jobs: Histogram,
    /// From BEGIN to the answers, in seconds: the sync of COMMIT, publishing to the index and, after an erasure,
    /// emptying the log included.
    pub(super) commit_time: Histogram,
    /// Commits of which nothing was kept.
    pub(super) commits_lost: IntCounter,
    /// Ledger entries committed since the start, by resource.
    entries: IntCounterVec,
}

impl Meters {
    pub(super) fn new() -> Result<Self> {
        let entries = Opts::new("tallybox_ledger_entries_total", "Ledger entries committed since the start.");
        let entries = IntCounterVec::new(entries, &["resource"]).map_err(unusable)?;
        for resource in ResourceType::ALL {
            // Shown at 0 from the start.
            let _ = entries.with_label_values(&[resource.as_str()]);
        }
        Ok(Self {
            queue_depth: IntGauge::new("tallybox_write_queue_depth", "Writes that wait for the writer.")
                .map_err(unusable)?,
            queue_wait: histogram(
                "tallybox_write_queue_wait_seconds",
                "How long a write waited for its commit to begin.",
                &TIMES,
            )?,
            commit_jobs: histogram("tallybox_commit_writes", "Writes that shared a commit.", &JOBS)?,
            commit_time: histogram("tallybox_commit_seconds", "How long a commit took, its sync included.", &TIMES)?,
            commits_lost: IntCounter::new("tallybox_commits_failed_total", "Commits of which nothing was kept.")
                .map_err(unusable)?,
            entries,
        })
    }

    /// Counts the entries of a commit.
    pub(super) fn count(&self, entries: &Entries) {
        for (resource, count) in ResourceType::ALL.into_iter().zip(entries.0) {
            self.entries.with_label_values(&[resource.as_str()]).inc_by(count);
        }
    }

    /// Every instrument.
    pub(crate) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.queue_depth.clone()),
            Box::new(self.queue_wait.clone()),
            Box::new(self.commit_jobs.clone()),
            Box::new(self.commit_time.clone()),
            Box::new(self.commits_lost.clone()),
            Box::new(self.entries.clone()),
        ]
    }
}

/// Entries written and not yet committed, in the order of `ResourceType::ALL`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entries([u64; 3]);

impl Entries {
    pub(super) fn add(&mut self, resource: ResourceType) {
        let place = ResourceType::ALL.iter().position(|known| *known == resource).unwrap_or_default();
        if let Some(count) = self.0.get_mut(place) {
            *count += 1;
        }
    }
}
