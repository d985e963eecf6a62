//! The pages of a single memory: all of it with the form to change it, and the question before it is deleted.

use maud::{Markup, html};

use super::find::{Find, PATH, Part, path_of};
use super::row::{figure, shortened};
use super::tier_words;
use crate::domain::Fault;
use crate::domain::calendar::Calendar;
use crate::domain::memory::{Hit, Memory, MemoryTier, TAGS_MAX};
use crate::domain::unit::thousands;
use crate::view::layout::{self, Frame, Place};
use crate::view::part::{Field, described_by, done, field_error, local_moment, select, tier_chip, wrong};
use crate::view::words::size;

/// What the form to change a memory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// The text.
    pub text: String,
    /// The type.
    pub kind: String,
    /// The tags, with commas between them.
    pub tags: String,
    /// The name of the tier.
    pub tier: String,
    /// The session; empty: none.
    pub session: String,
}

impl Typed {
    /// What the form holds before anything is typed.
    pub fn of(memory: &Memory) -> Self {
        let content = &memory.content;
        Self {
            text: content.text.clone(),
            kind: content.kind.clone(),
            tags: content.tags.join(", "),
            tier: content.tier.as_str().to_owned(),
            session: content.session.clone().unwrap_or_default(),
        }
    }
}

/// What the page of a memory shows.
pub struct OnePage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// Whose clocks the times are on.
    pub calendar: Calendar,
    /// The memory.
    pub memory: &'a Memory,
    /// Those most like it.
    pub similar: &'a [Hit],
    /// What the form holds.
    pub typed: &'a Typed,
    /// What was wrong with the form.
    pub faults: &'a [Fault],
    /// Why nothing was changed.
    pub problem: Option<&'a str>,
    /// The list that the page was reached from.
    pub back: &'a str,
    /// What was just done.
    pub done: Option<&'a str>,
}

/// The page of a memory.
pub fn one(page: &OnePage<'_>) -> Markup {
    let memory = page.memory;
    let content = html! {
        div.page-head {
            div { h1 { "Memory" } p { "Stored " (local_moment(page.calendar, memory.created_at)) ". Times in " (page.calendar.zone_name()) "." } }
            p.actions {
                a href=(page.back) { "Back to the list" }
                a.btn.btn-danger href=(path_of(&memory.id, "/delete", page.back)) { "Delete" }
            }
        }
        @if let Some(text) = page.done { (done(text)) }
        @if let Some(problem) = page.problem { (wrong(problem)) }
        div.split.memory {
            section.section aria-labelledby="text" {
                h2 id="text" { "Text" }
                p.memory-text dir="auto" { (memory.content.text) }
            }
            section.section aria-labelledby="facts" {
                h2 id="facts" { "Facts" }
                (facts(page))
            }
        }
        (edit(page))
        (similar(page))
    };
    layout::inside("Memory", Some(Place::Memories), page.frame, &content)
}

fn facts(page: &OnePage<'_>) -> Markup {
    let (memory, content) = (page.memory, &page.memory.content);
    let at = |instant| local_moment(page.calendar, instant);
    let fact = |name: &str, value: &Markup| html! { div { dt { (name) } dd { (value) } } };
    let windows = memory.windows();
    html! {
        dl.facts {
            (fact("Id", &html! { code { (memory.id) } }))
            (fact("Tier", &html! { (tier_chip(content.tier)) " " (tier_words(content.tier)) }))
            (fact("Type", &html! { bdi { (content.kind) } }))
            @if !content.tags.is_empty() {
                (fact("Tags", &html! { @for tag in &content.tags { a.tag href=(Find::of_tag(tag).path(&Part::First)) { bdi { (tag) } } " " } }))
            }
            @if let Some(session) = &content.session {
                (fact("Session", &html! { a href=(Find::of_session(session).path(&Part::First)) { bdi { (session) } } }))
            }
            (fact("Size", &html! { (size(memory.size_bytes)) @if memory.size_bytes >= 1_024 { ", " (thousands(memory.size_bytes)) " bytes" } }))
            (fact("Embeddings", &html! { (thousands(windows)) @if windows == 1 { ", of the whole text" } @else { ", each of a window of the text" } }))
            (fact("Happened", &at(content.timestamp)))
            (fact("Stored", &at(memory.created_at)))
            @if let Some(seen) = memory.last_seen_at { (fact("Seen again", &at(seen))) }
            (fact("Expires", &html! { @if let Some(end) = memory.expires_at { (at(end)) } @else { "Not by itself" } }))
            @if !content.metadata.is_empty() {
                (fact("Metadata", &html! { pre tabindex="0" role="region" aria-label="Metadata" { (pretty(memory)) } }))
            }
        }
    }
}

fn pretty(memory: &Memory) -> String {
    serde_json::to_string_pretty(&memory.content.metadata).unwrap_or_default()
}

