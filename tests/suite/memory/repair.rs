//! What is derived from memories can be made anew from them.

use std::path::Path;

use rusqlite::Connection;
use tallybox::adapter::embedder::Embedder;
use tallybox::config::{Config, Environment};
use tallybox::service::check::run;
use tallybox::service::memory::{Repaired, repair};
use tallybox::service::quota::Policy;

use super::{WordModel, app_with, texts};
use crate::suite::cli::{fails, run_with};
use crate::suite::support::TestApp;
use serde_json::json;
use tallybox::app::App;
use tallybox::domain::Error;
use tallybox::store::Store;

/// Damages the database behind the program's back.
#[expect(clippy::disallowed_methods, reason = "as an accident would")]
pub(in crate::suite) fn damage(directory: &Path, sql: &str) {
    Connection::open(directory.join("tallybox.db")).unwrap().execute_batch(sql).unwrap();
}

fn invariants_broken(app: &TestApp) -> Vec<&'static str> {
    let mut broken: Vec<&str> = run(app.app.store()).unwrap().iter().map(|difference| difference.invariant).collect();
    broken.dedup();
    broken
}

#[tokio::test]
async fn vectors_words_and_totals_are_made_anew_from_the_memories() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let long = vec!["word"; 120].join(" ");
    for text in ["a ferry", "a boiler", "a peanut", long.as_str()] {
        app.note(&user, text).await;
    }
    assert_eq!(app.search(&user, json!({"query": "ferry"})).await.len(), 4);
    app.holds();
    let level = app.level(&user).await;
    damage(
        app.directory.path(),
        "DELETE FROM vectors WHERE id >> 12 IN (SELECT id FROM memories WHERE text = 'a boiler');
         UPDATE vectors SET embedding = zeroblob(1536) WHERE id >> 12 IN (SELECT id FROM memories WHERE text = 'a peanut');
         INSERT INTO vectors (id, embedding) SELECT 999 << 12, embedding FROM vectors LIMIT 1;
         INSERT INTO words (words) VALUES ('delete-all');
         INSERT INTO words (rowid, body) VALUES (777, '1\u{b7}lost');
         UPDATE memory_totals SET text_bytes = text_bytes + 5;",
    );
    let broken = invariants_broken(&app);
    assert_eq!(broken.len(), 4, "{broken:?}");
    let config = Config::parse(None, &Environment::default()).unwrap();
    let policy = Policy { tiers: config.tiers, calendar: config.calendar };
    let store = app.app.store().clone();
    let repaired = tokio::task::spawn_blocking(move || {
        let embed = |text: &str| Ok(WordModel.embed(&WordModel.windows(text)).unwrap());
        let again = repair(&store, &policy, embed, |_| ()).unwrap();
        (again, repair(&store, &policy, embed, |_| ()).unwrap())
    });
    let (repaired, again) = repaired.await.unwrap();
    assert_eq!(repaired, Repaired { vectors_deleted: 1, embedded: 2, indexed: 4, totals: 1 });
    assert_eq!(again, Repaired { vectors_deleted: 0, embedded: 0, indexed: 4, totals: 0 });
    app.holds();
    assert_eq!(app.level(&user).await, level);
    for (word, text) in [("ferry", "a ferry"), ("boiler", "a boiler"), ("word", &long)] {
        for mode in ["keyword", "semantic", "hybrid"] {
            assert_eq!(texts(&app.search(&user, json!({"query": word, "mode": mode})).await)[0], text, "{mode}");
        }
    }
}

#[tokio::test]
async fn a_repair_that_was_interrupted_keeps_the_server_from_starting_until_one_ends() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    for text in ["a ferry", "a boiler"] {
        app.note(&user, text).await;
    }
    let lost = "DELETE FROM vectors WHERE id >> 12 IN (SELECT id FROM memories WHERE text = 'a boiler')";
    damage(app.directory.path(), lost);
    let config = || Config::parse(None, &Environment::default()).unwrap();
    let policy = Policy { tiers: config().tiers, calendar: config().calendar };
    let (store, its_policy) = (app.app.store().clone(), policy.clone());
    let interrupted = tokio::task::spawn_blocking(move || {
        repair(&store, &its_policy, |_| Err(Error::Unavailable("the power went".to_owned())), |_| ())
    });
    assert!(interrupted.await.unwrap().is_err());
    let clock = app.clock.clone();
    let directory = app.stop();
    let started = |directory: &Path| {
        App::build_with(config(), directory, clock.clone(), std::sync::Arc::new(WordModel))
            .map(|app| app.store().clone())
    };
    let Err(refusal) = started(directory.path()) else { unreachable!("it has started") };
    assert!(format!("{refusal:#}").contains("check --repair"), "{refusal:#}");
    let output = run_with(directory.path(), &["serve", "--listen", "127.0.0.1:0"], "");
    assert!(fails(&output).contains("`tallybox check --repair`"), "{}", fails(&output));
    // The model inside is another one: what it made would not be comparable with what is there.
    let said = fails(&run_with(directory.path(), &["check", "--repair"], ""));
    assert!(said.contains("words-of-the-test") && said.contains("reembed"), "{said}");
    let store = Store::open(directory.path(), clock.clone(), &config().store).unwrap();
    let repaired = tokio::task::spawn_blocking(move || {
        let embed = |text: &str| Ok(WordModel.embed(&WordModel.windows(text)).unwrap());
        let repaired = repair(&store, &policy, embed, |_| ()).unwrap();
        store.close();
        repaired
    });
    assert_eq!(repaired.await.unwrap(), Repaired { vectors_deleted: 0, embedded: 1, indexed: 2, totals: 0 });
    let store = started(directory.path()).unwrap_or_else(|error| unreachable!("{error:#}"));
    assert!(run(&store).unwrap().is_empty());
}
