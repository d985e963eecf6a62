//! The figures behind a chart: a day in words, and the table of all days.

use maud::{Markup, html};

use super::Chart;
use crate::domain::ledger::{HistoryDay, Window};
use crate::domain::quota::Limit;
use crate::domain::unit::thousands;
use crate::view::part::percent;
use crate::view::words::amount_words;

impl Chart<'_> {
    /// A day in words.
    pub(super) fn title(&self, day: &HistoryDay, is_today: bool) -> String {
        let resource = self.resource;
        let date = day.day.to_date().format("%a %-d %b");
        let mut words = match (resource.window(), self.limit) {
            (Window::Day, _) if day.amount <= 0 => format!("{date}: no tokens used"),
            (Window::Day, Limit::Unlimited) => format!("{date}: {}", amount_words(resource, day.amount)),
            (Window::Day, Limit::AtMost(limit)) => {
                format!("{date}: {}, {} of the limit", amount_words(resource, day.amount), percent(day.amount, limit))
            }
            (Window::Month, Limit::Unlimited) => {
                format!("{date}: {} used, {} this month", amount_words(resource, day.amount), thousands(day.standing))
            }
            (Window::Month, Limit::AtMost(limit)) => format!(
                "{date}: {} used, {} of {} this month",
                amount_words(resource, day.amount),
                thousands(day.standing),
                thousands(limit),
            ),
            (Window::Level, _) => format!("{date}: {} stored", amount_words(resource, day.standing)),
        };
        if day.refused > 0 {
            let requests = if day.refused == 1 { "request" } else { "requests" };
            words = format!("{words}; {} {requests} refused", thousands(day.refused));
        }
        if is_today && self.reserved > 0 {
            words = format!("{words}; {} reserved; day not over", thousands(self.reserved));
        }
        words
    }

    /// The table behind the chart.
    pub(super) fn table(&self) -> Markup {
        let resource = self.resource;
        let (used, stands) = match resource.window() {
            Window::Day => ("Tokens", None),
            Window::Month => ("Minutes", Some("This month so far")),
            Window::Level => ("Change", Some("Stored at the end")),
        };
        let signed = |amount: i64| match (resource.window(), amount) {
            (Window::Level, 1..) => format!("+{}", amount_words(resource, amount)),
            (Window::Level, ..0) => format!("\u{2212}{}", amount_words(resource, amount.saturating_neg())),
            (Window::Level, 0) => "0".to_owned(),
            _ => thousands(amount),
        };
        let stood = |day: &HistoryDay| match resource.window() {
            Window::Level => amount_words(resource, day.standing),
            Window::Day | Window::Month => thousands(day.standing),
        };
        html! {
            div.scroll tabindex="0" role="region" aria-label={ "Figures: " (self.heading()) } {
                table.dense.table-plain {
                    caption { (self.heading()) ", newest day first" }
                    thead { tr {
                        th scope="col" { "Day" }
                        th.num scope="col" { (used) }
                        @if let Some(stands) = stands { th.num scope="col" { (stands) } }
                        @if let Limit::AtMost(_) = self.limit { th.num scope="col" { "Of limit" } }
                        th.num scope="col" { "Refused" }
                    } }
                    tbody { @for day in self.days.iter().rev() { tr {
                        th scope="row" { (day.day.to_date().format("%a %-d %b")) }
                        td.num { (signed(day.amount)) }
                        @if stands.is_some() { td.num { (stood(day)) } }
                        @if let Limit::AtMost(limit) = self.limit { td.num { (percent(day.standing, limit)) } }
                        td.num { (thousands(day.refused)) }
                    } } }
                }
            }
        }
    }
}
