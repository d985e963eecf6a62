//! The page of a user's usage.

use maud::{Markup, html};

use super::agent::Runs;
use super::chart::Chart;
use super::layout::{self, Frame, Place};
use super::part::{
    empty, icon, instant, is_not_in_tier, is_or_are, limit, notice, percent, percent_of, resource_name as name,
    section_head, share, share_words, short_amount, short_day, span, state_marks, state_of, stick, window_name,
};
use super::words::amount_words;
use crate::domain::calendar::Day;
use crate::domain::ledger::{HistoryDay, ModelTotal, ResourceType, Window};
use crate::domain::quota::{Limit, Limits, Standing, State};
use crate::domain::unit::{Timestamp, thousands};

/// The looks back that the page offers, in days.
pub const RANGES: [i32; 3] = [7, 30, 90];

/// Most models that are listed by name.
const MODELS_MAX: usize = 20;

/// What the page shows.
#[derive(Clone, Copy, Debug)]
pub struct UsagePage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// One of [`RANGES`].
    pub days: i32,
    /// The user's first day.
    pub since: Day,
    /// A row a resource.
    pub rows: &'a [UsageRow],
    /// The tokens of the days by model, most first.
    pub models: &'a [ModelTotal],
    /// The agent runs.
    pub runs: Runs<'a>,
    /// Where programs find this server, as `http://127.0.0.1:8080`.
    pub address: &'a str,
    /// Where an upgrade prompt leads; empty: there is none.
    pub upgrade_url: &'a str,
    /// The limits of the user's tier, and the next tier above it with its limits.
    pub tiers: (Limits, Option<(&'a str, Limits)>),
}

/// A resource of the page.
#[derive(Clone, Debug)]
pub struct UsageRow {
    /// How it stands.
    pub standing: Standing,
    /// Its sum over the days shown; the level of a level.
    pub amount: i64,
    /// The days, oldest first, today last.
    pub history: Vec<HistoryDay>,
}

impl UsagePage<'_> {
    /// The page.
    pub fn render(&self) -> Markup {
        let content = html! {
            div.page-head { div {
                h1 { "Usage" }
                p { "Tier " (self.frame.who.tier) ". Figures read at " (instant(self.frame.now)) "." }
            } }
            (self.warnings())
            div.gauges { @for row in self.rows { (gauge(&row.standing, self.frame.now)) } }
            (self.note())
            (self.history())
            (self.breakdown())
            (self.models())
            (self.runs.section(self.frame.now))
            (self.upgrade())
        };
        layout::inside("Usage", Some(Place::Usage), self.frame, &content)
    }

    /// Resources in `state`.
    fn standings(&self, state: State) -> impl Iterator<Item = &Standing> {
        self.rows.iter().map(|row| &row.standing).filter(move |standing| state_of(standing) == state)
    }

    /// A notice a resource at 80 % or more, the used-up ones first.
    fn warnings(&self) -> Markup {
        let close: Vec<&Standing> = self.standings(State::Stop).chain(self.standings(State::Warn)).collect();
        if close.is_empty() {
            return html! {};
        }
        let link = (!self.upgrade_url.is_empty()).then_some((self.upgrade_url, "Raise the limit"));
        html! {
            section.notices aria-label="Warnings" {
                @for standing in close {
                    @let (class, _) = state_marks(state_of(standing));
                    (notice(class, &lead(standing), &consequence(standing), link))
                }
            }
        }
    }

    /// What the gauges do not say themselves.
    fn note(&self) -> Markup {
        let has_bar = |row: &UsageRow| matches!(row.standing.limit, Limit::AtMost(1..));
        let has_bars = self.rows.iter().any(has_bar);
        let has_holds = self.rows.iter().any(|row| row.standing.usage.reserved > 0);
        html! {
            @if has_bars || has_holds {
                p.gauges-note {
                    @if has_bars { "The cut in a bar stands at 80 %: from there on it is amber, and red once the limit is reached. " }
                    @if has_holds { "What is reserved is promised to work under way and counts until it is settled." }
                }
            }
        }
    }

    /// Whether the days shown hold nothing that a chart could show.
    fn is_blank(&self) -> bool {
        let is_blank = |day: &HistoryDay| day.standing == 0 && day.amount == 0 && day.refused == 0;
        self.rows.iter().all(|row| row.standing.usage.reserved == 0 && row.history.iter().all(is_blank))
    }

    /// What stands in the place of charts without anything in them.
    fn nothing(&self, first: Option<Day>) -> Markup {
        if first.is_some_and(|first| self.since < first) {
            return html! { p.nothing { "No usage in these " (self.days) " days. A longer range may show some." } };
        }
        let command = format!(
            "curl {}/usage/record \\\n  -H \"Authorization: Bearer $TALLYBOX_TOKEN\" \\\n  -H \"Content-Type: application/json\" \\\n  \
             -d '{{\"resourceType\": \"llm_tokens\", \"amount\": 1200}}'",
            self.address,
        );
        let text =
            html! { "Nothing has been counted for this account. Record one call and it stands here a moment later." };
        let next = html! {
            a.btn href="/account#tokens" { "Create an API token" }
            span.small.muted { "Put its secret into " code { "TALLYBOX_TOKEN" } "." }
        };
        empty("No usage yet", &text, Some(&command), &next)
    }

    fn history(&self) -> Markup {
        let days = self.rows.first().map_or(&[][..], |row| &row.history);
        let (first, last) = (days.first().map(|day| day.day), days.last().map(|day| day.day));
        let line = html! {
            (first.map(short_day).unwrap_or_default()) " to " (last.map(short_day).unwrap_or_default())
            ", by days of " (self.frame.zone)
        };
        let ranges = html! {
            nav aria-label="Range of the history" { ul.seg {
                @for days in RANGES {
                    li { a href={ "/usage?days=" (days) "#history" } aria-current=[(days == self.days).then_some("true")] { (days) " days" } }
                }
            } }
        };
        html! {
            section.section id="history" aria-labelledby="h-history" {
                (section_head("h-history", "History", &line, &ranges))
                @if self.is_blank() { (self.nothing(first)) } @else {
                    div.charts {
                        @for row in self.rows {
                            (Chart {
                                resource: row.standing.resource,
                                days: &row.history,
                                limit: row.standing.limit,
                                reserved: row.standing.usage.reserved,
                                since: self.since,
                            }.render())
                        }
                    }
                }
            }
        }
    }

    fn breakdown(&self) -> Markup {
        let line = html! { "The last " (self.days) " days; storage and percentages as they are now" };
        html! {
            section.section aria-labelledby="h-breakdown" {
                (section_head("h-breakdown", "Breakdown", &line, &html! {}))
                // On a narrow screen each row becomes an entry; the roles say that it is a table all the same.
                table.stack role="table" aria-labelledby="h-breakdown" {
                    thead role="rowgroup" { tr role="row" {
                        th role="columnheader" scope="col" { "Resource" }
                        th.num role="columnheader" scope="col" { "Amount" }
                        th.num role="columnheader" scope="col" { "In words" }
                        th.num role="columnheader" scope="col" { "Refused requests" }
                        th.num role="columnheader" scope="col" { "Limit" }
                        th.num role="columnheader" scope="col" { "Used of the limit now" }
                    } }
                    tbody role="rowgroup" { @for row in self.rows {
                        @let standing = &row.standing;
                        tr role="row" {
                            th role="rowheader" scope="row" { (name(standing.resource)) }
                            td.num role="cell" data-label="Amount" { (thousands(row.amount)) }
                            td.num role="cell" data-label="In words" { (amount_words(standing.resource, row.amount)) }
                            td.num role="cell" data-label="Refused" { (thousands(refused(row).0)) }
                            td.num role="cell" data-label="Limit" { (limit_words(standing)) }
                            @let used = used_of_limit(standing);
                            td.num.nil[used.is_none()] role="cell" data-label="Used now" { (used.as_deref().unwrap_or("\u{2013}")) }
                        }
                    } }
                }
            }
        }
    }

    /// What the tokens were spent on, by model; what names no model stands in a row of its own.
    fn models(&self) -> Markup {
        if self.models.is_empty() {
            return html! {};
        }
        let tokens = self.rows.iter().find(|row| row.standing.resource == ResourceType::LlmTokens);
        let all = tokens.map_or(0, |row| row.amount);
        let sum = |part: fn(&ModelTotal) -> i64| self.models.iter().map(part).fold(0, i64::saturating_add);
        let named = sum(|total| total.tokens);
        let unnamed = all.saturating_sub(named).max(0);
        let tokens: Vec<i64> = self.models.iter().map(|total| total.tokens).chain([unnamed]).collect();
        let percents = shares(&tokens);
        let share_of = |row: usize| percents.get(row).copied().unwrap_or(0);
        let line = html! { "What the tokens of the last " (self.days) " days were spent on" };
        let hidden = self.models.len().saturating_sub(MODELS_MAX);
        html! {
            section.section aria-labelledby="h-models" {
                (section_head("h-models", "By model", &line, &html! {}))
                table.stack role="table" aria-labelledby="h-models" {
                    thead role="rowgroup" { tr role="row" {
                        th role="columnheader" scope="col" { "Model" }
                        @for head in ["Calls", "Tokens in", "Tokens out", "Tokens", "Share of tokens"] {
                            th.num role="columnheader" scope="col" { (head) }
                        }
                    } }
                    tbody role="rowgroup" {
                        @for (row, total) in self.models.iter().take(MODELS_MAX).enumerate() { (model_row(&total.model, Some(total), (total.tokens, share_of(row)), all)) }
                        @if unnamed > 0 { (model_row("No model named", None, (unnamed, share_of(self.models.len())), all)) }
                    }
                    tfoot role="rowgroup" { tr role="row" {
                        th role="rowheader" scope="row" { "Total" }
                        td.num role="cell" data-label="Calls" { (thousands(sum(|total| total.calls))) }
                        td.num role="cell" data-label="Tokens in" { (thousands(sum(|total| total.prompt))) }
                        td.num role="cell" data-label="Tokens out" { (thousands(sum(|total| total.completion))) }
                        td.num role="cell" data-label="Tokens" { (thousands(all.max(named))) }
                        td.num role="cell" data-label="Share" { (percent(all, all)) }
                    } }
                }
                @if hidden > 0 { p.muted.small { (thousands(i64::try_from(hidden).unwrap_or(i64::MAX))) " more models with fewer tokens are in the total." } }
            }
        }
    }

    /// Where a limit is close and there is a way to raise it: what the next tier allows.
    fn upgrade(&self) -> Markup {
        let is_close = self.rows.iter().any(|row| state_of(&row.standing) != State::Ok);
        if !is_close || self.upgrade_url.is_empty() {
            return html! {};
        }
        let (own, next) = &self.tiers;
        let tier = &self.frame.who.tier;
        let refusals: i64 = self.rows.iter().map(|row| refused(row).0).fold(0, i64::saturating_add);
        let refused_days = self.rows.iter().map(|row| refused(row).1).max().unwrap_or(0);
        html! {
            section.section id="upgrade" aria-labelledby="h-upgrade" {
                div.upgrade {
                    div.lead {
                        h2 id="h-upgrade" { "Room for more" }
                        p {
                            @if refusals > 0 {
                                "You were refused " (times(refusals)) " on " (days_words(refused_days)) " in these " (self.days) " days. "
                            }
                            @if let Some((next, _)) = next { "Tier " (next) " lifts the limits of " (tier) ", from the next request on. " }
                            "What is stored and counted stays as it is."
                        }
                        p.actions { a.btn.btn-primary href=(self.upgrade_url) { @if let Some((next, _)) = next { "Move to " (next) } @else { "Raise the limit" } } }
                    }
                    @if let Some((next, limits)) = next {
                        table.tiers.table-plain {
                            caption.vh { "Limits of " (tier) " and " (next) }
                            thead { tr { th scope="col" { "Limit" } th.num scope="col" { (tier) ", yours" } th.num scope="col" { (next) } } }
                            tbody { @for resource in ResourceType::ALL { tr {
                                th scope="row" { (name(resource)) (per(resource)) }
                                td.num { (limit(resource, own.of(resource))) }
                                td.num.next { (limit(resource, limits.of(resource))) }
                            } } }
                        }
                    }
                }
            }
        }
    }
}

