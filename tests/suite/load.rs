//! More than there is room for: queues that are full, connections that are slow, idle or too many, a log that readers hold.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::json;
use tallybox::domain::Result;
use tallybox::service::auth::account::has_admin;
use tallybox::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::calls::tokens;
use super::support::TestApp;

/// How long a test waits for what must come, before it fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits for what must come.
async fn soon<T>(coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, coming).await.expect("it does not come")
}

/// Work that says when it has begun, and goes on until it is let go.
fn held() -> (impl FnOnce() + Send + 'static, Receiver<()>, Sender<()>) {
    let ((begins, begun), (release, released)) = (channel(), channel());
    let work = move || {
        let _ = begins.send(());
        let _ = released.recv();
    };
    (work, begun, release)
}

/// Polls once, so that it stands where it waits.
async fn stand<T>(waiting: &mut (impl Future<Output = T> + Unpin)) {
    assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err(), "it does not wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_write_queue_is_busy_at_once_and_loses_nothing_it_took() {
    let app = TestApp::with_config("[store]\nwrite_queue = 2\ncommit_jobs_max = 1");
    let user = app.user("a@example.org", "pro").await;
    // The caller is remembered, so that no read stands in the way.
    app.used_up(&user, 1).await;
    let (work, begun, release) = held();
    let mut busy = Box::pin(app.app.store().write(move |_| -> Result<()> {
        work();
        Ok(())
    }));
    stand(&mut busy).await;
    begun.recv().unwrap();
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(app.tell(&user.token, "/usage/record", tokens(10)))).collect();
    for write in &mut waiting {
        stand(write).await;
    }
    for path in ["/usage/record", "/usage/reservations"] {
        let refused = app.tell(&user.token, path, tokens(100)).await.expect(503);
        assert_eq!((refused.code(), refused.header("retry-after")), ("busy", "1"));
    }
    assert_eq!(app.tokens(&user).await, (1, 0), "reading goes on");
    drop(release);
    busy.await.unwrap();
    for write in waiting {
        write.await.expect(201);
    }
    assert_eq!(app.tokens(&user).await, (21, 0));
    app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_read_queue_is_busy_at_once() {
    let app = TestApp::with_config("[store]\nreaders = 1\nread_queue = 1");
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 1).await;
    let (work, begun, release) = held();
    let mut busy = Box::pin(app.app.store().read(move |_| -> Result<()> {
        work();
        Ok(())
    }));
    stand(&mut busy).await;
    begun.recv().unwrap();
    let mut waiting = Box::pin(app.ask(&user.token, "/usage/tokens"));
    stand(&mut waiting).await;
    let refused = app.ask(&user.token, "/usage/tokens").await.expect(503);
    assert_eq!((refused.code(), refused.header("retry-after")), ("busy", "1"));
    // Whoever writes does not wait for those who read.
    app.used_up(&user, 1).await;
    drop(release);
    busy.await.unwrap();
    assert_eq!(waiting.await.expect(200).json["used"], 2);
}

/// Serves while `work` goes on, which is told where.
async fn served<T>(app: &TestApp, work: impl AsyncFnOnce(SocketAddr) -> T) -> T {
    let listener = app.app.bind().await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let serving = app.app.clone().serve(listener, stopping);
    let working = async {
        let result = work(address).await;
        stop.send(true).unwrap();
        result
    };
    let (served, result) = tokio::join!(serving, working);
    served.unwrap();
    result
}

