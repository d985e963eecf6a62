//! The one thread that writes.
//!
//! It takes all waiting jobs (up to a cap) into one `BEGIN IMMEDIATE`, with a savepoint for each where there are
//! several, and replies only after COMMIT (but for `submit_ahead`, whose caller waits for the commit separately): with
//! `synchronous=FULL` a commit costs the same for one job or for hundreds. A job that fails or panics is rolled back to
//! its savepoint, and its neighbours commit.

mod job;
mod log;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::effects::Effects;
use super::meters::Meters;
use super::recall::{Publication, Recall};
use super::{Reader, StoreOptions, Writer, fault, memory};
use crate::clock::Clock;
use crate::domain::{Error, Result};
use crate::lock::lock;
pub use job::Commit;
use job::{Fate, Job, text_of};
use log::Log;

/// How long words are written job by job after a group was lost, so that a damaged full-text index costs no further
/// group.
const WORDS_SUSPECT: Duration = Duration::from_mins(10);

/// What a caller is told where the fault is ours.
const NOT_COMMITTED: &str = "the write could not be committed";

/// The thread and the queue to it.
pub(super) struct Handle {
    queue: Mutex<Option<SyncSender<Box<dyn Job>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    meters: Meters,
}

impl Handle {
    /// Puts `work` into the queue.
    pub(super) fn submit<T, F>(&self, work: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        let (job, answer) = job::task(work);
        self.queue(job)?;
        Ok(answer)
    }