/// A row of the table by model; `total` is none for what names no model.
fn model_row(name: &str, total: Option<&ModelTotal>, (tokens, percent): (i64, i64), all: i64) -> Markup {
    let cell = |label: &str, figure: Option<i64>| {
        html! {
            td.num.nil[figure.is_none()] role="cell" data-label=(label) { @if let Some(figure) = figure { (thousands(figure)) } @else { "–" } }
        }
    };
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { (name) }
            (cell("Calls", total.map(|total| total.calls)))
            (cell("Tokens in", total.map(|total| total.prompt)))
            (cell("Tokens out", total.map(|total| total.completion)))
            (cell("Tokens", Some(tokens)))
            td.num role="cell" data-label="Share" {
                span.share {
                    svg width="100%" height="10" aria-hidden="true" focusable="false" { rect width=(share(tokens, all)) height="10" {} }
                    (share_words(tokens, percent))
                }
            }
        }
    }
}

/// What each of `parts` is of all of them, in whole percent that add up to 100: those that lose most by rounding down are
/// rounded up.
fn shares(parts: &[i64]) -> Vec<i64> {
    let parts: Vec<i128> = parts.iter().map(|part| i128::from((*part).max(0))).collect();
    let whole: i128 = parts.iter().sum();
    if whole == 0 {
        return vec![0; parts.len()];
    }
    let mut percents: Vec<i128> = parts.iter().map(|part| part * 100 / whole).collect();
    let missing = usize::try_from(100 - percents.iter().sum::<i128>()).unwrap_or(0);
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(parts.get(*index).map_or(0, |part| part * 100 % whole)));
    for index in order.into_iter().take(missing) {
        if let Some(percent) = percents.get_mut(index) {
            *percent += 1;
        }
    }
    percents.into_iter().map(|percent| i64::try_from(percent).unwrap_or(0)).collect()
}

