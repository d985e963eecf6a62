//! The erasure of a whole user.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallybox::domain::auth::UserKey;
use tallybox::service::auth::account::load_by_email;
use tallybox::service::erasure;

use super::acts;
use crate::suite::calls::{faults_of, id_of, tokens};
use crate::suite::cli::run_with;
use crate::suite::support::{PASSWORD, TestApp, TestUser, form, request};

const EMAIL: &str = "erase.me.please@example.org";
/// One word, as it stands in the full-text index too.
const MARK: &str = "zebracrossingmark";

/// Which files of the data directory hold a text.
fn found_in(directory: &Path, text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        if bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text)) {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

#[tokio::test]
async fn an_erased_user_leaves_a_bare_id_and_nothing_else() {
    let app = TestApp::new();
    erase_and_look(&app, "tallybox.db-wal", async || ()).await;
}

#[tokio::test]
async fn what_had_been_copied_into_the_database_is_overwritten() {
    let app = TestApp::with_config("[store]\ncheckpoint_pages = 100");
    erase_and_look(&app, "tallybox.db", async || {
        // Enough for the log to be copied.
        let other = app.user("other@example.org", "pro").await;
        let entry = json!({"resourceType": "llm_tokens", "amount": 1, "metadata": {"note": "x".repeat(4_000)}});
        for _ in 0..150 {
            app.tell(&other.token, "/usage/record", entry.clone()).await.expect(201);
        }
        app.drop_at(&app.log_in("admin@example.org").await, &format!("/api/admin/users/{}?erase=true", other.id))
            .await
            .expect(200);
    })
    .await;
}

async fn erase_and_look(app: &TestApp, holder: &str, meanwhile: impl AsyncFn()) {
    let admin = app.admin("admin@example.org").await;
    let session = app.log_in("admin@example.org").await;
    let user = app.user_with_password(EMAIL, "free_trial").await;
    app.log_in(EMAIL).await;
    let path = format!("/api/admin/users/{}", user.id);
    let metadata = json!({"resourceType": "llm_tokens", "amount": 900, "metadata": {"note": MARK}});
    let key = [("Idempotency-Key", MARK)];
    let entry = id_of(&app.tell_with(&user.token, "/usage/record", metadata, &key).await.expect(201));
    let hold = app.hold(&user, 50).await;
    app.tell(
        &user.token,
        &format!("/usage/reservations/{hold}/settle"),
        json!({"amount": 5, "metadata": {"note": MARK}}),
    )
    .await
    .expect(200);
    app.hold(&user, 50).await;
    let (vector, stored) = vector();
    for tier in ["ltm", "stm"] {
        let text = format!("{MARK} {tier}");
        let memory = json!({"type": "note", "input_context": text, "tier": tier, "tags": [MARK], "embedding": vector});
        app.tell(&user.token, "/memory/store", memory).await.expect(201);
    }
    app.enforce(&user, 1_000).await.expect(429);
    app.pass().await;
    app.enforce(&user, 1_000).await.expect(429);
    let refund = json!({"resourceType": "llm_tokens", "amount": -1, "reverses": entry, "reason": MARK});
    app.tell_with(&session, &format!("{path}/ledger"), refund.clone(), &key).await.expect(201);
    app.call("PATCH", &path, Some(&session), Some(json!({"email": format!("x{EMAIL}")}))).await.expect(200);
    app.call("PATCH", &path, Some(&session), Some(json!({"email": EMAIL}))).await.expect(200);
    app.tell(&session, &format!("{path}/password"), json!({})).await.expect(200);
    meanwhile().await;
    let looked_for = [EMAIL.as_bytes(), MARK.as_bytes(), &stored[..16]];
    for bytes in looked_for {
        let files = found_in(app.directory.path(), bytes);
        assert!(files.iter().any(|file| *file == holder), "{bytes:?} in {files:?}");
    }
    let asked = app.drop_at(&session, &path).await.expect(422);
    assert_eq!(faults_of(&asked), ["erase"]);
    app.drop_at(&session, &format!("{path}?erase=false")).await.expect(422);
    let receipt = app.drop_at(&session, &format!("{path}?erase=true")).await.expect(200).json;
    assert_eq!((&receipt["id"], &receipt["erased"]["ledger_entries"]), (&json!(user.id), &json!(5)));
    assert_eq!((&receipt["erased"]["memories"], &receipt["erased"]["idempotency_answers"]), (&json!(2), &json!(2)));
    app.tell_with(&session, &format!("{path}/ledger"), refund, &key).await.expect(410);
    app.pass().await;
    app.proves();
    for bytes in looked_for {
        assert_eq!(found_in(app.directory.path(), bytes), Vec::<String>::new(), "{bytes:?}");
    }
    let log = acts(app, &admin.token).await;
    let of_user: Vec<&Value> = log.iter().filter(|act| act["subject"]["id"] == user.id.as_str()).collect();
    assert!(of_user.iter().any(|act| act["action"] == "user.erase"));
    assert!(
        of_user
            .iter()
            .all(|act| act["subject"]["email"].is_null() && act["before"].is_null() && act["after"].is_null())
    );
    let overview = app.ask(&admin.token, "/api/admin/overview").await.expect(200).json;
    assert_eq!(
        (&overview["recentRefusals"], &overview["topUsers"], &overview["users"]["total"]),
        (&json!([]), &json!([]), &json!(1))
    );
    assert_eq!(app.ask(&admin.token, "/api/admin/usage").await.json["totals"], json!([]));
}

#[tokio::test]
async fn an_erased_id_is_gone_and_never_provisioned_again() {
    let app = TestApp::with_config("[auth]\nidentity_proxies = [\"10.0.0.1\"]\nauto_provision = true");
    let admin = app.admin("admin@example.org").await;
    let user = app.user_with_password(EMAIL, "free_trial").await;
    let path = format!("/api/admin/users/{}", user.id);
    app.drop_at(&admin.token, &format!("{path}?erase=true")).await.expect(200);
    app.ask(&user.token, "/usage/tokens").await.expect(401);
    let login = json!({"email": EMAIL, "password": PASSWORD});
    app.call("POST", "/auth/login", None, Some(login)).await.expect(401);
    let reason = json!({"resourceType": "llm_tokens", "amount": 1, "reason": "r"});
    for (method, below, body) in [
        ("GET", "", None),
        ("GET", "/usage", None),
        ("GET", "/ledger", None),
        ("GET", "/tokens", None),
        ("PATCH", "", Some(json!({"tier": "pro"}))),
        ("POST", "/ledger", Some(reason)),
        ("POST", "/password", Some(json!({}))),
        ("DELETE", "?erase=true", None),
    ] {
        let gone = app.call(method, &format!("{path}{below}"), Some(&admin.token), body).await.expect(410);
        assert_eq!(gone.code(), "erased", "{method} {below}");
    }
    let named = [("X-User-Id", user.id.as_str()), ("X-User-Email", EMAIL)];
    app.call_from("10.0.0.1", request("GET", "/usage/tokens", None, None, &named)).await.expect(410);
    app.call_with("GET", "/usage/tokens", Some(&admin.token), None, &named).await.expect(410);
    let filtered = app.ask(&admin.token, "/api/admin/users").await.json;
    assert_eq!(filtered["users"].as_array().unwrap().len(), 1);
    // The address is free for somebody new, who has another id.
    let made = app.tell(&admin.token, "/api/admin/users", json!({"email": EMAIL})).await.expect(201);
    assert_ne!(id_of(&made), user.id);
    app.proves();
}

#[tokio::test]
async fn an_erased_admin_leaves_what_was_done_but_not_who_it_was() {
    let app = TestApp::with_config("[server]\ntrusted_proxies = [\"127.0.0.1\"]");
    let admin = app.admin("admin@example.org").await;
    let second = app.admin(EMAIL).await;
    let user = app.user("a@example.org", "free_trial").await;
    let held = {
        let headers = [("X-User-Id", user.id.as_str())];
        id_of(&app.tell_with(&second.token, "/usage/reservations", tokens(300), &headers).await.expect(201))
    };
    let path = format!("/api/admin/users/{}", user.id);
    let from = [("X-Forwarded-For", "203.0.113.77")];
    app.call_with("PATCH", &path, Some(&second.token), Some(json!({"tier": "pro"})), &from).await.expect(200);
    let act = acts(&app, &admin.token).await[0].clone();
    assert_eq!((&act["address"], &act["actor"]["email"]), (&json!("203.0.113.77"), &json!(EMAIL)));
    app.drop_at(&admin.token, &format!("/api/admin/users/{}?erase=true", second.id)).await.expect(200);
    let log = app.ask(&admin.token, "/api/admin/audit?limit=100").await.expect(200);
    assert!(!log.text.contains(EMAIL) && !log.text.contains("203.0.113.77"));
    let kept = log.json["acts"].as_array().unwrap().iter().find(|kept| kept["id"] == act["id"]).unwrap().clone();
    assert_eq!((&kept["after"], &kept["actor"]["id"]), (&json!({"tier": "pro"}), &json!(second.id)));
    app.proves();
    // What it held for others stays until it expires.
    assert_eq!(app.tokens(&user).await, (0, 300));
    app.release(&user, &held).await.expect(409);
    app.clock.advance_millis(300_000);
    app.pass().await;
    assert_eq!(app.tokens(&user).await, (0, 0));
    app.proves();
}

#[tokio::test]
async fn the_address_of_who_set_the_box_up_goes_with_the_person() {
    let app = TestApp::with_config("[server]\ntrusted_proxies = [\"127.0.0.1\"]");
    let link = app.app.store().write(tallybox::service::auth::link::issue_setup).await.unwrap().unwrap();
    let address = link.address(None);
    let token = address.split("token=").last().unwrap();
    let mut filled = form("/setup", None, &[("token", token), ("email", EMAIL), ("password", PASSWORD)]);
    filled.headers_mut().insert("x-forwarded-for", "203.0.113.77".parse().unwrap());
    app.send(filled).await.expect(303);
    let admin = app.admin("admin@example.org").await;
    let log = app.ask(&admin.token, "/api/admin/audit").await.expect(200);
    assert!(log.text.contains("203.0.113.77"), "{}", log.text);
    let first = app.ask(&admin.token, &format!("/api/admin/users?q={EMAIL}")).await.expect(200);
    let id = first.json["users"][0]["id"].as_str().unwrap().to_owned();
    app.drop_at(&admin.token, &format!("/api/admin/users/{id}?erase=true")).await.expect(200);
    let log = app.ask(&admin.token, "/api/admin/audit").await.expect(200).text;
    assert!(!log.contains("203.0.113.77") && !log.contains(EMAIL), "{log}");
}

/// A user with more than a slice of everything, each with [`MARK`] in it, and the vector of the memories.
async fn large_user(app: &TestApp) -> (TestUser, Vec<u8>) {
    let user = app.user_with_password(EMAIL, "pro").await;
    let fact = json!({"resourceType": "llm_tokens", "amount": 2, "metadata": {"note": MARK, "model": MARK}});
    for resource in ["llm_tokens", "agent_minutes"] {
        let mut fact = fact.clone();
        fact["resourceType"] = json!(resource);
        let entries = json!({"entries": vec![fact; 700]});
        app.tell(&user.token, "/usage/record/batch", entries).await.expect(201);
    }
    let (vector, bytes) = vector();
    for number in 0..150 {
        let text = format!("{MARK} {number}");
        let memory = json!({"type": "note", "input_context": text, "embedding": vector, "session": MARK});
        app.tell(&user.token, "/memory/store", memory).await.expect(201);
    }
    (user, bytes)
}

/// A vector, and the bytes as which it is stored.
fn vector() -> (Vec<f32>, Vec<u8>) {
    let vector: Vec<f32> = (0..384_u16).map(|number| (f32::from(number) + 0.5).sin()).collect();
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "as vectors are stored")]
    let bytes = vector.iter().flat_map(|number| ((f64::from(*number) / length) as f32).to_le_bytes()).collect();
    (vector, bytes)
}

