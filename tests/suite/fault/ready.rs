//! What `/readyz` says, and when.

use rusqlite::Connection;

use super::readiness;
use crate::suite::calls::tokens;
use crate::suite::support::TestApp;

#[tokio::test]
async fn readiness_names_each_check_with_version_and_build() {
    let app = TestApp::new();
    for path in ["/healthz", "/readyz"] {
        let reply = app.call("GET", path, None, None).await.expect(200);
        assert_eq!(reply.json["version"], tallybox::VERSION);
        // Everyday builds name none, which is said as well.
        assert_eq!(reply.json.get("build"), Some(&serde_json::json!(tallybox::BUILD)), "{path}");
    }
    for check in ["writes", "disk", "schema"] {
        assert_eq!(readiness(&app, check).await, (200, "ok".to_owned()));
    }
}

#[tokio::test]
async fn a_disk_with_too_little_room_is_not_ready_and_still_writes() {
    let most: u64 = 1 << 50;
    let app = TestApp::with_config(&format!("[server]\ndisk_free_bytes_min = {most}"));
    let user = app.user("a@example.org", "basic").await;
    let (status, said) = readiness(&app, "disk").await;
    assert_eq!(status, 503);
    assert!(said.contains("server.disk_free_bytes_min") && said.contains(&most.to_string()), "{said}");
    assert_eq!(readiness(&app, "writes").await.1, "ok");
    app.used_up(&user, 1).await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "as another program would")]
async fn another_schema_is_not_ready_until_it_is_ours_again() {
    let app = TestApp::new();
    let other = Connection::open(app.directory.path().join("tallybox.db")).unwrap();
    let ours: i64 = other.query_row("SELECT user_version FROM pragma_user_version", [], |row| row.get(0)).unwrap();
    other.pragma_update(None, "user_version", ours + 1).unwrap();
    let (status, said) = readiness(&app, "schema").await;
    assert_eq!(status, 503);
    assert_eq!(said, format!("the schema has version {}, this program knows {ours}", ours + 1));
    other.pragma_update(None, "user_version", ours).unwrap();
    assert_eq!(readiness(&app, "schema").await, (200, "ok".to_owned()));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "as another program would")]
async fn a_write_that_another_program_keeps_out_is_busy_and_may_be_tried_again() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let other = Connection::open(app.directory.path().join("tallybox.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = app.tell(&user.token, "/usage/record", tokens(1)).await.expect(503);
    assert_eq!((refused.code(), refused.header("retry-after")), ("busy", "1"));
    other.execute_batch("ROLLBACK").unwrap();
    app.used_up(&user, 1).await;
    assert_eq!(app.tokens(&user).await, (1, 0));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "past the program")]
async fn readiness_is_asked_at_most_once_a_second() {
    let app = TestApp::new();
    let commits = async || {
        let text = app.call("GET", "/readyz", None, None).await.expect(200);
        drop(text);
        let connection = Connection::open(app.directory.path().join("tallybox.db")).unwrap();
        let sql = "SELECT value FROM settings WHERE name = 'asked_ready_at'";
        connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let first = commits().await;
    app.clock.advance_millis(999);
    assert_eq!(commits().await, first);
    app.clock.advance_millis(1);
    assert_ne!(commits().await, first);
}
