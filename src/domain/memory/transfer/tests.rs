use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::Error;
use crate::domain::memory::{EMBEDDING_DIMENSIONS, MemoryTier};

fn terms() -> Terms {
    Terms { now: Timestamp(1_773_144_000_000), text_bytes_max: 1_000, embeddings: false, model: "m".to_owned() }
}

fn all(mut records: Records, terms: &Terms) -> (Vec<Item>, Vec<Skipped>) {
    let (mut items, mut skipped) = (Vec::new(), Vec::new());
    while let Some(batch) = records.batch(terms) {
        items.extend(batch.items.into_iter().map(|(_, item)| item));
        skipped.extend(batch.skipped);
    }
    (items, skipped)
}

fn lines(format: Format, text: &str) -> (Vec<Item>, Vec<Skipped>) {
    all(Records::of_lines(format, text.to_owned(), 1), &terms())
}

fn document(format: Format, value: &Value) -> (Vec<Item>, Vec<Skipped>) {
    all(Records::of_document(format, value.to_string()).unwrap(), &terms())
}

fn reasons(skipped: &[Skipped]) -> Vec<(u64, &str)> {
    skipped.iter().map(|skipped| (skipped.record, skipped.reason.as_str())).collect()
}

#[test]
fn lines_are_numbered_with_the_blank_ones_and_a_bad_one_costs_itself_alone() {
    let text = "\u{feff}{\"type\": \"n\", \"input_context\": \"one\"}\r\n\n  \nnul\n{\"type\": \"n\"}\n[]\n\
                {\"type\": \"n\", \"input_context\": \"two\", \"colour\": 1}\n{\"type\": \"n\", \"input_context\": \"last\"}";
    let (items, skipped) = lines(Format::Tallybox, text);
    assert_eq!(items.iter().map(|item| item.content.text.as_str()).collect::<Vec<_>>(), ["one", "last"]);
    let wanted = [
        (4, "the record: malformed JSON, EOF while parsing a value"),
        (5, "input_context: is required"),
        (6, "the record: must be an object"),
        (7, "colour: is not a known field"),
    ];
    assert_eq!(reasons(&skipped), wanted);
}

#[test]
fn what_ours_may_not_be_is_skipped_by_field_and_bound() {
    let bad = |name: &str, value: Value| {
        let mut record = json!({"type": "n", "input_context": "t"});
        record[name] = value;
        let (items, skipped) = document(Format::Tallybox, &json!({"memories": [record], "next_cursor": null}));
        assert!(items.is_empty(), "{name}");
        skipped[0].reason.clone()
    };
    for (name, value, why) in [
        ("input_context", json!("x".repeat(1_001)), "1 to 1000 bytes"),
        ("input_context", json!("a\0"), "NUL"),
        ("type", json!("x".repeat(65)), "1 to 64 characters"),
        ("tags", json!((0..33).map(|tag| tag.to_string()).collect::<Vec<_>>()), "at most 32"),
        ("metadata", json!({"a": "x".repeat(16 * 1024)}), "at most 16384 bytes"),
        ("metadata", json!({"a": "x".repeat(300 * 1024)}), "at most 262144 bytes"),
        ("metadata", json!(1), "an object"),
        ("session", json!(""), "1 to 128 characters"),
        ("tier", json!("long"), "stm, itm, ltm"),
        ("timestamp", json!("yesterday"), "RFC 3339"),
        ("timestamp", json!("2026-03-10T12:05:01Z"), "5 minutes ahead"),
        ("expires_at", json!("2026-03-10T12:00:00Z"), "lies in the past"),
        ("id", json!({}), "a text of 1 to 1024 bytes"),
    ] {
        let reason = bad(name, value);
        assert!(reason.starts_with(&format!("{name}: ")) && reason.contains(why), "{reason}");
    }
}

#[test]
fn an_embedding_is_taken_where_its_model_is_ours_alone() {
    let vector = vec![1.0; EMBEDDING_DIMENSIONS];
    let read = |model: Option<&str>, says_so: bool| {
        let record = json!({"type": "n", "input_context": "t", "embedding": vector, "embedding_model": model});
        let terms = Terms { embeddings: says_so, ..terms() };
        let (items, _) = all(Records::of_lines(Format::Tallybox, record.to_string(), 1), &terms);
        items[0].embedding.is_some()
    };
    let found = [(Some("m"), false), (None, true), (None, false), (Some("other"), true)].map(|(m, s)| read(m, s));
    assert_eq!(found, [true, true, false, false]);
}

