//! A memory as a row of a list.

use maud::{Markup, html};

use super::find::{Find, Part, path_of};
use crate::domain::calendar::Calendar;
use crate::domain::memory::{Memory, Parts};
use crate::domain::words::marked;
use crate::view::part::{local_moment, tier_chip};
use crate::view::words::size;

/// Characters of a text that a row shows.
const CHARACTERS_MAX: usize = 600;
/// How far before that a word may end for the text to be cut there.
const WORD_CHARACTERS_MAX: usize = 80;

/// A memory as a row.
pub(super) struct Row<'a> {
    pub(super) memory: &'a Memory,
    /// Its score, where it answers a search.
    pub(super) parts: Option<Parts>,
    pub(super) calendar: Calendar,
    /// What was asked: its words are marked, and a tag narrows it further.
    pub(super) find: &'a Find,
    /// Where the memory's own page leads back to.
    pub(super) back: &'a str,
}

impl Row<'_> {
    pub(super) fn render(&self) -> Markup {
        let content = &self.memory.content;
        let shown = shortened(&content.text);
        let page = path_of(&self.memory.id, "", self.back);
        let of_tag = |tag: &str| Find { tag: tag.to_owned(), ..self.find.clone() }.path(&Part::First);
        html! {
            li.result.result-plain[self.parts.is_none()] {
                @if let Some(parts) = self.parts { (score(parts)) }
                div {
                    p.result-text {
                        bdi dir="auto" { (self.marked(shown.unwrap_or(&content.text))) }
                        @if shown.is_some() { " " a href=(page) { "Read all of it" } }
                    }
                    div.result-meta {
                        (tier_chip(content.tier))
                        bdi { (content.kind) }
                        @for tag in &content.tags { a.tag href=(of_tag(tag)) { bdi { (tag) } } " " }
                        span.nowrap { (size(self.memory.size_bytes)) }
                        (local_moment(self.calendar, content.timestamp))
                        @if shown.is_none() { a href=(page) { "Open" } }
                    }
                }
            }
        }
    }

    fn marked(&self, text: &str) -> Markup {
        if self.find.query.is_empty() {
            return html! { (text) };
        }
        html! { @for (piece, is_match) in marked(text, &self.find.query) { @if is_match { mark { (piece) } } @else { (piece) } } }
    }
}

/// A score with the parts it is made of; one that was not used is left out.
fn score(parts: Parts) -> Markup {
    html! {
        div.score {
            p.score-total { span.vh { "Match " } (figure(parts.score)) }
            dl.score-parts {
                @for (name, class, part) in [("semantic", "sem", parts.semantic), ("keyword", "key-part", parts.keyword)] {
                    @if let Some(part) = part {
                        div { dt { (name) } dd {
                            svg width="100%" height="8" aria-hidden="true" focusable="false" {
                                rect class=(class) width=(width(part)) height="8" {}
                            }
                            b { (figure(part)) }
                        } }
                    }
                }
            }
        }
    }
}

/// A score, as `0.89`.
pub(super) fn figure(score: f32) -> String {
    format!("{score:.2}")
}

fn width(part: f32) -> String {
    format!("{:.1}%", part.clamp(0.0, 1.0) * 100.0)
}

/// The beginning of a text that is too long for a row, up to the end of a word; none where all of it fits.
pub(super) fn shortened(text: &str) -> Option<&str> {
    let (end, _) = text.char_indices().nth(CHARACTERS_MAX)?;
    let head = text.get(..end)?;
    let least = head.char_indices().nth(CHARACTERS_MAX - WORD_CHARACTERS_MAX).map_or(0, |(at, _)| at);
    let words_end = head.rfind(char::is_whitespace).filter(|at| *at >= least).unwrap_or(end);
    head.get(..words_end).map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_behind_a_word() {
        assert_eq!(shortened("short"), None);
        assert_eq!(shortened(&"x".repeat(600)), None);
        assert_eq!(shortened(&"é".repeat(601)).map(|text| text.chars().count()), Some(600));
        let words = "wörd ".repeat(200);
        let cut = shortened(&words).unwrap();
        assert!(cut.ends_with("wörd") && cut.chars().count() <= 600, "{cut}");
    }
}
