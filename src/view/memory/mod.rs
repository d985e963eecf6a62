//! The pages of a user's memories: the list, and in [`one`] a single memory.

mod find;
pub mod one;
mod row;

use maud::{Markup, html};

pub use find::{Find, InForce, PATH, Part, path_of};
use row::Row;

use super::layout::{self, Frame, Place};
use super::part::{Field, done, empty, icon, limit, notice, pager, select, tier_chip, tier_strokes};
use super::words::size;
use crate::domain::Fault;
use crate::domain::calendar::Calendar;
use crate::domain::ledger::ResourceType;
use crate::domain::memory::{Hit, Memory, MemoryTier};
use crate::domain::quota::{Limit, Standing};
use crate::domain::unit::thousands;

/// What is kept of a tier.
#[derive(Clone, Copy, Debug)]
pub struct TierSum {
    /// The tier.
    pub tier: MemoryTier,
    /// How many memories.
    pub memories: i64,
    /// What they count with, in bytes.
    pub size_bytes: i64,
}

/// What is kept altogether.
#[derive(Clone, Copy, Debug)]
pub struct Shelf {
    /// The level against its limit.
    pub standing: Standing,
    /// By tier.
    pub tiers: [TierSum; 3],
}

impl Shelf {
    fn memories(&self) -> i64 {
        self.tiers.iter().map(|tier| tier.memories).fold(0, i64::saturating_add)
    }
}

/// What the page found.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing was looked for, since the question had faults.
    Unasked,
    /// A part of a list, newest first.
    Listed {
        /// The part.
        memories: Vec<Memory>,
        /// Whether there is more behind it.
        has_older: bool,
    },
    /// A page of a search, best first.
    Hits {
        /// The page.
        hits: Vec<Hit>,
        /// How many came before it.
        skipped: usize,
        /// How many there are altogether.
        total: usize,
    },
}

/// What the list shows.
pub struct ListPage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// Whose clocks the times are on.
    pub calendar: Calendar,
    /// What is kept.
    pub shelf: &'a Shelf,
    /// The types to choose from.
    pub kinds: &'a [String],
    /// What was asked.
    pub find: &'a Find,
    /// Which part of it.
    pub part: &'a Part,
    /// What was wrong with the question.
    pub faults: &'a [Fault],
    /// What was found.
    pub found: &'a Found,
    /// Most rows of a page.
    pub rows_max: usize,
    /// Most hits of a search.
    pub hits_max: usize,
    /// The address of this server, for a command to copy.
    pub address: &'a str,
    /// What was just done.
    pub done: Option<&'a str>,
}

/// The page.
pub fn list(page: &ListPage<'_>) -> Markup {
    let is_bare = page.shelf.memories() == 0;
    let content = html! {
        div.page-head {
            div { h1 { "Memories" } p { (kept(page.shelf)) } }
            @if !is_bare { (tier_sums(page.shelf)) }
        }
        @if let Some(text) = page.done { (done(text)) }
        @if is_bare { (nothing_stored(page)) } @else {
            (search_form(page))
            (results(page))
        }
    };
    layout::inside("Memories", Some(Place::Memories), page.frame, &content)
}

fn kept(shelf: &Shelf) -> String {
    let used = shelf.standing.usage.used;
    let count = match shelf.memories() {
        0 => "None kept yet".to_owned(),
        count => format!("{} kept", thousands(count)),
    };
    match shelf.standing.limit {
        Limit::Unlimited => format!("{count}, {}, no limit", size(used)),
        most @ Limit::AtMost(_) => {
            format!("{count}, {} of {}", size(used), limit(ResourceType::MemoryStorage, most))
        }
    }
}

fn tier_sums(shelf: &Shelf) -> Markup {
    html! {
        dl.tier-sums aria-label="Kept by tier" {
            @for tier in &shelf.tiers {
                div {
                    dt { (tier_chip(tier.tier)) }
                    dd { (thousands(tier.memories)) span { (size(tier.size_bytes)) } }
                }
            }
        }
    }
}

