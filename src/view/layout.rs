//! What all pages share.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The drawings that pages refer to by name.
const SPRITE: &str = include_str!("../../assets/sprite.svg");

/// A page with `title` around `content`; `class`: how its body is laid out.
pub fn page(title: &str, class: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Tallybox" }
                link rel="icon" href="/assets/favicon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/tallybox.css";
            }
            body class=(class) {
                (PreEscaped(SPRITE))
                (content)
            }
        }
    }
}

/// The name with its mark.
pub fn brand() -> Markup {
    html! {
        span.brand {
            svg.mark viewBox="0 0 32 32" aria-hidden="true" focusable="false" {
                path d="M6 4.5V27h20V4.5M12.7 4.5v16M19.3 4.5v16" {}
                path.slash d="M2.5 19.5 29.5 8" {}
            }
            span { "Tallybox" }
        }
    }
}

/// A drawing of the sprite, for the eye alone.
pub fn icon(name: &str) -> Markup {
    html! { svg.icon aria-hidden="true" focusable="false" { use href=(format!("#{name}")) {} } }
}

/// Who is signed in, for the margin of a page.
#[derive(Clone, Debug)]
pub struct Who {
    /// The e-mail address, else the id.
    pub name: String,
    /// Name of the tier.
    pub tier: String,
}

/// A page behind the door: the margin with the navigation, and `content`. `here`: the path of the navigation's entry.
pub fn inside(title: &str, here: &str, who: &Who, content: &Markup) -> Markup {
    const PLACES: [(&str, &str); 1] = [("/usage", "Usage")];
    let body = html! {
        a.skip href="#main" { "Skip to content" }
        header.margin { div.margin-in {
            (brand())
            nav.nav aria-label="Main" { ul {
                @for (path, name) in PLACES {
                    li { a href=(path) aria-current=[(path == here).then_some("page")] { (name) } }
                }
            } }
            div.who {
                p { (who.name) }
                p { "Tier " (who.tier) }
                form method="post" action="/logout" { button.linkish type="submit" { "Sign out" } }
            }
        } }
        main id="main" { div.wrap { (content) } }
    };
    page(title, "app", &body)
}
