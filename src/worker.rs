//! Periodic work: what expires, what was noted, what must be kept in trim.

use std::time::Duration;

use tokio::sync::watch;

use crate::domain::Result;
use crate::web::AppState;

/// How often the worker looks.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// The periodic work.
pub struct Worker {
    state: AppState,
}

impl Worker {
    pub(crate) fn new(state: &AppState) -> Self {
        Self { state: state.clone() }
    }

    /// Works until `stop` is true, and then once more.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            let stopping = tokio::time::timeout(PASS_EVERY, stop.wait_for(|stop| *stop)).await.is_ok();
            if let Err(error) = self.pass().await {
                tracing::warn!(%error, "a pass of the worker failed; the next one tries again");
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
        let used = self.state.noted.take_used();
        if !used.is_empty() {
            self.state.store.write(move |writer| crate::store::auth::touch_credentials(writer, &used)).await?;
        }
        Ok(())
    }
}
