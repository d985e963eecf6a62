//! Memories: stored, counted, found, changed, ended.

mod bounds;
mod ending;
mod index;
mod model;
mod places;
mod quota;
mod repair;
mod search;
mod transfer;
mod write;

use std::sync::Arc;

use serde_json::{Value, json};
use tallybox::adapter::embedder::{EmbedError, Embedder};
use tallybox::app::App;
use tallybox::clock::Clock;
use tallybox::config::{Config, Environment};
use tallybox::domain::memory::{EMBEDDING_DIMENSIONS, Embedding};

use super::support::{NOON, Reply, TestApp, TestUser};
pub(super) use repair::damage;

/// Words that a window holds.
const WINDOW_WORDS: usize = 50;

/// A model whose meaning of a text is its words: enough to tell texts apart.
pub(super) struct WordModel;

impl Embedder for WordModel {
    fn model(&self) -> &'static str {
        "words-of-the-test"
    }

    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices(' ').map(|(at, _)| at + 1)).step_by(WINDOW_WORDS).collect();
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        texts.iter().map(|text| Embedding::normalised(&vector_of(text)).map_err(|_| unreachable!())).collect()
    }
}

fn vector_of(text: &str) -> Vec<f32> {
    let mut vector = vec![0.001_f32; EMBEDDING_DIMENSIONS];
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = word.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
        vector[hash as usize % EMBEDDING_DIMENSIONS] += 1.0;
    }
    vector
}

/// A vector that points in one direction alone.
pub(super) fn axis(direction: usize) -> Value {
    let mut vector = vec![0.0_f32; EMBEDDING_DIMENSIONS];
    vector[direction] = 2.5;
    json!(vector)
}

pub(in crate::suite) fn app_with(toml: &str) -> TestApp {
    app_of(toml, Arc::new(WordModel))
}

/// As [`app_with`], with another model.
pub(in crate::suite) fn app_of(toml: &str, model: Arc<dyn Embedder>) -> TestApp {
    crate::suite::sieve::start();
    let config = Config::parse(Some(toml), &Environment::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    let app = App::build_with(config, directory.path(), clock.clone(), model).unwrap();
    TestApp { app, clock, directory }
}

impl TestApp {
    async fn store(&self, user: &TestUser, memory: Value) -> Reply {
        self.call("POST", "/memory/store", Some(&user.token), Some(memory)).await
    }

    /// Stores a note of this text and gives its id.
    async fn note(&self, user: &TestUser, text: &str) -> String {
        let reply = self.store(user, json!({"type": "note", "input_context": text})).await.expect(201);
        reply.json["id"].as_str().unwrap().to_owned()
    }

    async fn search(&self, user: &TestUser, search: Value) -> Vec<Value> {
        let reply = self.call("POST", "/memory/search", Some(&user.token), Some(search)).await.expect(200);
        reply.json["results"].as_array().unwrap().clone()
    }

    async fn get(&self, user: &TestUser, path: &str) -> Reply {
        self.call("GET", path, Some(&user.token), None).await
    }

    /// The level, by the ledger's totals.
    async fn level(&self, user: &TestUser) -> i64 {
        self.get(user, "/usage/storage").await.expect(200).json["used"].as_i64().unwrap()
    }

    /// Entries of `memory_storage`, newest first, as amount and action.
    async fn entries(&self, user: &TestUser) -> Vec<(i64, String)> {
        let reply = self.get(user, "/usage/ledger?resourceType=memory_storage&limit=100").await.expect(200);
        let entries = reply.json["entries"].as_array().unwrap().clone();
        entries
            .iter()
            .map(|entry| (entry["amount"].as_i64().unwrap(), entry["metadata"]["action"].as_str().unwrap().to_owned()))
            .collect()
    }

    /// Every invariant of the database holds.
    fn holds(&self) {
        let found = tallybox::service::check::run(self.app.store()).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }
}

fn texts(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| result["input_context"].as_str().unwrap()).collect()
}

/// The size of a memory of one window.
fn size_of(text: &str) -> i64 {
    bytes(text) + 1_536 + 162
}

fn bytes(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap()
}