/// How many requests of a resource were refused, and on how many days.
fn refused(row: &UsageRow) -> (i64, usize) {
    let days = row.history.iter().filter(|day| day.refused > 0);
    days.fold((0, 0), |(sum, count), day| (day.refused.saturating_add(sum), count + 1))
}

fn times(count: i64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{} times", thousands(count)) }
}

fn days_words(count: usize) -> String {
    if count == 1 { "one day".to_owned() } else { format!("{count} days") }
}

/// What a limit is counted over, behind its figure.
pub(super) const fn per(resource: ResourceType) -> &'static str {
    match resource.window() {
        Window::Day => " a day",
        Window::Month => " a month",
        Window::Level => "",
    }
}

/// What is used of a limit, where there is one.
fn used_of_limit(standing: &Standing) -> Option<String> {
    percent_of(standing).filter(|_| !is_not_in_tier(standing.limit) || standing.usage.used > 0)
}

fn limit_words(standing: &Standing) -> String {
    match standing.limit {
        Limit::Unlimited | Limit::AtMost(0) => limit(standing.resource, standing.limit),
        Limit::AtMost(_) => format!("{}{}", limit(standing.resource, standing.limit), per(standing.resource)),
    }
}

/// How a notice begins.
fn lead(standing: &Standing) -> String {
    let (resource, verb) = (standing.resource, is_or_are(standing.resource));
    let is_exactly_full = matches!(standing.limit, Limit::AtMost(limit) if limit == standing.usage.used);
    if is_not_in_tier(standing.limit) {
        return format!("{} {verb} not in this tier.", name(resource));
    }
    match (is_exactly_full, resource.window()) {
        (true, Window::Level) => format!("{} {verb} full.", name(resource)),
        (true, Window::Day | Window::Month) => format!("{} {verb} used up.", name(resource)),
        (false, _) => format!("{} {verb} at {}.", name(resource), percent_of(standing).unwrap_or_default()),
    }
}