/// Words for how long a tier is meant to live.
pub(super) const fn tier_words(tier: MemoryTier) -> &'static str {
    match tier {
        MemoryTier::Short => "short term",
        MemoryTier::Intermediate => "intermediate term",
        MemoryTier::Long => "long term",
    }
}

fn nothing_stored(page: &ListPage<'_>) -> Markup {
    let command = format!(
        "curl {}/memory/store \\\n  -H \"Authorization: Bearer $TALLYBOX_TOKEN\" \\\n  -H \"Content-Type: application/json\" \
         \\\n  -d '{{\"type\": \"preference\", \"input_context\": \"Prefers short answers.\", \"tier\": \"ltm\"}}'",
        page.address,
    );
    let text = html! { "Nothing has been remembered for this account. Send one memory and it can be searched here a moment later." };
    let next = html! {
        a.btn href="/account#tokens" { "Create an API token" }
        span.small.muted { "Put its secret into " code { "TALLYBOX_TOKEN" } "." }
    };
    empty("Make the first mark", &text, Some(&command), &next)
}

fn search_form(page: &ListPage<'_>) -> Markup {
    let find = page.find;
    let mut kinds: Vec<(&str, &str)> = vec![("", "Any type")];
    kinds.extend(page.kinds.iter().map(|kind| (kind.as_str(), kind.as_str())));
    // A type that is no longer in use, or too rarely to be offered, stays chosen.
    if !find.kind.is_empty() && !page.kinds.contains(&find.kind) {
        kinds.push((&find.kind, &find.kind));
    }
    let field = |name, label, kind, value| {
        Field { name, label, kind, autocomplete: "off", value, is_optional: true, ..Field::default() }
            .render(page.faults)
    };
    // What is no date cannot stand in a field for one.
    let date = |name: &str, value| if page.faults.iter().any(|fault| fault.field == name) { "" } else { value };
    html! {
        form.find method="get" action=(PATH) role="search" aria-label="Memories" {
            div.find-row {
                (field("q", "Search memories", "search", &find.query))
                button.btn.btn-primary type="submit" { (icon("i-search")) span { "Search" } }
            }
            @if !find.session.is_empty() { input type="hidden" name="session" value=(find.session); }
            div.filters {
                fieldset.field.wide {
                    legend { "Tier" }
                    div.tierset { @for tier in MemoryTier::ALL {
                        @let is_in = find.tiers.is_empty() || find.tiers.contains(&tier);
                        label.check {
                            input type="checkbox" name="tier" value=(tier.as_str()) checked[is_in];
                            (icon(tier_strokes(tier))) code { (tier.as_str()) }
                        }
                    } }
                    p.hint { "Short, intermediate and long term" }
                }
                (select("type", "Type", &kinds, &find.kind, page.faults))
                (field("tag", "Tag", "text", &find.tag))
                (field("from", "From", "date", date("from", &find.from)))
                (field("to", "To", "date", date("to", &find.to)))
            }
        }
    }
}

fn results(page: &ListPage<'_>) -> Markup {
    let in_force = page.find.in_force();
    let here = page.find.path(page.part);
    let row = |memory, parts| Row { memory, parts, calendar: page.calendar, find: page.find, back: &here }.render();
    match page.found {
        Found::Unasked => {
            let others: Vec<&Fault> =
                page.faults.iter().filter(|fault| !FIELDS.contains(&fault.field.as_str())).collect();
            html! { div.notices.after-find role="alert" {
                @if others.is_empty() { (notice("is-stop", "Nothing was looked for.", &html! { "A field above was not understood." }, None)) }
                @for fault in others { (notice("is-stop", "Nothing was looked for.", &html! { (fault.field) " " (fault.message) "." }, None)) }
            } }
        }
        Found::Listed { memories, .. } if memories.is_empty() => none_found(page, &in_force),
        Found::Hits { hits, .. } if hits.is_empty() => none_found(page, &in_force),
        Found::Listed { memories, has_older } => html! {
            (results_head(page, if in_force.is_empty() { "All memories" } else { "Memories with these filters" }, &in_force, &html! { "Last stored first." }))
            ol.results { @for memory in memories { (row(memory, None)) } }
            (list_pager(page, memories, *has_older))
        },
        Found::Hits { hits, skipped, total } => {
            let heading = match total {
                1 => "1 match".to_owned(),
                total if *total < page.hits_max => format!("{total} matches"),
                total => format!("The {total} best matches"),
            };
            let how = html! { "Best first, by meaning and by words. What was said just before and after counts too, so a match may stand above its own two figures." };
            html! {
                (results_head(page, &heading, &in_force, &how))
                ol.results start=(skipped + 1) { @for hit in hits { (row(&hit.memory, Some(hit.parts))) } }
                (hits_pager(page, hits.len(), *skipped, *total))
            }
        }
    }
}

