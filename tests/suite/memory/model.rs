//! The model that vectors are made with.

use std::sync::Arc;

use tallybox::adapter::embedder::{EmbedError, Embedder};
use tallybox::app::App;
use tallybox::config::{Config, Environment};
use tallybox::domain::Error;
use tallybox::domain::memory::{EMBEDDING_DIMENSIONS, Embedding};
use tallybox::service::memory::{Progress, reembed};
use tallybox::service::quota::Policy;

use super::{app_with, bytes};
use serde_json::json;

/// Another model: every text is one window, and means the same.
struct FlatModel;

impl Embedder for FlatModel {
    fn model(&self) -> &'static str {
        "flat"
    }

    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
        vec![text]
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        Ok(texts.iter().map(|_| flat()).collect())
    }
}

fn flat() -> Embedding {
    Embedding::normalised(&[1.0; EMBEDDING_DIMENSIONS]).unwrap()
}

#[tokio::test]
async fn another_model_is_refused_until_everything_is_embedded_anew() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let long = vec!["word"; 120].join(" ");
    let memory = json!({"type": "n", "input_context": long});
    app.store(&user, memory).await.expect(201);
    for number in 0..40 {
        app.note(&user, &format!("number {number}")).await;
    }
    let build = || {
        let config = Config::parse(None, &Environment::default()).unwrap();
        App::build_with(config, app.directory.path(), app.clock.clone(), Arc::new(FlatModel))
    };
    let refusal = build().err().unwrap().to_string();
    assert!(refusal.contains("words-of-the-test") && refusal.contains("flat"), "{refusal}");
    assert!(refusal.contains("tallybox reembed"), "{refusal}");

    let config = Config::parse(None, &Environment::default()).unwrap();
    let policy = Policy { tiers: config.tiers, calendar: config.calendar };
    let before = app.level(&user).await;
    let store = app.app.store().clone();
    let run = |fails_after: usize| {
        let (store, policy) = (store.clone(), policy.clone());
        tokio::task::spawn_blocking(move || {
            let mut made = 0;
            let mut steps: Vec<Progress> = Vec::new();
            let embed = |_: &str| {
                made += 1;
                if made > fails_after { Err(Error::Unavailable("gone".to_owned())) } else { Ok(vec![flat()]) }
            };
            let result = reembed(&store, &policy, "flat", embed, |step| steps.push(step));
            (result, steps)
        })
    };
    let (result, steps) = run(35).await.unwrap();
    assert!(result.is_err());
    assert_eq!(steps, [Progress { done: 32, left: 9 }]);
    let refusal = build().err().unwrap().to_string();
    assert!(refusal.contains("in part by flat"), "{refusal}");
    let (result, steps) = run(usize::MAX).await.unwrap();
    result.unwrap();
    assert_eq!(steps, [Progress { done: 9, left: 0 }]);
    build().unwrap();
    assert_eq!(app.level(&user).await, before - 2 * 1_536);
    assert_eq!(app.entries(&user).await[0], (-2 * 1_536, "reembed".to_owned()));
    let listed = app.get(&user, "/memory?limit=100").await.json["memories"].as_array().unwrap().clone();
    assert_eq!(listed.last().unwrap()["size_bytes"], bytes(&long) + 1_536 + 162);
    app.holds();
}
