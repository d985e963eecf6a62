//! The agent runs of a user.

use maud::{Markup, html};

use super::part::{icon, moment, section_head};
use crate::domain::agent::{EndReason, Run};
use crate::domain::unit::{Timestamp, thousands};

/// The newest runs of a user, and how many there are in all.
#[derive(Clone, Copy, Debug)]
pub struct Runs<'a> {
    /// Newest first.
    pub newest: &'a [Run],
    /// All of them.
    pub count: i64,
}

impl Runs<'_> {
    /// The section; who has never run an agent has none.
    pub fn section(&self, now: Timestamp) -> Markup {
        if self.newest.is_empty() {
            return html! {};
        }
        let shown = i64::try_from(self.newest.len()).unwrap_or(i64::MAX);
        let line = html! {
            @if shown < self.count { "The newest " (shown) " of " (thousands(self.count)) } @else { "Newest first" }
            "; each minute that has begun counts"
        };
        html! {
            section.section id="runs" aria-labelledby="h-runs" {
                (section_head("h-runs", "Agent runs", &line, &html! {}))
                table.stack role="table" aria-labelledby="h-runs" {
                    thead role="rowgroup" { tr role="row" {
                        @for head in ["Run", "State", "Started, UTC", "Last sign of life, UTC"] {
                            th role="columnheader" scope="col" { (head) }
                        }
                        th.num role="columnheader" scope="col" { "Minutes" }
                    } }
                    tbody role="rowgroup" { @for run in self.newest { (row(run, now)) } }
                }
            }
        }
    }
}

fn row(run: &Run, now: Timestamp) -> Markup {
    let end = run.end_as_of(now);
    let minutes = run.minutes_used(end.map_or(now, |(at, _)| at));
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { span.name { (run.name.as_deref().unwrap_or("Unnamed")) } }
            td role="cell" data-label="State" {
                @match end {
                    None => { span.state.is-ok { (icon("i-ok")) "Running" } }
                    Some((_, EndReason::Stopped)) => { "Stopped" }
                    Some((_, reason)) => { "Ended" span.sub { (words(reason)) } }
                }
            }
            td role="cell" data-label="Started, UTC" { (moment(run.started_at)) }
            td role="cell" data-label="Last sign of life, UTC" { (moment(run.seen_at)) }
            td.num role="cell" data-label="Minutes" {
                (thousands(minutes))
                @if end.is_none() { span.sub { "of " (thousands(run.held)) " held" } }
            }
        }
    }
}

/// Why a run ended.
const fn words(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Stopped => "When it was told to",
        EndReason::Silent => "No heartbeat",
        EndReason::QuotaExceeded => "No minutes left",
        EndReason::MaxMinutes => "Its most minutes used",
        EndReason::Disabled => "User disabled",
    }
}
