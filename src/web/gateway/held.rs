//! A call for which something is held: it is settled once, by whatever end it comes to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::meter::Meter;
use super::recall::Recalled;
use super::watch::stopped;
use crate::domain::gateway::Grant;
use crate::domain::gateway::estimate::{Estimate, Family};
use crate::domain::quota::Standing;
use crate::domain::unit::ReservationId;
use crate::domain::{Error, Result};
use crate::service::gateway::{self, Owner};
use crate::service::quota;
use crate::store::{Commit, Store};
use crate::web::state::AppState;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As it should.
    Complete,
    /// The client hung up.
    ClientGone,
    /// The answer passed what was held for it.
    CutAtHold,
    /// The upstream broke off.
    UpstreamBroke,
    /// The credential ended.
    CredentialEnded,
    /// The program stops.
    Stopped,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::CutAtHold => "cut_at_hold",
            Self::UpstreamBroke => "upstream_broke",
            Self::CredentialEnded => "credential_ended",
            Self::Stopped => "stopped",
        }
    }
}

/// What is known of a call from its beginning.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) endpoint: &'static str,
    /// The model as the caller named it.
    pub(super) model: String,
    pub(super) request_id: String,
    pub(super) is_stream: bool,
    pub(super) family: Family,
    pub(super) estimate: Estimate,
    /// Tokens of the prompt that come back in the answer and are no part of it.
    pub(super) echoed: i64,
    /// What of the user's memories went with it, where that was asked for.
    pub(super) recalled: Option<Recalled>,
}

impl Facts {
    /// As they are kept with the hold.
    pub(super) fn to_metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        let mut set = |name: &str, value: Value| drop(metadata.insert(name.to_owned(), value));
        set("endpoint", self.endpoint.into());
        set("model", self.model.clone().into());
        set("requestId", self.request_id.clone().into());
        set("stream", self.is_stream.into());
        set("promptTokens", self.estimate.count.into());
        if let Some(recalled) = self.recalled {
            set("recalledMemories", recalled.memories.into());
            set("recalledTokens", recalled.tokens.into());
        }
        metadata
    }
}

/// Adds what is not null.
fn add<const N: usize>(metadata: &mut Map<String, Value>, members: [(&str, Value); N]) {
    let known = members.into_iter().filter(|(_, value)| !value.is_null());
    metadata.extend(known.map(|(name, value)| (name.to_owned(), value)));
}

/// A call under way.
pub(super) struct Held {
    state: AppState,
    owner: Owner,
    hold: ReservationId,
    /// The commit of the hold, as long as nobody has waited for it.
    commit: Option<Commit>,
    pub(super) facts: Facts,
    pub(super) grant: Grant,
    pub(super) standing: Standing,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) first_token: Option<Duration>,
    started: Instant,
    is_settled: bool,
}

/// Waits between tries to settle: the first, which is doubled from try to try, and the longest.
const RETRY_WAIT: Duration = Duration::from_millis(10);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often it is tried again while somebody waits for it.
const RETRIES: u32 = 9;

/// The end of a call, as it is booked.
struct End {
    store: Store,
    policy: Arc<quota::Policy>,
    owner: Owner,
    hold: ReservationId,
    amount: i64,
    metadata: Option<Value>,
}

impl End {
    async fn settle(&self) -> Result<Standing> {
        let (policy, owner, hold, amount) = (self.policy.clone(), self.owner.clone(), self.hold, self.amount);
        let metadata = self.metadata.clone();
        self.store.write(move |writer| gateway::settle(writer, &policy, owner.holder(), hold, amount, metadata)).await
    }

    /// Books it, and tries again where the store is busy: so many times, and but once more when `over` is.
    async fn book(&self, mut retries: u32, over: impl Future<Output = ()>) -> Result<Standing> {
        let (mut over, mut wait) = (std::pin::pin!(over), RETRY_WAIT);
        loop {
            match self.settle().await {
                Err(Error::Busy(_) | Error::Unavailable(_)) if retries > 0 => {}
                settled => return settled,
            }
            retries -= 1;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = &mut over => retries = 0,
            }
            wait = wait.saturating_mul(2).min(RETRY_WAIT_MAX);
        }
    }
}

