//! Units of work on their way through the writer: run inside its transaction, answered after it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::domain::{Error, Result};
use crate::store::Writer;

/// Where a job's commit ended.
pub(super) enum Fate {
    Committed,
    /// Another process held the write lock for too long; nothing was done.
    Busy,
    /// Nothing of the group was kept, for this reason.
    Lost(String),
}

/// A unit of work, type-erased: run inside the transaction, answered after it.
pub(super) trait Job: Send {
    /// Whether its changes shall be kept.
    fn run(&mut self, writer: &mut Writer<'_>) -> bool;
    /// What it came to is not kept after all, for this reason.
    fn fail(&mut self, error: Error);
    fn answer(self: Box<Self>, fate: &Fate);
    /// When it came into the queue.
    fn queued_at(&self) -> Instant;
}

/// A job that answers once it is committed, and where its answer comes.
pub(super) fn task<F, T>(work: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T>>)
where
    T: Send + 'static,
    F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (Box::new(Task { work: Some(work), result: None, queued_at: Instant::now(), reply }), answer)
}

/// A job that answers once it has been decided, where its answer comes, and the commit.
pub(super) fn ahead<F, T>(work: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T>>, Commit)
where
    T: Send + 'static,
    F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
{
    let (decided, answer) = oneshot::channel();
    let (committed, commit) = oneshot::channel();
    let (decided, queued_at) = (Some(decided), Instant::now());
    (Box::new(Ahead { work: Some(work), decided, failed: None, queued_at, committed }), answer, Commit(commit))
}

struct Task<F, T> {
    work: Option<F>,
    result: Option<Result<T>>,
    queued_at: Instant,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce(&mut Writer<'_>) -> Result<T> + Send,
    T: Send,
{
    fn run(&mut self, writer: &mut Writer<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = caught(work, writer);
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn fail(&mut self, error: Error) {
        self.result = Some(Err(error));
    }

    fn answer(self: Box<Self>, fate: &Fate) {
        let answer = match (fate, self.result) {
            // A refusal was decided on what has now not happened; asking again is the only honest answer.
            (Fate::Lost(why), _) => Err(Error::Unavailable(why.clone())),
            (Fate::Busy, _) => Err(Error::Busy("the database")),
            (Fate::Committed, Some(result)) => result,
            (Fate::Committed, None) => Err(Error::Internal("a job was not run".to_owned())),
        };
        // A caller that went away no longer wants its answer; the write stands.
        let _ = self.reply.send(answer);
    }

    fn queued_at(&self) -> Instant {
        self.queued_at
    }
}

/// A unit of work whose caller goes on as soon as it has been decided, and hears of the commit apart.
struct Ahead<F, T> {
    work: Option<F>,
    decided: Option<oneshot::Sender<Result<T>>>,
    /// Why it failed. A failure waits for the commit, as it does everywhere.
    failed: Option<Error>,
    queued_at: Instant,
    committed: oneshot::Sender<Result<()>>,
}

impl<F, T> Job for Ahead<F, T>
where
    F: FnOnce(&mut Writer<'_>) -> Result<T> + Send,
    T: Send,
{
    fn run(&mut self, writer: &mut Writer<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        match caught(work, writer) {
            Ok(value) => {
                // A caller that went away no longer wants its answer; the write stands.
                let _ = self.decided.take().map(|decided| decided.send(Ok(value)));
                true
            }
            Err(error) => {
                self.failed = Some(error);
                false
            }
        }
    }

    fn fail(&mut self, error: Error) {
        self.failed = Some(error);
    }

    fn answer(self: Box<Self>, fate: &Fate) {
        let failure = match fate {
            Fate::Lost(why) => Some(Error::Unavailable(why.clone())),
            Fate::Busy => Some(Error::Busy("the database")),
            Fate::Committed => self.failed,
        };
        let _ = match self.decided {
            Some(decided) => {
                let failure = failure.unwrap_or_else(|| Error::Internal("a job was not run".to_owned()));
                decided.send(Err(failure)).is_ok()
            }
            None => self.committed.send(failure.map_or(Ok(()), Err)).is_ok(),
        };
    }

    fn queued_at(&self) -> Instant {
        self.queued_at
    }
}

/// What `work` comes to; a panic is a failure.
fn caught<T>(work: impl FnOnce(&mut Writer<'_>) -> Result<T>, writer: &mut Writer<'_>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| work(writer)))
        .unwrap_or_else(|panic| Err(Error::Internal(format!("a write panicked: {}", text_of(panic.as_ref())))))
}

pub(super) fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}

/// The end of a commit that a caller did not wait for.
#[derive(Debug)]
pub struct Commit(oneshot::Receiver<Result<()>>);

impl Commit {
    /// Waits until what was decided is durable.
    ///
    /// # Errors
    /// `Unavailable` where it was lost: then nothing of it was written.
    pub async fn done(self) -> Result<()> {
        self.0.await.unwrap_or_else(|_| Err(Error::Unavailable("the store is closed".to_owned())))
    }
}