/// What follows from it.
fn consequence(standing: &Standing) -> Markup {
    let left = amount_words(standing.resource, standing.remaining().unwrap_or(0));
    html! {
        @match (state_of(standing), standing.resets_at) {
            _ if is_not_in_tier(standing.limit) => { "Requests are refused." }
            (State::Stop, Some(at)) => { "Requests that need more are refused until " (instant(at)) "." }
            (State::Stop, None) => { "Nothing more is kept for long until something is deleted or expires." }
            (_, Some(at)) => { (left) " left until " (instant(at)) "." }
            (_, None) => { (left) " left." }
        }
    }
}

/// How a resource stands, as a column: the figure, its limit, the bar, when it resets.
pub(super) fn gauge(standing: &Standing, now: Timestamp) -> Markup {
    let state = if is_not_in_tier(standing.limit) { State::Stop } else { state_of(standing) };
    let (class, drawing) = state_marks(state);
    let resource = standing.resource;
    let id = format!("gauge-{}", resource.as_str());
    html! {
        section class={ "gauge " (class) } aria-labelledby=(id) {
            h2 id=(id) { (name(resource)) " " span { (window_name(resource)) } }
            p.figure {
                b { (short_amount(resource, standing.usage.used)) } " "
                span {
                    @match standing.limit {
                        Limit::Unlimited => { "no limit on this tier" }
                        Limit::AtMost(0) => { "not in this tier" }
                        Limit::AtMost(_) => { "of " (limit(resource, standing.limit)) }
                    }
                }
            }
            div { (stick(standing, &format!("{} {}", name(resource), window_name(resource)))) }
            @match percent_of(standing) {
                // The place stays, so that what is below stands level with its neighbours.
                None => { div {} }
                Some(_) if is_not_in_tier(standing.limit) => { p.state { (icon("i-stop")) "Requests are refused" } }
                Some(percent) => { p.state {
                    (icon(drawing))
                    @match state {
                        State::Ok => { (percent) " used" }
                        State::Warn => { (percent) " used, near the limit" }
                        State::Stop => { (percent) " used, limit reached" }
                    }
                } }
            }
            (parts(standing))
            @if !is_not_in_tier(standing.limit) { p.reset {
                @if let Some(at) = standing.resets_at {
                    strong { "Resets in " (span(now, at)) }
                    "At " (instant(at)) @if resource.window() == Window::Day { ", every day" } @else { ", every month" }
                } @else {
                    strong { "Does not reset" }
                    "Freed as memories are deleted or expire"
                }
            } }
        }
    }
}

