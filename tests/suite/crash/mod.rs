//! The real binary, killed at random moments under a mixed load: what it acknowledged is there, exactly once, and what it
//! did not is there wholly or not at all.
//!
//! `TALLYBOX_CRASH_ROUNDS` says how many rounds (50 otherwise), `TALLYBOX_CRASH_SEED` repeats the choices of a run whose seed
//! was printed. What the machine does at the same moment is not repeated with them.

mod client;
mod closing;
mod copy;
mod server;
mod verdict;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{Act, Client};
use server::{Caller, Server, free_address, output_of, with_input};

const ROUNDS: u64 = 50;
/// After so many rounds a new database is begun, so that a long run stays as quick as a short one.
const ROUNDS_OF_A_DATABASE: u64 = 50;
const CLIENTS: u64 = 8;
const EMAIL: &str = "a@example.org";
const PASSWORD: &str = "correct horse battery staple";

/// Numbers that follow from a seed (`SplitMix64`).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn of(seed: u64, round: u64, client: u64) -> Self {
        let mut random = Self(seed ^ round.rotate_left(24) ^ client.rotate_left(48));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, less than `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_exactly_once() {
    let rounds = setting("TALLYBOX_CRASH_ROUNDS", ROUNDS);
    let seed = setting("TALLYBOX_CRASH_SEED", u64::from(std::process::id()));
    println!("{rounds} rounds, TALLYBOX_CRASH_SEED={seed}");
    let mut round = 0;
    while round < rounds {
        let until = rounds.min(round + ROUNDS_OF_A_DATABASE);
        survive(seed, round..until);
        round = until;
    }
}

/// Some rounds on one database.
fn survive(seed: u64, rounds: std::ops::Range<u64>) {
    let directory = tempfile::tempdir().unwrap();
    let (there, aside) = (directory.path().join("data"), directory.path().join("copies"));
    std::fs::create_dir(&aside).unwrap();
    with_input(&there, &["user", "add", EMAIL, "--tier", "pro", "--password-stdin"], PASSWORD);
    let token = output_of(&there, &["token", "create", "--user", EMAIL, "--name", "crash"]);
    let (mut everything, mut copied) = (Vec::new(), copy::Copied::default());
    let count = rounds.end - rounds.start;
    let mut address = free_address();
    let mut server = Server::start(&there, address);
    for round in rounds {
        let mut random = Random::of(seed, round, u64::MAX);
        let acts = load(&there, &aside, server, (seed, round), (address, &token), (&mut random, &mut copied));
        if random.below(4) == 0 {
            // Killed again while it may still be recovering.
            let mut server = Server::launch(&there, free_address());
            std::thread::sleep(Duration::from_millis(random.below(150)));
            server.kill();
        }
        address = free_address();
        server = Server::start(&there, address);
        let caller = Caller { address, token: &token };
        verdict::settle(&caller, &there, &acts, round);
        let checked = output_of(&there, &["check"]);
        assert!(checked.starts_with("ok"), "round {round}: {checked}");
        everything.extend(acts);
    }
    server.kill();
    verdict::all_is_there(&there, &everything);
    verdict::all_was_tried(&everything, &copied, count);
}

/// Loads a server, kills it in the middle, and gives what its clients saw.
fn load(
    there: &Path,
    aside: &Path,
    mut server: Server,
    (seed, round): (u64, u64),
    (address, token): (SocketAddr, &str),
    (random, copied): (&mut Random, &mut copy::Copied),
) -> Vec<Act> {
    let stop = AtomicBool::new(false);
    let acknowledged = Mutex::new(Vec::new());
    // Of four rounds one has a backup under way, of every other of which the process is killed too.
    let copies = round % 4 == 0;
    let copy_after = Duration::from_millis(random.below(100));
    let life = Duration::from_millis(60 + random.below(340));
    let mut acts = Vec::new();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (stop, acknowledged) = (&stop, &acknowledged);
                scope.spawn(move || {
                    let random = Random::of(seed, round, number);
                    let caller = Caller { address, token };
                    Client::new(caller, random, (round, number), acknowledged).go_on(stop)
                })
            })
            .collect();
        let copy = copies.then(|| {
            scope.spawn(|| {
                std::thread::sleep(copy_after);
                copy::begin(there, aside, round, &acknowledged)
            })
        });
        std::thread::sleep(life);
        server.kill();
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            acts.extend(client.join().unwrap());
        }
        if let Some(copy) = copy {
            copy.join().unwrap().end(round % 8 == 0, copied);
        }
    });
    acts
}
