//! The composition root: builds everything, serves, drains, shuts down. Tests start the same [`App`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::{Extension, Router};
use hyper::Request;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower::Service;

use crate::adapter::embedder::{self, Embedder, EmbedderPool};
use crate::adapter::tokenizer;
use crate::adapter::upstream::Upstreams;
use crate::backup::Backups;
use crate::clock::Clock;
use crate::config::Config;
use crate::service::{gateway, memory};
use crate::store::Store;
pub use crate::web::Access;
use crate::web::{self, AppState, Edge, Peer};
use crate::worker::Worker;

/// What is left of the drain when calls under way are told to end.
const SETTLING_TIME: Duration = Duration::from_secs(3);

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

    /// Starts what goes on beside the listener: the metrics' own, and the schedule of backups.
    #[expect(clippy::disallowed_methods, reason = "the composition root starts and ends the tasks")]
    async fn start_beside(&self, stop: &watch::Receiver<bool>) -> anyhow::Result<()> {
        if let Some(address) = self.state.config.metrics.listen {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("cannot listen on {address} (metrics.listen)"))?;
            let mut stop = stop.clone();
            let served = axum::serve(listener, web::metrics_application(&self.state));
            tokio::spawn(
                served.with_graceful_shutdown(async move { drop(stop.wait_for(|stop| *stop).await) }).into_future(),
            );
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
    pub async fn serve(self, listener: TcpListener, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let server = &self.state.config.server;
        if !self.state.config.gateway.upstreams.is_empty() {
            tokio::task::spawn_blocking(tokenizer::warm);
        }
        let worker = tokio::spawn(self.worker().run(stop.clone()));
        self.start_beside(&stop).await?;
        let connections = Arc::new(Semaphore::new(server.connections_max));
        let graceful = GracefulShutdown::new();
        let header_timeout = Duration::from_millis(server.header_timeout_ms.unsigned_abs());
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&connections).acquire_owned() => permit.context("the connection cap")?,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, mostly: the connections that end give some back.
                        tracing::warn!(%error, "a connection could not be taken");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                _ = stop.wait_for(|stop| *stop) => break,
            };
            // Small answers are sent at once; a peer that is already gone is noticed when it is served.
            let _ = stream.set_nodelay(true);
            let edge = self.edge.clone();
            let has_asked = Arc::new(AtomicBool::new(false));
            let asks = Arc::clone(&has_asked);
            let service = service_fn(move |mut request| {
                asks.store(true, Ordering::Relaxed);
                Request::extensions_mut(&mut request).insert(Peer(peer));
                edge.clone().call(request)
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                tokio::select! {
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    },
                    () = silence(header_timeout, &has_asked) => {}
                }
                drop(permit);
            });
        }
        drop(listener);
        let limit = Duration::from_millis(server.drain_timeout_ms.unsigned_abs());
        // Streams may go on for most of that time; what is left is for settling them.
        let calls = self.state.calls.drain(limit.saturating_sub(SETTLING_TIME));
        let (drained, _) = tokio::join!(
            tokio::time::timeout(limit, graceful.shutdown()),
            tokio::time::timeout(limit.saturating_add(SETTLING_TIME), calls),
        );
        if drained.is_err() {
            tracing::warn!("some requests did not finish within server.drain_timeout and were cut");
        }
        worker.await.context("the worker")?;
        // What the drained requests left behind.
        if let Err(error) = self.worker().pass().await {
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

/// Ends where a connection has asked nothing within the time that a request's head may take. Until a client shows which
/// HTTP it speaks, no timer of hyper's runs.
async fn silence(header_timeout: Duration, has_asked: &AtomicBool) {
    tokio::time::sleep(header_timeout).await;
    if has_asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}
