//! Any text is a query, and finds what says the same.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use tallybox::domain::words::{index_words, marked, query_words};

use crate::suite::calls::id_of;
use crate::suite::memory::app_with;

/// Texts with what FTS5, SQL and JSON take for syntax, and of every script.
fn any_text() -> impl Strategy<Value = String> {
    let known = [
        "NEAR(a b, 2)",
        "a AND b",
        "OR",
        "NOT",
        "\"",
        "'",
        "*",
        "^x",
        "body:",
        "-x",
        "+",
        "(",
        ")",
        "{a b}:",
        "e-mail",
        "store_batch",
        "storeBatch",
        "12,500",
        "\u{6e2f}\u{53e3}",
        "\u{e17}\u{e48}\u{e32}",
        "\u{1f980}",
        "\u{1f1e9}\u{1f1ea}",
        "\u{c5}ngstr\u{f6}m",
        "\u{5d4}",
        "the",
        "of",
        "\u{ad}",
        "\u{200d}",
        "a\u{301}",
        "\\",
        "%",
        "\u{b7}",
        "1\u{b7}x",
    ];
    let piece = prop_oneof![
        3 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        2 => "[^\u{0}]{1,8}",
        2 => "[a-z]{1,9}",
        1 => Just(" ".to_owned()),
    ];
    proptest::collection::vec(piece, 1..10).prop_map(|pieces| pieces.concat())
}

fn is_among_what_is_indexed(text: &str) -> Result<(), TestCaseError> {
    let indexed = index_words(text);
    for word in query_words(text) {
        prop_assert!(indexed.contains(&word), "{word:?} of {text:?} is not in {indexed:?}");
    }
    prop_assert_eq!(query_words(text).is_empty(), indexed.is_empty(), "{:?}", text);
    let pieces: String = marked(text, text).into_iter().map(|(piece, _)| piece).collect();
    prop_assert_eq!(pieces, text);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_asked_for_is_among_what_is_indexed(text in any_text()) {
        is_among_what_is_indexed(&text)?;
    }
}

#[test]
fn any_text_finds_the_memory_that_says_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (app, user) = runtime.block_on(async {
        let app = app_with("");
        let user = app.user("a@example.org", "pro").await;
        (app, user)
    });
    let is_found = |text: String| {
        let found = runtime.block_on(async {
            let memory = json!({"type": "n", "input_context": text});
            let id = id_of(&app.tell(&user.token, "/memory/store", memory).await.expect(201));
            let query = json!({"query": text, "mode": "keyword", "limit": 100});
            let reply = app.tell(&user.token, "/memory/search", query).await.expect(200);
            let results = reply.json["results"].as_array().unwrap().clone();
            for mode in ["hybrid", "semantic"] {
                app.tell(&user.token, "/memory/search", json!({"query": text, "mode": mode})).await.expect(200);
            }
            app.drop_at(&user.token, &format!("/memory/{id}")).await.expect(204);
            results.iter().any(|found| found["id"] == *id)
        });
        prop_assert_eq!(found, !query_words(&text).is_empty(), "{:?}", text);
        Ok(())
    };
    for (name, text) in super::corpus_texts("queries") {
        let held = is_among_what_is_indexed(&text).and_then(|()| is_found(text));
        held.unwrap_or_else(|error| unreachable!("{name}: {error}"));
    }
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(128) };
    if let Err(error) = TestRunner::new(config).run(&any_text(), is_found) {
        unreachable!("{error}");
    }
    app.proves();
}
