//! `tallybox check`: what it proves it can also find, each of its questions.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;
use tallybox::service::check::invariants;

use super::cli::{run, run_with};
use super::memory::app_with;

/// Damages, each with the question that finds it. The ledger's own triggers are gone before.
const DAMAGES: [(&str, &str); 17] = [
    ("integrity", "PRAGMA ignore_check_constraints = ON; UPDATE users SET role = 'king'"),
    ("foreign keys", "INSERT INTO run_holds VALUES (99, 99)"),
    ("account totals are the sums of their entries", "UPDATE accounts SET total = total + 1 WHERE resource = 0"),
    (
        "day totals are the sums of their entries",
        "UPDATE buckets SET amount = amount + 1 WHERE resource = 0 AND closing IS NULL",
    ),
    (
        "totals by model are the sums of their entries",
        "UPDATE model_totals SET tokens = tokens + 1 WHERE day = (SELECT max(day) FROM model_totals)",
    ),
    (
        "totals by model of closed days are within the days' totals",
        "UPDATE model_totals SET tokens = tokens + 1000 WHERE day = (SELECT min(day) FROM model_totals)",
    ),
    ("every closed day has the one entry that stands for it", "UPDATE buckets SET closing = NULL"),
    ("the newest entry that a day names is one of its chain", "UPDATE buckets SET head = 999 WHERE head IS NOT NULL"),
    ("every entry is on its chain", "UPDATE ledger SET previous = NULL WHERE resource = 0"),
    ("no reversals exceed their entry", "UPDATE ledger SET amount = -1000 WHERE reverses IS NOT NULL"),
    ("what is reserved is the sum of the open holds", "UPDATE reservations SET amount = amount + 1 WHERE state = 0"),
    ("stored bytes are the ledger's level", "UPDATE accounts SET total = total - 1 WHERE resource = 1"),
    ("memory totals are the sums of the memories", "UPDATE memory_totals SET text_bytes = text_bytes + 1"),
    (
        "every vector belongs to a memory, and every memory has one",
        "DELETE FROM vectors WHERE id = (SELECT min(id) FROM vectors)",
    ),
    (
        "every full-text row belongs to a memory of its user, and every memory has one",
        "INSERT INTO words (words) VALUES ('delete-all')",
    ),
    ("every vector has length 1", "UPDATE vectors SET embedding = zeroblob(1536)"),
    ("the ledger's door is shut", "INSERT INTO ledger_door SELECT id, 'erasure' FROM users LIMIT 1"),
];

/// A copy of a database that holds something for every question: days open and closed, a reversal, a hold, memories.
async fn lived_in(target: &Path) {
    let app = app_with("[ledger]\nkeep_days = 35");
    let (user, admin) = (app.user("a@example.org", "pro").await, app.admin("admin@example.org").await);
    let named = json!({"resourceType": "llm_tokens", "amount": 50, "metadata": {"model": "m"}});
    app.tell(&user.token, "/usage/record", named.clone()).await.expect(201);
    // The newest entry of all keeps its day open.
    app.used_up(&admin, 1).await;
    for _ in 0..40 {
        app.clock.advance_millis(86_400_000);
        app.pass().await;
    }
    app.tell(&user.token, "/usage/record", named).await.expect(201);
    let taken_back = app.used_up(&user, 20).await;
    let back = json!({"resourceType": "llm_tokens", "amount": -5, "reverses": taken_back});
    app.tell_with(&admin.token, "/usage/record", back, &[("X-User-Id", &user.id)]).await.expect(201);
    app.hold(&user, 9).await;
    for text in ["a ferry", "a boiler"] {
        let memory = json!({"type": "note", "input_context": text});
        app.tell(&user.token, "/memory/store", memory).await.expect(201);
    }
    run(app.directory.path(), &["backup", target.to_str().unwrap()]);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "as an accident would")]
async fn each_invariant_is_found_broken_by_a_damage_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole.db");
    lived_in(&whole).await;
    let damaged: Vec<&str> = DAMAGES.iter().map(|(invariant, _)| *invariant).collect();
    assert_eq!(damaged, invariants());
    for (number, (invariant, damage)) in DAMAGES.into_iter().enumerate() {
        let directory = place.path().join(number.to_string());
        fs::create_dir(&directory).unwrap();
        let database = directory.join("tallybox.db");
        fs::copy(&whole, &database).unwrap();
        let said = run(&directory, &["check"]);
        assert_eq!(said, format!("ok: {} invariants hold", DAMAGES.len()));
        let connection = Connection::open(&database).unwrap();
        let triggers = "DROP TRIGGER ledger_is_never_updated; DROP TRIGGER ledger_is_never_deleted;
            DROP TRIGGER ledger_closings_are_of_retention; PRAGMA foreign_keys = OFF";
        connection.execute_batch(triggers).unwrap();
        let before = connection.total_changes();
        connection.execute_batch(damage).unwrap();
        assert!(connection.total_changes() > before, "nothing was damaged: {damage}");
        drop(connection);
        let output = run_with(&directory, &["check"], "");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{damage}: {said}");
        assert!(said.lines().any(|line| line.starts_with(&format!("{invariant}: "))), "{damage}: {said}");
        // A backup of it would be none.
        let copy = directory.join("copy.db");
        let refused = run_with(&directory, &["backup", copy.to_str().unwrap()], "");
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && why.contains("the copy is not whole"), "{damage}: {why}");
        let left = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(left.into_iter().all(|name| name.starts_with("tallybox.db")), "{damage}");
    }
}

#[test]
fn whoever_says_how_many_invariants_there_are_says_it_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["README.md", "docs/OPERATIONS.md", "docs/ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let told = words.windows(2).filter(|words| words[1].starts_with("invariants"));
        for number in told.filter_map(|words| words[0].parse::<usize>().ok()) {
            assert_eq!(number, invariants().len(), "{file}");
        }
    }
}
