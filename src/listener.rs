//! A listener: connections are taken up to a cap, those that are slow or idle are shed, and at the end all are drained.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http::header::EXPECT;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::Service;

use crate::lock::lock;
use crate::web::Peer;

/// How soon it is tried again to take a connection where that failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// How often a peer that speaks HTTP/2 is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 65_536;
/// Most that is read of a body that nobody wants. It is more than the largest import there is by default.
const UNWANTED_BYTES_MAX: usize = 134_217_728;

/// The connections of a listener.
#[derive(Clone)]
pub(crate) struct Connections {
    places: Arc<Semaphore>,
    /// How many there may be.
    most: u32,
    patience: Patience,
}

/// How long clients are waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long a request's head may take, and a connection may be without a request.
    pub(crate) head: Duration,
    /// How long an answer may wait until the client takes more of it, and the rest of an unwanted body may take.
    pub(crate) answer: Duration,
}

impl Connections {
    /// At most so many at once.
    pub(crate) fn new(most: u32, patience: Patience) -> Self {
        Self { places: Arc::new(Semaphore::new(most as usize)), most, patience }
    }

    /// Takes connections and serves them until `stop` is true. Those that are open then end with what is under way.
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection's task ends with the connection, and the drain waits for it"
    )]
    pub(crate) async fn serve<S>(&self, listener: TcpListener, service: S, mut stop: watch::Receiver<bool>)
    where
        S: Service<Request<Asked>, Response = Response, Error = Infallible, Future: Send>
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
            tokio::spawn(connection(stream, Peer(peer), service, self.patience, stop.clone(), place));
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
    /// Requests that have begun, and answers that have ended, which are no more of them.
    begun: AtomicU64,
    ended: AtomicU64,
    /// Answers of which the client has to take something before they go on, by their numbers, and since when.
    waiting: Mutex<HashMap<u64, Instant>>,
}

impl Activity {
    /// How many requests have begun, and how many answers have ended.
    fn counts(&self) -> (u64, u64) {
        (self.begun.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        lock(&self.waiting)
    }

    /// False once nothing has begun, ended or been open for `patience.head`; true once the client has taken nothing of
    /// an answer for `patience.answer`.
    async fn quiet(&self, patience: Patience) -> bool {
        loop {
            let before = self.counts();
            tokio::time::sleep(patience.head).await;
            if self.waiting().values().any(|since| since.elapsed() >= patience.answer) {
                return true;
            }
            let (begun, ended) = self.counts();
            if (begun, ended) == before && begun == ended {
                return false;
            }
        }
    }
}

/// A request, open from its beginning to the end of its answer, however it ends.
struct Open {
    activity: Arc<Activity>,
    number: u64,
}

impl Open {
    fn begin(activity: &Arc<Activity>) -> Self {
        Self { activity: Arc::clone(activity), number: activity.begun.fetch_add(1, Ordering::SeqCst) }
    }

    /// It is the client's turn, or (where it is not) ours.
    fn turn(&self, is_clients: bool) {
        let mut waiting = self.activity.waiting();
        if is_clients {
            waiting.insert(self.number, Instant::now());
        } else {
            waiting.remove(&self.number);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.turn(false);
        self.activity.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// The body of an answer. It is asked for more when the client has taken enough of what was given.
struct Watched {
    body: Body,
    open: Open,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.open.turn(matches!(polled, Poll::Ready(Some(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request. What nobody wants of it is read and thrown away, beside the answer: many clients send all before
/// they read, and where it lay unread the kernel would reset the connection under the answer.
pub(crate) struct Asked {
    /// None once it has ended.
    body: Option<Incoming>,
    /// Whether the client sends it: with `Expect: 100-continue` only once it was asked for.
    is_coming: bool,
    /// HTTP/2 has its own way to decline.
    is_http2: bool,
    activity: Arc<Activity>,
    patience: Duration,
}

impl Asked {
    fn of(request: Request<Incoming>, activity: &Arc<Activity>, patience: Duration) -> Request<Self> {
        let is_coming = !request.headers().contains_key(EXPECT);
        let is_http2 = request.version() == Version::HTTP_2;
        request.map(|body| Self { body: Some(body), is_coming, is_http2, activity: Arc::clone(activity), patience })
    }
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_coming = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let is_sent = self.is_coming && !self.is_http2;
        let rest = self.body.take().filter(|body| is_sent && !body.is_end_stream());
        if let (Some(rest), Ok(runtime)) = (rest, Handle::try_current()) {
            runtime.spawn(throw_away(rest, Open::begin(&self.activity), self.patience));
        }
    }
}

/// Reads a body to its end, within bounds. Past them the connection ends.
async fn throw_away(rest: Incoming, open: Open, patience: Duration) {
    let mut rest = Limited::new(rest, UNWANTED_BYTES_MAX);
    let read = async { while let Some(Ok(_)) = rest.frame().await {} };
    // The client has its answer in any case.
    drop(tokio::time::timeout(patience, read).await);
    drop(open);
}

async fn connection<S>(
    stream: TcpStream,
    peer: Peer,
    service: S,
    patience: Patience,
    mut stop: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) where
    S: Service<Request<Asked>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
{
    let activity = Arc::new(Activity::default());
    let asks = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let open = Open::begin(&asks);
        let mut request = Asked::of(request, &asks, patience.answer);
        request.extensions_mut().insert(peer);
        let answer = service.clone().call(request);
        async move {
            answer.await.map(|answer: Response| {
                open.turn(true);
                answer.map(|body| Body::new(Watched { body, open }))
            })
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(HEAD_BYTES_MAX);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_EVERY);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut quiet = pin!(activity.quiet(patience));
    let (mut is_ending, mut was_quiet) = (false, false);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stopped(&mut stop), if !is_ending => {}
            is_stuck = &mut quiet => {
                // Until a client shows which HTTP it speaks, no timer of hyper's runs; for HTTP/2 there is none at all. And
                // what was told to end and is quiet again does not read what it was told.
                if is_stuck || was_quiet || activity.counts().0 == 0 {
                    break Ok(());
                }
                was_quiet = true;
                quiet.set(activity.quiet(patience));
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
