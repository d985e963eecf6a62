//! Periodic work: what expires, what was noted, what must be kept in trim.

use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::Result;
use crate::domain::calendar::Day;
use crate::lock::lock;
use crate::service::retention::{self, Place};
use crate::service::{agent, audit, auth, check, erasure, gateway, idempotency, memory, quota};
use crate::store::Writer;
use crate::web::AppState;

/// How often the worker looks.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// How often what nobody asks for any more is swept out, in milliseconds.
const SWEEP_EVERY_MS: i64 = 3_600_000;

/// Slices of a task in one pass, so that no task waits long for its turn.
const SLICES_A_PASS: usize = 64;

/// The periodic work.
pub struct Worker {
    state: AppState,
    /// Which hour was swept last.
    swept: AtomicI64,
    /// In which minute the uses of credentials were written down last.
    noted_in: AtomicI64,
    /// How far the closing of days has come.
    closing: Mutex<Closing>,
    /// Whether it is to end.
    stop: watch::Receiver<bool>,
}

/// How far the closing of days has come.
#[derive(Clone, Copy, Default)]
struct Closing {
    /// Days before this one are closed.
    before: Option<Day>,
    /// Where it goes on; none: it is done.
    next: Option<Place>,
}

/// A part of a pass.
type Task<'w> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'w>>;

impl Worker {
    pub(crate) fn new(state: &AppState) -> Self {
        Self {
            state: state.clone(),
            swept: AtomicI64::new(0),
            noted_in: AtomicI64::new(0),
            closing: Mutex::default(),
            stop: watch::channel(false).1,
        }
    }

