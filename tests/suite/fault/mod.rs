//! The disk fails, fills up, or takes no writes; the clock jumps. Each is said plainly, costs nothing that was acknowledged,
//! and is over without a restart once its cause is.

mod clock;
mod disk;
mod gateway;
mod ready;
mod vfs;

use serde_json::{Value, json};

use super::calls::{id_of, tokens};
use super::metrics::value;
use super::support::{Reply, TestApp, TestUser};
use tallybox::store::backup::back_up;
use vfs::{Fault, Faults, Kept};

/// An application in a directory with faults.
fn faulty(toml: &str) -> (TestApp, &'static Faults) {
    let directory = tempfile::tempdir().unwrap();
    let faults = vfs::watch(directory.path());
    (TestApp::with_config_at(toml, directory), faults)
}

/// What `/readyz` says: status, and what it says of this check.
async fn readiness(app: &TestApp, check: &str) -> (u16, String) {
    // What was found a moment ago is said again.
    app.clock.advance_millis(2_000);
    let reply = app.call("GET", "/readyz", None, None).await;
    assert_eq!(reply.json["status"], if reply.status == 200 { "ready" } else { "unavailable" });
    (reply.status, reply.json["checks"][check].as_str().unwrap().to_owned())
}

/// A memory with an embedding of its own, so that no model is asked.
fn memory(text: &str) -> Value {
    let vector: Vec<f64> = (0..384_u32).map(|number| (f64::from(number) * 0.7).cos()).collect();
    json!({"type": "note", "input_context": text, "embedding": vector})
}

/// What a client says of a fault of the disk.
#[track_caller]
fn says(reply: &Reply, fault: Fault) {
    assert_eq!((reply.status, reply.code()), (503, "unavailable"), "{fault:?}: {}", reply.text);
    let detail = reply.json["detail"].as_str().unwrap();
    let expected = match fault {
        Fault::Full => "the disk is full",
        Fault::ReadOnly => "the database is read-only",
        _ => "the database cannot be used: ",
    };
    assert!(detail.starts_with(expected), "{fault:?}: {detail}");
}

#[tokio::test]
async fn a_fault_of_the_disk_is_said_and_is_over_without_a_restart() {
    let (app, faults) = faulty("");
    let user = app.user_with_password("a@example.org", "pro").await;
    let login = json!({"email": user.email, "password": super::support::PASSWORD});
    let mut used = 0;
    for fault in Fault::OF_WRITES {
        app.used_up(&user, 7).await;
        used += 7;
        faults.begin(fault, 0);
        let posts =
            [("/usage/record", tokens(1)), ("/usage/reservations", tokens(1)), ("/memory/store", memory("kept?"))];
        for (path, body) in posts {
            says(&app.tell(&user.token, path, body).await, fault);
        }
        says(&app.call("POST", "/auth/login", None, Some(login.clone())).await, fault);
        let (status, said) = readiness(&app, "writes").await;
        assert_eq!(status, 503, "{fault:?}: {said}");
        assert_ne!(said, "ok", "{fault:?}");
        // Whoever only reads does not notice.
        app.call("GET", "/healthz", None, None).await.expect(200);
        assert_eq!(app.tokens(&user).await, (used, 0), "{fault:?}");
        assert!(faults.end() > 0);
        assert_eq!(readiness(&app, "writes").await, (200, "ok".to_owned()), "{fault:?}");
        app.used_up(&user, 7).await;
        used += 7;
        assert_eq!(app.tokens(&user).await, (used, 0), "{fault:?}");
        app.tell(&user.token, "/memory/store", memory(&format!("{fault:?}"))).await.expect(201);
        app.call("POST", "/auth/login", None, Some(login.clone())).await.expect(200);
        app.pass().await;
        app.proves();
    }
    let app = TestApp::at(app.stop());
    assert_eq!(app.tokens(&user).await, (used, 0));
    app.proves();
}

/// Writes with keys, all of which are sent again with the same keys where they failed.
struct Writes<'a> {
    app: &'a TestApp,
    user: &'a TestUser,
    /// Of which fault, for messages.
    of: (Fault, i64),
}

impl Writes<'_> {
    async fn send(&self, number: usize, path: &str, body: Value) -> Reply {
        let key = format!("{:?}-{}-{number}", self.of.0, self.of.1);
        self.app.tell_with(&self.user.token, path, body, &[("Idempotency-Key", &key)]).await
    }

    fn all(&self) -> [(&'static str, Value); 5] {
        let batch = json!({"entries": [tokens(10), tokens(100)]});
        let text = format!("{:?} after {}", self.of.0, self.of.1);
        [
            ("/usage/record", tokens(1)),
            ("/usage/record/batch", batch),
            ("/usage/reservations", tokens(1_000)),
            ("/memory/store", memory(&text)),
            ("/agents/runs", json!({"name": "runs"})),
        ]
    }

    /// Sends all of them while the disk fails: each is done or said not to be.
    async fn under_fault(&self) {
        for (number, (path, body)) in self.all().into_iter().enumerate() {
            let reply = self.send(number, path, body).await;
            if reply.status != 201 {
                says(&reply, self.of.0);
            }
        }
    }

    /// Sends all of them again, when it no longer does.
    async fn again(&self) {
        for (number, (path, body)) in self.all().into_iter().enumerate() {
            self.send(number, path, body).await.expect(201);
        }
    }
}

