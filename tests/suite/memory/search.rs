//! Finding.

use std::sync::Arc;

use serde_json::{Value, json};
use tallybox::adapter::embedder::Builtin;

use super::{app_of, app_with, axis, texts};

#[tokio::test]
async fn meaning_words_and_both_find_and_show_their_parts() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    for text in ["The ferry to Ullapool leaves early.", "Maria is allergic to peanuts.", "The boiler was serviced."] {
        app.note(&user, text).await;
    }
    let found = app.search(&user, json!({"query": "Maria is allergic to peanuts."})).await;
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["input_context"], "Maria is allergic to peanuts.");
    assert_eq!(found[0]["score"], 1.0);
    assert_eq!(found[0]["score_breakdown"], json!({"semantic": 1.0, "keyword": 1.0}));
    assert_eq!(found[1]["score_breakdown"]["keyword"], 0.0);
    assert!(found[0].get("context").is_none());
    let names: Vec<&String> = found[0].as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 11, "{names:?}");
    let semantic = app.search(&user, json!({"query": "ferry", "mode": "semantic", "limit": 1})).await;
    assert_eq!(texts(&semantic), ["The ferry to Ullapool leaves early."]);
    assert_eq!(semantic[0]["score_breakdown"]["keyword"], json!(null));
    let keyword = app.search(&user, json!({"query": "ferries serviced", "mode": "keyword"})).await;
    assert_eq!(keyword.len(), 2);
    assert_eq!(keyword[0]["score_breakdown"]["semantic"], json!(null));
    assert_eq!(keyword[0]["score"], 1.0);
    let least = app.search(&user, json!({"query": "boiler", "min_score": 0.5})).await;
    assert_eq!(texts(&least), ["The boiler was serviced."]);
}

#[tokio::test]
async fn a_given_embedding_is_compared_and_never_below_0() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    for (text, direction) in [("east", 0), ("north", 1)] {
        app.store(&user, json!({"type": "n", "input_context": text, "embedding": axis(direction)})).await.expect(201);
    }
    let mut west: Vec<f64> = vec![0.0; 384];
    west[0] = -1e30;
    app.store(&user, json!({"type": "n", "input_context": "west", "embedding": west})).await.expect(201);
    let found = app.search(&user, json!({"embedding": axis(0)})).await;
    assert_eq!(texts(&found), ["east", "north", "west"]);
    let scores: Vec<f64> = found.iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
    assert_eq!(scores, [1.0, 0.0, 0.0]);
    assert_eq!(found[0]["score_breakdown"], json!({"semantic": 1.0, "keyword": null}));
    let both = app.search(&user, json!({"embedding": axis(0), "query": "north"})).await;
    assert_eq!(both[0]["score_breakdown"]["semantic"], 1.0);
    assert_eq!(both[1]["score_breakdown"]["keyword"], 1.0);
}

#[tokio::test]
async fn a_long_memory_appears_once_by_its_best_window() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let long = format!("{} zebra", vec!["word"; 120].join(" "));
    app.note(&user, &long).await;
    app.note(&user, "short").await;
    let found = app.search(&user, json!({"query": "zebra", "mode": "semantic"})).await;
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["input_context"], long);
}

#[tokio::test]
async fn filters_hold_before_candidates_are_cut() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let memories: Vec<Value> = (0..200)
        .map(|number| {
            let wanted = number % 40 == 7;
            json!({"type": if wanted { "rare" } else { "common" }, "input_context": format!("note {number}"),
                "tier": if wanted { "itm" } else { "ltm" }, "tags": if wanted { json!(["a", "b"]) } else { json!(["a"]) },
                "metadata": {"n": number, "wanted": wanted}, "session": if wanted { "s" } else { "t" },
                "timestamp": if wanted { "2020-01-01T00:00:00Z" } else { "2022-01-01T00:00:00Z" },
                // What is wanted points away from the query.
                "embedding": axis(usize::from(wanted))})
        })
        .collect();
    app.call("POST", "/memory/store/batch", Some(&user.token), Some(json!({"memories": memories}))).await.expect(201);
    for filter in [
        json!({"types": ["rare"]}),
        json!({"tiers": ["itm", "stm"]}),
        json!({"tags": ["b", "a"]}),
        json!({"metadata": {"wanted": true}}),
        json!({"session": "s"}),
        json!({"before": "2021-01-01T00:00:00Z"}),
        json!({"after": "2019-01-01T00:00:00Z", "before": "2020-01-02T00:00:00Z", "types": ["rare", "other"]}),
    ] {
        for search in
            [json!({"embedding": axis(0)}), json!({"query": "note", "mode": "keyword"}), json!({"query": "note"})]
        {
            let mut search = search.as_object().unwrap().clone();
            search.extend(filter.as_object().unwrap().clone());
            search.insert("limit".to_owned(), json!(5));
            let found = app.search(&user, Value::Object(search)).await;
            assert_eq!(found.len(), 5, "{filter}");
            assert!(found.iter().all(|hit| hit["type"] == "rare"), "{filter}");
        }
    }
    let none = app.search(&user, json!({"query": "note", "created_before": "2026-03-10T12:00:00Z"})).await;
    assert!(none.is_empty());
    let all = app.search(&user, json!({"query": "note", "created_after": "2026-03-10T11:59:59Z", "limit": 100})).await;
    assert_eq!(all.len(), 100);
    let listed = app.get(&user, "/memory?tag=b&tier=itm&type=rare&session=s&limit=3").await.expect(200).json;
    assert_eq!(listed["memories"].as_array().unwrap().len(), 3);
    assert!(listed["next_cursor"].is_string());
}