    /// Works until `stop` is true; a pass under way ends with the slice that it is at.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        self.stop = stop.clone();
        let mut stopped = stop;
        while tokio::time::timeout(PASS_EVERY, stopped.wait_for(|stop| *stop)).await.is_err() {
            // Each failure has been logged; the next pass tries again.
            let _ = self.pass().await;
        }
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// One pass: every task has its turn, whatever became of those before it.
    ///
    /// # Errors
    /// The first failure.
    pub async fn pass(&self) -> Result<()> {
        let tasks: [(&str, Task<'_>); 9] = [
            ("notes", Box::pin(self.write_notes())),
            ("reservations", Box::pin(async { self.slices(quota::tidy_reservations).await.map(drop) })),
            ("idempotency", Box::pin(async { self.slices(idempotency::purge).await.map(drop) })),
            ("runs", Box::pin(self.end_runs())),
            ("memories", Box::pin(self.end_memories())),
            ("erasures", Box::pin(self.finish_erasures())),
            ("log", Box::pin(self.remind_of_log())),
            ("sweep", Box::pin(self.sweep())),
            ("closing", Box::pin(self.close_days())),
        ];
        let mut passed = Ok(());
        for (task, work) in tasks {
            if self.is_stopping() {
                break;
            }
            if let Err(error) = work.await {
                tracing::warn!(task, ?error, "a task of the worker failed; the next pass tries again");
                passed = passed.and(Err(error));
            }
        }
        passed
    }

    /// Once a day, and some slices a pass: days whose entries have been kept long enough.
    async fn close_days(&self) -> Result<()> {
        let Some(keep_days) = self.state.config.ledger_keep_days else { return Ok(()) };
        let before = retention::first_open_day(&self.state.quota, self.state.now(), keep_days);
        let known = *lock(&self.closing);
        let mut place = if known.before == Some(before) { known.next } else { Some(Place::Start) };
        for _ in 0..SLICES_A_PASS {
            let Some(here) = place.filter(|_| !self.is_stopping()) else { break };
            let policy = self.state.quota.clone();
            let slice = move |writer: &mut Writer<'_>| retention::close_slice(writer, &policy, before, here);
            place = self.state.store.write(slice).await?;
        }
        *lock(&self.closing) = Closing { before: Some(before), next: place };
        Ok(())
    }

    /// Erasures that nobody waits for any more: whoever asked has gone, or the program died. One that fails keeps no other
    /// from its turn.
    async fn finish_erasures(&self) -> Result<()> {
        let mut finished = Ok(());
        let mut slices = SLICES_A_PASS;
        for user in self.state.store.read(erasure::list_begun).await? {
            let mut is_done = false;
            while !is_done && slices > 0 && !self.is_stopping() {
                slices -= 1;
                match self.state.store.write(move |writer| erasure::slice(writer, user)).await {
                    Ok(receipt) => is_done = receipt.is_some(),
                    Err(error) => {
                        finished = finished.and(Err(error));
                        break;
                    }
                }
            }
        }
        finished
    }

    /// Where the log still holds what was erased, by this process or another, a write makes the writer try again to empty it.
    async fn remind_of_log(&self) -> Result<()> {
        if self.state.store.read(erasure::log_tells).await? {
            self.state.store.write(|_| Ok(())).await?;
        }
        Ok(())
    }

    /// Once an hour: sessions and links that have ended by themselves, and acts that are older than they are kept.
    async fn sweep(&self) -> Result<()> {
        let hour = self.state.now().0.div_euclid(SWEEP_EVERY_MS);
        if self.swept.load(Ordering::Relaxed) == hour {
            return Ok(());
        }
        let mut is_done = self.slices(auth::session::purge_ended).await?;
        is_done &= self.slices(quota::purge_refusals).await?;
        let policy = self.state.quota.clone();
        self.state.store.write(move |writer| gateway::purge_figures(writer, &policy)).await?;
        if let Some(keep_days) = self.state.config.audit_keep_days {
            is_done &= self.slices(move |writer| audit::purge(writer, keep_days)).await?;
        }
        if is_done {
            // Cheap where the planner's statistics are good; so hourly is as good as daily.
            self.state.store.write(check::keep_in_trim).await?;
            self.swept.store(hour, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Books the minutes of agent runs that are over, a write each: one that fails keeps no other from being booked.
    async fn end_runs(&self) -> Result<()> {
        let mut ended = Ok(());
        for run in self.state.store.read(agent::list_due).await? {
            if self.is_stopping() {
                break;
            }
            let policy = self.state.quota.clone();
            ended = ended.and(self.state.store.write(move |writer| agent::close_due(writer, &policy, &run)).await);
        }
        ended
    }

    /// Books the ends of memories, user by user, and then takes the memories away, slice by slice. A look costs readers
    /// nothing; so what is due is found by one, and a write gets told.
    async fn end_memories(&self) -> Result<()> {
        for _ in 0..SLICES_A_PASS {
            let users = self.state.store.read(memory::due_users).await?;
            if users.is_empty() || self.is_stopping() {
                break;
            }
            let policy = self.state.memory.clone();
            self.state.store.write(move |writer| memory::book_due(writer, &policy.quota, &users)).await?;
        }
        for _ in 0..SLICES_A_PASS {
            let ended = self.state.store.read(memory::list_ended).await?;
            if ended.is_empty() || self.is_stopping() {
                break;
            }
            self.state.store.write(move |writer| memory::purge(writer, &ended)).await?;
        }
        Ok(())
    }

    /// What requests left behind: when credentials were last used, how often whom was refused what, what came of the calls to
    /// upstreams.
    ///
    /// # Errors
    /// Where the store cannot be written; the notes are kept.
    pub(crate) async fn write_notes(&self) -> Result<()> {
        // When a credential was used is told to the minute; at the end whatever is known is written down.
        let minute = self.state.now().0.div_euclid(60_000);
        let is_due = self.noted_in.swap(minute, Ordering::Relaxed) != minute;
        let used = if is_due { self.state.noted.take_used() } else { Vec::new() };
        let refusals = self.state.noted.take_refusals();
        let figures = self.state.upstreams.take_figures();
        if used.is_empty() && refusals.is_empty() && figures.is_empty() {
            return Ok(());
        }
        let notes = Arc::new((used, refusals, figures));
        let (notes_there, policy) = (Arc::clone(&notes), self.state.quota.clone());
        let written = self.state.store.write(move |writer| {
            let (used, refusals, figures) = &*notes_there;
            auth::note_uses(writer, used)?;
            quota::note_refusals(writer, refusals)?;
            gateway::note_figures(writer, &policy, figures)
        });
        let written = written.await;
        if written.is_err() {
            let (used, refusals, figures) = &*notes;
            self.state.noted.put_back(used, refusals);
            self.state.upstreams.put_back(figures);
        }
        written
    }

    /// Repeats a slice of work, a write each, so that no request waits long behind it: until it says that there is no more, or
    /// for as many as a pass has. Tells whether there is no more.
    async fn slices<F>(&self, slice: F) -> Result<bool>
    where
        F: Fn(&mut Writer<'_>) -> Result<bool> + Clone + Send + 'static,
    {
        for _ in 0..SLICES_A_PASS {
            if !self.state.store.write(slice.clone()).await? {
                return Ok(true);
            }
            if self.is_stopping() {
                break;
            }
        }
        Ok(false)
    }
}
