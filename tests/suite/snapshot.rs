//! The HTML of every page, held against the one that was last looked at. After a change that is meant:
//! `INSTA_UPDATE=always cargo test --test suite snapshot`, and read the difference.

use tallybox::view::asset;
use tallybox::view::error::ErrorPage;

use super::world::{PAGES, Page, SETUP, World};

/// The files whose names carry a hash.
const ASSETS: [&str; 5] = ["tallybox.css", "tallybox.js", "favicon.svg", "logo.svg", "logo-dark.svg"];

#[tokio::test]
async fn every_page_is_as_it_was_last_looked_at() {
    let world = World::lived_in().await;
    // The description of the API changes with every route and has tests of its own.
    for page in PAGES.iter().filter(|page| page.name != "docs") {
        hold(&world, page).await;
    }
    hold(&World::fresh().await, &SETUP).await;
}

#[test]
fn failures_say_what_happened_and_the_way_on() {
    for (status, code, detail) in [
        (403, "foreign_origin", "the form was not sent by a page of this server (Origin)"),
        (429, "rate_limited", "too many failed attempts; try again in 5 minutes"),
        (500, "internal", "something went wrong on our side"),
        (503, "busy", "too many passwords are being checked; try again"),
    ] {
        let page = ErrorPage { status, code, detail, path: "/login", request_id: "the-request", frame: None };
        held(&format!("failure_{status}"), &stable(&page.render().into_string()));
    }
}

async fn hold(world: &World, page: &Page) {
    let cookie = page.user.map(|email| format!("tallybox_session={}", world.session(email))).unwrap_or_default();
    let headers = [("accept", "text/html"), ("cookie", cookie.as_str()), ("x-request-id", "the-request")];
    let reply = world.app.call_with("GET", &world.path(page), None, None, &headers).await.expect(page.status);
    assert_eq!(heading_of(&reply.text), page.heading, "{}: {}", page.name, reply.text);
    let mut text = reply.text.replace(&world.link, "[link]");
    // A value for a form alone, the version, and what the files take, which is SQLite's affair.
    for (before, after) in [
        (r#"name="once" value=""#, "\""),
        ("<dt>Version</dt><dd>", "<"),
        ("<dt>Database</dt><dd>", "<"),
        ("<dt>WAL</dt><dd>", "<"),
    ] {
        text = without_what_lies_between(&text, before, after);
    }
    // The model's scores differ from processor to processor in their last digits.
    for (before, after) in [
        (r#"class="sem" width=""#, "\""),
        (r#"class="key-part" width=""#, "\""),
        (r#"<span class="vh">Match </span>"#, "<"),
        ("<b>0.", "<"),
    ] {
        let pieces: Vec<String> = text.split(before).map(str::to_owned).collect();
        let (head, rest) = pieces.split_first().unwrap();
        let masked = rest.iter().map(|piece| format!("{before}[score]{}", &piece[piece.find(after).unwrap()..]));
        text = head.clone() + &masked.collect::<String>();
    }
    held(page.name, &stable(&text));
}

/// The text of the first heading.
fn heading_of(html: &str) -> String {
    let (_, rest) = html.split_once("<h1").unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    let (inside, _) = rest.split_once("</h1>").unwrap();
    let pieces = inside.split('<').enumerate();
    pieces.map(|(index, piece)| if index == 0 { piece } else { piece.split_once('>').unwrap().1 }).collect()
}

fn held(name: &str, page: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, page);
    });
}

/// A page without what differs from run to run or from version to version, a tag a line.
fn stable(html: &str) -> String {
    let mut text = html.replace(concat!("Tallybox ", env!("CARGO_PKG_VERSION")), "Tallybox [version]");
    for name in ASSETS {
        let (asset, _) = asset::find(name).unwrap();
        text = text.replace(&asset.hashed_name, &name.replacen('.', ".[hash].", 1));
    }
    // The drawings that every page carries are no part of what it says.
    if let Some((before, rest)) = text.split_once("<svg class=\"defs\"")
        && let Some((_, after)) = rest.split_once("</svg>")
    {
        text = format!("{before}[sprite]{after}");
    }
    without_ids(&text).replace("><", ">\n<")
}

/// `text` with `[varies]` between the first `before` and the next `after`.
fn without_what_lies_between(text: &str, before: &str, after: &str) -> String {
    let Some((head, rest)) = text.split_once(before) else { return text.to_owned() };
    let (_, tail) = rest.split_once(after).unwrap();
    format!("{head}{before}[varies]{after}{tail}")
}

/// `text` with `[id]` for every UUID.
fn without_ids(text: &str) -> String {
    const LENGTH: usize = 36;
    let is_id = |candidate: &str| {
        candidate.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if rest.get(..LENGTH).is_some_and(is_id) {
            kept.push_str("[id]");
            rest = &rest[LENGTH..];
        } else {
            kept.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    kept
}

#[test]
fn ids_are_taken_out_of_snapshots() {
    assert_eq!(without_ids("ä 01960000-0000-7000-8000-0123456789ab."), "ä [id].");
    assert_eq!(without_ids("0196-0000"), "0196-0000");
}
