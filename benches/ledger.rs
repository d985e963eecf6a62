//! The ledger without HTTP: fills a data directory, and measures the ceiling that HTTP is held against.
//!
//! `ledger fill DIRECTORY ENTRIES USERS` writes entries of so many users over the last 90 days; `ledger sessions DIRECTORY
//! COUNT` prints sessions of the first so many of them; `ledger ceiling` prints entries a second of transactions of 1,000,
//! written in process by the same code on the same schema; `ledger close DIRECTORY DAYS` closes what is older than so many
//! days and `ledger erase DIRECTORY USER` erases a user by number, each beside one writer whose waits it prints.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark reports to the terminal and stops at the first fault"
)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tallybox::clock::Clock;
use tallybox::domain::auth::{Scope, User, UserKey};
use tallybox::domain::calendar::Calendar;
use tallybox::domain::ledger::{ResourceType, Source};
use tallybox::domain::quota::{Holder, Limit, Limits, Tiers};
use tallybox::service::auth::account::{self, By};
use tallybox::service::auth::{self, Presented, password, session};
use tallybox::service::erasure;
use tallybox::service::ledger::{Fact, record};
use tallybox::service::quota::Policy;
use tallybox::service::retention::{self, Place};
use tallybox::store::{Store, StoreOptions};

const TRANSACTION: usize = 1_000;
const DAY_MS: i64 = 86_400_000;
/// Days over which entries are spread, today included.
const DAYS: usize = 90;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["fill", directory, entries, users] => fill(Path::new(directory), number(entries), number(users)),
        ["sessions", directory, count] => sessions(Path::new(directory), number(count)),
        ["close", directory, days] => close(Path::new(directory), number(days)),
        ["erase", directory, user] => erase(Path::new(directory), number(user)),
        ["ceiling"] | [] => ceiling(),
        _ => panic!(
            "usage: ledger fill DIRECTORY ENTRIES USERS | ledger sessions DIRECTORY COUNT | ledger close DIRECTORY DAYS | ledger erase DIRECTORY USER | ledger ceiling"
        ),
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

/// The store, with as many users, in their order.
fn open(directory: &Path, users: usize, clock: Clock) -> (Store, Vec<User>) {
    let store = Store::open(directory, clock, &StoreOptions::default()).expect("a store");
    let tiers = policy().tiers;
    let policy = auth::Policy { auto_provision: true, default_tier: "free_trial".to_owned(), tiers };
    let found = store
        .write_blocking(move |writer| {
            let mut found = Vec::new();
            for user in 1..=users {
                let id = format!("00000000-0000-4000-8000-{user:012x}");
                let presented = Presented { from_identity_proxy: true, user_id: Some(id), ..Presented::default() };
                auth::provision(writer, &presented, &policy)?;
                let auth::Identity::Known(known) =
                    auth::authenticate(writer, &presented, &policy, Some(Scope::UsageWrite))?
                else {
                    panic!("a provisioned user is known")
                };
                found.push(known.caller.user);
            }
            Ok(found)
        })
        .expect("users");
    (store, found)
}

