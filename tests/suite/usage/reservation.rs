//! Holds: made, settled, released, expired.

use serde_json::{Value, json};

use crate::suite::calls::{faults_of, id_of, tokens};
use crate::suite::support::{TestApp, TestUser};

const DAY_MS: i64 = 86_400_000;

async fn hold_for(app: &TestApp, user: &TestUser, amount: i64, ttl_s: i64) -> String {
    let body = json!({"resourceType": "llm_tokens", "amount": amount, "ttlSeconds": ttl_s});
    id_of(&app.tell(&user.token, "/usage/reservations", body).await.expect(201))
}

#[tokio::test]
async fn a_hold_counts_until_it_is_settled_with_what_was_really_used() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    for path in ["/usage/reservations", "/api/usage/reservations"] {
        let reply = app.tell(&user.token, path, tokens(300)).await.expect(201);
        let mut answer = reply.json;
        answer.as_object_mut().unwrap().remove("id").unwrap();
        let expected = json!({"resourceType": "llm_tokens", "amount": 300, "expiresAt": "2026-03-10T12:05:00.000Z"});
        assert_eq!(answer, expected);
    }
    assert_eq!(app.tokens(&user).await, (0, 600));
    let listed = app.ask(&user.token, "/usage/reservations").await.expect(200).json;
    let first = &listed["reservations"][0];
    assert_eq!(
        (&first["kind"], &first["madeAt"], &first["amount"]),
        (&json!("api"), &json!("2026-03-10T12:00:00.000Z"), &json!(300))
    );
    let id = first["id"].as_str().unwrap();
    app.clock.advance_millis(1_000);
    let body = json!({"amount": 120, "metadata": {"model": "m"}});
    let settled = app.tell(&user.token, &format!("/api/usage/reservations/{id}/settle"), body).await.expect(200);
    let mut answer = settled.json.clone();
    let entry = answer.as_object_mut().unwrap().remove("id").unwrap();
    let expected = json!({
        "resourceType": "llm_tokens", "amount": 120, "timestamp": "2026-03-10T12:00:01.000Z",
        "metadata": {"model": "m"}, "reverses": null, "recordedAt": "2026-03-10T12:00:01.000Z", "overrun": false, "late": false,
    });
    assert_eq!(answer, expected);
    assert_eq!(app.tokens(&user).await, (120, 300));
    let in_ledger = app.ask(&user.token, "/usage/ledger").await.json["entries"][0].clone();
    assert_eq!((&in_ledger["id"], &in_ledger["metadata"]), (&entry, &json!({"model": "m"})));
    app.proves();
}

#[tokio::test]
async fn a_hold_is_made_up_to_the_limit_and_not_one_more() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    app.used_up(&user, 1).await;
    let refused = app.tell(&user.token, "/usage/reservations", tokens(1_000)).await.expect(429);
    assert_eq!((&refused.json["requested"], refused.header("retry-after")), (&json!(1_000), "43200"));
    app.hold(&user, 999).await;
    app.tell(&user.token, "/usage/reservations", tokens(1)).await.expect(429);
    assert_eq!(app.tokens(&user).await, (1, 999));
}

#[tokio::test]
async fn a_repeat_of_the_same_settlement_answers_the_same_and_another_is_a_conflict() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let hold = app.hold(&user, 300).await;
    let path = format!("/usage/reservations/{hold}/settle");
    let metadata = json!({"cost": 0.1, "rates": [31.245_270_191_439_438, 121.483_916_670_590_03, 1e-7], "of": "ä"});
    let body = json!({"amount": 120, "metadata": metadata});
    let first = app.tell(&user.token, &path, body.clone()).await.expect(200);
    app.clock.advance_millis(40 * DAY_MS);
    let again = app.tell(&user.token, &path, body).await.expect(200);
    assert_eq!(first.json, again.json);
    for other in [json!({"amount": 121, "metadata": metadata}), json!({"amount": 120}), json!({"amount": 0})] {
        assert_eq!(app.tell(&user.token, &path, other).await.expect(409).code(), "already_settled");
    }
    assert_eq!(app.release(&user, &hold).await.expect(409).code(), "already_settled");
    app.clock.turn_to(crate::suite::support::NOON);
    assert_eq!(app.tokens(&user).await, (120, 0));
    app.proves();
}

