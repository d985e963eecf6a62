//! The page of a user's usage.

use maud::{Markup, html};

use super::layout::{self, Who, icon};
use crate::domain::ledger::{ResourceType, Window};
use crate::domain::quota::{Limit, Standing, State};
use crate::domain::unit::{Timestamp, thousands};

/// The looks back that the page offers, in days.
pub const RANGES: [i32; 3] = [7, 30, 90];
/// Height of a meter, in pixels.
const METER_HEIGHT: u32 = 18;

/// What the page shows.
pub struct UsagePage<'a> {
    /// Who looks.
    pub who: &'a Who,
    /// When the figures were read.
    pub now: Timestamp,
    /// IANA name of the zone whose days are counted.
    pub zone: &'a str,
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
            p { "Tier " (page.who.tier) ". Figures read at " (instant(page.now)) ". Days are those of " (page.zone) "." }
        } }
        (warnings(page))
        div.gauges { @for (standing, _) in page.rows { (gauge(standing)) } }
        (breakdown(page))
    };
    layout::inside("Usage", "/usage", page.who, &content)
}

const fn name(resource: ResourceType) -> &'static str {
    match resource {
        ResourceType::LlmTokens => "LLM tokens",
        ResourceType::MemoryStorage => "Memory storage",
        ResourceType::AgentMinutes => "Agent minutes",
    }
}

const fn window_name(resource: ResourceType) -> &'static str {
    match resource.window() {
        Window::Day => "today",
        Window::Month => "this month",
        Window::Level => "now",
    }
}

fn state_of(standing: &Standing) -> (&'static str, &'static str) {
    match State::of(standing.usage.used, standing.limit) {
        State::Ok => ("is-ok", "i-ok"),
        State::Warn => ("is-warn", "i-warn"),
        State::Stop => ("is-stop", "i-stop"),
    }
}

fn instant(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.to_utc().format("%H:%M UTC, %a %-d %b %Y")) } }
}

fn limit(standing: &Standing) -> String {
    match standing.limit {
        Limit::Unlimited => "no limit".to_owned(),
        Limit::AtMost(limit) => standing.resource.human(limit),
    }
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
                @let (class, drawing) = state_of(standing);
                div class={ "notice " (class) } {
                    (icon(drawing))
                    p {
                        strong { (name(standing.resource)) " are at " (percentage(standing)) " of quota." } " "
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

fn percentage(standing: &Standing) -> String {
    format!("{:?}%", standing.percentage())
}

fn gauge(standing: &Standing) -> Markup {
    let (class, drawing) = state_of(standing);
    let resource = standing.resource;
    let id = format!("gauge-{}", resource.as_str());
    html! {
        section class={ "gauge " (class) } aria-labelledby=(id) {
            h2 id=(id) { (name(resource)) " " span { (window_name(resource)) } }
            p.figure {
                b { (resource.human(standing.usage.used)) } " "
                span { @if standing.limit == Limit::Unlimited { "no limit" } @else { "of " (limit(standing)) } }
            }
            (meter(standing, &id))
            p.state {
                (icon(drawing))
                @if standing.limit == Limit::Unlimited { "No limit on this tier" }
                @else { (percentage(standing)) " used" }
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

/// The bar: what is used, what is held after it, a cut at 80 % where amber begins.
fn meter(standing: &Standing, label: &str) -> Markup {
    let Limit::AtMost(limit) = standing.limit else { return html! { div {} } };
    let used = standing.percentage().clamp(0.0, 100.0);
    let shown = standing.usage.used.clamp(0, limit.max(0));
    let (class, _) = state_of(standing);
    html! {
        div class={ "stick " (class) } role="meter" aria-labelledby=(label) aria-valuemin="0" aria-valuemax=(limit)
            aria-valuenow=(shown) aria-valuetext={ (standing.resource.human(standing.usage.used)) " used, " (percentage(standing)) }
        {
            svg width="100%" height=(METER_HEIGHT) aria-hidden="true" focusable="false" {
                rect.stick-fill width={ (used) "%" } height=(METER_HEIGHT) {}
                line.stick-level x1={ (used) "%" } x2={ (used) "%" } y1="0" y2=(METER_HEIGHT) {}
                rect.stick-cut x="80%" y="-1" width="3" height="20" {}
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
                    td.num role="cell" data-label="Limit" { (limit(standing)) " " (window_name(standing.resource)) }
                    td.num role="cell" data-label="Used now" { (percentage(standing)) }
                } } }
            }
        }
    }
}