#[tokio::test]
async fn wherever_a_write_is_cut_it_is_done_once_or_not_at_all() {
    let (app, faults) = faulty("[store]\ncheckpoint_pages = 100");
    let user = app.user("a@example.org", "pro").await;
    let mut rounds = 0;
    for spared in (0..12).chain([15, 20, 30, 50]) {
        for fault in Fault::OF_WRITES {
            faults.begin(fault, spared);
            let writes = Writes { app: &app, user: &user, of: (fault, spared) };
            writes.under_fault().await;
            faults.end();
            writes.again().await;
            rounds += 1;
            assert_eq!(app.tokens(&user).await, (111 * rounds, 1_000 * rounds), "{fault:?} after {spared}");
            let listed = app.ask(&user.token, "/memory/usage").await.expect(200);
            assert_eq!(listed.json["memory_counts"]["total"], rounds, "{fault:?} after {spared}");
        }
        app.proves();
    }
    assert_eq!(readiness(&app, "writes").await.0, 200);
    assert!(faults.ever_met(Kept::Log) > 100, "hardly a commit ever met a fault");
    let app = TestApp::at(app.stop());
    assert_eq!(app.tokens(&user).await, (111 * rounds, 1_000 * rounds));
    app.proves();
}

#[tokio::test]
async fn a_log_that_cannot_be_copied_into_the_database_costs_nothing_and_is_copied_later() {
    let (app, faults) = faulty("[store]\ncheckpoint_pages = 100");
    let user = app.user("a@example.org", "pro").await;
    let text = "what fills the log ".repeat(190);
    let mut used = 0;
    for (round, fault) in (0..).zip(Fault::OF_WRITES) {
        faults.begin_of(Kept::Database, fault, round);
        let before = faults.ever_met(Kept::Database);
        // Commits go to the log: nobody notices, however often the copying fails.
        while faults.ever_met(Kept::Database) < before + 5 {
            let body = json!({"resourceType": "llm_tokens", "amount": 1, "metadata": {"text": text}});
            app.tell(&user.token, "/usage/record", body).await.expect(201);
            used += 1;
            assert!(used < 20_000, "{fault:?} is not met");
        }
        assert_eq!(app.tokens(&user).await, (used, 0), "{fault:?}");
        assert!(faults.end() >= 5);
        app.used_up(&user, 1).await;
        used += 1;
        app.proves();
    }
    assert_eq!(faults.ever_met(Kept::Log), 0, "of the database alone");
    let app = TestApp::at(app.stop());
    assert_eq!(app.tokens(&user).await, (used, 0));
    app.proves();
}

#[tokio::test]
async fn a_backup_that_the_disk_fails_gets_no_name() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 5).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let faults = vfs::watch(elsewhere.path());
    let target = elsewhere.path().join("box.db");
    let there = || std::fs::read_dir(elsewhere.path()).unwrap().count();
    for spared in [0, 1, 5, 20] {
        for fault in [Fault::Full, Fault::Write, Fault::ShortWrite, Fault::ReadOnly] {
            faults.begin(fault, spared);
            let made = back_up(app.directory.path(), &app.clock, &target);
            assert!(faults.end() > 0, "{fault:?} after {spared} is not met");
            assert!(made.is_err() && there() == 0, "{fault:?} after {spared}: {made:?}");
        }
    }
    back_up(app.directory.path(), &app.clock, &target).unwrap();
    assert_eq!(there(), 1);
}

#[tokio::test]
async fn commits_that_fail_are_counted() {
    let (app, faults) = faulty("[metrics]\naccess = 'open'");
    let user = app.user("a@example.org", "pro").await;
    let failed = async || {
        let text = app.call("GET", "/metrics", None, None).await.expect(200).text;
        value(&text, "tallybox_commits_failed_total")
    };
    app.enforce(&user, 1).await.expect(201);
    app.settle(&user, "00000000-0000-7000-8000-000000000000", 1).await.expect(404);
    assert!(failed().await.abs() < 1e-9, "a refusal is no failure");
    faults.begin(Fault::Full, 0);
    for _ in 0..3 {
        says(&app.tell(&user.token, "/usage/record", tokens(1)).await, Fault::Full);
    }
    faults.end();
    app.used_up(&user, 1).await;
    assert!((failed().await - 3.0).abs() < 1e-9);
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_is_read_later() {
    let (app, faults) = faulty("");
    let user = app.user("a@example.org", "pro").await;
    let stored = id_of(&app.tell(&user.token, "/memory/store", memory("to be read")).await.expect(201));
    let paths = [
        "/usage/ledger".to_owned(),
        "/usage/stats".to_owned(),
        format!("/memory/{stored}"),
        "/memory/export".to_owned(),
    ];
    let mut failed = 0;
    for spared in 0..8 {
        // What has been written since must be read from the disk.
        app.used_up(&user, 1).await;
        faults.begin(Fault::Read, spared);
        for path in &paths {
            let reply = app.ask(&user.token, path).await;
            if reply.status != 200 {
                says(&reply, Fault::Read);
                failed += 1;
            }
        }
        let told = readiness(&app, "schema").await;
        assert!(told.0 == 200 || told.0 == 503);
        faults.end();
        for path in &paths {
            app.ask(&user.token, path).await.expect(200);
        }
        assert_eq!(readiness(&app, "schema").await, (200, "ok".to_owned()));
    }
    assert!(failed > 0, "no read ever met a fault");
    app.proves();
}