#[tokio::test]
async fn a_released_hold_stays_released() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let hold = app.hold(&user, 1_000).await;
    app.enforce(&user, 1).await.expect(429);
    for path in [format!("/usage/reservations/{hold}"), format!("/api/usage/reservations/{hold}")] {
        let reply = app.drop_at(&user.token, &path).await.expect(204);
        assert_eq!(reply.text, "");
    }
    assert_eq!(app.settle(&user, &hold, 5).await.expect(409).code(), "already_released");
    assert_eq!(app.tokens(&user).await, (0, 0));
    app.enforce(&user, 1_000).await.expect(201);
    app.proves();
}

#[tokio::test]
async fn a_settlement_of_nothing_leaves_no_entry() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let hold = app.hold(&user, 300).await;
    for _ in 0..2 {
        let reply = app.settle(&user, &hold, 0).await.expect(200);
        assert_eq!((&reply.json["id"], &reply.json["amount"]), (&Value::Null, &json!(0)));
    }
    app.settle(&user, &hold, 1).await.expect(409);
    assert_eq!(app.tokens(&user).await, (0, 0));
    assert_eq!(app.ask(&user.token, "/usage/ledger").await.json["entries"], json!([]));
    app.proves();
}

#[tokio::test]
async fn a_settlement_above_the_hold_is_a_fact_even_above_the_limit() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let hold = app.hold(&user, 300).await;
    let reply = app.settle(&user, &hold, 2_000).await.expect(200);
    assert_eq!((&reply.json["overrun"], &reply.json["late"]), (&json!(true), &json!(false)));
    assert_eq!(app.tokens(&user).await, (2_000, 0));
    assert_eq!(app.settle(&user, &hold, 2_000).await.expect(200).json["overrun"], true);
    let exact = app.user("b@example.org", "free_trial").await;
    let hold = app.hold(&exact, 300).await;
    assert_eq!(app.settle(&exact, &hold, 300).await.expect(200).json["overrun"], false);
    app.proves();
}

#[tokio::test]
async fn another_users_hold_is_as_one_that_never_was() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let other = app.user("b@example.org", "free_trial").await;
    let hold = app.hold(&user, 300).await;
    let entry = app.used_up(&other, 1).await;
    for id in [
        hold.as_str(),
        entry.as_str(),
        "x",
        "00000000-0000-7000-8000-000000000000",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
    ] {
        let settled = app.settle(&other, id, 1).await.expect(404);
        let released = app.release(&other, id).await.expect(404);
        assert_eq!((settled.code(), released.code()), ("not_found", "not_found"));
        assert_eq!(settled.json["detail"], "the reservation was not found");
    }
    assert_eq!(app.ask(&other.token, "/usage/reservations").await.json["reservations"], json!([]));
    assert_eq!(app.tokens(&user).await, (0, 300));
}

#[tokio::test]
async fn what_has_expired_never_causes_a_refusal() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let hold = hold_for(&app, &user, 1_000, 60).await;
    app.clock.advance_millis(59_999);
    assert_eq!(app.tokens(&user).await, (0, 1_000));
    app.enforce(&user, 1).await.expect(429);
    app.clock.advance_millis(1);
    assert_eq!(app.tokens(&user).await, (0, 0), "everything ends at its instant, the worker or not");
    assert_eq!(app.ask(&user.token, "/usage/reservations").await.json["reservations"], json!([]));
    let check = app.tell(&user.token, "/usage/check-quota", tokens(1_000)).await.expect(200);
    assert_eq!((&check.json["hasQuota"], &check.json["reserved"]), (&json!(true), &json!(0)));
    app.enforce(&user, 1_000).await.expect(201);
    app.pass().await;
    assert_eq!(app.tokens(&user).await, (1_000, 0));
    let reply = app.settle(&user, &hold, 10).await.expect(200);
    assert_eq!(reply.json["late"], true);
    assert_eq!(app.settle(&user, &hold, 10).await.expect(200).json, reply.json);
    assert_eq!(app.tokens(&user).await, (1_010, 0));
    app.proves();
}