#[test]
fn a_source_is_the_id_or_all_that_is_said() {
    let of = |text: &str| lines(Format::Tallybox, text).0[0].source;
    let with_id = of(r#"{"id": "a", "type": "n", "input_context": "t"}"#);
    assert_eq!(with_id, of(r#"{"input_context":"other","type":"n","id":"a"}"#));
    let without = of(r#"{"type": "n", "input_context": "t"}"#);
    assert_eq!(without, of(r#"{"input_context":"t","type":"n","created_at":"2026-01-01T00:00:00Z"}"#));
    assert_ne!(without, of(r#"{"type": "n", "input_context": "t", "timestamp": "2026-01-01T00:00:00Z"}"#));
    assert_ne!(without, with_id);
}

#[test]
fn what_mem0_gives_is_read_as_a_list_or_as_results() {
    let record = json!({
        "id": "0b2c1d3e-9d3f-4a77-8f5e-6d7c8b9a0f11", "memory": "Prefers tea", "hash": "8f1c", "score": null,
        "metadata": {"source": "chat"}, "categories": ["food", "food"], "user_id": "alice", "agent_id": "barista",
        "run_id": "run-7", "created_at": "2024-07-20T01:30:36.275141-07:00", "updated_at": null,
        "expiration_date": null, "structured_attributes": {"day": 20},
    });
    for given in
        [json!([record]), json!({"results": [record], "relations": []}), json!({"count": 1, "results": [record]})]
    {
        let (items, skipped) = document(Format::Mem0, &given);
        assert!(skipped.is_empty(), "{skipped:?}");
        let content = &items[0].content;
        assert_eq!((content.text.as_str(), content.tier), ("Prefers tea", MemoryTier::Long));
        assert_eq!((content.session.as_deref(), content.tags.as_slice()), (Some("run-7"), &["food".to_owned()][..]));
        assert_eq!(content.timestamp.to_string(), "2024-07-20T08:30:36.275Z");
        let kept = json!({"source": "chat", "user_id": "alice", "agent_id": "barista"});
        assert_eq!(Value::from(content.metadata.clone()), kept);
    }
    let bare = |name: &str, value: Value| {
        let mut record = json!({"memory": "m"});
        record[name] = value;
        document(Format::Mem0, &json!([record]))
    };
    assert_eq!(bare("created_at", json!("2024-07-20 01:30:36")).0[0].content.timestamp.0, 1_721_439_036_000);
    let (items, _) = bare("expiration_date", json!("2026-03-10"));
    assert_eq!(items[0].expires_at.unwrap().to_string(), "2026-03-11T00:00:00.000Z");
    assert_eq!(reasons(&bare("expiration_date", json!("2026-03-09")).1), [(1, "expiration_date: lies in the past")]);
    assert!(bare("created_at", json!(5)).1[0].reason.starts_with("created_at: must be a time"));
    assert_eq!(reasons(&document(Format::Mem0, &json!([{}, "x"])).1)[1], (2, "the record: must be an object"));
}

#[test]
fn what_chroma_gives_is_zipped() {
    let vector = vec![0.5; EMBEDDING_DIMENSIONS];
    let given = json!({
        "ids": ["a", "b", "c"], "documents": ["one", null, "three"], "metadatas": [{"page": 1}, null, null],
        "embeddings": [vector, vector, vector], "uris": null, "data": null, "included": ["documents", "metadatas"],
    });
    let (items, skipped) = document(Format::Chroma, &given);
    assert_eq!(reasons(&skipped), [(2, "documents: is null, so there is no text to remember")]);
    let texts: Vec<&str> = items.iter().map(|item| item.content.text.as_str()).collect();
    assert_eq!(texts, ["one", "three"]);
    assert!(items[0].content.metadata["page"] == 1 && items[0].embedding.is_none());
    let terms = Terms { embeddings: true, ..terms() };
    let (items, _) = all(Records::of_document(Format::Chroma, given.to_string()).unwrap(), &terms);
    assert!(items.iter().all(|item| item.embedding.is_some()));
    for (bad, field) in [
        (json!({"documents": []}), "ids"),
        (json!({"ids": ["a"]}), "documents"),
        (json!({"ids": ["a"], "documents": []}), "documents"),
        (json!({"ids": [], "documents": [], "metadatas": [{}]}), "metadatas"),
        (json!({"ids": "a", "documents": []}), "ids"),
        (json!([]), "body"),
    ] {
        let Err(Error::Invalid(faults)) = Records::of_document(Format::Chroma, bad.to_string()) else {
            panic!("{bad}")
        };
        assert_eq!(faults[0].field, field, "{bad}");
    }
    // Two collections may count alike.
    let of = |text: &str| document(Format::Chroma, &json!({"ids": ["1"], "documents": [text]})).0[0].source;
    assert_ne!(of("one"), of("two"));
}

#[test]
fn a_graph_is_a_memory_an_observation_and_a_relation() {
    let text = concat!(
        r#"{"type":"entity","name":"Ada","entityType":"person","observations":["likes tea","lives in Leeds"]}"#,
        "\n",
        r#"{"type":"relation","from":"Ada","to":"Acme","relationType":"works_at"}"#,
        "\n",
        r#"{"type":"entity","name":"Acme","entityType":"company","observations":[]}"#,
        "\n",
        r#"{"type":"entity","name":"Leeds","entityType":"city","observations":["is rainy",7]}"#,
        "\n",
        r#"{"type":"thing"}"#,
    );
    let (items, skipped) = lines(Format::McpJsonl, text);
    let texts: Vec<&str> = items.iter().map(|item| item.content.text.as_str()).collect();
    assert_eq!(texts, ["Ada: likes tea", "Ada: lives in Leeds", "Ada works_at Acme", "Leeds: is rainy"]);
    assert_eq!(Value::from(items[0].content.metadata.clone()), json!({"entity": "Ada", "entityType": "person"}));
    assert_eq!((items[0].content.kind.as_str(), items[2].content.kind.as_str()), ("observation", "relation"));
    assert_eq!((items[1].content.tags[0].as_str(), items[2].content.tags[0].as_str()), ("person", "works_at"));
    let reasons = reasons(&skipped);
    assert_eq!(reasons[0], (3, "observations: is empty, so there is nothing to remember"));
    assert_eq!(reasons[1], (4, "an observation: must be a text of 1 to 1000 characters"));
    assert_eq!(reasons[2], (5, "type: must be entity or relation"));
    let graph = json!({
        "entities": [{"name": "Ada", "entityType": "person", "observations": ["likes tea"]}],
        "relations": [{"from": "Ada", "to": "Acme", "relationType": "works_at"}],
    });
    let (read, _) = document(Format::McpJsonl, &graph);
    assert_eq!(read.iter().map(|item| item.source).collect::<Vec<_>>(), [items[0].source, items[2].source]);
}

#[test]
fn lines_are_told_from_documents() {
    use Format::{Chroma, McpJsonl, Mem0, Tallybox};
    for (format, line, is_lines) in [
        (Tallybox, "{\"id\": 1}\n", true),
        (Tallybox, "{\"memories\": [\n", false),
        (Tallybox, "{\n", false),
        (Tallybox, "garbage", true),
        (McpJsonl, "\u{feff}{\"type\":\"entity\"}", true),
        (McpJsonl, "{\"relations\": [], \"entities\": []}", false),
        (McpJsonl, "[", false),
        (Mem0, "{}", false),
        (Chroma, "{}", false),
    ] {
        assert_eq!(format.is_lines(line), is_lines, "{line}");
    }
}

#[test]
fn a_report_shows_the_first_and_counts_the_rest() {
    let mut report = Report::default();
    for record in 1..=200 {
        report.skip(Skipped { record, reason: format!("field{}: is not a known field", record % 100) });
    }
    assert_eq!((report.skipped.len(), report.skipped_count), (SKIPPED_SHOWN_MAX, 200));
    let more: Vec<(&str, u64)> = report.more_skipped().collect();
    assert!(more.len() == REASONS_MAX + 1 && more.iter().map(|(_, count)| count).sum::<u64>() == 180);
    assert!(more.contains(&("other reasons", 52)), "{more:?}");
}

/// Something that looks like what the formats have.
fn shaped() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "id",
        "ids",
        "memories",
        "results",
        "documents",
        "metadatas",
        "embeddings",
        "type",
        "entity",
        "relation",
        "name",
        "observations",
        "memory",
        "created_at",
        "input_context",
        "tags",
        "metadata",
        "x",
    ]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("\"entity\"".to_owned()),
        Just("\"relation\"".to_owned()),
        any::<f64>().prop_map(|number| number.to_string()),
        ".{0,6}".prop_map(|text| Value::from(text).to_string()),
        ".{0,6}",
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        let member = (name.clone(), inner.clone()).prop_map(|(name, value)| format!("\"{name}\": {value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|list| format!("[{}]", list.join(", "))),
            prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn no_input_stops_a_reader(inputs in prop::collection::vec(shaped(), 1..4)) {
        let terms = Terms { embeddings: true, ..terms() };
        for format in Format::ALL {
            let (items, skipped) = all(Records::of_lines(format, inputs.join("\n"), 1), &terms);
            for item in &items {
                prop_assert!(!item.content.text.is_empty() && item.content.text.len() <= 1_000);
            }
            prop_assert!(skipped.iter().all(|skipped| skipped.record > 0 && !skipped.reason.is_empty()));
            if let Ok(records) = Records::of_document(format, inputs[0].clone()) {
                all(records, &terms);
            }
            format.is_lines(&inputs[0]);
        }
    }
}
