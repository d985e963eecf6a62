//! What all pages share.

use maud::{DOCTYPE, Markup, html};

/// A page with `title` around `content`.
pub fn page(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Tallybox" }
                link rel="stylesheet" href="/assets/tallybox.css";
                link rel="icon" href="/assets/favicon.svg" type="image/svg+xml";
            }
            body { (content) }
        }
    }
}
