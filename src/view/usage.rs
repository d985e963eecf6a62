//! The page of a user's usage.

use maud::{Markup, html};

use super::layout::{self, Frame, Place};
use super::part::{icon, instant, limit, percent_of, resource_name as name, state_marks, state_of, stick, window_name};
use crate::domain::quota::{Limit, Standing, State};
use crate::domain::unit::thousands;

/// The looks back that the page offers, in days.
pub const RANGES: [i32; 3] = [7, 30, 90];
/// What the page shows.
pub struct UsagePage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// One of [`RANGES`].
    pub days: i32,
    /// How each resource stands, with its sum over `days` days (the level of a level).
    pub rows: &'a [(Standing, i64)],
    /// Where an upgrade prompt leads; empty: there is none.
    pub upgrade_url: &'a str,
}

/// The page.
pub fn usage(page: &UsagePage<'_>) -> Markup {
    let content = html! {
        div.page-head { div {
            h1 { "Usage" }
            p { "Tier " (page.frame.who.tier) ". Figures read at " (instant(page.frame.now)) ". Days are those of " (page.frame.zone) "." }
        } }
        (warnings(page))
        div.gauges { @for (standing, _) in page.rows { (gauge(standing)) } }
        (breakdown(page))
    };
    layout::inside("Usage", Some(Place::Usage), page.frame, &content)
}

/// A notice a resource at 80 % or more, the used-up ones first.
fn warnings(page: &UsagePage<'_>) -> Markup {
    let of_state = |wanted: State| {
        page.rows
            .iter()
            .map(|(standing, _)| standing)
            .filter(move |standing| State::of(standing.usage.used, standing.limit) == wanted)
    };
    let close: Vec<&Standing> = of_state(State::Stop).chain(of_state(State::Warn)).collect();
    if close.is_empty() {
        return html! {};
    }
    html! {
        section.notices aria-label="Warnings" {
            @for standing in close {
                @let (class, drawing) = state_marks(state_of(standing));
                div class={ "notice " (class) } {
                    (icon(drawing))
                    p {
                        strong { (name(standing.resource)) " are at " (percent_of(standing).unwrap_or_default()) " of quota." } " "
                        @if let Some(at) = standing.resets_at { "The count begins again at " (instant(at)) "." }
                        @else { "Nothing more is stored once it is full, until something is deleted or expires." }
                    }
                    @if !page.upgrade_url.is_empty() {
                        p.go { a href=(page.upgrade_url) { "Upgrade" } }
                    }
                }
            }
        }
    }
}

/// How a resource stands, as a column: the figure, its limit, the bar, when it resets.
pub(super) fn gauge(standing: &Standing) -> Markup {
    let (class, drawing) = state_marks(state_of(standing));
    let resource = standing.resource;
    let id = format!("gauge-{}", resource.as_str());
    html! {
        section class={ "gauge " (class) } aria-labelledby=(id) {
            h2 id=(id) { (name(resource)) " " span { (window_name(resource)) } }
            p.figure {
                b { (resource.human(standing.usage.used)) } " "
                span { @if standing.limit == Limit::Unlimited { "no limit" } @else { "of " (limit(standing.resource, standing.limit)) } }
            }
            div { (stick(standing, &format!("{} {}", name(resource), window_name(resource)))) }
            p.state {
                (icon(drawing))
                @if standing.limit == Limit::Unlimited { "No limit on this tier" }
                @else { (percent_of(standing).unwrap_or_default()) " used" }
            }
            dl.parts {
                div { dt { "Used" } dd { (resource.human(standing.usage.used)) } }
                @if standing.usage.reserved > 0 {
                    div { dt { "Reserved" } dd { (resource.human(standing.usage.reserved)) } }
                }
                @if let Some(left) = standing.remaining() { div { dt { "Left" } dd { (resource.human(left)) } } }
            }
            p.reset {
                @if let Some(at) = standing.resets_at { strong { "Resets" } (instant(at)) }
                @else { strong { "Does not reset" } "Freed as memories are deleted or expire" }
            }
        }
    }
}

fn breakdown(page: &UsagePage<'_>) -> Markup {
    html! {
        section.section aria-labelledby="breakdown" {
            div.section-head {
                div { h2 id="breakdown" { "Breakdown" } p { "The last " (page.days) " days; storage as it is now" } }
                nav aria-label="Range" { ul.seg {
                    @for days in RANGES {
                        li { a href={ "?days=" (days) } aria-current=[(days == page.days).then_some("true")] { (days) " days" } }
                    }
                } }
            }
            // On a narrow screen each row becomes an entry; the roles say that it is a table all the same.
            table.stack role="table" aria-labelledby="breakdown" {
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "Resource" }
                    th.num role="columnheader" scope="col" { "Amount" }
                    th.num role="columnheader" scope="col" { "In words" }
                    th.num role="columnheader" scope="col" { "Limit" }
                    th.num role="columnheader" scope="col" { "Used of the limit now" }
                } }
                tbody role="rowgroup" { @for (standing, amount) in page.rows { tr role="row" {
                    th role="rowheader" scope="row" { (name(standing.resource)) }
                    td.num role="cell" data-label="Amount" { (thousands(*amount)) }
                    td.num role="cell" data-label="In words" { (standing.resource.human(*amount)) }
                    td.num role="cell" data-label="Limit" { (limit(standing.resource, standing.limit)) " " (window_name(standing.resource)) }
                    td.num role="cell" data-label="Used now" { (percent_of(standing).unwrap_or_default()) }
                } } }
            }
        }
    }
}
