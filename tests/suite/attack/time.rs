//! What is another's takes as long as what never was: no clock tells them apart.

use std::time::{Duration, Instant};

use serde_json::json;

use super::ids::{MISSING, Things};
use super::matrix::{Thing, session_of};
use crate::suite::support::TestApp;

/// Requests of each kind. By turns, so that whatever else the machine does meets both.
const TURNS: usize = 120;
/// How often it is measured before it counts as different: a busy machine may be unfair for a while, a difference is there
/// each time.
const TRIES: usize = 6;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn anothers_id_takes_as_long_as_one_that_never_was() {
    let app = TestApp::new();
    let (owner, other) = (
        app.user_with_password("owner@example.org", "pro").await,
        app.user_with_password("other@example.org", "pro").await,
    );
    let admin = app.admin("admin@example.org").await;
    let session = session_of(&app, &other.email).await;
    let things = Things { app: &app, owner: &owner, admin: &admin };
    for (thing, method, path, body) in [
        (Thing::Memory, "GET", "/memory/{id}", None),
        (Thing::Memory, "DELETE", "/memory/{id}", None),
        (Thing::Memory, "PATCH", "/memory/{id}", Some(json!({"tags": ["mine"]}))),
        (Thing::Hold, "POST", "/usage/reservations/{id}/settle", Some(json!({"amount": 1}))),
        (Thing::Hold, "DELETE", "/usage/reservations/{id}", None),
        (Thing::Run, "POST", "/agents/runs/{id}/stop", Some(json!({}))),
        (Thing::Token, "DELETE", "/auth/tokens/{id}", None),
    ] {
        let theirs = path.replace("{id}", &things.make(thing).await);
        let nobodys = path.replace("{id}", MISSING);
        let token = if matches!(thing, Thing::Token) { &session } else { &other.token };
        let ask = async |path: &str| {
            let begun = Instant::now();
            app.call(method, path, Some(token), body.clone()).await.expect(404);
            begun.elapsed()
        };
        let mut told = Vec::new();
        for _ in 0..TRIES {
            let (mut of_theirs, mut of_nobodys) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                of_theirs.push(ask(&theirs).await);
                of_nobodys.push(ask(&nobodys).await);
            }
            let (left, right) = (median(of_theirs), median(of_nobodys));
            told.push((left, right));
            if left.max(right) <= left.min(right).mul_f64(1.25) {
                break;
            }
        }
        assert!(told.len() < TRIES, "{method} {path}: another's and nobody's {told:?}");
    }
}
