//! The configuration: any text is read or refused with its faults named, and what is read reads the same again.

use proptest::prelude::*;
use tallybox::config::{Config, Environment};
use toml::{Table, Value};

/// The default file, with an upstream, as a table.
fn defaults() -> Table {
    let upstream =
        "\n[[gateway.upstreams]]\nname = 'a'\nbase_url = 'http://127.0.0.1:9/v1'\nmodels = ['*']\napi_key = 'k'\n";
    let text = include_str!("../../../config.toml");
    let mut table: Table = text.parse().unwrap();
    let more: Table = upstream.parse().unwrap();
    let upstreams = more["gateway"]["upstreams"].clone();
    table["gateway"].as_table_mut().unwrap().insert("upstreams".to_owned(), upstreams);
    table
}

/// The ways to every setting.
fn places(table: &Table, way: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    for (name, value) in table {
        way.push(name.clone());
        match value {
            Value::Table(inner) => places(inner, way, found),
            Value::Array(items) if items.first().is_some_and(Value::is_table) => {
                for inner in items.iter().filter_map(Value::as_table) {
                    places(inner, way, found);
                }
            }
            _ => found.push(way.clone()),
        }
        way.pop();
    }
}

fn put(table: &mut Table, way: &[String], value: Value) {
    let [first, rest @ ..] = way else { return };
    if rest.is_empty() {
        table.insert(first.clone(), value);
        return;
    }
    match table.get_mut(first) {
        Some(Value::Table(inner)) => put(inner, rest, value),
        Some(Value::Array(items)) => {
            if let Some(inner) = items.first_mut().and_then(Value::as_table_mut) {
                put(inner, rest, value);
            }
        }
        _ => {}
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let words = [
        "",
        "1s",
        "5m",
        "24h",
        "7d",
        "-1s",
        "99999999999d",
        "UTC",
        "Europe/Berlin",
        "open",
        "off",
        "token",
        "merge",
        "http://127.0.0.1:1/v1",
        "https://x.example",
        "127.0.0.1:8080",
        "10.0.0.0/8",
        "pro",
        "info",
        "json",
        "a=b=c",
    ];
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        (-2_i64..5_000).prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Float),
        any::<bool>().prop_map(Value::Boolean),
        proptest::sample::select(words.to_vec()).prop_map(|word| Value::String(word.to_owned())),
        ".{0,12}".prop_map(Value::String),
        Just(Value::Datetime("2026-03-10T12:00:00Z".parse().unwrap())),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map("[a-z_]{1,8}", inner, 0..3)
                .prop_map(|members| Value::Table(members.into_iter().collect())),
        ]
    })
}

/// What is accepted, written down and read again says the same.
fn comes_back(text: &str) -> Result<bool, TestCaseError> {
    match Config::parse(Some(text), &Environment::default()) {
        Ok(config) => {
            let written = config.to_masked_toml();
            let again = Config::parse(Some(&written), &Environment::default());
            prop_assert!(again.is_ok(), "{written} is refused: {again:?}");
            prop_assert_eq!(again.unwrap().to_masked_toml(), written);
            Ok(true)
        }
        Err(faults) => {
            prop_assert!(!faults.is_empty());
            prop_assert!(faults.iter().all(|fault| !fault.message.is_empty()), "{:?}", faults);
            Ok(false)
        }
    }
}

#[test]
fn the_default_file_comes_back() {
    assert!(comes_back(&defaults().to_string()).unwrap());
    assert!(comes_back("").unwrap());
}

#[test]
fn the_configurations_of_the_corpus_are_taken_or_named() {
    for (name, text) in super::corpus_texts("configs") {
        let is_taken = comes_back(&text).unwrap_or_else(|error| unreachable!("{name}: {error}"));
        assert_eq!(is_taken, name == "nothing.toml", "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text_is_a_configuration_or_has_its_faults_named(text in "(?s).{0,200}") {
        comes_back(&text)?;
    }

    #[test]
    fn any_values_of_settings_are_taken_or_named(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any_value()), 1..4),
    ) {
        let mut table = defaults();
        let mut ways = Vec::new();
        places(&table, &mut Vec::new(), &mut ways);
        for (place, value) in changes {
            put(&mut table, &ways[place.index(ways.len())], value);
        }
        comes_back(&table.to_string())?;
    }
}
