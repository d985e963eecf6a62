//! Short-term memories end at their instant, and their bytes come back.

use serde_json::json;

use super::{app_with, axis, bytes, size_of, texts};

const DAY_MS: i64 = 86_400_000;

#[tokio::test]
async fn a_memory_leaves_every_read_at_its_instant_and_the_books_with_one_entry() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let mut last = String::new();
    for text in ["the first walnut", "the second walnut"] {
        let memory = json!({"type": "n", "input_context": text, "tier": "stm", "session": "s", "tags": ["t"]});
        let stored = app.store(&user, memory).await.expect(201).json;
        assert_eq!(stored["expires_at"], "2026-03-11T12:00:00.000Z");
        last = stored["id"].as_str().unwrap().to_owned();
    }
    let kept = app.store(&user, json!({"type": "n", "input_context": "a walnut that stays", "session": "s"})).await;
    let kept = kept.expect(201).json["id"].as_str().unwrap().to_owned();
    app.clock.advance_millis(DAY_MS - 1);
    app.pass().await;
    assert_eq!(app.search(&user, json!({"query": "walnut"})).await.len(), 3);
    app.clock.advance_millis(1);
    // Not yet booked, and gone all the same.
    app.get(&user, &format!("/memory/{last}")).await.expect(404);
    app.call("PATCH", &format!("/memory/{last}"), Some(&user.token), Some(json!({"tier": "ltm"}))).await.expect(404);
    app.call("DELETE", &format!("/memory/{last}"), Some(&user.token), None).await.expect(404);
    for mode in ["hybrid", "keyword", "semantic"] {
        let found = app.search(&user, json!({"query": "walnut", "mode": mode, "context": 5})).await;
        assert_eq!(texts(&found), ["a walnut that stays"]);
        assert_eq!(found[0]["context"], json!([]));
    }
    assert_eq!(app.get(&user, "/memory?tag=t").await.json["memories"], json!([]));
    assert_eq!(app.get(&user, &format!("/memory/{kept}/similar")).await.json["results"], json!([]));
    let usage = app.get(&user, "/memory/usage").await.json;
    assert_eq!((&usage["memory_counts"]["total"], &usage["memory_counts"]["stm"]), (&json!(1), &json!(0)));
    let level = size_of("a walnut that stays");
    assert_eq!(app.level(&user).await, level);
    let freed = size_of("the first walnut") + size_of("the second walnut") + 2 * bytes(r#"["t"]"#);
    let days = json!([{"date": "2026-03-10", "amount": level + freed, "total": level + freed},
        {"date": "2026-03-11", "amount": -freed, "total": level}]);
    for _ in 0..2 {
        // Booked or not, the day ends with what is held.
        assert_eq!(app.get(&user, "/usage/timeseries/memory_storage?days=2").await.expect(200).json, days);
        app.pass().await;
    }
    assert_eq!(app.entries(&user).await[0], (-freed, "expire".to_owned()));
    assert_eq!(app.entries(&user).await.len(), 4);
    app.pass().await;
    assert_eq!(app.entries(&user).await.len(), 4);
    app.holds();
}

#[tokio::test]
async fn what_has_ended_is_booked_out_before_anything_is_refused() {
    let size = size_of("12345");
    let toml = format!("[tiers.basic]\nmemory_storage_bytes = {}\n[memory]\nstm_ttl = \"1h\"\n", 2 * size);
    let app = app_with(&toml);
    let user = app.user("a@example.org", "basic").await;
    for _ in 0..2 {
        app.store(&user, json!({"type": "n", "input_context": "12345", "tier": "stm"})).await.expect(201);
    }
    let long = json!({"type": "n", "input_context": "12345", "embedding": axis(0)});
    app.store(&user, long.clone()).await.expect(429);
    app.clock.advance_millis(3_600_000);
    app.store(&user, long).await.expect(201);
    assert_eq!(app.entries(&user).await[..2], [(size, "store".to_owned()), (-2 * size, "expire".to_owned())]);
    app.store(&user, json!({"type": "n", "input_context": "12345"})).await.expect(201);
    app.holds();
    app.pass().await;
    app.holds();
}