#[tokio::test]
async fn every_script_is_found_by_its_own_words() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let memories = [
        ("明日は東京で会議があります", "東京"),
        ("ฉันชอบกินข้าวผัดกุ้ง", "ข้าวผัด"),
        ("Встреча с Алексеем в понедельник", "понедельник"),
        ("Die Straße nach Köln ist gesperrt", "strasse"),
        ("call parseRequest in web_input.rs", "web_input"),
        ("write to maria.perez@example.org", "maria.perez@example.org"),
        ("the invoice 4711-0815 is paid", "0815"),
        ("we celebrated 🎉 all night", "🎉"),
        ("학교에서 친구를 만났다", "학교"),
        ("القهوة جاهزة", "القهوة"),
    ];
    for (text, _) in memories {
        app.note(&user, text).await;
    }
    for (text, query) in memories {
        let found = app.search(&user, json!({"query": query, "mode": "keyword"})).await;
        assert_eq!(texts(&found)[0], text, "{query}");
        let found = app.search(&user, json!({"query": query})).await;
        assert_eq!(texts(&found)[0], text, "{query} in both ways");
    }
}

#[tokio::test]
async fn what_the_model_has_no_token_for_is_found_by_its_words() {
    let app = app_of("", Arc::new(Builtin::load().unwrap()));
    let user = app.user("a@example.org", "basic").await;
    for text in ["ฉันชอบกินข้าวผัดกุ้ง", "we celebrated 🎉 all night", "ฉันไปตลาดกับแม่"]
    {
        app.note(&user, text).await;
    }
    let found = app.search(&user, json!({"query": "🎉"})).await;
    assert_eq!((texts(&found)[0], found.len()), ("we celebrated 🎉 all night", 3));
    assert_eq!(found[0]["score_breakdown"], json!({"semantic": null, "keyword": 1.0}));
    // Beside a word that it knows, it has a meaning.
    let found = app.search(&user, json!({"query": "a 🎉 party"})).await;
    assert_eq!(texts(&found)[0], "we celebrated 🎉 all night");
    assert!(found[0]["score_breakdown"]["semantic"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_query_is_text_and_never_syntax() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    app.note(&user, "the harbour wall").await;
    for query in [
        "\"",
        "harbour\" OR \"",
        "NEAR(harbour wall)",
        "body: harbour",
        "harbour*",
        "-harbour",
        "(",
        "^harbour",
        "'; DROP TABLE memories; --",
        "*",
        "?!",
        "{}",
        "AND",
        "the",
    ] {
        for mode in ["keyword", "hybrid"] {
            let reply = app
                .call("POST", "/memory/search", Some(&user.token), Some(json!({"query": query, "mode": mode})))
                .await;
            let found = reply.expect(200).json["results"].as_array().unwrap().len();
            assert!(mode == "keyword" || found == 1, "{query}");
            assert_eq!(
                mode == "keyword" && query.contains("harbour"),
                mode == "keyword" && found == 1 && query != "the"
            );
        }
    }
}

#[tokio::test]
async fn the_words_of_a_day_help_a_search_and_do_not_answer_for_a_text() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    for (text, at) in [("We met the vet.", "2023-05-08T10:00:00Z"), ("We met the vet!", "2023-06-11T10:00:00Z")] {
        app.store(&user, json!({"type": "n", "input_context": text, "timestamp": at})).await.expect(201);
    }
    let found = app.search(&user, json!({"query": "Which animal doctor did we meet on 8 May 2023?"})).await;
    assert_eq!(texts(&found)[0], "We met the vet.");
    assert!(app.search(&user, json!({"query": "May", "mode": "keyword"})).await.is_empty());
}

#[tokio::test]
async fn neighbours_come_oldest_first_and_never_as_results() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    for (number, minute) in [(3, 3), (1, 1), (2, 2), (4, 4), (5, 4)] {
        let memory = json!({"type": "n", "input_context": format!("line {number}"), "session": "s",
            "timestamp": format!("2025-01-01T00:0{minute}:00Z"), "embedding": axis(number)});
        app.store(&user, memory).await.expect(201);
    }
    app.store(&user, json!({"type": "n", "input_context": "elsewhere", "session": "t", "embedding": axis(3)}))
        .await
        .expect(201);
    let found = app.search(&user, json!({"embedding": axis(3), "context": 2, "limit": 1, "session": "s"})).await;
    assert_eq!(texts(&found), ["line 3"]);
    let context: Vec<&str> =
        found[0]["context"].as_array().unwrap().iter().map(|near| near["input_context"].as_str().unwrap()).collect();
    assert_eq!(context, ["line 1", "line 2", "line 4", "line 5"]);
    assert_eq!(found[0]["context"][0].as_object().unwrap().len(), 3);
    let first = app.search(&user, json!({"embedding": axis(1), "context": 1, "limit": 1})).await;
    assert_eq!(first[0]["context"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn similar_memories_are_named_on_a_store_and_on_demand() {
    let app = app_with("");
    let user = app.user("a@example.org", "basic").await;
    let id = app.note(&user, "The ferry leaves at nine.").await;
    app.note(&user, "Peanuts are forbidden here.").await;
    let again = json!({"type": "note", "input_context": "The ferry leaves at ten.", "report_similar": true});
    let stored = app.store(&user, again).await.expect(201).json;
    let similar = stored["similar"].as_array().unwrap();
    assert_eq!(similar.len(), 1);
    assert_eq!(similar[0]["id"], id.as_str());
    assert!(similar[0]["score"].as_f64().unwrap() > 0.7);
    let found = app.get(&user, &format!("/memory/{id}/similar?limit=1")).await.expect(200).json;
    assert_eq!(found["results"][0]["id"], stored["id"]);
}

#[tokio::test]
async fn other_users_words_count_for_nothing() {
    let app = app_with("");
    let one = app.user("a@example.org", "basic").await;
    let many = app.user("b@example.org", "basic").await;
    app.note(&one, "walnut cake").await;
    app.note(&one, "cake").await;
    let alone = app.search(&one, json!({"query": "walnut cake", "mode": "keyword"})).await;
    for number in 0..40 {
        app.note(&many, &format!("walnut number {number}")).await;
    }
    assert_eq!(app.search(&one, json!({"query": "walnut cake", "mode": "keyword"})).await, alone);
}

/// A megabyte, in bytes.
const MEGABYTE: usize = 1024 * 1024;

#[tokio::test]
async fn the_neighbours_of_an_answer_have_a_bound_and_the_best_hits_have_theirs_first() {
    let app = app_with("");
    let user = app.user("a@example.org", "pro").await;
    let text = "a".repeat(262_144);
    for number in 0..12 {
        let memory = json!({"type": "n", "input_context": text, "session": "s", "embedding": axis(number)});
        app.store(&user, memory).await.expect(201);
    }
    let bytes = |hit: &Value| -> usize {
        let context = hit["context"].as_array().unwrap();
        context.iter().map(|near| near["input_context"].as_str().unwrap().len()).sum()
    };
    let found = app.search(&user, json!({"embedding": axis(3), "context": 5, "limit": 12})).await;
    let sizes: Vec<usize> = found.iter().map(bytes).collect();
    let total: usize = sizes.iter().sum();
    assert_eq!(sizes.len(), 12);
    assert!(total <= 16 * MEGABYTE && total > 13 * MEGABYTE, "{sizes:?}");
    assert!(sizes[0] >= 8 * text.len(), "{sizes:?}");
    assert!(sizes.contains(&0), "nobody goes without: {sizes:?}");
    // A few hits have all of theirs.
    let found = app.search(&user, json!({"embedding": axis(5), "context": 2, "limit": 3})).await;
    assert!(found.iter().all(|hit| bytes(hit) > 0));
}

#[tokio::test]
async fn neighbours_that_are_filtered_out_or_over_lend_nothing_to_a_score() {
    let app = app_with("");
    let (alone, both) = (app.user("a@example.org", "basic").await, app.user("b@example.org", "basic").await);
    let apart = app.user("c@example.org", "basic").await;
    let first =
        json!({"type": "n", "input_context": "The harbour lies in the north.", "session": "s", "tags": ["kept"]});
    let second = json!({"type": "n", "input_context": "Its ferry leaves at nine.", "session": "s", "tier": "stm"});
    app.store(&alone, first.clone()).await.expect(201);
    app.store(&both, first.clone()).await.expect(201);
    app.store(&both, second.clone()).await.expect(201);
    let mut elsewhere = second;
    elsewhere["session"] = json!("another");
    app.store(&apart, first).await.expect(201);
    app.store(&apart, elsewhere).await.expect(201);
    let query = "ferry harbour";
    let score = async |user: &super::TestUser, more: Value| {
        let mut search = json!({"query": query});
        search.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let found = app.search(user, search).await;
        let harbour = found.iter().find(|hit| hit["input_context"].as_str().unwrap().contains("harbour"));
        harbour.unwrap()["score"].as_f64().unwrap()
    };
    let by_itself = score(&alone, json!({})).await;
    // Among the same texts, one that is a neighbour changes the score: there is something to be withheld.
    let (beside, apart) = (score(&both, json!({})).await, score(&apart, json!({})).await);
    assert!((beside - apart).abs() > 0.01, "{beside} {apart}");
    for filter in [json!({"tags": ["kept"]}), json!({"tiers": ["ltm"]})] {
        assert!((score(&both, filter.clone()).await - by_itself).abs() < 1e-9, "{filter}");
    }
    app.clock.advance_millis(24 * 3_600_000);
    // Its rows are still there: nobody has purged them.
    assert!((score(&both, json!({})).await - by_itself).abs() < 1e-9);
}
