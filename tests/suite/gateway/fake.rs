//! An upstream that does as it is told, over real connections.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A whole answer.
    Whole(u16, String),
    /// A whole answer after a while.
    Slow(Duration, String),
    /// Server-sent events.
    Stream(Vec<Piece>),
    /// The beginning of a whole answer, and then no more.
    Half,
    /// An answer that there is something to be had elsewhere.
    Redirect(u16, String),
    /// These bytes, head and body.
    Raw(String),
    /// No answer: the connection ends.
    Close,
    /// Each time something else, which never says more than it was allowed to.
    Honest,
}

/// A piece of a stream.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    Wait(Duration),
    /// The connection ends in the middle.
    Break,
    /// Nothing more comes, until the other side hangs up.
    Silence,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Shared {
    acts: Mutex<VecDeque<Act>>,
    always: Mutex<Option<Act>>,
    seen: Mutex<Vec<Seen>>,
    hung_up: AtomicUsize,
}

/// The upstream.
pub(crate) struct Fake {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let mut task = JoinSet::new();
        let there = Arc::clone(&shared);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&there)));
            }
        });
        Self { url, shared, _task: task }
    }

    /// Does this with the next request that nothing else was said of.
    pub(crate) fn next(&self, act: Act) {
        self.shared.acts.lock().unwrap().push_back(act);
    }

    /// Does this with every request that nothing else was said of.
    pub(crate) fn always(&self, act: Act) {
        *self.shared.always.lock().unwrap() = Some(act);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Waits until that many requests have come.
    pub(crate) async fn asked(&self, times: usize) {
        while self.shared.seen.lock().unwrap().len() < times {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.seen().last().unwrap().clone()
    }

    /// Streams whose reader hung up.
    pub(crate) fn hung_up(&self) -> usize {
        self.shared.hung_up.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(seen) = read(&mut stream).await {
        shared.seen.lock().unwrap().push(seen);
        let act = shared.acts.lock().unwrap().pop_front();
        let act = act.or_else(|| shared.always.lock().unwrap().clone()).expect("nothing was said of this request");
        let act = if matches!(act, Act::Honest) { honest(&shared) } else { act };
        if act_on(&mut stream, act, &shared).await.is_none() {
            return;
        }
    }
}

/// What an upstream might do with the last request, as long as it honours its bound.
fn honest(shared: &Shared) -> Act {
    let seen = shared.seen.lock().unwrap();
    let (number, body) = (seen.len(), seen.last().unwrap().json());
    let most = body["max_tokens"].as_i64().unwrap() * body["n"].as_i64().unwrap_or(1);
    let says = most.min(30);
    if body["stream"] != true {
        return match number % 6 {
            0 => Act::Whole(500, "{}".to_owned()),
            1 => Act::Half,
            2 => Act::Slow(Duration::from_millis(50), answer("word", 12, says).to_string()),
            _ => Act::Whole(200, answer("word", 12, says).to_string()),
        };
    }
    let mut pieces = Vec::new();
    for _ in 0..says {
        pieces.push(said(" word"));
        pieces.push(Piece::Wait(Duration::from_millis(1)));
    }
    match number % 5 {
        0 => pieces.push(Piece::Break),
        1 => pieces.push(event("[DONE]")),
        2 => pieces.truncate(3),
        _ => pieces.extend(ending(12, says)),
    }
    Act::Stream(pieces)
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 16_384];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1).map_or("0", |rest| rest.split("\r\n").next().unwrap());
            let whole = end + 4 + length.parse::<usize>().unwrap();
            if bytes.len() >= whole {
                let body = String::from_utf8(bytes[end + 4..whole].to_vec()).unwrap();
                return Some(Seen { head, body });
            }
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

/// None where the connection shall end.
async fn act_on(stream: &mut TcpStream, act: Act, shared: &Shared) -> Option<()> {
    let whole = |status: u16, body: &str| {
        format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: 7\r\n\
             openai-organization: the-operators\r\nopenai-version: 2020-10-01\r\nset-cookie: a=b\r\n\r\n{body}",
            body.len()
        )
    };
    match act {
        Act::Whole(status, body) => stream.write_all(whole(status, &body).as_bytes()).await.ok(),
        Act::Slow(time, body) => {
            tokio::time::sleep(time).await;
            stream.write_all(whole(200, &body).as_bytes()).await.ok()
        }
        Act::Half => {
            let answer = whole(200, &answer("half of it", 5, 5).to_string());
            stream.write_all(&answer.as_bytes()[..answer.len() - 20]).await.ok();
            None
        }
        Act::Redirect(status, url) => {
            let answer =
                format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {url}/chat/completions\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok()
        }
        Act::Raw(answer) => stream.write_all(answer.as_bytes()).await.ok(),
        Act::Close | Act::Honest => None,
        Act::Stream(pieces) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            for piece in pieces {
                match piece {
                    Piece::Bytes(bytes) => {
                        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                        chunk.extend_from_slice(&bytes);
                        chunk.extend_from_slice(b"\r\n");
                        if stream.write_all(&chunk).await.is_err() {
                            shared.hung_up.fetch_add(1, Ordering::SeqCst);
                            return None;
                        }
                    }
                    Piece::Wait(time) => tokio::time::sleep(time).await,
                    Piece::Break => return None,
                    Piece::Silence => {
                        let _ = stream.read(&mut [0; 16]).await;
                        shared.hung_up.fetch_add(1, Ordering::SeqCst);
                        return None;
                    }
                }
            }
            stream.write_all(b"0\r\n\r\n").await.ok()
        }
    }
}

/// A whole answer by another name than that of JSON.
pub(crate) fn named(header: &str, body: &str) -> Act {
    Act::Raw(format!("HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// A whole chat answer.
pub(crate) fn answer(content: &str, prompt: i64, completion: i64) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    })
}

/// An event with these data.
pub(crate) fn event(data: &str) -> Piece {
    Piece::Bytes(format!("data: {data}\n\n").into_bytes())
}

/// A chunk of a chat that says something.
pub(crate) fn said(content: &str) -> Piece {
    event(
        &chunk(&json!([{"index": 0, "delta": {"content": content}, "finish_reason": null}]), &Value::Null).to_string(),
    )
}

/// A chunk of a chat.
pub(crate) fn chunk(choices: &Value, usage: &Value) -> Value {
    json!({
        "id": "chatcmpl-2", "object": "chat.completion.chunk", "created": 2, "model": "gpt-4o-2024-08-06",
        "choices": choices, "usage": usage,
    })
}

/// The end of a chat: its reason, its cost and the last event.
pub(crate) fn ending(prompt: i64, completion: i64) -> Vec<Piece> {
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion});
    vec![
        event(&chunk(&json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), &Value::Null).to_string()),
        event(&chunk(&json!([]), &usage).to_string()),
        event("[DONE]"),
    ]
}