impl Held {
    pub(super) fn new(
        state: AppState,
        (owner, opened): (Owner, gateway::Opened),
        commit: Commit,
        facts: Facts,
        started: Instant,
    ) -> Self {
        let gateway::Opened { hold, grant, standing } = opened;
        Self {
            state,
            owner,
            hold,
            commit: Some(commit),
            facts,
            grant,
            standing,
            upstream: None,
            first_token: None,
            started,
            is_settled: false,
        }
    }

    /// Waits until the hold is durable: before that nobody is told anything, and nothing is settled.
    ///
    /// # Errors
    /// `Unavailable` where it was lost: then there is nothing to settle either.
    pub(super) async fn kept(&mut self) -> Result<()> {
        let Some(commit) = self.commit.take() else { return Ok(()) };
        let kept = commit.done().await;
        self.is_settled = kept.is_err();
        kept
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Most tokens of an answer that its hold covers.
    pub(super) fn allowance(&self) -> i64 {
        self.grant.hold.saturating_sub(self.facts.estimate.count)
    }

    /// Notes what has been delivered of a stream, and what is known of it by now.
    pub(super) async fn checkpoint(&self, said: i64) {
        let (hold, delivered) = (self.hold, self.facts.estimate.count.saturating_add(said));
        let facts = Value::Object(self.progress(200));
        let written = self.state.store.write(move |writer| gateway::checkpoint(writer, hold, delivered, &facts)).await;
        if let Err(error) = written {
            tracing::warn!(?error, "a checkpoint could not be written; the next one tries again");
        }
    }

    /// Settles a call of which nothing came: the hold is given back.
    pub(super) async fn give_back(&mut self) -> Result<()> {
        self.book(0, None).await
    }

    /// Settles a call with the upstream's own count, or with ours where it gave none.
    pub(super) async fn settle(&mut self, meter: &mut Meter, status: u16, outcome: Outcome) -> Result<()> {
        let said = meter.count();
        let ours = if self.facts.family == Family::Unknown { "estimate" } else { "tokenizer" };
        let prompt = self.facts.estimate.count;
        let ours = (prompt.saturating_add(said), prompt, said, ours);
        let theirs = meter.usage.map(|usage| (usage.total, usage.prompt, usage.completion, "upstream"));
        let (amount, prompt, completion, counted) = theirs.unwrap_or(ours);
        let mut metadata = self.progress(status);
        let usage = meter.usage;
        add(
            &mut metadata,
            [
                ("promptTokens", prompt.into()),
                ("completionTokens", completion.into()),
                ("cachedTokens", usage.and_then(|usage| usage.cached).into()),
                ("reasoningTokens", usage.and_then(|usage| usage.reasoning).into()),
                ("outcome", outcome.as_str().into()),
                ("counted", counted.into()),
            ],
        );
        self.book(amount, Some(Value::Object(metadata))).await
    }

    /// What is known of a call that has come so far.
    fn progress(&self, status: u16) -> Map<String, Value> {
        let millis = |time: Duration| Value::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let mut metadata = self.facts.to_metadata();
        add(
            &mut metadata,
            [
                ("upstream", self.upstream.as_deref().map_or(Value::Null, Value::from)),
                ("durationMs", millis(self.elapsed())),
                ("firstTokenMs", self.first_token.map_or(Value::Null, millis)),
                ("status", status.into()),
            ],
        );
        metadata
    }

    /// Books the end, and tries again where the store is busy: until it is booked, nobody is told.
    async fn book(&mut self, amount: i64, metadata: Option<Value>) -> Result<()> {
        self.kept().await?;
        self.standing = self.end(amount, metadata).book(RETRIES, std::future::pending()).await?;
        self.is_settled = true;
        Ok(())
    }

    fn end(&self, amount: i64, metadata: Option<Value>) -> End {
        let (store, policy) = (self.state.store.clone(), self.state.quota.clone());
        End { store, policy, owner: self.owner.clone(), hold: self.hold, amount, metadata }
    }
}

impl Drop for Held {
    /// A call that ended by a panic, or whose end could not be booked, is booked with its prompt as soon as the store takes it;
    /// where the program ends before, the next start does it.
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let mut metadata = self.facts.to_metadata();
        metadata.insert("outcome".to_owned(), json!("lost"));
        let end = self.end(self.facts.estimate.count, Some(Value::Object(metadata)));
        let mut stop = self.state.calls.stopping();
        self.state.calls.start(async move {
            if let Err(error) = end.book(u32::MAX, stopped(&mut stop)).await {
                tracing::error!(?error, "a call could not be settled; the next start settles it");
            }
        });
    }
}
