//! Killed while retention closes days.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tallybox::clock::Clock;

use super::server::{Server, free_address, output_of};
use crate::suite::calls::tokens;
use crate::suite::support::TestApp;

/// How many entries are as they were recorded, and the sum of all: read beside the server.
#[expect(clippy::disallowed_methods, reason = "past the program")]
fn ledger_of(directory: &Path) -> (i64, i64) {
    let connection = rusqlite::Connection::open(directory.join("tallybox.db")).unwrap();
    let sql = "SELECT count(*) FILTER (WHERE source <> 4), sum(amount) FROM ledger";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[tokio::test]
async fn a_kill_while_days_are_closed_loses_nothing_and_the_next_start_goes_on() {
    const ENTRIES: i64 = 60_000;
    let app = TestApp::new();
    app.clock.turn_to(Clock::system().now().plus_millis(-60 * 86_400_000));
    let user = app.user("a@example.org", "pro").await;
    for _ in 0..ENTRIES / 1_000 {
        let entries = json!({"entries": vec![tokens(1); 1_000]});
        app.tell(&user.token, "/usage/record/batch", entries).await.expect(201);
        app.clock.advance_millis(3_600_000);
    }
    let directory = app.stop();
    let there = directory.path();
    let mut left = ENTRIES;
    for _ in 0..3 {
        let mut server = Server::start(there, free_address());
        let begun = Instant::now();
        while ledger_of(there).0 == left && left > 1 {
            assert!(begun.elapsed() < Duration::from_mins(1), "no day is closed");
            std::thread::sleep(Duration::from_millis(2));
        }
        server.kill();
        let (found, sum) = ledger_of(there);
        assert!(found < left || left == 1, "{found} of {left}");
        assert_eq!(sum, ENTRIES);
        left = found;
        output_of(there, &["check"]);
    }
    let mut server = Server::start(there, free_address());
    let begun = Instant::now();
    // The newest entry of all stays, so that its row is not given again.
    while ledger_of(there).0 > 1 {
        assert!(begun.elapsed() < Duration::from_mins(2), "days are left open");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.kill();
    assert_eq!(ledger_of(there), (1, ENTRIES));
    output_of(there, &["check"]);
}
