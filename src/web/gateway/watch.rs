//! What ends a call from outside: its client, its credential, the program.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::held::Outcome;
use crate::web::state::{AppState, Known};

/// How often it is looked whether the credential still holds.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits until calls shall end.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender lives as long as the program does.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Keeps watch over a call.
pub(super) struct Watch {
    state: AppState,
    known: Known,
    /// At which number of the commits that change who may do what the credential was found good.
    version: u64,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) ticks: Interval,
}

impl Watch {
    pub(super) fn new(state: &AppState, known: &Known) -> Self {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (state, known) = (state.clone(), known.clone());
        let stop = state.calls.stopping();
        Self { version: known.version(), state, known, stop, ticks }
    }

    /// Whether the credential still allows the call under way. A lowered role ends no call under way. While nobody's
    /// rights have changed and the credential has not expired, it still holds.
    pub(super) async fn is_allowed(&mut self) -> bool {
        let version = self.state.store.auth_version();
        if version == self.version && !self.known.is_over(self.state.now()) {
            return true;
        }
        match self.state.stands(&self.known).await {
            Ok(()) => self.version = version,
            // A queue that is full says nothing of the credential; the next look does.
            Err(crate::domain::Error::Busy(_) | crate::domain::Error::Unavailable(_)) => {}
            Err(_) => return false,
        }
        true
    }

    /// Runs `work` to its end, unless the client goes, the credential ends or the program stops before.
    pub(super) async fn over<T>(
        &mut self,
        gone: impl Future<Output = ()>,
        work: impl Future<Output = T>,
    ) -> Result<T, Outcome> {
        let (mut gone, mut work) = (std::pin::pin!(gone), std::pin::pin!(work));
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = &mut gone => return Err(Outcome::ClientGone),
                () = stopped(&mut self.stop) => return Err(Outcome::Stopped),
                _ = self.ticks.tick() => {}
            }
            if !self.is_allowed().await {
                return Err(Outcome::CredentialEnded);
            }
        }
    }
}
