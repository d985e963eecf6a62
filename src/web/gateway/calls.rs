//! The calls that are under way. Each is a task of its own, so that it is settled whatever becomes of its client.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::lock::lock;

/// The tasks, and the word to end them.
pub(crate) struct Calls {
    tasks: Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { tasks: Mutex::default(), stop: watch::Sender::new(false) }
    }
}

impl Calls {
    /// Starts a task.
    pub(super) fn start(&self, call: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(call);
    }

    /// Becomes true when calls shall end.
    pub(in crate::web) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Lets the calls end by themselves for `patience`, and then tells them to; they settle first.
    pub(crate) async fn drain(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.end_all()).await;
        self.stop.send_replace(true);
        self.end_all().await;
    }

    async fn end_all(&self) {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        while !self.are_done() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn are_done(&self) -> bool {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.is_empty()
    }
}
