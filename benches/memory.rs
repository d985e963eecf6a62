//! Memories without HTTP: `memory fill DIRECTORY TEXTS VECTORS COUNT USERS` stores memories of so many users with the
//! embeddings of a file, 256 a commit, and prints how many a second that were. Text and embedding number `n` are line `n` of
//! TEXTS and the floats from `384 n` on of VECTORS, from the beginning again where they end.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark reports to the terminal and stops at the first fault"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tallybox::clock::Clock;
use tallybox::config::{Config, Environment};
use tallybox::domain::auth::{Caller, Scope};
use tallybox::domain::memory::{Content, Embedding, MemoryTier, NewMemory};
use tallybox::service::auth::{self, Presented};
use tallybox::service::memory::{self, Policy};
use tallybox::service::quota;
use tallybox::store::{Store, StoreOptions};

const COMMIT: usize = 256;
const EMBEDDING_BYTES: usize = 1_536;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["fill", directory, texts, vectors, count, users] = arguments.as_slice() else {
        // `cargo test` and `cargo bench` without a name start every benchmark.
        println!("usage: memory fill DIRECTORY TEXTS VECTORS COUNT USERS");
        return;
    };
    let texts = std::fs::read_to_string(texts).expect("texts");
    let vectors = std::fs::read(vectors).expect("vectors");
    fill(Path::new(directory), &texts, &vectors, count.parse().expect("a count"), users.parse().expect("users"));
}

fn callers(store: &Store, policy: &quota::Policy, users: usize) -> Vec<Caller> {
    let tiers = policy.tiers.clone();
    let policy = auth::Policy { auto_provision: true, default_tier: "pro".to_owned(), tiers };
    let found = store.write_blocking(move |writer| {
        let mut found = Vec::new();
        for user in 1..=users {
            let id = format!("00000000-0000-4000-8000-{user:012x}");
            let presented = Presented { from_identity_proxy: true, user_id: Some(id), ..Presented::default() };
            auth::provision(writer, &presented, &policy)?;
            let auth::Identity::Known(known) =
                auth::authenticate(writer, &presented, &policy, Some(Scope::MemoryWrite))?
            else {
                panic!("a provisioned user is known")
            };
            found.push(known.caller);
        }
        Ok(found)
    });
    found.expect("users")
}

fn fill(directory: &Path, texts: &str, vectors: &[u8], count: usize, users: usize) {
    let environment = [("TALLYBOX_TIERS__PRO__MEMORY_STORAGE_BYTES".to_owned(), "-1".to_owned())];
    let config = Config::parse(None, &Environment(environment.into())).expect("a configuration");
    let quota = Arc::new(quota::Policy { tiers: config.tiers.clone(), calendar: config.calendar });
    let store = Store::open(directory, Clock::system(), &StoreOptions::default()).expect("a store");
    let callers = callers(&store, &quota, users);
    let policy = Arc::new(Policy::new(&config.memory, quota));
    let texts: Vec<&str> = texts.lines().collect();
    let vectors: Vec<Embedding> =
        vectors.chunks_exact(EMBEDDING_BYTES).map(|bytes| Embedding::from_bytes(bytes).expect("a vector")).collect();
    let now = Clock::system().now();
    let started = Instant::now();
    for first in (0..count).step_by(COMMIT) {
        let batch: Vec<(Caller, NewMemory)> = (first..(first + COMMIT).min(count))
            .map(|number| {
                // One user after the other: each has a run of the texts.
                let caller = callers[number * users / count].clone();
                let content = Content {
                    tier: MemoryTier::Long,
                    kind: if number % 2 == 0 { "even" } else { "odd" }.to_owned(),
                    text: texts[number % texts.len()].to_owned(),
                    tags: Vec::new(),
                    metadata: json!({"n": number}).as_object().cloned().unwrap_or_default(),
                    session: Some(format!("session {}", number / 20)),
                    timestamp: now.plus_millis(60_000 * (i64::try_from(number).expect("a number") - 1_000_000)),
                };
                (caller, NewMemory::new(content, vec![vectors[number % vectors.len()].clone()]))
            })
            .collect();
        let policy = Arc::clone(&policy);
        let stored = store.write_blocking(move |writer| {
            for (caller, new) in batch {
                memory::store(writer, &policy, &caller, new)?;
            }
            Ok(())
        });
        stored.expect("memories");
    }
    println!("{:.0}", count as f64 / started.elapsed().as_secs_f64());
    store.close();
}
