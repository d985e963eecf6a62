//! Who calls, and what they may do.

use serde_json::json;

use super::support::TestApp;

#[tokio::test]
async fn a_token_opens_what_its_scopes_say_and_nothing_opens_without_one() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    app.call("GET", "/usage/tokens", Some(&user.token), None).await.expect(200);
    let refused = app.call("GET", "/usage/tokens", None, None).await.expect(401);
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    app.call("POST", "/usage/record", Some(&user.token), Some(json!({"resourceType": "llm_tokens", "amount": 1})))
        .await
        .expect(201);
}
