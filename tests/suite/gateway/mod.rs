//! The metered gateway before upstreams that do as they are told.

mod chat;
pub(super) mod fake;
mod figures;
mod odd;
mod others;
mod race;
mod recall;
mod refusal;
mod stream;
mod tls;

use serde_json::{Value, json};

use super::support::{Reply, TestApp, TestUser};
use fake::Fake;

/// An application with one upstream that serves everything.
struct World {
    app: TestApp,
    fake: Fake,
    user: TestUser,
}

/// A limit that tests can count with.
const TIERS: &str = "[tiers.free_trial]\nllm_tokens_day = 1000\n";

fn upstream(name: &str, url: &str, models: &str) -> String {
    format!(
        "[[gateway.upstreams]]\nname = '{name}'\nbase_url = '{url}'\napi_key = 'sk-operator'\nmodels = ['{models}']\n"
    )
}

impl World {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With more settings.
    async fn with(toml: &str) -> Self {
        let fake = Fake::start().await;
        let app = TestApp::with_config(&format!("{TIERS}{toml}\n{}", upstream("first", &fake.url, "*")));
        let user = app.user("a@example.org", "free_trial").await;
        Self { app, fake, user }
    }

    async fn chat(&self, body: Value) -> Reply {
        self.app.tell(&self.user.token, "/v1/chat/completions", body).await
    }

    async fn tokens(&self) -> (i64, i64) {
        self.app.tokens(&self.user).await
    }

    /// The entries of the user, newest first.
    async fn entries(&self) -> Vec<Value> {
        let reply = self.app.ask(&self.user.token, "/usage/ledger").await.expect(200);
        reply.json["entries"].as_array().unwrap().clone()
    }

    /// The one entry there is: its amount and its metadata.
    #[track_caller]
    fn only(entries: &[Value]) -> (i64, Value) {
        let [entry] = entries else { unreachable!("{} entries", entries.len()) };
        (entry["amount"].as_i64().unwrap(), entry["metadata"].clone())
    }

    /// Waits until nothing is held any more.
    async fn settled(&self) {
        let begun = std::time::Instant::now();
        while self.tokens().await.1 != 0 {
            assert!(begun.elapsed().as_millis() < 1_000, "nothing was settled within a second");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

/// A body of a chat with one line.
fn hello(more: &Value) -> Value {
    let mut body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "How are you today?"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The prompt of [`hello`] by the real tokenizer: five tokens and the frame.
const HELLO: i64 = 5 + 3 + 3;
/// What is held for it.
const HELLO_BOUND: i64 = HELLO + 8 + 16;
