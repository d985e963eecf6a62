//! The page of a failure.

use maud::{Markup, html};

use super::layout::{self, Frame};
use super::part::icon;
use super::words::sentence;
use crate::domain::auth::Role;

/// What did not happen, why, and the id to name when asking for help.
#[derive(Clone, Copy, Debug)]
pub struct ErrorPage<'a> {
    /// The status of the answer.
    pub status: u16,
    /// The stable code of the problem.
    pub code: &'a str,
    /// What was wrong.
    pub detail: &'a str,
    /// What was asked for.
    pub path: &'a str,
    /// The id of the request.
    pub request_id: &'a str,
    /// The frame; none where nobody is signed in.
    pub frame: Option<Frame<'a>>,
}

impl ErrorPage<'_> {
    /// The page.
    pub fn render(&self) -> Markup {
        let title = self.title();
        let content = html! {
            div.error {
                (self.mark())
                h1 { (title) }
                p.lead {
                    @match self.status {
                        404 => { "There is no page at " code { (self.path) } ". It may have moved, or the address has a slip in it." }
                        // What a session does not open is for administrators alone.
                        403 if self.code == "scope_required" => { "It is for administrators of this Tallybox." }
                        _ => { (sentence(without_field(self.detail))) }
                    }
                }
                dl.facts {
                    div { dt { "Status" } dd { (self.status) ", " code { (self.code) } } }
                    div { dt { "Request" } dd { code { (self.request_id) } } }
                }
                (self.ways_on())
            }
        };
        match self.frame {
            Some(frame) => layout::inside(title, None, frame, &content),
            None => layout::page(
                title,
                "plain",
                &html! {
                    main id="main" { div.wrap { p { (layout::brand()) } (content) } }
                },
            ),
        }
    }

    const fn title(&self) -> &'static str {
        match self.status {
            401 | 403 => "This page is not open to you",
            404 => "One mark is missing",
            405 => "This cannot be done here",
            410 => "This is gone for good",
            409 => "That cannot be done as things stand",
            413 | 415 | 422 | 400 => "That was not understood",
            429 => "Not now: a limit is reached",
            503 => "Too much at once",
            _ => "That did not work",
        }
    }

    fn mark(&self) -> Markup {
        let (class, drawing, words) = match self.status {
            404 => {
                return html! {
                    svg.empty-art viewBox="0 0 112 72" aria-hidden="true" focusable="false" {
                        path d="M16 8v56M38 8v56M82 8v56M4 54 108 18" {}
                        path.ghost.inked d="M60 8v56" {}
                    }
                    p.error-code.chip { "404, not found" }
                };
            }
            403 => ("is-stop", "i-stop", "403, not allowed"),
            429 => ("is-stop", "i-stop", "429, limit reached"),
            503 => ("is-warn", "i-warn", "503, busy"),
            500.. => ("is-stop", "i-stop", "500, a fault of ours"),
            _ => ("is-warn", "i-warn", "not done"),
        };
        html! { p class={ "error-code chip chip-state " (class) } { (icon(drawing)) (words) } }
    }

    fn ways_on(&self) -> Markup {
        let is_admin = self.frame.is_some_and(|frame| frame.who.role == Role::Admin);
        html! {
            p.actions {
                @if self.frame.is_none() {
                    a.btn.btn-primary href="/login" { "Sign in" }
                } @else {
                    a.btn.btn-primary href="/usage" { "Go to usage" }
                    @if is_admin { a.btn href="/admin" { "Go to admin" } } @else { a.btn href="/memories" { "Search memories" } }
                }
            }
        }
    }
}

/// What was wrong, without the field where it is a sentence of its own.
fn without_field(detail: &str) -> &str {
    match detail.split_once(": ") {
        Some((_, said)) if said.starts_with(char::is_uppercase) => said,
        _ => detail,
    }
}
