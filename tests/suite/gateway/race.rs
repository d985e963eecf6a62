//! Many calls at once near the limit, and the end of the program in the midst of them.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::fake::{Act, Fake, Piece, answer, said};
use super::{HELLO, TIERS, World, hello, upstream};
use crate::suite::support::{TestApp, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_two_hundred_calls_the_limit_holds_and_nothing_stays_held() {
    let world = World::new().await;
    world.fake.always(Act::Honest);
    let mut calls = JoinSet::new();
    for number in 0..200_u64 {
        let is_stream = number % 2 == 0;
        let hangs_up = number % 5 == 0;
        let body = hello(&json!({"stream": is_stream, "max_tokens": 5 + number % 40, "n": 1 + number % 2}));
        let request = request("POST", "/v1/chat/completions", Some(&world.user.token), Some(body), &[]);
        let router = world.app.app.router();
        calls.spawn(async move {
            let call = async {
                let response = router.oneshot(request).await.unwrap();
                let status = response.status().as_u16();
                let mut body = response.into_body();
                let mut pieces = 0;
                while let Some(Ok(_)) = body.frame().await {
                    pieces += 1;
                    if hangs_up && pieces == 2 {
                        break;
                    }
                }
                status
            };
            let patience = if hangs_up { Duration::from_millis(20 + number) } else { Duration::from_secs(20) };
            tokio::time::timeout(patience, call).await.unwrap_or(0)
        });
    }
    let watched = async {
        loop {
            let (used, reserved) = world.tokens().await;
            assert!(used + reserved <= 1_000, "{used} and {reserved}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let statuses = tokio::select! {
        statuses = calls.join_all() => statuses,
        () = watched => unreachable!("it never ends by itself"),
    };
    world.settled().await;
    let (used, reserved) = world.tokens().await;
    assert!((1..=1_000).contains(&used) && reserved == 0, "{used} and {reserved}");
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    world.app.proves();
    // What remains is still given out.
    let left = 1_000 - used;
    let status = world.app.enforce(&world.user, left.max(1)).await.status;
    assert_eq!(status, if left > 0 { 201 } else { 429 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_end_finds_no_place_in_the_write_queue_for_long_is_booked_once_there_is_one() {
    let world = World::with("[store]\nwrite_queue = 1\ncommit_jobs_max = 1").await;
    world.fake.next(Act::Slow(Duration::from_millis(300), answer("a", 2, 3).to_string()));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let mut writes = JoinSet::new();
    let full = async {
        world.fake.asked(1).await;
        let (begins, begun) = tokio::sync::oneshot::channel();
        let [store, other] = [(); 2].map(|()| world.app.app.store().clone());
        let work = move || {
            let _ = begins.send(());
            let _ = released.recv();
        };
        writes.spawn(async move {
            let written = store.write(move |_| {
                work();
                Ok(())
            });
            written.await.unwrap();
        });
        begun.await.unwrap();
        writes.spawn(async move { other.write(|_| Ok(())).await.unwrap() });
    };
    let (reply, ()) = tokio::join!(world.chat(hello(&json!({}))), full);
    assert_eq!(reply.expect(503).json["error"]["code"], "busy");
    // Long enough for one more try that finds no place.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(release);
    writes.join_all().await;
    world.settled().await;
    let (amount, metadata) = World::only(&world.entries().await);
    assert_eq!((amount, &metadata["outcome"]), (HELLO, &json!("lost")));
    world.app.proves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_cut_and_settled_when_the_program_stops() {
    let fake = Fake::start().await;
    let more = "[server]\nlisten = '127.0.0.1:0'\ndrain_timeout = '4s'";
    let TestApp { app, directory, .. } = {
        let app = TestApp::with_config(&format!("{TIERS}{more}\n{}", upstream("first", &fake.url, "*")));
        app.user("a@example.org", "free_trial").await;
        app
    };
    let by = tallybox::service::auth::account::By::command_line(tallybox::clock::Clock::system());
    let token = app.store().write(move |writer| {
        let user = tallybox::service::auth::account::load_by_email(writer, "a@example.org")?;
        let new =
            tallybox::service::auth::token::NewToken { name: "t".to_owned(), scopes: None, expires_in_days: None };
        Ok(tallybox::service::auth::token::create_for(writer, &by, &user, &new)?.1)
    });
    let token = token.await.unwrap();
    let store = app.store().clone();
    let listener = app.bind().await.unwrap();
    let url = format!("http://{}/v1/chat/completions", listener.local_addr().unwrap());
    let (stop, stopped) = watch::channel(false);
    let _ = rustls::crypto::ring::default_provider().install_default();
    fake.always(Act::Stream(vec![said("One"), said(" two"), Piece::Silence]));
    let listen = async {
        let client = reqwest::Client::new();
        let post = client.post(&url).bearer_auth(&token).json(&hello(&json!({"stream": true, "max_tokens": 20})));
        let mut response = post.send().await.unwrap();
        response.chunk().await.unwrap().unwrap();
        stop.send(true).unwrap();
        let begun = Instant::now();
        let mut text = String::new();
        while let Some(piece) = response.chunk().await.unwrap() {
            text.push_str(&String::from_utf8_lossy(&piece));
        }
        (text, begun.elapsed())
    };
    let (served, (text, took)) = tokio::join!(app.serve(listener, stopped), listen);
    served.unwrap();
    assert!(text.contains("\"code\":\"stopping\""), "{text}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    let found = store.read(tallybox::service::gateway::has_left_open).await.unwrap();
    assert!(!found);
    assert!(tallybox::service::check::run(&store).unwrap().is_empty());
    drop(directory);
}

fn tallybox(directory: &Path, url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallybox"));
    let upstreams = format!("[{{ name = 'first', base_url = '{url}', models = ['*'] }}]");
    command
        .env_clear()
        .env("TALLYBOX_DATA_DIR", directory)
        .env("TALLYBOX_GATEWAY__UPSTREAMS", upstreams)
        .args(arguments);
    command
}

fn output_of(directory: &Path, url: &str, arguments: &[&str]) -> String {
    let output = tallybox(directory, url, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn serve(directory: &Path, url: &str, address: SocketAddr, client: &reqwest::Client) -> Child {
    let mut command = tallybox(directory, url, &["serve", "--listen", &address.to_string()]);
    let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while client.get(format!("http://{address}/healthz")).send().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the server does not come up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_midst_of_fifty_streams_leaves_no_hold_and_loses_no_count() {
    const STREAMS: usize = 50;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (fake, directory, client) = (Fake::start().await, tempfile::tempdir().unwrap(), reqwest::Client::new());
    let (there, url) = (directory.path(), fake.url.as_str());
    output_of(there, url, &["user", "add", "a@example.org", "--tier", "pro"]);
    let token = output_of(there, url, &["token", "create", "--user", "a@example.org", "--name", "crash"]);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = serve(there, url, address, &client).await;
    fake.always(Act::Stream(vec![said("One"), said(" two"), said(" three"), Piece::Silence]));
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let post = client.post(format!("http://{address}/v1/chat/completions")).bearer_auth(&token);
        let mut response = post.json(&hello(&json!({"stream": true}))).send().await.unwrap();
        response.chunk().await.unwrap().unwrap();
        streams.push(response);
    }
    // Long enough for each to have written down how far it is.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    server.kill().unwrap();
    server.wait().unwrap();
    drop(streams);
    let mut server = serve(there, url, address, &client).await;
    let ask = async |path: &str| -> Value {
        let get = client.get(format!("http://{address}{path}")).bearer_auth(&token);
        get.send().await.unwrap().json().await.unwrap()
    };
    let standing = ask("/usage/tokens").await;
    let each = HELLO + 3;
    let expected = i64::try_from(STREAMS).unwrap() * each;
    assert_eq!((&standing["used"], &standing["reserved"]), (&json!(expected), &json!(0)));
    let entries = ask("/usage/ledger?limit=100").await["entries"].clone();
    let entries = entries.as_array().unwrap();
    assert_eq!(entries.len(), STREAMS);
    assert!(entries.iter().all(|entry| entry["metadata"]["recovered"] == true && entry["amount"] == each));
    assert!(output_of(there, url, &["check"]).starts_with("ok"));
    server.kill().unwrap();
    server.wait().unwrap();
}