async fn begin(app: &TestApp) -> UserKey {
    let by = app.by();
    let begun = app.app.store().write(move |writer| {
        let user = load_by_email(writer, EMAIL)?;
        erasure::begin(writer, &by, &user)
    });
    begun.await.unwrap()
}

#[tokio::test]
async fn an_erasure_goes_on_where_it_was_interrupted_and_others_write_meanwhile() {
    let app = TestApp::new();
    let (admin, other) = (app.admin("admin@example.org").await, app.user("other@example.org", "pro").await);
    let (user, vector) = large_user(&app).await;
    let part = &vector[..16];
    assert!(!found_in(app.directory.path(), part).is_empty(), "the vector is stored as it is looked for");
    let key = begin(&app).await;
    let path = format!("/api/admin/users/{}", user.id);
    app.ask(&user.token, "/usage/tokens").await.expect(401);
    app.ask(&admin.token, &path).await.expect(410);
    let mut slices = 0;
    for _ in 0..9 {
        app.used_up(&other, 1).await;
        let memory = json!({"type": "note", "input_context": "somebody else remembers"});
        app.tell(&other.token, "/memory/store", memory).await.expect(201);
        let done = app.app.store().write(move |writer| erasure::slice(writer, key)).await.unwrap();
        assert!(done.is_none(), "others write between the slices, of which there are many");
        app.proves();
        slices += 1;
    }
    assert_eq!(app.tokens(&other).await, (slices, 0));
    // The program ends, and the next start goes on.
    let clock = app.clock.now();
    let app = TestApp::at(app.stop());
    app.clock.turn_to(clock);
    app.proves();
    app.pass().await;
    app.proves();
    for text in [EMAIL.as_bytes(), MARK.as_bytes(), part] {
        assert_eq!(found_in(app.directory.path(), text), Vec::<String>::new());
    }
    let done = app.app.store().write(move |writer| erasure::slice(writer, key)).await.unwrap().unwrap();
    let count = |what: &str| done.counts[what];
    assert_eq!((count("ledger_entries"), count("memories"), count("accounts")), (1_400 + 150, 150, 3));
    assert_eq!((count("sessions"), count("tokens"), count("model_totals")), (0, 1, 1));
    app.drop_at(&admin.token, &format!("{path}?erase=true")).await.expect(410);
    assert_eq!(app.tokens(&other).await, (slices, 0));
}

