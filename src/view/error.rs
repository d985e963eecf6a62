//! The page of a failure.

use maud::{Markup, html};

use super::layout;

/// What did not happen, why, and the id to name when asking for help.
pub fn page(status: u16, detail: &str, request_id: &str) -> Markup {
    let title = match status {
        401 | 403 => "This is not open to you",
        404 | 410 => "There is nothing here",
        429 => "Not now",
        _ => "That did not work",
    };
    let content = html! {
        main.door-main id="main" { div.door-box {
            h1 { (title) }
            p { (detail) }
            p { "Status " (status) ", request " code { (request_id) } }
            p { a href="/usage" { "Go to your usage" } }
        } }
    };
    layout::page(title, "plain", &content)
}
