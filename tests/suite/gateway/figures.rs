//! How the upstreams do, as whoever runs the box sees it.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tallybox::app::App;
use tallybox::config::{Config, Environment};
use tower::ServiceExt;

use super::fake::{Act, Fake, Piece, answer, ending, said};
use super::{TIERS, hello, upstream};
use crate::suite::pages::{cookie, page};
use crate::suite::support::{TestApp, TestUser, request};

/// What the overview of `days` says of the upstreams, after the worker has written down what is noted.
async fn upstreams(app: &TestApp, admin: &TestUser, days: i32) -> Vec<Value> {
    app.pass().await;
    let overview = app.ask(&admin.token, &format!("/api/admin/overview?days={days}")).await.expect(200).json;
    overview["upstreams"].as_array().unwrap().clone()
}

/// The figures of the only upstream, once so many calls are counted: the end of a stream is counted after its last byte.
async fn counted(app: &TestApp, admin: &TestUser, calls: i64) -> Value {
    loop {
        let figures = upstreams(app, admin, 1).await.remove(0);
        if figures["calls"].as_i64().unwrap() >= calls {
            return figures;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Calls, errors, and the kinds of errors that there are.
fn outcome(figures: &Value) -> Value {
    let kinds = figures["errorsByKind"].as_object().unwrap().iter().filter(|(_, count)| **count != 0);
    let kinds: serde_json::Map<_, _> = kinds.map(|(kind, count)| (kind.clone(), count.clone())).collect();
    json!([figures["name"], figures["calls"], figures["errors"], kinds])
}

#[tokio::test]
async fn every_attempt_counts_for_the_upstream_it_was_made_at_and_survives_a_restart() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    let toml = format!(
        "{TIERS}{}{}{}",
        upstream("first", &first.url, "gpt-*"),
        upstream("second", &second.url, "*"),
        upstream("idle", "http://127.0.0.1:9/v1", "claude-*")
    );
    let app = TestApp::with_config(&toml);
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let ask = async || app.tell(&user.token, "/v1/chat/completions", hello(&json!({"max_tokens": 9}))).await;
    for failure in [Act::Whole(500, "{}".into()), Act::Whole(429, "{}".into()), Act::Close] {
        first.next(failure);
        second.next(Act::Whole(200, answer("a", 2, 3).to_string()));
        ask().await.expect(200);
    }
    first.next(Act::Half);
    ask().await.expect(502);
    // What a caller did wrong is no error of the upstream, and says nothing of how long its answers take.
    first.next(Act::Whole(400, "{\"error\":{}}".into()));
    ask().await.expect(400);
    let seen = upstreams(&app, &admin, 30).await;
    let kinds = json!({"failed": 1, "rateLimited": 1, "unreachable": 1, "broken": 1});
    let expected = [json!(["first", 5, 4, kinds]), json!(["second", 3, 0, {}]), json!(["idle", 0, 0, {}])];
    assert_eq!(seen.iter().map(outcome).collect::<Vec<_>>(), expected);
    let none = json!({"p50": null, "p99": null});
    assert_eq!((&seen[0]["durationMs"], &seen[1]["firstTokenMs"]), (&none, &none), "no whole answer, no stream");
    assert!(seen[1]["durationMs"]["p50"].as_u64() <= seen[1]["durationMs"]["p99"].as_u64());
    assert!(seen[1]["durationMs"]["p50"].is_u64(), "{}", seen[1]);
    assert_eq!(seen[0]["today"], json!({"calls": 5, "errors": 4}));

    let shown = page(&app, "/admin", &cookie(&app, &admin.email).await).await.expect(200).text;
    assert!(shown.contains("1 unreachable, 1 rate limited, 1 failed, 1 broke off"), "{shown}");

    // Another configuration, another day: what was is still told.
    let TestApp { app: stopped, clock, directory } = app;
    drop(stopped);
    clock.advance_millis(86_400_000);
    let toml = format!("{TIERS}{}", upstream("second", &second.url, "*"));
    let config = Config::parse(Some(&toml), &Environment::default()).unwrap();
    let app = App::build(config, directory.path(), clock.clone()).unwrap();
    let app = TestApp { app, clock, directory };
    let again = upstreams(&app, &admin, 2).await;
    assert_eq!(again.iter().map(outcome).collect::<Vec<_>>(), [expected[1].clone(), expected[0].clone()]);
    assert_eq!(again[0]["durationMs"], seen[1]["durationMs"]);
    assert_eq!((&again[0]["isConfigured"], &again[1]["isConfigured"]), (&json!(true), &json!(false)));
    assert_eq!(again[0]["today"], json!({"calls": 0, "errors": 0}));
    assert_eq!(upstreams(&app, &admin, 1).await.len(), 1, "yesterday is not among them");
    app.proves();

    // After the longest look back it is forgotten.
    let then = app.clock.now();
    app.clock.advance_millis(368 * 86_400_000);
    app.pass().await;
    app.clock.turn_to(then);
    assert_eq!(outcome(&upstreams(&app, &admin, 30).await[0]), json!(["second", 0, 0, {}]));
}

#[tokio::test]
async fn a_stream_tells_its_first_token_and_whether_it_came_to_its_end() {
    let fake = Fake::start().await;
    let app = TestApp::with_config(&format!("{TIERS}{}timeout = '1s'", upstream("only", &fake.url, "*")));
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    let begin = async || {
        let body = hello(&json!({"stream": true, "max_tokens": 9}));
        let request = request("POST", "/v1/chat/completions", Some(&user.token), Some(body), &[]);
        app.app.router().oneshot(request).await.unwrap().into_body()
    };
    let mut pieces = vec![Piece::Wait(Duration::from_millis(64)), said("One"), Piece::Wait(Duration::from_millis(64))];
    pieces.extend(ending(2, 1));
    fake.next(Act::Stream(pieces));
    begin().await.collect().await.unwrap();
    let figures = counted(&app, &admin, 1).await;
    assert_eq!(outcome(&figures), json!(["only", 1, 0, {}]));
    // It was waited for so long: the buckets tell it within a sixteenth.
    assert!(figures["firstTokenMs"]["p50"].as_u64().unwrap() >= 60, "{figures}");
    assert!(figures["durationMs"]["p50"].as_u64().unwrap() >= 120, "{figures}");

    fake.next(Act::Stream(vec![said("One"), Piece::Break]));
    begin().await.collect().await.unwrap();
    let figures = counted(&app, &admin, 2).await;
    assert_eq!(outcome(&figures), json!(["only", 2, 1, {"broken": 1}]));

    fake.next(Act::Stream(vec![said("One"), Piece::Silence]));
    begin().await.collect().await.unwrap();
    let figures = counted(&app, &admin, 3).await;
    assert_eq!(outcome(&figures), json!(["only", 3, 2, {"broken": 1, "timeout": 1}]));

    // Who hangs up is no error of the upstream.
    fake.next(Act::Stream(vec![said("One"), said(" two"), Piece::Silence]));
    let mut body = begin().await;
    body.frame().await.unwrap().unwrap();
    drop(body);
    let figures = counted(&app, &admin, 4).await;
    assert_eq!(outcome(&figures), json!(["only", 4, 2, {"broken": 1, "timeout": 1}]));
    assert!(figures["durationMs"]["p99"].as_u64().unwrap() >= 120, "an answer that was cut says nothing: {figures}");
}

#[tokio::test]
async fn an_attempt_that_its_caller_gave_up_is_counted_and_is_no_error_of_the_upstream() {
    let fake = Fake::start().await;
    let app =
        TestApp::with_config(&format!("{TIERS}[metrics]\naccess = \"open\"\n{}", upstream("only", &fake.url, "*")));
    let user = app.user("a@example.org", "free_trial").await;
    let admin = app.admin("admin@example.org").await;
    // Silent before its answer begins.
    fake.next(Act::Slow(Duration::from_mins(10), String::new()));
    let body = hello(&json!({"max_tokens": 9}));
    let request = request("POST", "/v1/chat/completions", Some(&user.token), Some(body), &[]);
    let mut call = Box::pin(app.app.router().oneshot(request));
    tokio::select! {
        _ = &mut call => unreachable!("it was answered"),
        () = fake.asked(1) => {}
    }
    drop(call);
    let figures = counted(&app, &admin, 1).await;
    assert_eq!(outcome(&figures), json!(["only", 1, 0, {}]));
    assert_eq!(figures["durationMs"], json!({"p50": null, "p99": null}), "nobody knows how long it would have taken");
    let metrics = app.call("GET", "/metrics", None, None).await.expect(200).text;
    let series = "tallybox_upstream_requests_total{outcome=\"abandoned\",upstream=\"only\"} 1";
    assert!(metrics.contains(series), "{metrics}");
}