fn edit(page: &OnePage<'_>) -> Markup {
    let (typed, faults) = (page.typed, page.faults);
    let field = |name, label, value, hint, is_optional| {
        Field { name, label, kind: "text", autocomplete: "off", value, hint, is_optional }.render(faults)
    };
    let tiers = MemoryTier::ALL.map(|tier| (tier.as_str(), format!("{}, {}", tier.as_str(), tier_words(tier))));
    let tiers: Vec<(&str, &str)> = tiers.iter().map(|(name, words)| (*name, words.as_str())).collect();
    let has_comma = page.memory.content.tags.iter().any(|tag| tag.contains(','));
    let tags_hint = if has_comma {
        "With commas between them. A tag of this memory holds a comma itself: once the tags are changed here, it becomes two.".to_owned()
    } else {
        format!("With commas between them, at most {TAGS_MAX}.")
    };
    html! {
        section.section aria-labelledby="edit" {
            div.section-head { div { h2 id="edit" { "Edit" } p { "Its size is counted again, and a changed text is embedded again." } } }
            form.form.edit method="post" action=(path_of(&page.memory.id, "", PATH)) {
                input type="hidden" name="back" value=(page.back);
                (text_area(typed, faults))
                div.form-two {
                    (field("type", "Type", &typed.kind, "", false))
                    (select("tier", "Tier", &tiers, &typed.tier, faults))
                    (field("tags", "Tags", &typed.tags, &tags_hint, true))
                    (field("session", "Session", &typed.session, "The conversation or run it belongs to. Empty for none.", true))
                }
                p.actions { button.btn.btn-primary type="submit" { "Save changes" } }
            }
        }
    }
}

fn text_area(typed: &Typed, faults: &[Fault]) -> Markup {
    const NAME: &str = "input_context";
    let fault = faults.iter().find(|fault| fault.field == NAME);
    let lines = typed.text.lines().map(|line| line.chars().count() / 90 + 1).sum::<usize>();
    html! {
        div.field {
            label for=(NAME) { "Text" }
            // A browser drops a line break that a text begins with, so one is put before it.
            textarea.input id=(NAME) name=(NAME) rows=(lines.clamp(4, 20)) dir="auto" required aria-invalid=[fault.map(|_| "true")]
                aria-describedby=[described_by(NAME, false, fault.is_some())] { "\n" (typed.text) }
            (field_error(NAME, faults))
        }
    }
}

fn similar(page: &OnePage<'_>) -> Markup {
    if page.similar.is_empty() {
        return html! {};
    }
    html! {
        section.section aria-labelledby="similar" {
            div.section-head { div { h2 id="similar" { "Similar memories" } p { "By meaning alone, the nearest first" } } }
            ol.results.results-similar { @for hit in page.similar {
                @let text = &hit.memory.content.text;
                @let shown = shortened(text);
                @let path = path_of(&hit.memory.id, "", page.back);
                li.result {
                    // By meaning alone, the score is its only part.
                    div.score { p.score-total { span.vh { "Match " } (figure(hit.parts.score)) } }
                    div {
                        p.result-text {
                            bdi dir="auto" { (shown.unwrap_or(text)) }
                            @if shown.is_some() { " " a href=(path) { "Read all of it" } }
                        }
                        div.result-meta {
                            (tier_chip(hit.memory.content.tier))
                            bdi { (hit.memory.content.kind) }
                            (local_moment(page.calendar, hit.memory.content.timestamp))
                            @if shown.is_none() { a href=(path) { "Open" } }
                        }
                    }
                }
            } }
        }
    }
}

/// What the question before a deletion shows.
pub struct DeletePage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// The memory.
    pub memory: &'a Memory,
    /// The list that it was reached from.
    pub back: &'a str,
}

/// The question before a deletion.
pub fn delete(page: &DeletePage<'_>) -> Markup {
    let memory = page.memory;
    let content = html! {
        div.page-head { div {
            h1 { "Delete this memory?" }
            p { "It frees " (size(memory.size_bytes)) " and cannot be brought back." }
        } }
        form.form.sure method="post" action=(path_of(&memory.id, "/delete", PATH)) {
            input type="hidden" name="back" value=(page.back);
            p.actions {
                button.btn.btn-danger type="submit" { "Delete memory" }
                a.btn href=(path_of(&memory.id, "", page.back)) { "Keep it" }
            }
        }
        section.section.first aria-labelledby="text" {
            h2 id="text" { "Text" }
            p.memory-text dir="auto" { (memory.content.text) }
            p.result-meta { (tier_chip(memory.content.tier)) bdi { (memory.content.kind) } }
        }
    };
    layout::inside("Delete a memory", Some(Place::Memories), page.frame, &content)
}
