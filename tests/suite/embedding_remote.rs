//! The remote embedder against a real HTTP server on this machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallybox::adapter::embedder::{EmbedError, Embedder, Remote, RemoteConfig};
use tallybox::domain::memory::Embedding;
use tokio::runtime::Runtime;

/// A request as the server saw it.
#[derive(Clone)]
struct Seen {
    path: String,
    authorization: Option<String>,
    body: Value,
}

/// What the server does with a request.
#[derive(Clone)]
enum Reply {
    /// Good vectors, whose first number tells the text's length, in reverse order.
    Vectors,
    /// A status with header lines and a body.
    Status(u16, &'static str, String),
    /// Closes the connection without an answer.
    Hangup,
    /// Answers after the client has lost its patience.
    Silence(Duration),
}

/// An HTTP server that answers each request with the next reply, and the last one for ever.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, replies) = (Arc::clone(&shared), replies.clone());
                std::thread::spawn(move || {
                    serve(&stream.expect("a connection"), &shared, &replies);
                });
            }
        });
        Self { address, seen }
    }

    fn requests(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panics with it").clone()
    }

    fn config(&self) -> RemoteConfig {
        RemoteConfig {
            backoff: Duration::from_millis(10),
            timeout: Duration::from_secs(5),
            ..RemoteConfig::new(format!("http://{}/v1", self.address), "small-embedder")
        }
    }
}

/// Answers the requests of one connection; each ends the connection to keep the server simple.
fn serve(stream: &TcpStream, seen: &Mutex<Vec<Seen>>, replies: &[Reply]) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let length = header("content-length").map_or(0, |value| value.parse().expect("a length"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the whole body");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let number = {
        let mut seen = seen.lock().expect("no test panics with it");
        seen.push(Seen {
            path: lines[0].split(' ').nth(1).expect("a path").to_owned(),
            authorization: header("authorization"),
            body: body.clone(),
        });
        seen.len()
    };
    let (status, headers, answer) = match &replies[number.min(replies.len()) - 1] {
        Reply::Vectors => (200, "", vectors(&body)),
        Reply::Status(status, headers, answer) => (*status, *headers, answer.clone()),
        Reply::Hangup => return,
        Reply::Silence(time) => {
            std::thread::sleep(*time);
            (200, "", vectors(&body))
        }
    };
    // The client may have gone, which is its right.
    let _ = (&*stream).write_all(
        format!(
            "HTTP/1.1 {status} Status\r\n{headers}content-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{answer}",
            answer.len()
        )
        .as_bytes(),
    );
}

/// A vector for a text: its length, then ones.
fn vector(text: &str) -> Vec<f64> {
    let mut values = vec![1.0; 384];
    values[0] = f64::from(u32::try_from(text.len()).expect("a short text"));
    values
}

fn vectors(request: &Value) -> String {
    let texts = request["input"].as_array().expect("a list of texts");
    let mut data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let embedding = vector(text.as_str().expect("a text"));
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    data.reverse();
    json!({"object": "list", "data": data, "model": "m", "usage": {"total_tokens": 1}}).to_string()
}

/// Embeds as the server does: on a thread beside the runtime's own.
fn embed(config: RemoteConfig, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
    let runtime = Runtime::new().expect("a runtime");
    Remote::new(config, runtime.handle().clone())?.embed(texts)
}

fn expected(text: &str) -> Embedding {
    #[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
    let values: Vec<f32> = vector(text).iter().map(|&value| value as f32).collect();
    Embedding::normalised(&values).expect("a good vector")
}

#[test]
fn sends_what_openai_documents_and_keeps_the_order() {
    let server = Server::start(vec![Reply::Vectors]);
    let config = RemoteConfig { api_key: Some("secret-key".to_owned()), texts_per_request: 2, ..server.config() };
    let texts = ["one", "three", "seventeen"];
    let embeddings = embed(config, &texts).expect("vectors");
    assert_eq!(embeddings, texts.map(expected));
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "two texts, then one");
    assert_eq!(requests[0].path, "/v1/embeddings");
    assert_eq!(requests[0].authorization.as_deref(), Some("Bearer secret-key"));
    assert_eq!(
        requests[0].body,
        json!({
            "model": "small-embedder",
            "input": ["one", "three"],
            "dimensions": 384,
            "encoding_format": "float"
        })
    );
    assert_eq!(requests[1].body["input"], json!(["seventeen"]));
}

#[test]
fn works_without_a_key_and_without_texts() {
    let server = Server::start(vec![Reply::Vectors]);
    assert_eq!(embed(server.config(), &[]), Ok(Vec::new()));
    let config = RemoteConfig { url: format!("http://{}/v1/embeddings/", server.address), ..server.config() };
    assert_eq!(embed(config, &["a"]), Ok(vec![expected("a")]));
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].path, "/v1/embeddings");
    assert_eq!(requests[0].authorization, None);
}