    /// As [`Handle::submit`], for a caller that goes on before the commit.
    pub(super) fn submit_ahead<T, F>(&self, work: F) -> Result<(oneshot::Receiver<Result<T>>, Commit)>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        let (job, answer, commit) = job::ahead(work);
        self.queue(job)?;
        Ok((answer, commit))
    }

    fn queue(&self, job: Box<dyn Job>) -> Result<()> {
        let queue = lock(&self.queue);
        let Some(sender) = queue.as_ref() else { return Err(Error::Unavailable("the store is closed".to_owned())) };
        match sender.try_send(job) {
            Ok(()) => {
                self.meters.queue_depth.inc();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(Error::Busy("the write queue")),
            Err(TrySendError::Disconnected(_)) => Err(Error::Unavailable("the writer has stopped".to_owned())),
        }
    }

    /// Lets the thread finish what waits and end.
    pub(super) fn close(&self) {
        drop(lock(&self.queue).take());
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // The thread's own panics are caught job by job; one outside a job has been printed by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the writer tells those who read.
pub(super) struct Shared {
    /// Counts the commits that changed who may do what.
    pub(super) auth_version: Arc<AtomicU64>,
    /// The index of memories.
    pub(super) recall: Arc<Recall>,
    /// What is measured.
    pub(super) meters: Meters,
}

/// Starts the thread on `connection`.
pub(super) fn start(connection: Connection, clock: Clock, shared: Shared, options: &StoreOptions) -> Result<Handle> {
    let (sender, receiver) = sync_channel(options.write_queue);
    let log = Log::of(&connection, options.checkpoint_pages);
    let mut thread = Thread {
        connection,
        clock,
        auth_version: shared.auth_version,
        recall: shared.recall,
        data_version: 0,
        jobs_max: options.commit_jobs_max,
        log,
        words_suspect_until: None,
        meters: shared.meters.clone(),
    };
    let handle = std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || thread.serve(&receiver))
        .map_err(|error| Error::Unavailable(format!("the writer cannot be started: {error}")))?;
    Ok(Handle { queue: Mutex::new(Some(sender)), thread: Mutex::new(Some(handle)), meters: shared.meters })
}

struct Thread {
    connection: Connection,
    clock: Clock,
    auth_version: Arc<AtomicU64>,
    recall: Arc<Recall>,
    data_version: i64,
    jobs_max: usize,
    log: Log,
    /// Until when the full-text index is suspected of having cost a group.
    words_suspect_until: Option<Instant>,
    meters: Meters,
}

impl Thread {
    fn serve(&mut self, queue: &Receiver<Box<dyn Job>>) {
        let mut jobs = Vec::with_capacity(self.jobs_max);
        while let Ok(first) = queue.recv() {
            jobs.push(first);
            while jobs.len() < self.jobs_max {
                let Ok(next) = queue.try_recv() else { break };
                jobs.push(next);
            }
            let begun = self.count_waiting(&jobs);
            let fate = self.commit(&mut jobs).map_or_else(|error| fate_of(&error), |()| Fate::Committed);
            self.meters.commit_time.observe(begun.elapsed().as_secs_f64());
            if !matches!(fate, Fate::Committed) {
                self.meters.commits_lost.inc();
            }
            for job in jobs.drain(..) {
                job.answer(&fate);
            }
            self.log.keep(&reader_of(&self.connection, &self.clock));
        }
        if let Err(error) = super::connection::optimize(&self.connection) {
            tracing::warn!(?error, "optimize at the end failed");
        }
    }

    fn count_waiting(&self, jobs: &[Box<dyn Job>]) -> Instant {
        let begun = Instant::now();
        for job in jobs {
            self.meters.queue_depth.dec();
            self.meters.queue_wait.observe(begun.saturating_duration_since(job.queued_at()).as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
        self.meters.commit_jobs.observe(jobs.len() as f64);
        begun
    }

    /// One transaction for all of them. An error means that nothing of it was kept.
    fn commit(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<()> {
        // A fault of the disk may have kept the last one from being rolled back.
        if !self.connection.is_autocommit() {
            self.run_statement("ROLLBACK")?;
        }
        self.run_statement("BEGIN IMMEDIATE")?;
        let run = catch_unwind(AssertUnwindSafe(|| self.run_all(jobs)));
        let run = run.unwrap_or_else(|panic| Err(Error::Internal(format!("a commit panicked: {}", text_of(&*panic)))));
        let result = run.and_then(|done| {
            let Some((effects, publications)) = done else { return self.run_statement("ROLLBACK").map(|()| None) };
            self.recall.announce(&publications);
            self.run_statement("COMMIT").map(|()| Some((effects, publications)))
        });
        match result {
            Ok(None) => Ok(()),
            Ok(Some((effects, publications))) => {
                self.publish(publications);
                if effects.auth {
                    self.auth_version.fetch_add(1, Ordering::AcqRel);
                }
                self.meters.count(&effects.entries);
                if effects.erased {
                    self.log.forget_erased(&reader_of(&self.connection, &self.clock));
                }
                Ok(())
            }
            Err(error) => {
                if matches!(error, Error::Internal(_)) {
                    self.words_suspect_until = Some(Instant::now() + WORDS_SUSPECT);
                }
                self.publish(Vec::new());
                if !self.connection.is_autocommit() {
                    self.run_statement("ROLLBACK")?;
                }
                Err(error)
            }
        }
    }

    /// Hands over what a commit changed. It is committed, whatever becomes of that: an index that cannot take it is emptied.
    fn publish(&self, publications: Vec<Publication>) {
        if catch_unwind(AssertUnwindSafe(|| self.recall.publish(publications))).is_err() {
            self.recall.clear();
        }
    }

    /// Runs every job and returns what they brought about, with the changes for the index; nothing where the only one failed,
    /// and there is nothing to commit. A single job needs no savepoint, for which SQLite would copy each page that it changes.
    fn run_all(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<Option<(Effects, Vec<Publication>)>> {
        self.notice_other_processes()?;
        let reader = reader_of(&self.connection, &self.clock);
        let auth_version = self.auth_version.load(Ordering::Acquire);
        let mut writer = Writer { reader, auth_version, effects: Effects::default() };
        let is_alone = jobs.len() == 1;
        let is_suspect = !is_alone && self.words_suspect_until.is_some_and(|until| Instant::now() < until);
        for job in jobs {
            if !is_alone {
                self.run_statement("SAVEPOINT job")?;
            }
            let mark = writer.effects.mark();
            let mut keep = job.run(&mut writer);
            // A full disk or an I/O error may have rolled back the whole group: then no neighbour is acknowledged.
            if self.connection.is_autocommit() {
                return Err(Error::Unavailable("the disk failed in the middle of a commit".to_owned()));
            }
            if is_alone && !keep {
                return Ok(None);
            }
            if is_suspect && keep {
                match self.write_words_now(&writer, mark.memories) {
                    Err(error @ Error::Internal(_)) => {
                        tracing::error!(?error, "the words of a write could not be entered; it is not kept");
                        keep = false;
                        job.fail(Error::Unavailable(NOT_COMMITTED.to_owned()));
                        self.words_suspect_until = Some(Instant::now() + WORDS_SUSPECT);
                    }
                    written => written?,
                }
            }
            if !keep {
                self.run_statement("ROLLBACK TO job")?;
                writer.effects.roll_back(mark);
            }
            if !is_alone {
                self.run_statement("RELEASE job")?;
            }
        }
        if !is_suspect {
            memory::write_words(&writer, 0)?;
        }
        let publications = memory::count_commit(&mut writer)?;
        Ok(Some((writer.effects, publications)))
    }

    /// Writes the words of the changes from `first` on, down to the pages: FTS5 keeps them back until the next savepoint, and
    /// an error there is then this job's.
    fn write_words_now(&self, writer: &Writer<'_>, first: usize) -> Result<()> {
        memory::write_words(writer, first)?;
        self.run_statement("SAVEPOINT words")?;
        self.run_statement("RELEASE words")
    }

    /// `data_version` changes when another process has committed: it may have changed who may do what, or have erased
    /// somebody without being able to empty the log. The first commit after the start counts as such a change.
    fn notice_other_processes(&mut self) -> Result<()> {
        let mut statement = self.connection.prepare_cached("PRAGMA data_version").map_err(fault)?;
        let version: i64 = statement.query_row([], |row| row.get(0)).map_err(fault)?;
        if version != self.data_version {
            self.data_version = version;
            self.auth_version.fetch_add(1, Ordering::AcqRel);
            self.log.look_for_mark(&reader_of(&self.connection, &self.clock))?;
        }
        Ok(())
    }

    fn run_statement(&self, sql: &str) -> Result<()> {
        self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map(drop).map_err(fault)
    }
}

fn reader_of<'c>(connection: &'c Connection, clock: &Clock) -> Reader<'c> {
    Reader { connection, now: clock.now(), recall: None }
}

fn fate_of(error: &Error) -> Fate {
    tracing::error!(?error, "a commit failed; nothing of it was kept");
    match error {
        Error::Busy(_) => Fate::Busy,
        Error::Unavailable(why) => Fate::Lost(why.clone()),
        Error::Internal(_) => Fate::Lost(NOT_COMMITTED.to_owned()),
        other => Fate::Lost(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_job_that_fails_takes_back_what_it_touched_and_its_neighbours_keep_theirs() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Clock::system(), &StoreOptions::default()).unwrap();
        let together = |keeps: [bool; 2]| {
            let (begun, has_begun) = channel();
            let (go_on, may_go_on) = channel();
            let holds = store.inner.writer.submit(move |_| {
                begun.send(()).unwrap();
                may_go_on.recv().map_err(|_| Error::Busy("the test"))
            });
            has_begun.recv().unwrap();
            let jobs = keeps.map(|keeps| {
                let job = move |writer: &mut Writer<'_>| {
                    writer.touch_auth();
                    writer.leave_no_trace();
                    if keeps { Ok(()) } else { Err(Error::Busy("the test")) }
                };
                store.inner.writer.submit(job).unwrap()
            });
            let look = store.inner.writer.submit(|writer| Ok((writer.effects.auth, writer.effects.erased))).unwrap();
            let before = store.auth_version();
            go_on.send(()).unwrap();
            holds.unwrap().blocking_recv().unwrap().unwrap();
            let kept = jobs.map(|job| job.blocking_recv().unwrap().is_ok());
            assert_eq!(kept, keeps);
            (look.blocking_recv().unwrap().unwrap(), store.auth_version() - before)
        };
        assert_eq!(together([false, false]), ((false, false), 0));
        assert_eq!(together([true, false]), ((true, true), 1));
    }
}