#[tokio::test]
async fn expiry_is_booked_by_the_worker_or_by_who_needs_it_but_once() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let first = hold_for(&app, &user, 400, 60).await;
    let second = hold_for(&app, &user, 400, 120).await;
    app.clock.advance_millis(60_000);
    app.pass().await;
    app.proves();
    assert_eq!(app.tokens(&user).await, (0, 400));
    app.clock.advance_millis(60_000);
    app.release(&user, &first).await.expect(204);
    app.release(&user, &second).await.expect(204);
    app.pass().await;
    assert_eq!(app.tokens(&user).await, (0, 0));
    app.settle(&user, &first, 1).await.expect(409);
    app.proves();
}

#[tokio::test]
async fn an_expired_hold_is_settled_within_thirty_days_of_its_making() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let (early, late) = (hold_for(&app, &user, 10, 86_400).await, hold_for(&app, &user, 10, 1).await);
    app.clock.advance_millis(30 * DAY_MS - 1);
    app.pass().await;
    let reply = app.settle(&user, &early, 10).await.expect(200);
    assert_eq!(reply.json["late"], true);
    app.clock.advance_millis(1);
    assert_eq!(app.settle(&user, &late, 10).await.expect(409).code(), "reservation_too_old");
    app.release(&user, &late).await.expect(204);
    app.settle(&user, &early, 10).await.expect(200);
    let series = app.ask(&user.token, "/usage/timeseries/llm_tokens?days=31").await.json;
    assert_eq!(series[0], json!({"date": "2026-03-10", "amount": 10}), "in the hold's own window");
    assert_eq!(app.tokens(&user).await, (0, 0));
    app.proves();
}

#[tokio::test]
async fn no_midnight_lets_either_day_overshoot() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    app.turn_to("2026-03-10T23:59:00Z");
    let hold = hold_for(&app, &user, 600, 3_600).await;
    app.turn_to("2026-03-11T00:01:00Z");
    assert_eq!(app.tokens(&user).await, (0, 0), "the hold counts in its own day");
    app.enforce(&user, 1_000).await.expect(201);
    let yesterday = |amount: i64| json!({"resourceType": "llm_tokens", "amount": amount, "enforce": true, "timestamp": "2026-03-10T23:59:30Z"});
    app.tell(&user.token, "/usage/record", yesterday(401)).await.expect(429);
    app.tell(&user.token, "/usage/record", yesterday(400)).await.expect(201);
    app.settle(&user, &hold, 600).await.expect(200);
    let series = app.ask(&user.token, "/usage/timeseries/llm_tokens?days=2").await.json;
    assert_eq!(series, json!([{"date": "2026-03-10", "amount": 1_000}, {"date": "2026-03-11", "amount": 1_000}]));
    app.proves();
}

#[tokio::test]
async fn minutes_are_held_in_their_month() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    app.turn_to("2026-03-31T23:59:00Z");
    let body = json!({"resourceType": "agent_minutes", "amount": 50, "ttlSeconds": 86_400});
    let hold = id_of(&app.tell(&user.token, "/usage/reservations", body).await.expect(201));
    let eleven = json!({"resourceType": "agent_minutes", "amount": 11, "enforce": true});
    app.tell(&user.token, "/usage/record", eleven.clone()).await.expect(429);
    app.turn_to("2026-04-01T00:00:00Z");
    app.tell(&user.token, "/usage/record", eleven).await.expect(201);
    app.settle(&user, &hold, 50).await.expect(200);
    let april = app.ask(&user.token, "/usage/agent-minutes").await.json;
    assert_eq!((&april["used"], &april["reserved"]), (&json!(11), &json!(0)));
    app.proves();
}

