//! Administration over HTTP.

mod correction;
mod erasure;
mod figures;
mod users;

use serde_json::Value;

use super::support::TestApp;

/// The acts of the audit log, newest first.
async fn acts(app: &TestApp, token: &str) -> Vec<Value> {
    let page = app.ask(token, "/api/admin/audit?limit=100").await.expect(200);
    page.json["acts"].as_array().unwrap().clone()
}
