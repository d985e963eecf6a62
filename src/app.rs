//! The composition root: builds everything, serves, drains, shuts down. Tests start the same [`App`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::adapter::embedder::{self, Embedder, EmbedderPool};
use crate::adapter::tokenizer;
use crate::adapter::upstream::Upstreams;
use crate::backup::Backups;
use crate::clock::Clock;
use crate::config::Config;
use crate::listener::{Connections, Patience};
use crate::service::{gateway, memory};
use crate::store::Store;
pub use crate::web::Access;
use crate::web::{self, AppState, Edge, Peer};
use crate::worker::Worker;

/// What is left of the drain when calls under way are told to end.
const SETTLING_TIME: Duration = Duration::from_secs(3);
/// Longest drain: what is left of the 20 s that may be configured is for closing the store.
const DRAIN_MAX: Duration = Duration::from_secs(19);
/// Connections at once to the metrics' own listener.
const METRICS_CONNECTIONS_MAX: u32 = 64;

/// The program, built and not yet serving. A clone is the same program, not another one.
#[derive(Clone)]
pub struct App {
    state: AppState,
    edge: Edge,
}

impl App {
    /// Opens (and where needed creates or migrates) the data directory and builds everything.
    ///
    /// # Errors
    /// Where the directory cannot be used, the schema is newer, or the embedder cannot be had.
    pub fn build(config: Config, data_directory: &Path, clock: Clock) -> anyhow::Result<Self> {
        let embedder = embedder::from_config(&config.embedding)?;
        Self::build_with(config, data_directory, clock, embedder)
    }

    /// As [`App::build`], with an embedder of the caller's choice.
    ///
    /// # Errors
    /// As [`App::build`]; where the database holds vectors of another model.
    pub fn build_with(
        config: Config,
        data_directory: &Path,
        clock: Clock,
        embedder: Arc<dyn Embedder>,
    ) -> anyhow::Result<Self> {
        let store = Store::open(data_directory, clock, &config.store)?;
        store.read_blocking(memory::require_whole)?;
        adopt_model(&store, embedder.model())?;
        let pool = EmbedderPool::start(embedder, config.embedding.queue)?;
        let upstreams = Upstreams::new(&config.gateway)?;
        let state = AppState::new(Arc::new(config), store, pool, upstreams)?;
        recover_calls(&state)?;
        let edge = web::application(&state);
        Ok(Self { state, edge })
    }

    /// The HTTP application, for calls without a network.
    pub fn router(&self) -> Router {
        Router::new().fallback_service(self.edge.clone())
    }

    /// The HTTP application as a client at `peer` meets it, for calls without a network.
    pub fn router_for(&self, peer: SocketAddr) -> Router {
        self.router().layer(Extension(Peer(peer)))
    }

    /// Method, path and access of every route, `/api` twins included.
    pub fn routes() -> Vec<(http::Method, String, Access)> {
        web::paths()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.state.store
    }

    /// The periodic work, for tests that turn the clock and then run it by hand.
    pub fn worker(&self) -> Worker {
        Worker::new(&self.state)
    }

    /// The schedule of backups, where there is one.
    pub fn backups(&self) -> Option<Backups> {
        let store = self.store();
        Backups::new(&self.state.config.backup, store.directory(), store.clock().clone())
    }

    /// Binds the configured address.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub async fn bind(&self) -> anyhow::Result<TcpListener> {
        let address = self.state.config.server.listen;
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    }

    fn patience(&self) -> Patience {
        let server = &self.state.config.server;
        Patience { head: server.header_timeout(), answer: server.request_timeout() }
    }

    /// Starts what goes on beside the listener: the metrics' own, and the schedule of backups.
    #[expect(clippy::disallowed_methods, reason = "the composition root starts and ends the tasks")]
    async fn start_beside(&self, stop: &watch::Receiver<bool>) -> anyhow::Result<()> {
        if let Some(address) = self.state.config.metrics.listen {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("cannot listen on {address} (metrics.listen)"))?;
            let connections = Connections::new(METRICS_CONNECTIONS_MAX, self.patience());
            let metrics = web::metrics_application(&self.state);
            let stop = stop.clone();
            tokio::spawn(async move { connections.serve(listener, metrics, stop).await });
        }
        if let Some(backups) = self.backups() {
            tokio::spawn(backups.run(stop.clone()));
        }
        Ok(())
    }

    /// Serves until `stop` is true, then drains: no new connections, what is under way may finish within
    /// `server.drain_timeout`, the worker writes down what is noted, and the store closes.
    ///
    /// # Errors
    /// Where the last notes cannot be written.
    #[expect(clippy::disallowed_methods, reason = "the composition root starts and ends the tasks")]
    pub async fn serve(self, listener: TcpListener, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let server = &self.state.config.server;
        if !self.state.config.gateway.upstreams.is_empty() {
            tokio::task::spawn_blocking(tokenizer::warm);
        }
        self.start_beside(&stop).await?;
        let worker = tokio::spawn(self.worker().run(stop.clone()));
        let connections = Connections::new(server.connections_max, self.patience());
        connections.serve(listener, self.edge.clone(), stop).await;
        let limit = Duration::from_millis(server.drain_timeout_ms.unsigned_abs()).min(DRAIN_MAX);
        // Streams may go on for most of that time; what is left is for settling them.
        let calls = self.state.calls.drain(limit.saturating_sub(SETTLING_TIME));
        let (drained, _) = tokio::join!(
            tokio::time::timeout(limit, connections.ended()),
            tokio::time::timeout(limit.saturating_add(SETTLING_TIME).min(DRAIN_MAX), calls),
        );
        if drained.is_err() {
            tracing::warn!("some requests did not finish within server.drain_timeout and were cut");
        }
        worker.await.context("the worker")?;
        // What the drained requests left behind.
        if let Err(error) = self.worker().write_notes().await {
            tracing::warn!(?error, "the last notes could not be written");
        }
        let store = self.state.store.clone();
        tokio::task::spawn_blocking(move || store.close()).await.context("closing the store")
    }
}

/// Makes sure that the database's vectors are the model's, on a thread that may wait for the write.
fn adopt_model(store: &Store, model: &str) -> anyhow::Result<()> {
    let adopted = std::thread::scope(|scope| {
        let adopt = || {
            let model = model.to_owned();
            store.write_blocking(move |writer| memory::adopt_model(writer, &model))
        };
        scope.spawn(adopt).join()
    });
    adopted.map_err(|_| anyhow::anyhow!("the embedding model could not be noted"))?.map_err(Into::into)
}

/// Settles the calls that were under way when the last process died, before any is made.
fn recover_calls(state: &AppState) -> anyhow::Result<()> {
    if !state.store.read_blocking(gateway::has_left_open)? {
        return Ok(());
    }
    let recover = || {
        loop {
            let policy = Arc::clone(&state.quota);
            if !state.store.write_blocking(move |writer| gateway::recover(writer, &policy))? {
                return Ok::<(), crate::domain::Error>(());
            }
        }
    };
    let recovered = std::thread::scope(|scope| scope.spawn(recover).join());
    recovered.map_err(|_| anyhow::anyhow!("calls left open could not be settled"))?.map_err(Into::into)
}