#[tokio::test]
async fn who_asks_again_gets_the_receipt_of_the_whole() {
    let app = TestApp::new();
    let admin = app.admin("admin@example.org").await;
    let session = app.log_in("admin@example.org").await;
    let (user, _) = large_user(&app).await;
    let key = begin(&app).await;
    for _ in 0..5 {
        app.app.store().write(move |writer| erasure::slice(writer, key)).await.unwrap();
    }
    // The address is free at once, for somebody who is not erased with the other.
    let heir = app.user(EMAIL, "pro").await;
    app.used_up(&heir, 5).await;
    let path = format!("/api/admin/users/{}?erase=true", user.id);
    let receipt = app.drop_at(&session, &path).await.expect(200).json;
    assert_eq!(receipt["erased"]["ledger_entries"], 1_550, "{receipt}");
    assert_eq!(receipt["erased"].as_object().unwrap().len(), 13);
    app.proves();
    assert_eq!(app.tokens(&heir).await, (5, 0));
    let log = acts(&app, &admin.token).await;
    assert_eq!(log.iter().filter(|act| act["action"] == "user.erase").count(), 1);
}

#[tokio::test]
async fn a_slice_takes_few_memories_where_their_texts_are_long() {
    let app = TestApp::new();
    let user = app.user(EMAIL, "pro").await;
    let text = "x".repeat(200 * 1024);
    for number in 0..12 {
        let memory = json!({"type": "note", "input_context": format!("{number} {text}"), "embedding": vector().0});
        app.tell(&user.token, "/memory/store", memory).await.expect(201);
    }
    let key = begin(&app).await;
    let mut left = vec![12];
    while app.app.store().write(move |writer| erasure::slice(writer, key)).await.unwrap().is_none() {
        left.push(app.memories_stored());
    }
    left.dedup();
    assert_eq!(left, [12, 6, 0], "a MiB of text in each slice");
    app.proves();
}

