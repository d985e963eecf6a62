//! What moving memories in and out takes: places that nobody hogs, and no work in vain.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde_json::{Value, json};
use tallybox::adapter::embedder::{EmbedError, Embedder};
use tallybox::domain::memory::Embedding;
use tower::ServiceExt;

use super::{WordModel, app_of, app_with, size_of};
use crate::suite::support::{Reply, TestApp, TestUser, request};

/// A model that counts what it is asked to embed.
#[derive(Default)]
struct CountingModel(AtomicUsize);

impl Embedder for CountingModel {
    fn model(&self) -> &'static str {
        WordModel.model()
    }

    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
        WordModel.windows(text)
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        self.0.fetch_add(texts.len(), Ordering::SeqCst);
        WordModel.embed(texts)
    }
}

fn notes(texts: &[&str]) -> Value {
    let memories: Vec<Value> = texts.iter().map(|text| json!({"type": "note", "input_context": text})).collect();
    json!({"memories": memories})
}

async fn import(app: &TestApp, user: &TestUser, memories: &Value) -> Reply {
    app.call("POST", "/memory/import", Some(&user.token), Some(memories.clone())).await
}

#[tokio::test]
async fn an_import_looks_at_the_quota_before_anything_is_embedded() {
    let model = Arc::new(CountingModel::default());
    let embedded = || model.0.swap(0, Ordering::SeqCst);
    let limit = 2 * size_of("12345");
    let app = app_of(&format!("[tiers.basic]\nmemory_storage_bytes = {limit}\n"), Arc::<CountingModel>::clone(&model));
    let user = app.user("a@example.org", "basic").await;
    let many: Vec<String> = (10_000..10_100).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = import(&app, &user, &notes(&many)).await.expect(429);
    assert_eq!((&refused.json["record"], &refused.json["imported"]), (&json!(3), &json!(2)));
    assert_eq!(embedded(), 2, "what was refused was embedded");
    let again = import(&app, &user, &notes(&many)).await.expect(429);
    assert_eq!((&again.json["record"], &again.json["already_there"]), (&json!(3), &json!(2)));
    assert_eq!(embedded(), 0);
    // A repetition within one import takes no room, wherever the batch is cut.
    let user = app.user("b@example.org", "basic").await;
    let done = import(&app, &user, &notes(&["12345", "12345", "67890", "12345"])).await.expect(200);
    assert_eq!((&done.json["imported"], &done.json["already_there"]), (&json!(2), &json!(2)));
    // Short-term memories have their own bound.
    let model = Arc::new(CountingModel::default());
    let app = app_of(&format!("[memory]\nstm_bytes_max = {limit}\n"), Arc::<CountingModel>::clone(&model));
    let user = app.user("c@example.org", "pro").await;
    let short: Vec<Value> =
        many.iter().map(|text| json!({"type": "n", "input_context": text, "tier": "stm"})).collect();
    import(&app, &user, &json!({"memories": short})).await.expect(429);
    assert_eq!(model.0.load(Ordering::SeqCst), 2);
    app.holds();
}

/// A body that gives what it has, and then nothing or, where it trickles, a byte now and then, without an end.
struct Endless {
    first: Option<Bytes>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(pause) = self.pause.as_mut() else { return Poll::Pending };
        std::task::ready!(pause.as_mut().poll(context));
        self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(20))));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}

#[tokio::test]
async fn an_upload_that_is_silent_or_trickles_gives_its_place_back() {
    let app = app_with("[server]\nrequest_timeout = \"1s\"\n");
    let users = [app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await];
    for (user, trickles) in users.iter().zip([false, true]) {
        let body = Endless {
            first: Some(Bytes::from_static(b"{\"memories\": [")),
            pause: trickles.then(|| Box::pin(tokio::time::sleep(Duration::ZERO))),
        };
        let request = Request::post("/memory/import")
            .header("authorization", format!("Bearer {}", user.token))
            .header("content-type", "application/json")
            .body(Body::new(body));
        // Without an end to its patience this would never answer.
        let reply = app.send(request.unwrap()).await.expect(503);
        assert_eq!(reply.code(), "timeout");
        import(&app, user, &notes(&["x"])).await.expect(200);
    }
}

#[tokio::test]
async fn exports_that_nobody_reads_are_bounded_for_each_user() {
    let app = app_with("");
    let (user, other) = (app.user("a@example.org", "pro").await, app.user("b@example.org", "pro").await);
    for number in 0..40 {
        app.note(&user, &format!("number {number}")).await;
    }
    let export = async || {
        let asked = request("GET", "/memory/export", Some(&user.token), None, &[]);
        app.app.router().oneshot(asked).await.unwrap()
    };
    let mut unread = Vec::new();
    for _ in 0..4 {
        let answer = export().await;
        assert_eq!(answer.status(), 200);
        unread.push(answer);
    }
    let busy = app.get(&user, "/memory/export").await.expect(503);
    assert_eq!((busy.code(), busy.header("retry-after")), ("busy", "1"));
    app.get(&other, "/memory/export").await.expect(200);
    // One that is read to its end, and one that is given up.
    let whole = unread.pop().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(String::from_utf8_lossy(&whole).lines().count(), 40);
    drop(unread.pop());
    let again = [export().await.status(), export().await.status()];
    assert_eq!(again, [200, 200]);
}