fn write(store: &Store, users: &[User], first: usize, count: usize) {
    let keys: Vec<UserKey> = users.iter().map(|user| user.key).collect();
    let policy = policy();
    let written = store.write_blocking(move |writer| {
        let fact = Fact {
            resource: ResourceType::LlmTokens,
            amount: 7,
            timestamp: None,
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
    let now = Clock::system().now();
    let before = |days: usize| now.plus_millis(-DAY_MS * i64::try_from(days).expect("at most 90"));
    let clock = Clock::manual(before(DAYS - 1));
    let (store, users) = open(directory, users, clock.clone());
    let started = Instant::now();
    let mut written = 0;
    while written < entries {
        let count = TRANSACTION.min(entries - written);
        clock.turn_to(before((entries - written - 1) * DAYS / entries));
        write(&store, &users, written, count);
        written += count;
    }
    println!("{:.0}", entries as f64 / started.elapsed().as_secs_f64());
    store.close();
}

fn sessions(directory: &Path, count: usize) {
    let clock = Clock::system();
    let (store, users) = open(directory, count, clock.clone());
    let hash = password::hash("a password of nobody's").expect("a hash");
    let secrets = store.write_blocking(move |writer| {
        let mut secrets = Vec::new();
        for user in &users {
            account::reset_password(writer, &By::command_line(clock.clone()), user, Some(&hash))?;
            secrets.push(session::log_in(writer, user, &hash, None)?.secret);
        }
        Ok(secrets)
    });
    println!("{}", secrets.expect("sessions").join(" "));
    store.close();
}

/// Runs `work` beside a writer of single entries, and prints how long those waited before it and while it ran.
fn beside_a_writer(store: &Store, user: &User, work: impl FnOnce()) {
    let (alone, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let users = std::slice::from_ref(user);
    let waits = |stop: &AtomicBool| {
        let mut waits = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            write(store, users, 0, 1);
            waits.push(begun.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
        waits.sort();
        waits
    };
    let show = |name: &str, waits: &[Duration]| {
        let of = |part: usize| waits[(waits.len() - 1) * part / 1_000].as_secs_f64() * 1e3;
        println!(
            "{name}: {} writes, ms at 50 % {:.1}, 99 % {:.1}, most {:.1}",
            waits.len(),
            of(500),
            of(990),
            of(1_000)
        );
    };
    std::thread::scope(|scope| {
        let before = scope.spawn(|| waits(&alone));
        std::thread::sleep(Duration::from_secs(3));
        alone.store(true, Ordering::Relaxed);
        show("alone", &before.join().expect("a writer"));
        let during = scope.spawn(|| waits(&stop));
        work();
        stop.store(true, Ordering::Relaxed);
        show("meanwhile", &during.join().expect("a writer"));
    });
}

fn close(directory: &Path, keep_days: usize) {
    let (store, users) = open(directory, 1, Clock::system());
    let keep_days = i32::try_from(keep_days).expect("days");
    let before = retention::first_open_day(&policy(), store.clock().now(), keep_days);
    beside_a_writer(&store, &users[0], || {
        let begun = Instant::now();
        let (mut place, mut slices, mut slowest) = (Some(Place::Start), 0_u32, Duration::ZERO);
        let mut gone = 0;
        while let Some(here) = place {
            let policy = policy();
            let slice = Instant::now();
            let closed = store.write_blocking(move |writer| retention::close_slice(writer, &policy, before, here));
            slowest = slowest.max(slice.elapsed());
            (place, slices) = (closed.expect("a slice"), slices + 1);
            gone = store.read_blocking(retention::gone).expect("a number");
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{gone} rows gone in {seconds:.1} s, {:.0} a second, {slices} slices, slowest {slowest:.1?}",
            gone as f64 / seconds
        );
    });
    store.close();
}

fn erase(directory: &Path, user: usize) {
    let (store, users) = open(directory, user, Clock::system());
    beside_a_writer(&store, &users[0], || {
        let begun = Instant::now();
        let (by, whom) = (By::command_line(store.clock().clone()), users[user - 1].clone());
        let begun_of = store.write_blocking(move |writer| erasure::begin(writer, &by, &whom)).expect("an erasure");
        let receipt = erasure::finish_blocking(&store, begun_of).expect("a receipt");
        println!("{:.2} s: {:?}", begun.elapsed().as_secs_f64(), receipt.counts);
    });
    store.close();
}

fn ceiling() {
    let directory = std::env::temp_dir().join(format!("tallybox-ceiling-{}", std::process::id()));
    let (store, users) = open(&directory, 1_000, Clock::system());
    let mut rates = Vec::new();
    for round in 0..5 {
        let started = Instant::now();
        let mut written = 0;
        while started.elapsed() < Duration::from_secs(1) {
            write(&store, &users, round * 1_000_000 + written, TRANSACTION);
            written += TRANSACTION;
        }
        rates.push(written as f64 / started.elapsed().as_secs_f64());
    }
    store.close();
    rates.sort_by(f64::total_cmp);
    std::fs::remove_dir_all(&directory).expect("the directory is ours");
    println!("{:.0}", rates[rates.len() / 2]);
}
