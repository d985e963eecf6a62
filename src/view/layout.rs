//! What all pages share.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::asset;
use super::part::instant;
use crate::domain::auth::Role;
use crate::domain::unit::Timestamp;

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
                link rel="icon" href=(asset::path("favicon.svg")) type="image/svg+xml";
                link rel="stylesheet" href=(asset::path("tallybox.css"));
                script src=(asset::path("tallybox.js")) defer {}
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
        a.brand href="/" {
            svg.mark viewBox="0 0 32 32" aria-hidden="true" focusable="false" {
                path d="M6 4.5V27h20V4.5M12.7 4.5v16M19.3 4.5v16" {}
                path.slash d="M2.5 19.5 29.5 8" {}
            }
            span { "Tallybox" }
        }
    }
}

/// Who is signed in, for the margin of a page.
#[derive(Clone, Debug)]
pub struct Who {
    /// The e-mail address, else the id.
    pub name: String,
    /// Name of the tier.
    pub tier: String,
    /// Administrators see the way to their pages.
    pub role: Role,
}

/// An address that may break after its `@`, rather than anywhere.
fn breakable(name: &str) -> Markup {
    let (local, host) = name.split_once('@').unwrap_or((name, ""));
    html! { (local) @if !host.is_empty() { "@" wbr; (host) } }
}

/// The places that the navigation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `/usage`
    Usage,
    /// `/memories`
    Memories,
    /// `/account`
    Account,
    /// `/admin`
    Admin,
}

impl Place {
    const ALL: [Self; 4] = [Self::Usage, Self::Memories, Self::Account, Self::Admin];

    const fn path_and_name(self) -> (&'static str, &'static str) {
        match self {
            Self::Usage => ("/usage", "Usage"),
            Self::Memories => ("/memories", "Memories"),
            Self::Account => ("/account", "Account"),
            Self::Admin => ("/admin", "Admin"),
        }
    }
}

/// What surrounds the content of a page behind the door.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Who looks.
    pub who: &'a Who,
    /// When the figures were read.
    pub now: Timestamp,
    /// IANA name of the zone whose days are counted.
    pub zone: &'a str,
}

/// A page behind the door: the margin with the navigation, `content`, and the time of its figures. `here`: the place of the
/// navigation that the page belongs to.
pub fn inside(title: &str, here: Option<Place>, frame: Frame<'_>, content: &Markup) -> Markup {
    let who = frame.who;
    let places = Place::ALL.into_iter().filter(|place| *place != Place::Admin || who.role == Role::Admin);
    let body = html! {
        a.skip href="#main" { "Skip to content" }
        header.margin { div.margin-in {
            (brand())
            nav.nav aria-label="Main" { ul {
                @for place in places {
                    @let (path, name) = place.path_and_name();
                    li.gap[place == Place::Admin] { a href=(path) aria-current=[(Some(place) == here).then_some("page")] { (name) } }
                }
            } }
            div.who {
                p { (breakable(&who.name)) }
                p { "Tier " (who.tier) }
                form method="post" action="/logout" { button.linkish type="submit" { "Sign out" } }
            }
        } }
        main id="main" tabindex="-1" { div.wrap { (content) } }
        footer.foot {
            span { "Figures read at " (instant(frame.now)) }
            span { "Days and months run in " (frame.zone) }
            span { "Tallybox " (env!("CARGO_PKG_VERSION")) }
        }
    };
    page(title, "app", &body)
}
