//! A listener: connections are taken up to a cap, those that are slow or idle are shed, and at the end all are drained.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::Service;

use crate::web::Peer;

/// How soon it is tried again to take a connection where that failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// How often a peer that speaks HTTP/2 is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);

/// The connections of a listener.
#[derive(Clone)]
pub(crate) struct Connections {
    places: Arc<Semaphore>,
    /// How many there may be.
    most: u32,
    /// How long a request's head may take, and a connection may be without a request.
    header_timeout: Duration,
}

impl Connections {
    /// At most so many at once.
    pub(crate) fn new(most: u32, header_timeout: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(most as usize)), most, header_timeout }
    }

    /// Takes connections and serves them until `stop` is true. Those that are open then end with what is under way.
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection's task ends with the connection, and the drain waits for it"
    )]
    pub(crate) async fn serve<S>(&self, listener: TcpListener, service: S, mut stop: watch::Receiver<bool>)
    where
        S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        loop {
            let place = tokio::select! {
                place = Arc::clone(&self.places).acquire_owned() => match place {
                    Ok(place) => place,
                    Err(_) => return,
                },
                () = stopped(&mut stop) => return,
            };
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, mostly: the connections that end give some back.
                        tracing::warn!(%error, "a connection could not be taken");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                        continue;
                    }
                },
                () = stopped(&mut stop) => return,
            };
            // Small answers are sent at once; a peer that is already gone is noticed when it is served.
            let _ = stream.set_nodelay(true);
            let service = service.clone();
            tokio::spawn(connection(stream, Peer(peer), service, self.header_timeout, stop.clone(), place));
        }
    }

    /// Waits until every connection has ended.
    pub(crate) async fn ended(&self) {
        // A closed semaphore has no connections.
        let _ = self.places.acquire_many(self.most).await;
    }
}

/// Ends where the listener is to stop, or nobody can say so any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// What a connection does.
#[derive(Default)]
struct Activity {
    /// Requests that have begun.
    begun: AtomicU64,
    /// Those that have not been answered.
    open: AtomicUsize,
}

impl Activity {
    /// Ends where for the whole of `patience` no request has begun or been open.
    async fn idle(&self, patience: Duration) {
        let mut seen = self.begun.load(Ordering::SeqCst);
        loop {
            tokio::time::sleep(patience).await;
            let begun = self.begun.load(Ordering::SeqCst);
            if begun == seen && self.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            seen = begun;
        }
    }
}

/// Counts a request as open until it is dropped, however it ends.
struct Open(Arc<Activity>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn connection<S>(
    stream: TcpStream,
    peer: Peer,
    service: S,
    header_timeout: Duration,
    mut stop: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let activity = Arc::new(Activity::default());
    let asks = Arc::clone(&activity);
    let service = service_fn(move |mut request: Request<Incoming>| {
        asks.begun.fetch_add(1, Ordering::SeqCst);
        asks.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&asks));
        request.extensions_mut().insert(peer);
        let answer = service.clone().call(request);
        async move {
            let answer = answer.await;
            drop(open);
            answer
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_EVERY);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut idle = pin!(activity.idle(header_timeout));
    let mut is_ending = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stopped(&mut stop), if !is_ending => {}
            // Until a client shows which HTTP it speaks, no timer of hyper's runs; for HTTP/2 there is none at all.
            () = &mut idle, if !is_ending => {
                if activity.begun.load(Ordering::SeqCst) == 0 {
                    break Ok(());
                }
            }
        }
        // An answer that is still on its way may go on; nothing new begins.
        is_ending = true;
        connection.as_mut().graceful_shutdown();
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(place);
}
