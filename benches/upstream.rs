//! Both ends of the gateway's benchmark: an upstream that costs next to nothing, and a client that times what comes back.
//!
//! `upstream serve PORT` answers chats until it is ended: whole, or as a stream of words with a pause between them.
//! `upstream time PORT PATH TOKENS CONNECTIONS SECONDS RATE whole|stream` prints how long answers took, in microseconds, one a
//! line: whole ones to their end, streams to their first word. `RATE` calls a second over all connections; 0: as fast as answers
//! come. `upstream open PORT PATH TOKENS COUNT SECONDS` keeps so many slow streams open, and says when each has its first word.
//! `TOKENS` names a file with a token a line, which the connections share.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark reports to the terminal, stops at the first fault, and its tasks end with it"
)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

/// Words of an answer, and the first of a stream, by which it is known.
const WORDS: usize = 20;
const FIRST: &str = "Ahoy";
/// Pause between two words of a stream, and of one that stays open.
const PAUSE: Duration = Duration::from_millis(10);
const SLOW_PAUSE: Duration = Duration::from_millis(200);
/// The model whose streams stay open, and for how many words at most.
const SLOW_MODEL: &str = "gpt-4o-slow";
const SLOW_WORDS: usize = 3_000;
const PROMPT: &str = "You are the assistant of a shop for boats. A customer asks: the ferry left the harbour before dawn, and \
    my dinghy with it. Which of your ropes holds 200 kg in salt water, how long does one last, and what does it cost by the metre?";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match arguments.as_slice() {
        ["serve", port] => runtime.block_on(serve(number(port))),
        ["time", port, path, tokens, connections, seconds, rate, kind] => {
            let plan = Plan::new(number(port), path, tokens, *kind == "stream", "gpt-4o");
            runtime.block_on(plan.time(number(connections), number(seconds), number(rate)));
        }
        ["open", port, path, tokens, count, seconds] => {
            let plan = Plan::new(number(port), path, tokens, true, SLOW_MODEL);
            runtime.block_on(plan.open(number(count), number(seconds)));
        }
        ["body"] => println!("{}", body("gpt-4o", false)),
        _ => panic!("usage: upstream serve PORT | time ... | open ... | body"),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("a number")
}

/// What a client asks.
fn body(model: &str, is_stream: bool) -> String {
    let stream = if is_stream { ",\"stream\":true" } else { "" };
    format!(
        "{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"{PROMPT}\"}}],\"max_tokens\":4096{stream}}}"
    )
}

/// The parts of every answer, made once.
struct Answers {
    whole: Vec<u8>,
    head: Vec<u8>,
    first: Vec<u8>,
    word: Vec<u8>,
    end: Vec<u8>,
}

fn chunk(choices: &str, usage: &str) -> String {
    let event = format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o\",\"choices\":[{choices}]{usage}}}\n\n"
    );
    format!("{:x}\r\n{event}\r\n", event.len())
}

impl Answers {
    fn new() -> Self {
        let usage =
            format!("\"usage\":{{\"prompt_tokens\":60,\"completion_tokens\":{WORDS},\"total_tokens\":{}}}", 60 + WORDS);
        let said = format!("{FIRST}{}", " word".repeat(WORDS - 1));
        let message = format!("{{\"role\":\"assistant\",\"content\":\"{said}\"}}");
        let whole = format!(
            "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"gpt-4o\",\"choices\":[{{\"index\":0,\
             \"message\":{message},\"finish_reason\":\"stop\"}}],{usage}}}"
        );
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
        let delta = |delta: &str, reason: &str| {
            chunk(&format!("{{\"index\":0,\"delta\":{delta},\"finish_reason\":{reason}}}"), "")
        };
        let first = delta("{\"role\":\"assistant\",\"content\":\"\"}", "null")
            + &delta(&format!("{{\"content\":\"{FIRST}\"}}"), "null");
        let done = "data: [DONE]\n\n";
        let end = delta("{}", "\"stop\"")
            + &chunk("", &format!(",{usage}"))
            + &format!("{:x}\r\n{done}\r\n0\r\n\r\n", done.len());
        Self {
            whole: format!("{head}{}\r\n\r\n{whole}", whole.len()).into_bytes(),
            head: b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            first: first.into_bytes(),
            word: delta("{\"content\":\" word\"}", "null").into_bytes(),
            end: end.into_bytes(),
        }
    }
}

async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port");
    let answers = Arc::new(Answers::new());
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        tokio::spawn(answer_all(stream, Arc::clone(&answers)));
    }
}

/// Where the head of a message ends, and how long the body is that its head names; none where it comes in chunks.
fn frame(bytes: &[u8]) -> Option<(usize, Option<usize>)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.split("content-length:").nth(1).and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok());
    Some((end, length))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// None at the end of the connection.
