//! The threads that embed, and the bounded queue to them, fair by user: texts are taken from one user after the other, and
//! of each user from one request after the other, so that no batch stops another's search, nor its own user's.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use prometheus::Histogram;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::{EmbedError, Embedder};
use crate::domain::auth::UserKey;
use crate::domain::memory::Embedding;
use crate::domain::{Error, Result};
use crate::lock::lock;
use crate::meter::histogram;

/// Answers kept for texts that are asked again, such as a search that is repeated.
const CACHED_MAX: usize = 512;
/// Texts of up to this many bytes together are cut into windows where they are; longer ones on a thread that may take its time.
const INLINE_BYTES_MAX: usize = 4 * 1024;

/// From a millisecond to 3 s.
const TIMES: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];

type Embedded = Result<Vec<Embedding>, EmbedError>;

/// The pool.
pub struct EmbedderPool {
    shared: Arc<Shared>,
}

struct Shared {
    embedder: Arc<dyn Embedder>,
    queue_max: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    cache: Mutex<Cache>,
    /// Seconds of a call of the model.
    time: Histogram,
}

/// Requests by user, and the users in the order of their turns.
#[derive(Default)]
struct Queue {
    turns: VecDeque<UserKey>,
    requests: HashMap<UserKey, VecDeque<Arc<Request>>>,
    waiting: usize,
    closed: bool,
}

struct Request {
    texts: Vec<String>,
    progress: Mutex<Progress>,
}

struct Progress {
    begun: usize,
    finished: usize,
    embeddings: Vec<Option<Embedding>>,
    reply: Option<oneshot::Sender<Embedded>>,
}

/// Users who may wait when the queue is full of texts.
const USERS_WAITING_MAX: usize = 1_024;

/// A piece of a request: the texts from `first` on, `count` of them.
struct Piece {
    request: Arc<Request>,
    first: usize,
    count: usize,
}

impl EmbedderPool {
    /// Starts the threads. `queue_max` texts may wait, over all users.
    ///
    /// # Errors
    /// `Unavailable` where a thread cannot be started.
    pub fn start(embedder: Arc<dyn Embedder>, queue_max: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            embedder,
            queue_max,
            queue: Mutex::default(),
            wake: Condvar::new(),
            cache: Mutex::default(),
            time: histogram("tallybox_embedding_seconds", "How long a call of the embedding model took.", &TIMES)?,
        });
        let count = shared.embedder.calls_at_once().max(1);
        for number in 0..count {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("embedder-{number}")).spawn(move || shared.work());
            thread.map_err(|error| Error::Unavailable(format!("an embedder cannot be started: {error}")))?;
        }
        Ok(Self { shared })
    }

    /// How long calls of the model took, in seconds.
    pub(crate) fn meter(&self) -> &Histogram {
        &self.shared.time
    }

    /// Texts that wait.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.shared.queue).waiting
    }

    /// The name of the model.
    pub fn model(&self) -> &str {
        self.shared.embedder.model()
    }

    /// The windows of a text.
    ///
    /// # Errors
    /// `Internal` where the model fails.
    pub async fn windows(&self, text: &str) -> Result<Vec<String>> {
        Ok(self.windows_of(&[text]).await?.pop().unwrap_or_default())
    }

    /// The windows of each text, in order. Texts that are short together are cut here; else a thread does it that serves nobody.
    ///
    /// # Errors
    /// `Internal` where the model fails.
    pub async fn windows_of(&self, texts: &[&str]) -> Result<Vec<Vec<String>>> {
        let cut = |embedder: &dyn Embedder, text: &str| {
            embedder.windows(text).into_iter().map(str::to_owned).collect::<Vec<String>>()
        };
        if texts.iter().map(|text| text.len()).sum::<usize>() <= INLINE_BYTES_MAX {
            return Ok(texts.iter().map(|text| cut(self.shared.embedder.as_ref(), text)).collect());
        }
        let embedder = Arc::clone(&self.shared.embedder);
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        tokio::task::spawn_blocking(move || texts.iter().map(|text| cut(embedder.as_ref(), text)).collect())
            .await
            .map_err(|panic| Error::Internal(format!("the windows of a text: {panic}")))
    }

    /// Tokens of all texts together.
    ///
    /// # Errors
    /// `Internal` where the model fails.
    pub async fn tokens(&self, texts: Vec<String>) -> Result<i64> {
        let embedder = Arc::clone(&self.shared.embedder);
        let bytes = texts.iter().map(String::len).sum::<usize>();
        let count = move || texts.iter().map(|text| embedder.tokens(text)).sum::<usize>();
        let tokens = if bytes <= INLINE_BYTES_MAX {
            count()
        } else {
            let counted = tokio::task::spawn_blocking(count).await;
            counted.map_err(|panic| Error::Internal(format!("the tokens of a text: {panic}")))?
        };
        Ok(i64::try_from(tokens).unwrap_or(i64::MAX))
    }

    /// As [`Embedder::knows`].
    pub fn knows(&self, text: &str) -> bool {
        self.shared.embedder.knows(text)
    }

    /// An embedding a text, in order.
    ///
    /// # Errors
    /// `Busy` where too many texts wait; `Unavailable` or `Internal` where the model fails.
    pub async fn embed(&self, user: UserKey, texts: Vec<String>) -> Result<Vec<Embedding>> {
        let cached_as = match texts.as_slice() {
            [] => return Ok(Vec::new()),
            [only] => Some((user, Sha256::digest(only.as_bytes()).into())),
            _ => None,
        };
        if let Some(found) = cached_as.and_then(|key| lock(&self.shared.cache).find(&key)) {
            return Ok(vec![found]);
        }
        let answer = self.shared.submit(user, texts)?;
        let embeddings = answer.await.map_err(|_| Error::Unavailable("the embedder is closed".to_owned()))??;
        if let (Some(key), [only]) = (cached_as, embeddings.as_slice()) {
            lock(&self.shared.cache).keep(key, only);
        }
        Ok(embeddings)
    }
}

