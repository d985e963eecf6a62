//! The dashboard's pages, as a browser asks for them.

mod account;
mod admin;
mod memory;
mod usage;

use super::support::{PASSWORD, Reply, TestApp, form};

/// The cookie of a session of `email`.
pub(crate) async fn cookie(app: &TestApp, email: &str) -> String {
    format!("tallybox_session={}", app.log_in(email).await)
}

/// Asks for a page.
pub(crate) async fn page(app: &TestApp, path: &str, cookie: &str) -> Reply {
    app.call_with("GET", path, None, None, &[("cookie", cookie), ("host", "box.test")]).await
}

/// Sends a form.
pub(crate) async fn post(app: &TestApp, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Reply {
    app.send(form(path, Some(cookie), fields)).await
}