/// All that comes until the server ends the connection.
async fn rest_of(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = soon(stream.read_to_end(&mut text)).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// Sends byte after byte until the server ends the connection, and gives what it had to say.
async fn trickle(mut stream: TcpStream, bytes: &[u8]) -> String {
    let (mut reading, mut writing) = stream.split();
    let mut text = Vec::new();
    let send = async {
        for byte in bytes.iter().cycle() {
            if writing.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = soon(reading.read_to_end(&mut text)) => {}
        () = send => {}
    }
    String::from_utf8_lossy(&text).into_owned()
}

const IMPATIENT: &str =
    "[server]\nlisten = '127.0.0.1:0'\nheader_timeout = '1s'\nrequest_timeout = '1s'\n[metrics]\naccess = 'open'\n";

/// What every listener does with those who are slow, or do nothing.
async fn sheds(address: SocketAddr, path: &str) {
    let connect = async || TcpStream::connect(address).await.unwrap();
    // Nothing at all, on a new connection.
    assert_eq!(rest_of(&mut connect().await).await, "");
    // A head that does not end.
    let mut slow = connect().await;
    slow.write_all(format!("GET {path} HTTP/1.1\r\nHost: box\r\nX-Slow: ").as_bytes()).await.unwrap();
    let said = trickle(slow, b"a").await;
    assert!(!said.contains("200 OK"), "{said}");
    // Nothing more after an answer.
    let mut idle = connect().await;
    idle.write_all(format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n").as_bytes()).await.unwrap();
    let said = rest_of(&mut idle).await;
    assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
    // HTTP/2 without a request: the preface and empty settings.
    let mut idle = connect().await;
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    rest_of(&mut idle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_or_idle_loses_the_connection() {
    let app = TestApp::with_config(IMPATIENT);
    served(&app, async |address| {
        sheds(address, "/healthz").await;
        // A body that does not end.
        let mut slow = TcpStream::connect(address).await.unwrap();
        let head =
            "POST /auth/login HTTP/1.1\r\nHost: box\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n";
        slow.write_all(head.as_bytes()).await.unwrap();
        let said = trickle(slow, b" ").await;
        assert!(said.starts_with("HTTP/1.1 503") && said.contains("\"code\":\"timeout\""), "{said}");
    })
    .await;
    // What was given up belongs to its route.
    let metrics = app.call("GET", "/metrics", None, None).await.expect(200).text;
    let given_up = "tallybox_http_requests_total{method=\"POST\",route=\"/auth/login\",status=\"503\"} 1";
    assert!(metrics.contains(given_up), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_of_the_metrics_sheds_as_the_other_does() {
    let metrics = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let app = TestApp::with_config(&format!("{IMPATIENT}listen = '{metrics}'"));
    served(&app, async |_| {
        while TcpStream::connect(metrics).await.is_err() {
            tokio::task::yield_now().await;
        }
        sheds(metrics, "/metrics").await;
        for (line, status, code) in [("GET /healthz", 404, "not_found"), ("POST /metrics", 405, "method_not_allowed")] {
            let mut stream = TcpStream::connect(metrics).await.unwrap();
            let head = format!("{line} HTTP/1.1\r\nHost: box\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let said = rest_of(&mut stream).await;
            let is_problem =
                said.contains("application/problem+json") && said.contains(&format!("\"code\":\"{code}\""));
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")) && is_problem, "{said}");
            assert!(said.contains("x-request-id: mine"), "{said}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_past_the_cap_wait_until_one_ends() {
    let app = TestApp::with_config(&IMPATIENT.replace("[metrics]", "connections_max = 2\n[metrics]"));
    served(&app, async |address| {
        let begun = Instant::now();
        let mut first = TcpStream::connect(address).await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(b"GET /healthz HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").await.unwrap();
        let said = rest_of(&mut third).await;
        assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
        // It was answered in the place of one that was shed, which is not before the others' patience was over.
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
        let (first, second) = (first.read(&mut [0]).await, second.try_read(&mut [0]));
        assert!(matches!(first, Ok(0)) || matches!(second, Ok(0)), "{first:?} {second:?}");
    })
    .await;
}

/// Longest head that is read.
const HEAD_BYTES_MAX: usize = 65_536;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_a_whole_body_that_nobody_wants_has_its_answer() {
    const MIB: usize = 1_048_576;
    const JSON: &str = "Content-Type: application/json\r\n";
    let app = TestApp::with_config("[server]\nlisten = '127.0.0.1:0'\nbody_bytes_max = 32768\nrequest_timeout = '20s'");
    let user = app.user("a@example.org", "basic").await;
    let known = format!("Authorization: Bearer {}\r\n{JSON}", user.token);
    served(&app, async |address| {
        for (line, headers, bytes, status) in [
            ("POST /usage/record", known.as_str(), 5 * MIB, 413),
            ("POST /memory/store", JSON, 5 * MIB, 401),
            ("POST /usage/record", &known.replace("application/json", "text/plain"), 5 * MIB, 415),
            ("POST /nowhere", JSON, 5 * MIB, 404),
            ("PUT /usage/record", JSON, 5 * MIB, 405),
            ("POST /auth/login", JSON, 5 * MIB, 413),
            ("POST /login", "Content-Type: application/x-www-form-urlencoded\r\n", 5 * MIB, 413),
            ("POST /v1/chat/completions", &known, 5 * MIB, 413),
            ("POST /memory/import", &known, 68 * MIB, 413),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!("{line} HTTP/1.1\r\nHost: box\r\n{headers}Content-Length: {bytes}\r\n\r\n");
            soon(stream.write_all(head.as_bytes())).await.unwrap();
            soon(stream.write_all(&vec![b' '; bytes])).await.unwrap();
            // The connection goes on.
            let next = b"GET /healthz HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n";
            soon(stream.write_all(next)).await.unwrap();
            let said = rest_of(&mut stream).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {said}");
            assert!(said.contains("HTTP/1.1 200 OK"), "{line}: {said}");
        }
        // Nor does it matter that the connection is to end, or that the length is not said.
        let head = "POST /usage/record HTTP/1.1\r\nHost: box\r\nConnection: close\r\n";
        let body = " ".repeat(2 * MIB);
        for request in [
            format!("{head}{known}Content-Length: {}\r\n\r\n{body}", body.len()),
            format!("{head}{known}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            soon(stream.write_all(request.as_bytes())).await.unwrap();
            let said = rest_of(&mut stream).await;
            assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
        }
        // Who asks first whether to send it is told no, and the body is not waited for.
        let mut polite = TcpStream::connect(address).await.unwrap();
        let head = format!("POST /usage/record HTTP/1.1\r\nHost: box\r\n{known}Expect: 100-continue\r\n");
        polite.write_all(format!("{head}Content-Length: {MIB}\r\n\r\n").as_bytes()).await.unwrap();
        let begun = Instant::now();
        let said = rest_of(&mut polite).await;
        assert!(said.starts_with("HTTP/1.1 413 ") && begun.elapsed() < Duration::from_secs(10), "{said}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_is_bounded_and_what_nobody_wants_is_not_read_for_ever() {
    let app = TestApp::with_config(IMPATIENT);
    served(&app, async |address| {
        let mut long = TcpStream::connect(address).await.unwrap();
        let head = format!("GET /healthz HTTP/1.1\r\nHost: box\r\nX-Long: {}", "x".repeat(HEAD_BYTES_MAX));
        long.write_all(&head.as_bytes()[..HEAD_BYTES_MAX]).await.unwrap();
        let said = rest_of(&mut long).await;
        assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
        // An answered body that does not end.
        let mut slow = TcpStream::connect(address).await.unwrap();
        let head = "POST /usage/record HTTP/1.1\r\nHost: box\r\nContent-Length: 90000\r\n\r\n";
        slow.write_all(head.as_bytes()).await.unwrap();
        let begun = Instant::now();
        let said = trickle(slow, b" ").await;
        assert!(said.starts_with("HTTP/1.1 401 ") && begun.elapsed() < Duration::from_secs(10), "{said}");
    })
    .await;
}

/// Asks again and again without reading an answer, until nothing more can be sent.
async fn ask_without_reading(stream: &mut TcpStream) {
    let many = "GET /assets/tallybox.css HTTP/1.1\r\nHost: box\r\n\r\n".repeat(200);
    let send = async { while stream.write_all(many.as_bytes()).await.is_ok() {} };
    // The server reads on only when its answers are taken.
    drop(tokio::time::timeout(Duration::from_secs(2), send).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_the_answers_loses_the_connection() {
    let app = TestApp::with_config(&IMPATIENT.replace("[metrics]", "connections_max = 1\n[metrics]"));
    served(&app, async |address| {
        let mut deaf = TcpStream::connect(address).await.unwrap();
        ask_without_reading(&mut deaf).await;
        // HTTP/2 with no room for a byte of an answer: preface, settings, and the head of `GET /healthz`.
        let mut shut = TcpStream::connect(address).await.unwrap();
        shut.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0").await.unwrap();
        shut.write_all(b"\0\0\x11\x01\x05\0\0\0\x01\x82\x86\x04\x08/healthz\x01\x03box").await.unwrap();
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(b"GET /healthz HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").await.unwrap();
        let said = rest_of(&mut next).await;
        assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
        // Both kept the only place until they were shed; the second was answered as far as it let itself be.
        let mut told = Vec::new();
        drop(soon(shut.read_to_end(&mut told)).await);
        assert!(told.windows(5).any(|frame| frame[3] == 1), "no head of an answer: {told:?}");
    })
    .await;
}

/// Most bytes of the log where it is copied after so many pages, before readers have to wait for its emptying.
const fn log_bytes_max(pages: u64) -> u64 {
    4 * pages * 8_192
}

/// Writes until the log is as `is` says.
async fn write_until(app: &TestApp, token: &str, is: impl Fn(u64) -> bool) {
    let begun = Instant::now();
    let text = "what fills the log ".repeat(190);
    while !is(app.app.store().log_bytes()) {
        assert!(begun.elapsed() < PATIENCE, "the log has {} bytes", app.app.store().log_bytes());
        let body = json!({"resourceType": "llm_tokens", "amount": 1, "metadata": {"text": text}});
        app.tell(token, "/usage/record", body).await.expect(201);
    }
}

/// Reads for some milliseconds at a time until it is told to stop. Of several there is always one under way.
fn read_on(store: &Store, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let read = store.read_blocking(|reader| {
            has_admin(reader)?;
            std::thread::sleep(Duration::from_millis(7));
            Ok(())
        });
        read.unwrap();
    }
}

/// Stops who reads, also where the test fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_overlap_without_a_gap_do_not_let_the_log_grow() {
    // With fewer pages a fast disk takes more than is bounded between two looks at the length.
    let app = TestApp::with_config("[store]\ncheckpoint_pages = 1000");
    let most = log_bytes_max(1_000);
    let user = app.user("a@example.org", "pro").await;
    let stop = AtomicBool::new(false);
    let store = app.app.store().clone();
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        for offset in 0..3 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(2 * offset));
                read_on(store, stop);
            });
        }
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for _ in 0..3 {
                    write_until(&app, &user.token, |bytes| bytes > most).await;
                    write_until(&app, &user.token, |bytes| bytes < most).await;
                }
            });
        });
        drop(stopping);
    });
    app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_one_long_reader_held_is_short_again_after_it() {
    let app = TestApp::with_config("[store]\ncheckpoint_pages = 100");
    let most = log_bytes_max(100);
    let user = app.user("a@example.org", "pro").await;
    let (work, begun, release) = held();
    let mut reading = Box::pin(app.app.store().read(move |reader| -> Result<()> {
        has_admin(reader)?;
        work();
        Ok(())
    }));
    stand(&mut reading).await;
    begun.recv().unwrap();
    write_until(&app, &user.token, |bytes| bytes > 2 * most).await;
    drop(release);
    reading.await.unwrap();
    write_until(&app, &user.token, |bytes| bytes < most).await;
    app.proves();
}
