//! The clock jumps, forward and back.

use serde_json::json;

use super::memory;
use crate::suite::calls::{id_of, tokens};
use crate::suite::support::{NOON, TestApp};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

#[tokio::test]
async fn a_clock_that_jumps_breaks_no_total_and_no_answer() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let mut written = 0;
    let jumps = [0, -HOUR_MS, 90 * DAY_MS, -400 * DAY_MS, 20 * 365 * DAY_MS, -1, 0, -20 * 365 * DAY_MS, 0];
    for jump in jumps {
        app.clock.turn_to(NOON.plus_millis(jump));
        app.tell(&user.token, "/usage/record", tokens(5)).await.expect(201);
        let hold = app.hold(&user, 9).await;
        app.settle(&user, &hold, 3).await.expect(200);
        let open = id_of(&app.tell(&user.token, "/usage/reservations", tokens(1)).await.expect(201));
        written += 1;
        app.tell(&user.token, "/memory/store", memory(&format!("jump {written}"))).await.expect(201);
        app.tell(&user.token, "/memory/search", json!({"query": "jump"})).await.expect(200);
        let run = id_of(&app.tell(&user.token, "/agents/runs", json!({"name": "r"})).await.expect(201));
        // The next pass of the worker comes an hour earlier, or later.
        for later in [-HOUR_MS, HOUR_MS] {
            app.clock.advance_millis(later);
            app.pass().await;
            app.proves();
        }
        let path = format!("/agents/runs/{run}/stop");
        app.tell(&user.token, &path, json!({})).await.expect(200);
        let released = app.drop_at(&user.token, &format!("/usage/reservations/{open}")).await;
        assert!([204, 409].contains(&released.status), "{}", released.text);
        for path in ["/usage/stats", "/usage/ledger", "/memory", "/agents/runs", "/usage/timeseries/llm_tokens"] {
            app.ask(&user.token, path).await.expect(200);
        }
        app.call("GET", "/readyz", None, None).await.expect(200);
        app.proves();
    }
    let listed = app.ask(&user.token, "/usage/ledger?resourceType=llm_tokens").await.expect(200);
    assert_eq!(listed.json["entries"].as_array().unwrap().len(), 2 * jumps.len(), "an entry and a settlement each");
}

#[tokio::test]
async fn a_clock_set_back_locks_nobody_out_and_brings_no_session_back() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let session = app.log_in(&user.email).await;
    app.clock.turn_to(NOON.plus_millis(-DAY_MS));
    app.call("GET", "/auth/me", Some(&session), None).await.expect(200);
    let earlier = app.log_in(&user.email).await;
    app.clock.turn_to(NOON.plus_millis(40 * DAY_MS));
    for session in [&session, &earlier] {
        app.call("GET", "/auth/me", Some(session), None).await.expect(401);
    }
    app.pass().await;
    // What has ended is gone, however the clock turns.
    app.clock.turn_to(NOON);
    app.call("GET", "/auth/me", Some(&session), None).await.expect(401);
    app.log_in(&user.email).await;
}