/// A user erased by the command line while another program reads the log: what the command said, and the reader.
#[expect(clippy::disallowed_methods, reason = "as another program would")]
async fn erased_beside_a_reader(app: &TestApp) -> (String, rusqlite::Connection) {
    let there = app.directory.path();
    let user = app.user(EMAIL, "pro").await;
    let memory = json!({"type": "note", "input_context": MARK, "embedding": vector().0});
    app.tell(&user.token, "/memory/store", memory).await.expect(201);
    let reader = rusqlite::Connection::open(there.join("tallybox.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM users").unwrap();
    let output = run_with(there, &["user", "erase", EMAIL, "--yes"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(found_in(there, MARK.as_bytes()).contains(&"tallybox.db-wal".to_owned()));
    (String::from_utf8(output.stderr).unwrap(), reader)
}

#[tokio::test]
async fn a_log_that_another_process_could_not_empty_is_emptied_by_the_server() {
    let app = TestApp::new();
    let (said, reader) = erased_beside_a_reader(&app).await;
    assert!(said.contains("tallybox.db-wal"), "{said}");
    app.pass().await;
    drop(reader);
    let begun = Instant::now();
    while !found_in(app.directory.path(), MARK.as_bytes()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the log is not emptied");
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.pass().await;
    }
    assert!(!app.app.store().read(erasure::log_tells).await.unwrap(), "nobody tries for ever");
    app.proves();
}

#[tokio::test]
async fn a_log_that_was_not_emptied_before_the_end_is_emptied_after_the_next_start() {
    let app = TestApp::new();
    let (_, reader) = erased_beside_a_reader(&app).await;
    let app = TestApp::at(app.stop());
    assert!(!found_in(app.directory.path(), MARK.as_bytes()).is_empty());
    drop(reader);
    app.pass().await;
    assert_eq!(found_in(app.directory.path(), MARK.as_bytes()), Vec::<String>::new());
    let user = app.user("b@example.org", "pro").await;
    app.used_up(&user, 1).await;
    app.proves();
}