#[test]
fn tries_again_after_passing_failures() {
    let server = Server::start(vec![
        Reply::Status(429, "retry-after: 0\r\n", "slow down".to_owned()),
        Reply::Hangup,
        Reply::Status(503, "", String::new()),
        Reply::Vectors,
    ]);
    assert_eq!(embed(server.config(), &["a"]), Ok(vec![expected("a")]));
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn heeds_the_wait_that_the_endpoint_asks_for() {
    let busy = Reply::Status(429, "retry-after: 1\r\n", String::new());
    let server = Server::start(vec![busy, Reply::Vectors]);
    let begin = Instant::now();
    assert_eq!(embed(server.config(), &["a"]), Ok(vec![expected("a")]));
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[test]
fn gives_up_after_the_last_try() {
    let down = Reply::Status(500, "", "{\"error\": \"out of memory\"}".to_owned());
    let server = Server::start(vec![down]);
    let config = RemoteConfig { retries: 2, ..server.config() };
    let error = embed(config, &["a"]).expect_err("the server is down");
    assert!(matches!(&error, EmbedError::Unavailable { detail } if detail.contains("500")), "{error}");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn tells_that_nobody_listens() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address")
    };
    let config = RemoteConfig {
        retries: 1,
        backoff: Duration::from_millis(5),
        ..RemoteConfig::new(format!("http://{address}"), "m")
    };
    let error = embed(config, &["a"]).expect_err("nobody listens");
    assert!(matches!(&error, EmbedError::Unavailable { detail } if detail.contains("connection")), "{error}");
}

#[test]
fn a_try_that_runs_out_of_time_is_not_repeated() {
    let server = Server::start(vec![Reply::Silence(Duration::from_secs(3))]);
    let config = RemoteConfig { timeout: Duration::from_millis(200), ..server.config() };
    let begin = Instant::now();
    let error = embed(config, &["a"]).expect_err("no answer in time");
    assert!(matches!(error, EmbedError::Unavailable { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_refusal_is_final() {
    let answer = "{\"error\": {\"message\": \"Incorrect API key\"}}".to_owned();
    let server = Server::start(vec![Reply::Status(401, "", answer)]);
    let error = embed(server.config(), &["a"]).expect_err("the key is wrong");
    assert!(matches!(&error, EmbedError::Refused { detail } if detail.contains("401")), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn what_an_endpoint_says_is_not_repeated_since_it_may_be_what_was_asked() {
    let text = "Ornithoptera the 48th";
    let echo = json!({"detail": [{"loc": ["body", "input"], "msg": "too long", "input": text}]}).to_string();
    for (status, answer) in [
        (422, echo.clone()),
        (500, echo),
        (200, json!({ "data": text }).to_string()),
        (200, json!({"data": [{"index": 0, "embedding": text}]}).to_string()),
        (200, json!({"data": [{"index": text, "embedding": []}]}).to_string()),
    ] {
        let server = Server::start(vec![Reply::Status(status, "", answer)]);
        let error = embed(RemoteConfig { retries: 0, ..server.config() }, &[text]).expect_err("no vector");
        assert!(!format!("{error} {error:?}").contains("Ornithoptera"), "{error}");
    }
}

#[test]
fn redirects_are_not_followed() {
    let other = Server::start(vec![Reply::Vectors]);
    let location: &'static str = format!("location: http://{}/v1/embeddings\r\n", other.address).leak();
    for status in [301, 302, 307, 308] {
        let server = Server::start(vec![Reply::Status(status, location, String::new())]);
        let config = RemoteConfig { api_key: Some("secret-key".to_owned()), ..server.config() };
        let error = embed(config, &["a"]).expect_err("a redirect");
        assert!(matches!(error, EmbedError::Refused { .. }), "{error}");
    }
    assert!(other.requests().is_empty(), "the key went to another host");
}

#[test]
fn unusable_vectors_are_named_clearly() {
    let long = json!({"data": [{"index": 0, "embedding": vec![0.5; 1536]}]}).to_string();
    let zeros = json!({"data": [{"index": 0, "embedding": vec![0.0; 384]}]}).to_string();
    let gap = json!({"data": [{"index": 0, "embedding": [null]}]}).to_string();
    let huge = json!({"data": [{"index": 0, "embedding": vec![1e300; 384]}]}).to_string();
    let twice = json!({"data": [{"index": 1, "embedding": vec![1.0; 384]}]}).to_string();
    for (answer, part) in [
        (long, "1536 numbers, 384 are needed"),
        (zeros, "zero vector"),
        (gap, "not as documented"),
        (huge, "not as documented"),
        (twice, "one vector for each"),
        ("{\"data\": []}".to_owned(), "one vector for each"),
        ("<html>".to_owned(), "not as documented"),
    ] {
        let server = Server::start(vec![Reply::Status(200, "", answer)]);
        let error = embed(server.config(), &["a"]).expect_err("no good vector");
        assert!(matches!(error, EmbedError::BadVector { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn an_answer_that_is_too_long_is_not_read() {
    let server = Server::start(vec![Reply::Status(200, "", " ".repeat(33 * 1024 * 1024))]);
    let error = embed(server.config(), &["a"]).expect_err("too long");
    assert!(matches!(error, EmbedError::BadVector { .. }), "{error}");
}

#[test]
fn settings_are_checked_and_the_key_is_kept_quiet() {
    let runtime = Runtime::new().expect("a runtime");
    let good = RemoteConfig::new("https://embeddings.example/v1", "m");
    for bad in [
        RemoteConfig::new("no address", "m"),
        RemoteConfig::new("ftp://embeddings.example", "m"),
        RemoteConfig { api_key: Some("line\nbreak".to_owned()), ..good.clone() },
        RemoteConfig { texts_per_request: 0, ..good.clone() },
    ] {
        let made = Remote::new(bad, runtime.handle().clone()).map(|_| ());
        assert!(matches!(made, Err(EmbedError::Settings { .. })), "{made:?}");
    }
    let config = RemoteConfig { api_key: Some("secret-key".to_owned()), ..good };
    assert!(!format!("{config:?}").contains("secret"));
    let remote = Remote::new(config, runtime.handle().clone()).expect("good settings");
    assert_eq!(remote.model(), "m");
    assert_eq!(remote.windows("short"), ["short"]);
    assert!(remote.windows(&"word ".repeat(600)).len() > 2);
}
