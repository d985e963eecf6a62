//! The upstreams of the gateway: how often they are asked, what fails, how long they take.

use maud::{Markup, html};

use crate::domain::gateway::figures::{FaultKind, Figures, Histogram};
use crate::domain::overview::UpstreamFigures;
use crate::domain::unit::thousands;
use crate::view::part::{millis, percent, section_head};

/// The section; a box without upstreams has none.
pub(super) fn section(upstreams: &[UpstreamFigures], days: i32) -> Markup {
    if upstreams.is_empty() {
        return html! {};
    }
    let line = html! { "Each attempt of the gateway counts; times are the medians of the last " (days) " days" };
    let (calls, errors) = (format!("Calls, {days} days"), format!("Errors, {days} days"));
    let cell = |label: &str, figure: &Markup, sub: Option<String>| {
        html! { td.num role="cell" data-label=(label) { (figure) @if let Some(words) = sub { span.sub { (words) } } } }
    };
    html! {
        section.section aria-labelledby="h-upstreams" {
            (section_head("h-upstreams", "Upstreams", &line, &html! {}))
            table.stack role="table" aria-labelledby="h-upstreams" {
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "Upstream" }
                    @for head in ["Calls today", "Errors today"] { th.num role="columnheader" scope="col" { (head) } }
                    @for head in [&calls, &errors] { th.num role="columnheader" scope="col" { (head) } }
                    @for head in ["Whole answer", "First token"] { th.num role="columnheader" scope="col" { (head) } }
                } }
                tbody role="rowgroup" { @for upstream in upstreams {
                    @let (today, all) = (&upstream.today, &upstream.all);
                    tr role="row" {
                        th role="rowheader" scope="row" {
                            span.name { (upstream.name) }
                            @if !upstream.is_configured { span.sub { "No longer configured" } }
                            @if all.errors() > 0 { span.sub { (kinds(all)) } }
                        }
                        (cell("Calls today", &html! { (thousands(today.calls)) }, None))
                        (cell("Errors today", &html! { (thousands(today.errors())) }, share_of(today)))
                        (cell(&calls, &html! { (thousands(all.calls)) }, None))
                        (cell(&errors, &html! { (thousands(all.errors())) }, share_of(all)))
                        (times("Whole answer", &all.durations))
                        (times("First token", &all.first_tokens))
                    }
                } }
            }
        }
    }
}

/// Errors as a share of calls, where there are any.
fn share_of(figures: &Figures) -> Option<String> {
    (figures.errors() > 0).then(|| percent(figures.errors(), figures.calls))
}

/// What the errors were.
fn kinds(figures: &Figures) -> String {
    let kinds = FaultKind::ALL.iter().zip(figures.faults).filter(|(_, count)| *count > 0);
    let words: Vec<_> = kinds.map(|(kind, count)| format!("{} {}", thousands(count), kind.words())).collect();
    words.join(", ")
}

/// Half and 99 % of the times.
fn times(label: &str, times: &Histogram) -> Markup {
    let found = times.percentile(50).zip(times.percentile(99));
    html! {
        td.num.nil[found.is_none()] role="cell" data-label=(label) {
            @match found {
                None => { "–" }
                Some((half, most)) => { (millis(half)) span.sub.nowrap { "99 % within " (millis(most)) } }
            }
        }
    }
}