impl Drop for EmbedderPool {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        // The threads own what they use and end by themselves: one may wait for an endpoint, and nobody waits for that.
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn submit(&self, user: UserKey, texts: Vec<String>) -> Result<oneshot::Receiver<Embedded>> {
        let (reply, answer) = oneshot::channel();
        let count = texts.len();
        let progress = Progress { begun: 0, finished: 0, embeddings: vec![None; count], reply: Some(reply) };
        let request = Arc::new(Request { texts, progress: Mutex::new(progress) });
        let mut queue = lock(&self.queue);
        // A user with nothing waiting is let in even when another's batch fills the queue: it is served in the next turn.
        // What bounds the queue is then the number of users who ask at once, which is bounded as well.
        let is_waiting = queue.requests.get(&user).is_some_and(|requests| !requests.is_empty());
        let is_full = queue.waiting >= self.queue_max;
        if is_full && (is_waiting || queue.turns.len() >= USERS_WAITING_MAX) {
            return Err(Error::Busy("the embedding queue"));
        }
        queue.waiting += count;
        let of_user = queue.requests.entry(user).or_default();
        let is_new = of_user.is_empty();
        of_user.push_back(request);
        if is_new {
            queue.turns.push_back(user);
        }
        drop(queue);
        self.wake.notify_all();
        Ok(answer)
    }

    fn work(&self) {
        let most = self.embedder.texts_of_a_call().max(1);
        while let Some(piece) = self.next(most) {
            let texts: Vec<&str> =
                piece.request.texts.iter().skip(piece.first).take(piece.count).map(String::as_str).collect();
            let begun = Instant::now();
            let embedded = catch_unwind(AssertUnwindSafe(|| self.embedder.embed(&texts)))
                .unwrap_or_else(|_| Err(EmbedError::Damaged { detail: "it panicked".to_owned() }));
            self.time.observe(begun.elapsed().as_secs_f64());
            let embedded = embedded.and_then(|embeddings| {
                if embeddings.len() == texts.len() {
                    Ok(embeddings)
                } else {
                    Err(EmbedError::BadVector { detail: format!("{} for {} texts", embeddings.len(), texts.len()) })
                }
            });
            piece.finish(embedded);
        }
    }

