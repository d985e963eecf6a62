//! Backups that are made by themselves: one every so often, the newest of them kept.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::config;
use crate::domain::unit::Timestamp;
use crate::domain::{Error, Result};
use crate::store::backup::{back_up_by_way_of, remove};

/// How often it looks whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a failure waits for the next try, in milliseconds.
const TRY_AGAIN_MS: i64 = 60_000;
/// What the names of backups begin and end with; between them is when they were made.
const PREFIX: &str = "tallybox-";
const SUFFIX: &str = ".db";
/// The time in a name, in UTC.
const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// Lets everybody else go first from now on, on this thread and those that it starts: a copy that is proven keeps a processor
/// busy for long, and those who are served have few.
pub fn give_way() {
    // Elsewhere it is the whole process that would give way.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::info!(%error, "a backup or check keeps its priority");
    }
}

/// The schedule.
pub struct Backups {
    data: PathBuf,
    into: PathBuf,
    every_ms: i64,
    keep: usize,
    clock: Clock,
}

/// What came of a look at the schedule.
enum Made {
    /// None was due: the newest is of then.
    Before(Timestamp),
    /// It is there.
    Now(PathBuf),
}

impl Backups {
    /// As the configuration says; none where it asks for none.
    pub fn new(config: &config::Backup, data_directory: &std::path::Path, clock: Clock) -> Option<Self> {
        let into = config.directory.clone().unwrap_or_else(|| data_directory.join("backups"));
        let (every_ms, keep) = (config.every_ms?, config.keep);
        Some(Self { data: data_directory.to_owned(), into, every_ms, keep, clock })
    }

    /// Makes backups until `stop` is true. One that is under way then is given up: it has no name yet.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let (mut tried, mut newest) = (None, None);
        loop {
            if tokio::time::timeout(LOOK_EVERY, stop.wait_for(|stop| *stop)).await.is_ok() {
                return;
            }
            let now = self.clock.now();
            let waits = tried.is_some_and(|at: Timestamp| now < at.plus_millis(TRY_AGAIN_MS.min(self.every_ms)));
            if waits || newest.is_some_and(|at: Timestamp| at <= now && now < at.plus_millis(self.every_ms)) {
                continue;
            }
            let made = self.make_on_a_thread(now);
            tokio::select! {
                made = made => match made {
                    Ok(Made::Before(at)) => newest = Some(at),
                    Ok(Made::Now(path)) => {
                        (tried, newest) = (Some(now), Some(now));
                        tracing::info!("backup written: {}", path.display());
                    }
                    Err(error) => {
                        tried = Some(now);
                        tracing::error!(%error, "the backup failed; it is tried again");
                    }
                },
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Makes one unless the newest is younger than the schedule asks. One from the future counts for nothing.
    fn make_if_due(&self, now: Timestamp) -> Result<Made> {
        let newest = self.made().into_iter().map(|(at, _)| at).filter(|at| *at <= now).max();
        match newest.filter(|newest| now < newest.plus_millis(self.every_ms)) {
            Some(newest) => Ok(Made::Before(newest)),
            None => self.make(now).map(Made::Now),
        }
    }

    /// On a thread of its own, that neither the end of the program nor any request waits for: the directory may be on a
    /// server that does not answer.
    async fn make_on_a_thread(&self, now: Timestamp) -> Result<Made> {
        let (reply, made) = oneshot::channel();
        let job = Self {
            data: self.data.clone(),
            into: self.into.clone(),
            clock: self.clock.clone(),
            every_ms: self.every_ms,
            keep: self.keep,
        };
        let started = std::thread::Builder::new().name("backup".to_owned()).spawn(move || {
            give_way();
            // Where nobody waits any more, nobody wants it.
            let _ = reply.send(job.make_if_due(now));
        });
        started.map_err(|error| Error::Unavailable(format!("no thread for a backup: {error}")))?;
        made.await.unwrap_or_else(|_| Err(Error::Internal("a backup panicked".to_owned())))
    }

    /// Makes one now, and then takes away those that are more than are kept.
    ///
    /// # Errors
    /// `Unavailable` where files cannot be read or written.
    pub fn make(&self, now: Timestamp) -> Result<PathBuf> {
        let unusable = |error| Error::Unavailable(format!("{} cannot be used: {error}", self.into.display()));
        fs::create_dir_all(&self.into).map_err(unusable)?;
        let path = self.into.join(format!("{PREFIX}{}{SUFFIX}", now.to_utc().format(STAMP)));
        back_up_by_way_of(self.unfinished()?, &self.data, &self.clock, &path)?;
        let mut made = self.made();
        made.retain(|(_, other)| *other != path);
        // One from the future tells nothing of today: the clock was wrong.
        made.sort_unstable_by_key(|(at, _)| (*at <= now, *at));
        let surplus = made.len().saturating_sub(self.keep.saturating_sub(1));
        for (_, old) in made.into_iter().take(surplus) {
            if let Err(error) = remove(&old) {
                tracing::warn!(%error, "an old backup stays: {}", old.display());
            }
        }
        Ok(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.into).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The backups that are there, by when they were made. Files of other names are not ours.
    fn made(&self) -> Vec<(Timestamp, PathBuf)> {
        let of = |name: String| {
            let stamp = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
            let at = chrono::NaiveDateTime::parse_from_str(stamp, STAMP).ok()?.and_utc();
            // What does not come out as it went in is another's.
            (at.format(STAMP).to_string() == stamp).then(|| (Timestamp(at.timestamp_millis()), self.into.join(&name)))
        };
        self.names().into_iter().filter_map(of).collect()
    }

    /// The name of what is not done yet. It is that of this data directory, which one server has at a time: so the copy that a
    /// killed one had begun makes room for the next, and no other process's copy is ever taken away.
    fn unfinished(&self) -> Result<PathBuf> {
        let data = fs::metadata(&self.data);
        let data = data.map_err(|error| Error::Unavailable(format!("{}: {error}", self.data.display())))?;
        Ok(self.into.join(format!("tallybox-unfinished-{:x}-{:x}.partial", data.dev(), data.ino())))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    #[test]
    fn who_gives_way_does_so_alone() {
        let before = getpriority_process(None);
        let given_way = std::thread::spawn(|| {
            super::give_way();
            getpriority_process(None)
        });
        assert_eq!(given_way.join().unwrap(), Ok(19));
        assert_eq!(getpriority_process(None), before);
    }
}
