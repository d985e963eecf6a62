//! The API tells what it is: to programs, and to people.

use super::support::TestApp;

#[tokio::test]
async fn the_document_is_open_and_tells_of_this_server() {
    let config = "[tiers.gold]\nllm_tokens_day = 5\nmemory_storage_bytes = 5\nagent_minutes_month = 5\n[memory]\ntext_bytes_max = 4096";
    let app = TestApp::with_config(config);
    let reply = app.call("GET", "/openapi.json", None, None).await.expect(200);
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.json["openapi"], "3.1.0");
    let schemas = &reply.json["components"]["schemas"];
    let tiers = schemas["NewUser"]["properties"]["tier"]["enum"].as_array().unwrap();
    assert!(tiers.iter().any(|tier| tier == "gold"), "{tiers:?}");
    assert_eq!(schemas["NewMemory"]["properties"]["input_context"]["maxLength"], 4_096);
    let servers = &reply.json["paths"]["/memory/store"]["servers"];
    assert_eq!((&servers[0]["url"], &servers[1]["url"]), (&"/".into(), &"/api".into()));
}

#[tokio::test]
async fn people_read_it_without_a_session_under_the_policy_of_pages() {
    let app = TestApp::new();
    let reply = app.call("GET", "/docs", None, None).await.expect(200);
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert!(reply.header("content-security-policy").starts_with("default-src 'none'; style-src 'self'"));
    let page = &reply.text;
    for told in ["storeMemory", "text, 1 to 64 characters", "quota_exceeded"] {
        assert!(page.contains(told), "{told}");
    }
    for foreign in ["http://", "https://", "style=", "onclick"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}