#[tokio::test]
async fn other_tiers_end_only_where_a_life_is_configured() {
    let app = app_with("[memory]\nitm_ttl = \"2h\"\n");
    let user = app.user("a@example.org", "basic").await;
    let stored = app.store(&user, json!({"type": "n", "input_context": "x", "tier": "itm"})).await.expect(201).json;
    assert_eq!(stored["expires_at"], "2026-03-10T14:00:00.000Z");
    let short = app.store(&user, json!({"type": "n", "input_context": "y", "tier": "stm"})).await.expect(201).json;
    let path = format!("/memory/{}", short["id"].as_str().unwrap());
    app.clock.advance_millis(1_000);
    let step = app.call("PATCH", &path, Some(&user.token), Some(json!({"tier": "itm"}))).await.expect(200).json;
    assert_eq!(step["expires_at"], "2026-03-10T14:00:01.000Z");
    let step = app.call("PATCH", &path, Some(&user.token), Some(json!({"tier": "ltm"}))).await.expect(200).json;
    assert_eq!(step["expires_at"], json!(null));
    app.clock.advance_millis(2 * 3_600_000);
    app.pass().await;
    assert_eq!(app.level(&user).await, size_of("y"));
    app.holds();
}

#[tokio::test]
async fn many_ends_are_purged_in_slices_and_leave_no_trace() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    for slice in 0..3 {
        let memories: Vec<_> = (0..200)
            .map(|number| {
                json!({"type": "n", "input_context": format!("number {slice} {number}"), "tier": "stm",
                    "embedding": axis(number)})
            })
            .collect();
        let batch = json!({"memories": memories});
        app.call("POST", "/memory/store/batch", Some(&user.token), Some(batch)).await.expect(201);
    }
    app.clock.advance_millis(DAY_MS);
    app.pass().await;
    assert_eq!(app.level(&user).await, 0);
    assert_eq!(app.entries(&user).await[0].1, "expire");
    app.holds();
}

#[tokio::test]
async fn what_has_ended_is_no_duplicate() {
    for policy in ["merge", "refuse"] {
        let app = app_with(&format!("[memory]\non_duplicate = \"{policy}\"\n"));
        let user = app.user("a@example.org", "basic").await;
        let memory = json!({"type": "n", "input_context": "twin", "tier": "stm", "embedding": axis(0)});
        let first = app.store(&user, memory.clone()).await.expect(201).json;
        app.clock.advance_millis(DAY_MS);
        let second = app.store(&user, memory.clone()).await.expect(201).json;
        assert_ne!(first["id"], second["id"], "{policy}");
        let third = app.store(&user, memory).await;
        assert_eq!(third.status, if policy == "merge" { 200 } else { 409 });
        app.pass().await;
        app.holds();
    }
}

#[tokio::test]
async fn the_room_of_what_is_deleted_is_used_again() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let fill = async |numbers: std::ops::Range<usize>| {
        let memory = |number: usize| {
            let (text, tag) = (format!("walnut {number}"), ["even", "odd"][number % 2]);
            json!({"type": "n", "input_context": text, "embedding": axis(number % 384), "tags": [tag]})
        };
        let batch = json!({"memories": numbers.map(memory).collect::<Vec<_>>()});
        app.call("POST", "/memory/store/batch", Some(&user.token), Some(batch)).await.expect(201);
    };
    fill(0..200).await;
    fill(200..400).await;
    let before = pages(app.directory.path());
    let deleted = app.call("DELETE", "/memory?confirm=true&tag=odd", Some(&user.token), None).await.expect(200);
    assert_eq!(deleted.json["deleted"], 200);
    fill(400..600).await;
    let after = pages(app.directory.path());
    assert!(after <= before + before / 10, "{before} pages became {after}");
    let found = app.search(&user, json!({"query": "walnut", "mode": "keyword", "limit": 100, "tags": ["odd"]})).await;
    assert_eq!(found.len(), 100);
    assert!(app.search(&user, json!({"query": "199", "mode": "keyword"})).await.is_empty());
    assert_eq!(texts(&app.search(&user, json!({"query": "499", "mode": "keyword"})).await), ["walnut 499"]);
    app.holds();
}

/// Pages of the database.
#[expect(clippy::disallowed_methods, reason = "a look past the program")]
fn pages(directory: &std::path::Path) -> i64 {
    let connection = rusqlite::Connection::open(directory.join("tallybox.db")).unwrap();
    connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
}
