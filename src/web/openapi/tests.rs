use std::collections::BTreeSet;

use super::*;
use crate::web::edge::Access;
use crate::web::paths;

fn terms() -> Terms {
    Terms {
        tiers: vec!["basic".to_owned(), "pro".to_owned()],
        default_tier: "basic".to_owned(),
        text_bytes_max: 262_144,
    }
}

/// What is for people, and the document itself.
fn is_described(path: &str, access: Access) -> bool {
    access != Access::Page && !path.starts_with("/assets/") && ![DOCUMENT, DOCS].contains(&path)
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, of_path) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "patch", "delete", "put"] {
            if let Some(operation) = of_path.get(method) {
                operations.push((method.to_owned(), path.clone(), operation.clone()));
            }
        }
    }
    operations
}

#[test]
fn each_route_is_described_and_nothing_else_is() {
    let table: BTreeSet<String> = paths()
        .into_iter()
        .filter(|(_, path, access)| is_described(path, *access))
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let document = document(&terms());
    let mut described = BTreeSet::new();
    for (method, path, _) in operations(&document) {
        let servers = document["paths"][&path].get("servers").unwrap_or(&document["servers"]);
        for server in servers.as_array().unwrap() {
            let base = server["url"].as_str().unwrap().trim_end_matches('/');
            described.insert(format!("{} {base}{path}", method.to_uppercase()));
        }
    }
    assert_eq!(described, table);
    let told: usize = groups(&terms()).iter().map(|group| group.operations.len()).sum();
    assert_eq!(told, operations(&document).len(), "a description has no route, or two are of the same one");
}

#[test]
fn names_of_calls_are_unique_and_parameters_are_those_of_the_path() {
    let document = document(&terms());
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
        let in_path: BTreeSet<String> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(str::to_owned).collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let told = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let told: BTreeSet<String> = told.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(told, in_path, "{method} {path}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| match value.as_str() {
                Some(reference) if name == "$ref" => {
                    into.insert(reference.to_owned());
                }
                _ => references(value, into),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, into)),
            _ => {}
        }
    }
    let document = document(&terms());
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 60, "{}", found.len());
    for reference in &found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.contains(&format!("#/components/schemas/{name}")), "nothing refers to {name}");
    }
}

#[test]
fn each_call_has_an_answer_with_an_example_and_asks_for_what_its_route_asks() {
    let document = document(&terms());
    for (method, path, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        let good = responses.iter().filter(|(status, _)| status.starts_with('2'));
        assert!(good.clone().count() > 0, "{method} {path}");
        for (status, response) in good {
            let contents = response["content"].as_object().cloned().unwrap_or_default();
            assert_eq!(contents.is_empty(), status == "204", "{method} {path} {status}");
            assert!(contents.values().all(|content| !content["example"].is_null()), "{method} {path} {status}");
        }
        let route = routes()
            .into_iter()
            .find(|route| route.path == path && route.method.as_str().eq_ignore_ascii_case(&method));
        let is_open = route.unwrap().access == Access::Open;
        assert_eq!(operation["security"].as_array().unwrap().is_empty(), is_open, "{method} {path}");
        assert_eq!(responses.contains_key("401"), !is_open || path == "/auth/login", "{method} {path}");
    }
}

#[test]
fn the_page_tells_of_every_call() {
    let document = document(&terms());
    let page = page::render(&document).into_string();
    for (_, path, operation) in operations(&document) {
        let anchor = operation["operationId"].as_str().unwrap();
        assert!(page.contains(&format!("id=\"{anchor}\"")), "{path}");
    }
    assert!(page.contains("whole number, 1 to 9007199254740991"));
}