    /// The next piece in turn; none when the pool closes.
    fn next(&self, most: usize) -> Option<Piece> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(piece) = queue.take(most) {
                return Some(piece);
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Queue {
    fn take(&mut self, most: usize) -> Option<Piece> {
        while let Some(user) = self.turns.pop_front() {
            let Some(requests) = self.requests.get_mut(&user) else { continue };
            let Some(request) = requests.pop_front() else {
                self.requests.remove(&user);
                continue;
            };
            let (first, count, abandoned) = request.begin(most);
            let left = request.texts.len() - first - count;
            if left > 0 && !abandoned {
                requests.push_back(Arc::clone(&request));
            }
            if requests.is_empty() {
                self.requests.remove(&user);
            } else {
                self.turns.push_back(user);
            }
            self.waiting -= if abandoned { count + left } else { count };
            if !abandoned {
                return Some(Piece { request, first, count });
            }
        }
        None
    }
}

impl Request {
    /// Begins the next texts: the first, how many, and whether nobody waits for them any more.
    fn begin(&self, most: usize) -> (usize, usize, bool) {
        let mut progress = lock(&self.progress);
        let first = progress.begun;
        let count = most.min(self.texts.len() - first);
        progress.begun += count;
        (first, count, progress.reply.as_ref().is_none_or(oneshot::Sender::is_closed))
    }
}

impl Piece {
    fn finish(self, embedded: Embedded) {
        let mut progress = lock(&self.request.progress);
        let embedded = match embedded {
            Ok(embedded) => embedded,
            Err(error) => {
                if let Some(reply) = progress.reply.take() {
                    // Who no longer waits has gone away.
                    let _ = reply.send(Err(error));
                }
                return;
            }
        };
        for (place, embedding) in progress.embeddings.iter_mut().skip(self.first).zip(embedded) {
            *place = Some(embedding);
        }
        progress.finished += self.count;
        if progress.finished == self.request.texts.len()
            && let Some(reply) = progress.reply.take()
        {
            let _ = reply.send(Ok(progress.embeddings.drain(..).flatten().collect()));
        }
    }
}

type CacheKey = (UserKey, [u8; 32]);

/// Embeddings by user and SHA-256 of the text. When it is full, the half that was asked for longest ago leaves.
#[derive(Default)]
struct Cache {
    found: HashMap<CacheKey, (Embedding, u64)>,
    time: u64,
}

impl Cache {
    fn find(&mut self, key: &CacheKey) -> Option<Embedding> {
        self.time += 1;
        let (embedding, used) = self.found.get_mut(key)?;
        *used = self.time;
        Some(embedding.clone())
    }

    fn keep(&mut self, key: CacheKey, embedding: &Embedding) {
        if self.found.len() >= CACHED_MAX {
            let mut times: Vec<u64> = self.found.values().map(|(_, used)| *used).collect();
            times.sort_unstable();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            self.found.retain(|_, (_, used)| *used >= median);
        }
        self.time += 1;
        self.found.insert(key, (embedding.clone(), self.time));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::domain::memory::EMBEDDING_DIMENSIONS;

    /// Embeds a text only when the test lets it, and says which.
    struct Gate {
        order: Mutex<Vec<String>>,
        go: Mutex<mpsc::Receiver<()>>,
    }

    impl Embedder for Gate {
        fn model(&self) -> &'static str {
            "gate"
        }

        fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
            vec![text]
        }

        fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
            let _ = lock(&self.go).recv();
            lock(&self.order).extend(texts.iter().map(|text| (*text).to_owned()));
            assert!(!texts.contains(&"panic"), "as asked");
            Ok(vec![Embedding::normalised(&[1.0; EMBEDDING_DIMENSIONS]).unwrap(); texts.len()])
        }
    }

    fn gate() -> (Arc<Gate>, mpsc::Sender<()>) {
        let (go, wait) = mpsc::channel();
        (Arc::new(Gate { order: Mutex::default(), go: Mutex::new(wait) }), go)
    }

    fn texts(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{prefix}{number}")).collect()
    }

    #[tokio::test]
    async fn a_batch_of_one_user_does_not_stop_the_search_of_another() {
        let (gate, go) = gate();
        let pool = EmbedderPool::start(gate.clone(), 1_000).unwrap();
        let batch = pool.shared.submit(UserKey(1), texts("batch", 50)).unwrap();
        let search = pool.shared.submit(UserKey(2), texts("search", 1)).unwrap();
        (0..51).for_each(|_| go.send(()).unwrap());
        assert_eq!(search.await.unwrap().unwrap().len(), 1);
        assert_eq!(batch.await.unwrap().unwrap().len(), 50);
        let order = lock(&gate.order).clone();
        let place = order.iter().position(|text| text == "search0").unwrap();
        assert!(place < 6, "the search came {place}th");
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_and_a_panic_fails_its_request_alone() {
        let (gate, go) = gate();
        let pool = EmbedderPool::start(gate, 4).unwrap();
        let first = pool.shared.submit(UserKey(1), texts("a", 8)).unwrap();
        assert!(matches!(pool.embed(UserKey(1), texts("b", 1)).await, Err(Error::Busy(_))));
        // Another's batch stops nobody who has nothing waiting.
        let second = pool.shared.submit(UserKey(2), texts("c", 1)).unwrap();
        (0..9).for_each(|_| go.send(()).unwrap());
        assert_eq!(first.await.unwrap().unwrap().len(), 8);
        assert_eq!(second.await.unwrap().unwrap().len(), 1);
        (0..2).for_each(|_| go.send(()).unwrap());
        assert!(matches!(pool.embed(UserKey(1), vec!["panic".into()]).await, Err(Error::Internal(_))));
        assert_eq!(pool.embed(UserKey(1), vec!["again".into()]).await.unwrap().len(), 1);
        // Asked again, it needs no turn.
        assert_eq!(pool.embed(UserKey(1), vec!["again".into()]).await.unwrap().len(), 1);
        drop(go);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_made() {
        let (gate, go) = gate();
        let pool = EmbedderPool::start(gate.clone(), 100).unwrap();
        drop(pool.shared.submit(UserKey(1), texts("gone", 50)).unwrap());
        let wanted = pool.shared.submit(UserKey(1), texts("wanted", 1)).unwrap();
        (0..60).for_each(|_| go.send(()).unwrap());
        assert!(wanted.await.unwrap().is_ok());
        assert!(lock(&gate.order).len() < 10);
    }
}
