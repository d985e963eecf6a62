//! Corrections of a user's ledger.

use serde_json::{Value, json};

use super::acts;
use crate::suite::calls::{faults_of, id_of};
use crate::suite::support::TestApp;

fn tokens(amount: i64, reason: &str) -> Value {
    json!({"resourceType": "llm_tokens", "amount": amount, "reason": reason})
}

#[tokio::test]
async fn a_correction_is_an_entry_with_its_reason_and_an_act() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let user = app.user("a@example.org", "free_trial").await;
    let path = format!("/api/admin/users/{}/ledger", user.id);
    let first = app.used_up(&user, 500).await;
    let reply = app.tell(&admin.token, &path, tokens(600, "missed by the meter")).await.expect(201);
    assert_eq!(reply.json["quota"], json!({"used": 1_100, "limit": 1_000, "percentage": 110.0}));
    app.turn_to("2026-03-11T09:00:00Z");
    let mut refund = tokens(-200, "counted twice");
    refund["reverses"] = json!(first);
    let back = app.tell(&admin.token, &path, refund).await.expect(201);
    assert_eq!(
        (&back.json["timestamp"], &back.json["quota"]["used"]),
        (&json!("2026-03-10T12:00:00.000Z"), &json!(900))
    );
    let entries = app.ask(&admin.token, &path).await.expect(200).json["entries"].clone();
    assert_eq!(entries, app.ask(&user.token, "/usage/ledger").await.json["entries"]);
    assert_eq!(
        (&entries[0]["metadata"], &entries[0]["reverses"], &entries[0]["amount"]),
        (&json!({"reason": "counted twice"}), &json!(first), &json!(-200))
    );
    let act = &acts(&app, &admin.token).await[0];
    assert_eq!(
        (&act["action"], &act["subject"]["id"], &act["actor"]["id"]),
        (&json!("ledger.correct"), &json!(user.id), &json!(admin.id))
    );
    assert_eq!((&act["after"]["amount"], &act["after"]["reverses"]), (&json!(-200), &json!(first)));
    assert_eq!(
        (&act["after"]["entryId"], &act["after"]["metadata"]["reason"]),
        (&back.json["id"], &json!("counted twice"))
    );
    let usage = app.ask(&admin.token, &format!("/api/admin/users/{}/usage?days=2", user.id)).await.expect(200).json;
    assert_eq!((&usage["userId"], &usage["breakdown"][0]["amount"]), (&json!(user.id), &json!(900)));
    app.proves();
}

#[tokio::test]
async fn a_correction_obeys_the_rules_of_a_record() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let user = app.user("a@example.org", "free_trial").await;
    let path = format!("/api/admin/users/{}/ledger", user.id);
    let entry = app.used_up(&user, 10).await;
    let reverse =
        |amount: i64| json!({"resourceType": "llm_tokens", "amount": amount, "reason": "r", "reverses": entry});
    let before = acts(&app, &admin.token).await.len();
    for (body, fields) in [
        (json!({"resourceType": "llm_tokens", "amount": 1}), vec!["reason"]),
        (tokens(1, ""), vec!["reason"]),
        (tokens(0, "r"), vec!["amount"]),
        (tokens(-1, "r"), vec!["amount"]),
        (json!({"resourceType": "memory_storage", "amount": 1, "reason": "r"}), vec!["resourceType"]),
        (reverse(-11), vec!["reverses"]),
        (json!({"resourceType": "llm_tokens", "amount": 1, "reason": "r", "colour": 1}), vec!["colour"]),
        (
            json!({"resourceType": "llm_tokens", "amount": 1, "reason": "r", "timestamp": "2020-01-01T00:00:00Z"}),
            vec!["timestamp"],
        ),
    ] {
        let refused = app.tell(&admin.token, &path, body.clone()).await.expect(422);
        assert_eq!(faults_of(&refused), fields, "{body}");
    }
    let missing = "/api/admin/users/00000000-0000-7000-8000-000000000000/ledger";
    app.tell(&admin.token, missing, tokens(1, "r")).await.expect(404);
    app.tell(&user.token, &path, tokens(1, "r")).await.expect(403);
    assert_eq!((acts(&app, &admin.token).await.len(), app.tokens(&user).await), (before, (10, 0)));
    app.tell(&admin.token, &path, reverse(-10)).await.expect(201);
    app.tell(&admin.token, &path, reverse(-1)).await.expect(422);
    app.proves();
}

#[tokio::test]
async fn a_correction_may_be_repeated_under_its_key() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let user = app.user("a@example.org", "free_trial").await;
    let other = app.user("b@example.org", "free_trial").await;
    let path = |id: &str| format!("/api/admin/users/{id}/ledger");
    let key = [("Idempotency-Key", "k")];
    let first = app.tell_with(&admin.token, &path(&user.id), tokens(5, "r"), &key).await.expect(201);
    let again = app.tell_with(&admin.token, &path(&user.id), tokens(5, "r"), &key).await.expect(201);
    assert_eq!((id_of(&first), again.header("idempotent-replayed")), (id_of(&again), "true"));
    app.tell_with(&admin.token, &path(&other.id), tokens(5, "r"), &key).await.expect(422);
    app.tell_with(&admin.token, &path(&user.id), tokens(5, "another"), &key).await.expect(422);
    assert_eq!(app.tokens(&user).await, (5, 0));
    let corrections = acts(&app, &admin.token).await.iter().filter(|act| act["action"] == "ledger.correct").count();
    assert_eq!(corrections, 1);
    // The making of users keeps nothing, since its answer may hold a secret.
    let body = json!({"email": "new@example.org"});
    app.tell_with(&admin.token, "/api/admin/users", body.clone(), &key).await.expect(201);
    app.tell_with(&admin.token, "/api/admin/users", body, &key).await.expect(409);
}

#[tokio::test]
async fn a_disabled_user_is_corrected_all_the_same() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let user = app.user("a@example.org", "free_trial").await;
    let path = format!("/api/admin/users/{}", user.id);
    app.call("PATCH", &path, Some(&admin.token), Some(json!({"disabled": true}))).await.expect(200);
    app.tell(&admin.token, &format!("{path}/ledger"), tokens(5, "r")).await.expect(201);
    app.proves();
}