async fn answer_all(mut stream: TcpStream, answers: Arc<Answers>) -> Option<()> {
    let mut bytes = Vec::with_capacity(4_096);
    loop {
        let (head, length) = loop {
            match frame(&bytes) {
                Some((head, length)) if bytes.len() >= head + length.unwrap_or(0) => break (head, length.unwrap_or(0)),
                _ => {}
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let body = &bytes[head..head + length];
        let is_stream = contains(body, b"\"stream\":true") || contains(body, b"\"stream\": true");
        let is_slow = contains(body, SLOW_MODEL.as_bytes());
        bytes.drain(..head + length);
        if !is_stream {
            stream.write_all(&answers.whole).await.ok()?;
            continue;
        }
        let (pause, words) = if is_slow { (SLOW_PAUSE, SLOW_WORDS) } else { (PAUSE, WORDS) };
        stream.write_all(&[answers.head.as_slice(), &answers.first].concat()).await.ok()?;
        for _ in 1..words {
            sleep(pause).await;
            stream.write_all(&answers.word).await.ok()?;
        }
        stream.write_all(&answers.end).await.ok()?;
    }
}

/// What a client does: the same over and over, with one of the requests.
#[derive(Clone)]
struct Plan {
    port: u16,
    is_stream: bool,
    requests: Arc<Vec<Vec<u8>>>,
}

impl Plan {
    fn new(port: u16, path: &str, tokens: &str, is_stream: bool, model: &str) -> Self {
        let tokens = std::fs::read_to_string(tokens).expect("the tokens");
        let body = body(model, is_stream);
        let request = |token: &str| {
            let mut text = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n");
            let _ = write!(text, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            text.into_bytes()
        };
        Self { port, is_stream, requests: Arc::new(tokens.lines().map(request).collect()) }
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    async fn time(&self, connections: u32, seconds: u64, rate: u32) {
        let (times, mut found) = mpsc::unbounded_channel();
        let begun = tokio::time::Instant::now();
        let end = begun + Duration::from_secs(seconds);
        for connection in 0..connections {
            let (plan, times) = (self.clone(), times.clone());
            // Connections take turns, each at its own pace.
            let every = (rate > 0).then(|| Duration::from_secs(1) * connections / rate);
            let mut due = begun + every.unwrap_or_default() * connection / connections;
            tokio::spawn(async move {
                let mut stream = plan.connect().await;
                let mut bytes = Vec::with_capacity(65_536);
                let mut call = connection as usize;
                loop {
                    let is_late = tokio::time::Instant::now() > due;
                    if every.is_some() && !is_late {
                        sleep_until(due).await;
                    }
                    if tokio::time::Instant::now() >= end {
                        return;
                    }
                    // A call that had to wait for the one before it has waited since it was due.
                    let since = if every.is_some() && is_late { due.into_std() } else { Instant::now() };
                    let request = &plan.requests[call % plan.requests.len()];
                    stream.write_all(request).await.expect("a request");
                    let taken = read_answer(&mut stream, &mut bytes, plan.is_stream, since).await;
                    times.send(taken).expect("somebody listens");
                    call += connections as usize;
                    due += every.unwrap_or_default();
                }
            });
        }
        drop(times);
        let mut text = String::new();
        while let Some(taken) = found.recv().await {
            let _ = writeln!(text, "{}", taken.as_micros());
        }
        print!("{text}");
    }

    async fn open(&self, count: usize, seconds: u64) {
        let (heard, mut words) = mpsc::unbounded_channel();
        for call in 0..count {
            let (plan, heard) = (self.clone(), heard.clone());
            tokio::spawn(async move {
                let mut stream = plan.connect().await;
                stream.write_all(&plan.requests[call % plan.requests.len()]).await.expect("a request");
                let mut bytes = Vec::with_capacity(4_096);
                loop {
                    assert!(stream.read_buf(&mut bytes).await.expect("an answer") > 0, "a stream ended");
                    assert!(
                        bytes.starts_with(b"HTTP/1.1 200 ") || !bytes.starts_with(b"HTTP/"),
                        "{}",
                        String::from_utf8_lossy(&bytes)
                    );
                    if contains(&bytes, FIRST.as_bytes()) {
                        break;
                    }
                }
                heard.send(()).expect("somebody listens");
                loop {
                    bytes.clear();
                    assert!(stream.read_buf(&mut bytes).await.expect("an answer") > 0, "a stream ended");
                }
            });
            // So that they do not all speak at once.
            sleep(SLOW_PAUSE / u32::try_from(count).expect("a small number")).await;
        }
        for _ in 0..count {
            words.recv().await.expect("a word");
        }
        println!("open");
        sleep(Duration::from_secs(seconds)).await;
        println!("held");
        // Until whoever looks at it has seen enough.
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
        std::process::exit(0);
    }
}

/// Reads an answer to its end, and gives how long it took: to its first word, where it is a stream.
async fn read_answer(stream: &mut TcpStream, bytes: &mut Vec<u8>, is_stream: bool, since: Instant) -> Duration {
    bytes.clear();
    let mut first = None;
    loop {
        assert!(stream.read_buf(bytes).await.expect("an answer") > 0, "the connection ended");
        let Some((head, length)) = frame(bytes) else { continue };
        assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(bytes));
        if first.is_none() && is_stream && contains(&bytes[head..], FIRST.as_bytes()) {
            first = Some(since.elapsed());
        }
        let is_whole = match length {
            Some(length) => bytes.len() >= head + length,
            None => bytes.ends_with(b"\r\n0\r\n\r\n"),
        };
        if is_whole {
            let taken = since.elapsed();
            return if is_stream { first.expect("a stream says its first word") } else { taken };
        }
    }
}
