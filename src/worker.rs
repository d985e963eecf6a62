//! Periodic work: what expires, what was noted, what must be kept in trim.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::Result;
use crate::domain::calendar::Day;
use crate::service::retention::{self, Place};
use crate::service::{agent, audit, auth, check, erasure, gateway, idempotency, memory, quota};
use crate::store::Writer;
use crate::web::AppState;

/// How often the worker looks.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// How often what nobody asks for any more is swept out, in milliseconds.
const SWEEP_EVERY_MS: i64 = 3_600_000;

/// Slices of the closing of days in one pass, so that nothing else waits long for its turn.
const CLOSING_SLICES: usize = 64;

/// The periodic work.
pub struct Worker {
    state: AppState,
    /// Which hour was swept last.
    swept: AtomicI64,
    /// In which minute the uses of credentials were written down last.
    noted_in: AtomicI64,
    /// How far the closing of days has come.
    closing: Mutex<Closing>,
}

/// How far the closing of days has come.
#[derive(Clone, Copy, Default)]
struct Closing {
    /// Days before this one are closed.
    before: Option<Day>,
    /// Where it goes on; none: it is done.
    next: Option<Place>,
}

impl Worker {
    pub(crate) fn new(state: &AppState) -> Self {
        Self { state: state.clone(), swept: AtomicI64::new(0), noted_in: AtomicI64::new(0), closing: Mutex::default() }
    }

    /// Works until `stop` is true, and then once more.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            let stopping = tokio::time::timeout(PASS_EVERY, stop.wait_for(|stop| *stop)).await.is_ok();
            if let Err(error) = self.pass().await {
                tracing::warn!(?error, "a pass of the worker failed; the next one tries again");
            }
            if stopping {
                break;
            }
        }
    }

    /// One pass.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub async fn pass(&self) -> Result<()> {
        self.write_notes().await?;
        self.until_done(quota::tidy_reservations).await?;
        self.until_done(idempotency::purge).await?;
        self.end_runs().await?;
        self.end_memories().await?;
        self.finish_erasures().await?;
        self.sweep().await?;
        self.close_days().await
    }

    /// Once a day, and some slices a pass: days whose entries have been kept long enough.
    async fn close_days(&self) -> Result<()> {
        let Some(keep_days) = self.state.config.ledger_keep_days else { return Ok(()) };
        let before = retention::first_open_day(&self.state.quota, self.state.now(), keep_days);
        let known = *self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = if known.before == Some(before) { known.next } else { Some(Place::Start) };
        for _ in 0..CLOSING_SLICES {
            let Some(here) = place else { break };
            let policy = self.state.quota.clone();
            let slice = move |writer: &mut Writer<'_>| retention::close_slice(writer, &policy, before, here);
            place = self.state.store.write(slice).await?;
        }
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = Closing { before: Some(before), next: place };
        Ok(())
    }

    /// Erasures that nobody waits for any more: whoever asked has gone, or the program died.
    async fn finish_erasures(&self) -> Result<()> {
        while let Some(user) = self.state.store.read(erasure::next_begun).await? {
            erasure::finish(&self.state.store, user).await?;
        }
        Ok(())
    }

    /// Once an hour: sessions and links that have ended by themselves, and acts that are older than they are kept.
    async fn sweep(&self) -> Result<()> {
        let hour = self.state.now().0.div_euclid(SWEEP_EVERY_MS);
        if self.swept.swap(hour, Ordering::Relaxed) == hour {
            return Ok(());
        }
        self.until_done(auth::session::purge_ended).await?;
        self.until_done(quota::purge_refusals).await?;
        let policy = self.state.quota.clone();
        self.state.store.write(move |writer| gateway::purge_figures(writer, &policy)).await?;
        // Cheap where the planner's statistics are good; so hourly is as good as daily.
        self.state.store.write(check::keep_in_trim).await?;
        if let Some(keep_days) = self.state.config.audit_keep_days {
            while self.state.store.write(move |writer| audit::purge(writer, keep_days)).await? {}
        }
        Ok(())
    }

    /// Books the minutes of agent runs that are over.
    async fn end_runs(&self) -> Result<()> {
        if !self.state.store.read(agent::is_due).await? {
            return Ok(());
        }
        loop {
            let policy = self.state.quota.clone();
            if !self.state.store.write(move |writer| agent::close_due(writer, &policy)).await? {
                return Ok(());
            }
        }
    }

    /// Books the ends of memories, user by user, and then takes the memories away, slice by slice.
    async fn end_memories(&self) -> Result<()> {
        // A look costs readers nothing; a write every second would.
        if !self.state.store.read(memory::is_due).await? {
            return Ok(());
        }
        let policy = self.state.memory.clone();
        loop {
            let policy = policy.clone();
            if !self.state.store.write(move |writer| memory::book_due(writer, &policy.quota)).await? {
                break;
            }
        }
        self.until_done(memory::purge).await
    }

    /// What requests left behind: when credentials were last used, how often whom was refused what, what came of the calls to
    /// upstreams.
    async fn write_notes(&self) -> Result<()> {
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

    /// Repeats a slice of work, a write each, until it says that there is no more: so no request waits long behind it.
    async fn until_done(&self, slice: fn(&mut Writer<'_>) -> Result<bool>) -> Result<()> {
        while self.state.store.write(slice).await? {}
        Ok(())
    }
}