/// What a gauge is made of, in exact figures.
fn parts(standing: &Standing) -> Markup {
    let resource = standing.resource;
    let exact = |amount: i64| match resource {
        ResourceType::MemoryStorage if amount >= 1_024 => format!("{} bytes", thousands(amount)),
        _ => amount_words(resource, amount),
    };
    html! {
        dl.parts {
            div {
                dt { svg.sw aria-hidden="true" focusable="false" { rect.sw-fill width="100%" height="100%" {} } "Used" }
                dd { (exact(standing.usage.used)) }
            }
            @if standing.usage.reserved > 0 {
                div {
                    dt { svg.sw aria-hidden="true" focusable="false" { rect width="100%" height="100%" fill="url(#hatch)" {} } "Reserved" }
                    dd { (amount_words(resource, standing.usage.reserved)) }
                }
            }
            @if let Some(left) = standing.remaining().filter(|_| !is_not_in_tier(standing.limit)) {
                div { dt { svg.sw aria-hidden="true" focusable="false" {} "Left" } dd { (amount_words(resource, left)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_a_hundred() {
        assert_eq!(shares(&[13_453, 5_616, 1_538, 0]), [65, 27, 8, 0]);
        assert_eq!(shares(&[1, 1, 1]), [34, 33, 33]);
        assert_eq!(shares(&[i64::MAX, i64::MAX, 1, -5]), [50, 50, 0, 0]);
        assert_eq!(shares(&[0, 0]), [0, 0]);
        assert_eq!(shares(&[]), [0_i64; 0]);
    }
}