/// The fields that say themselves what is wrong with them.
const FIELDS: [&str; 5] = ["q", "type", "tag", "from", "to"];

fn results_head(page: &ListPage<'_>, heading: &str, in_force: &[InForce], how: &Markup) -> Markup {
    html! {
        div.results-head {
            h2 { (heading) }
            p.muted.small { (how) " Times say when it happened, in " (page.calendar.zone_name()) "." }
            @if !in_force.is_empty() { (filters_in_force(in_force)) }
        }
    }
}

fn filters_in_force(in_force: &[InForce]) -> Markup {
    html! {
        ul.in-force aria-label="Filters in force" { @for filter in in_force {
            li { (filter.name) " " bdi { (filter.value) } " " a href=(filter.without) { "Drop" span.vh { " the filter " (filter.name) } } }
        } }
    }
}

fn none_found(page: &ListPage<'_>, in_force: &[InForce]) -> Markup {
    let newest = page.find.path(&Part::First);
    html! {
        section.none-found aria-labelledby="none-found" {
            @if in_force.is_empty() {
                h2 id="none-found" { "Nothing more here" }
                p { "No memory lies beyond this place." }
            } @else {
                h2 id="none-found" { "No matches" }
                p {
                    @match in_force {
                        [one] if page.find.query.is_empty() => { "No memory " (one.words()) " " bdi { (one.value) } "." }
                        [one] => { "No match " (one.words()) " " bdi { (one.value) } "." }
                        _ => { "No memory passes all of these filters. Drop one to see more." }
                    }
                }
                (filters_in_force(in_force))
            }
            p.actions {
                @if *page.part != Part::First { a href=(newest) { "Go to the beginning" } }
                @if in_force.len() > 1 { a href=(page.find.without_filters().path(&Part::First)) { "Drop all filters" } }
            }
        }
    }
}

fn list_pager(page: &ListPage<'_>, memories: &[Memory], has_older: bool) -> Markup {
    let at = |part: Part| page.find.path(&part);
    let (newer, older) = (format!("Newer {}", page.rows_max), format!("Older {}", page.rows_max));
    let mut links = Vec::new();
    if *page.part != Part::First {
        links.push((at(Part::First), "Newest", "start"));
        if let Some(first) = memories.first() {
            links.push((at(Part::Newer(first.id.to_string())), newer.as_str(), "prev"));
        }
    }
    if let Some(last) = memories.last().filter(|_| has_older) {
        links.push((at(Part::Older(last.id.to_string())), older.as_str(), "next"));
    }
    let line = match memories.len() {
        1 => "1 memory on this page".to_owned(),
        count => format!("{count} memories on this page"),
    };
    pager("Pages of the list", &line, &links)
}

fn hits_pager(page: &ListPage<'_>, count: usize, skipped: usize, total: usize) -> Markup {
    let at = |number: usize| page.find.path(&if number <= 1 { Part::First } else { Part::Page(number) });
    let number = skipped / page.rows_max.max(1) + 1;
    let (before, after) =
        (format!("Previous {}", page.rows_max), format!("Next {}", page.rows_max.min(total - skipped - count)));
    let mut links = Vec::new();
    if number > 1 {
        links.push((at(number - 1), before.as_str(), "prev"));
    }
    if skipped + count < total {
        links.push((at(number + 1), after.as_str(), "next"));
    }
    pager("Pages of the search", &format!("{} to {} of {total}", skipped + 1, skipped + count), &links)
}