#[tokio::test]
async fn a_life_is_one_second_to_a_day() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    for ttl in [json!(0), json!(-1), json!(86_401), json!(1.5), json!("60"), json!(i64::MAX)] {
        let body = json!({"resourceType": "llm_tokens", "amount": 1, "ttlSeconds": ttl});
        let reply = app.tell(&user.token, "/usage/reservations", body).await.expect(422);
        assert_eq!(faults_of(&reply), ["ttlSeconds"]);
    }
    for (ttl, expires_at) in [(1, "2026-03-10T12:00:01.000Z"), (86_400, "2026-03-11T12:00:00.000Z")] {
        let body = json!({"resourceType": "llm_tokens", "amount": 1, "ttlSeconds": ttl});
        let reply = app.tell(&user.token, "/usage/reservations", body).await.expect(201);
        assert_eq!(reply.json["expiresAt"], expires_at);
    }
    let hold = app.hold(&user, 1).await;
    for amount in [json!(-1), json!(1.5), json!("1"), json!(9_007_199_254_740_992_i64), json!(null)] {
        let path = format!("/usage/reservations/{hold}/settle");
        let reply = app.tell(&user.token, &path, json!({"amount": amount})).await.expect(422);
        assert_eq!(faults_of(&reply), ["amount"]);
    }
}

#[tokio::test]
async fn open_holds_are_listed_in_pages_newest_first() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    let mut made = Vec::new();
    for amount in 1..=5 {
        made.push(app.hold(&user, amount).await);
        app.clock.advance_millis(1);
    }
    let ids = |page: &Value| -> Vec<String> {
        page["reservations"].as_array().unwrap().iter().map(|hold| hold["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = app.ask(&user.token, "/usage/reservations?limit=2").await.expect(200).json;
    assert_eq!(ids(&first), [made[4].clone(), made[3].clone()]);
    // Rows come and go; the next page is right all the same.
    app.hold(&user, 6).await;
    app.release(&user, &made[3]).await.expect(204);
    app.release(&user, &made[1]).await.expect(204);
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = app.ask(&user.token, &format!("/usage/reservations?limit=2&cursor={cursor}")).await.expect(200).json;
    assert_eq!(ids(&second), [made[2].clone(), made[0].clone()]);
    assert_eq!(second["nextCursor"], Value::Null);
    for wrong in
        ["limit=0", "limit=101", "cursor=x", "cursor=", "cursor=00000000-0000-4000-8000-000000000000", "colour=1"]
    {
        app.ask(&user.token, &format!("/usage/reservations?{wrong}")).await.expect(422);
    }
}

#[tokio::test]
async fn a_hold_is_forgotten_long_after_it_can_be_settled_and_its_entry_never() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "free_trial").await;
    let (settled, expired) = (app.hold(&user, 10).await, app.hold(&user, 10).await);
    app.settle(&user, &settled, 10).await.expect(200);
    app.clock.advance_millis(60 * DAY_MS);
    app.pass().await;
    app.settle(&user, &settled, 10).await.expect(200);
    app.settle(&user, &expired, 10).await.expect(409);
    app.clock.advance_millis(1);
    app.pass().await;
    app.settle(&user, &settled, 10).await.expect(404);
    app.release(&user, &expired).await.expect(404);
    let entries = app.ask(&user.token, "/usage/ledger").await.json["entries"].clone();
    assert_eq!((entries.as_array().unwrap().len(), &entries[0]["amount"]), (1, &json!(10)));
    app.proves();
}
