//! The ledger without HTTP: fills a data directory, and measures the ceiling that HTTP is held against.
//!
//! `ledger fill DIRECTORY ENTRIES USERS` writes entries of so many users over the last 30 days; `ledger ceiling` prints
//! entries a second of transactions of 1,000, written in process by the same code on the same schema.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark reports to the terminal and stops at the first fault"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use tallybox::clock::Clock;
use tallybox::domain::auth::UserKey;
use tallybox::domain::calendar::Calendar;
use tallybox::domain::ledger::{ResourceType, Source};
use tallybox::domain::quota::{Holder, Limit, Limits, Tiers};
use tallybox::service::auth::{self, Presented};
use tallybox::service::ledger::{Fact, record};
use tallybox::service::quota::Policy;
use tallybox::store::{Store, StoreOptions};

const TRANSACTION: usize = 1_000;
const DAY_MS: i64 = 86_400_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["fill", directory, entries, users] => fill(Path::new(directory), number(entries), number(users)),
        ["ceiling"] | [] => ceiling(),
        _ => panic!("usage: ledger fill DIRECTORY ENTRIES USERS | ledger ceiling"),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn policy() -> Policy {
    let unlimited = Limit::Unlimited;
    let limits = Limits { llm_tokens_day: unlimited, memory_storage_bytes: unlimited, agent_minutes_month: unlimited };
    Policy { tiers: Tiers([("free_trial".to_owned(), limits)].into()), calendar: Calendar::new(chrono_tz::UTC) }
}

fn open(directory: &Path, users: usize) -> (Store, Vec<UserKey>) {
    let store = Store::open(directory, Clock::system(), &StoreOptions::default()).expect("a store");
    let tiers = policy().tiers;
    let policy = auth::Policy { auto_provision: true, default_tier: "free_trial".to_owned(), tiers };
    let keys = store
        .write_blocking(move |writer| {
            let mut keys = Vec::new();
            for user in 1..=users {
                let id = format!("00000000-0000-4000-8000-{user:012x}");
                let presented = Presented { from_identity_proxy: true, user_id: Some(id), ..Presented::default() };
                auth::provision(writer, &presented, &policy)?;
                let auth::Identity::Known(known) = auth::authenticate(writer, &presented, &policy, None)? else {
                    panic!("a provisioned user is known")
                };
                keys.push(known.caller.user.key);
            }
            Ok(keys)
        })
        .expect("users");
    (store, keys)
}

fn write(store: &Store, keys: &[UserKey], first: usize, count: usize, back_ms: i64) {
    let keys = keys.to_vec();
    let policy = policy();
    let written = store.write_blocking(move |writer| {
        let timestamp = Some(writer.now().plus_millis(-back_ms));
        let fact = Fact {
            resource: ResourceType::LlmTokens,
            amount: 7,
            timestamp,
            enforce: false,
            reverses: None,
            metadata: Some(serde_json::json!({"model": "bench"})),
        };
        for index in first..first + count {
            // A stride that no number of users divides spreads neighbours over users, as real traffic does.
            let user = keys[index * 7_919 % keys.len()];
            record(writer, &policy, Holder { user, tier: "free_trial" }, &fact, Source::Record)?;
        }
        Ok(())
    });
    written.expect("entries");
}

fn fill(directory: &Path, entries: usize, users: usize) {
    let (store, keys) = open(directory, users);
    let started = Instant::now();
    let mut written = 0;
    while written < entries {
        let count = TRANSACTION.min(entries - written);
        let share = i64::try_from((entries - written) * 30 / entries).expect("at most 30");
        write(&store, &keys, written, count, share * DAY_MS);
        written += count;
    }
    println!("{:.0}", entries as f64 / started.elapsed().as_secs_f64());
    store.close();
}

fn ceiling() {
    let directory = std::env::temp_dir().join(format!("tallybox-ceiling-{}", std::process::id()));
    let (store, keys) = open(&directory, 1_000);
    let mut rates = Vec::new();
    for round in 0..5 {
        let started = Instant::now();
        let mut written = 0;
        while started.elapsed() < Duration::from_secs(1) {
            write(&store, &keys, round * 1_000_000 + written, TRANSACTION, 0);
            written += TRANSACTION;
        }
        rates.push(written as f64 / started.elapsed().as_secs_f64());
    }
    store.close();
    rates.sort_by(f64::total_cmp);
    std::fs::remove_dir_all(&directory).expect("the directory is ours");
    println!("{:.0}", rates[rates.len() / 2]);
}
