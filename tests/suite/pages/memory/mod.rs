//! The pages of memories.

mod change;
mod list;
mod text;

use serde_json::{Value, json};

use crate::suite::memory::app_with;
use crate::suite::support::{Reply, TestApp, TestUser, form};

/// Someone who is signed in.
struct World {
    app: TestApp,
    user: TestUser,
    cookie: String,
}

impl World {
    async fn new(toml: &str) -> Self {
        let app = app_with(toml);
        let user = app.user_with_password("a@example.org", "basic").await;
        let cookie = format!("tallybox_session={}", app.log_in("a@example.org").await);
        Self { app, user, cookie }
    }

    async fn page(&self, path: &str) -> Reply {
        self.app.call_with("GET", path, None, None, &[("cookie", &self.cookie), ("host", "box.test")]).await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.app.send(form(path, Some(&self.cookie), fields)).await
    }

    /// Stores a memory and gives its id.
    async fn store(&self, memory: Value) -> String {
        let reply = self.app.call("POST", "/memory/store", Some(&self.user.token), Some(memory)).await.expect(201);
        reply.json["id"].as_str().unwrap().to_owned()
    }

    async fn note(&self, text: &str) -> String {
        self.store(json!({"type": "note", "input_context": text})).await
    }

    /// Notes of `note 1.` to `note <count>.`, the oldest first.
    async fn notes(&self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 1..=count {
            ids.push(self.note(&format!("note {number}.")).await);
        }
        ids
    }

    async fn json(&self, path: &str) -> Value {
        self.app.call("GET", path, Some(&self.user.token), None).await.expect(200).json
    }
}

/// The texts of a list, without what marks the words.
fn texts(page: &str) -> Vec<String> {
    let rows = page.split(r#"<p class="result-text"><bdi dir="auto">"#).skip(1);
    rows.map(|row| row.split("</bdi>").next().unwrap().replace("<mark>", "").replace("</mark>", "")).collect()
}

/// The address of the link with these words.
#[track_caller]
fn link(page: &str, words: &str) -> String {
    let found = page.split_once(&format!(">{words}</a>"));
    assert!(found.is_some(), "no link {words}: {page}");
    let before = found.unwrap().0;
    let href = before.rsplit_once("href=\"").unwrap().1;
    href.split('"').next().unwrap().replace("&amp;", "&")
}
