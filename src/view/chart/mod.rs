//! History charts: drawings of the server's own, stretched in x (percent) and fixed in y (pixels), so that their text keeps
//! its size. Each day carries a title, and a table behind each chart holds all its figures.

mod figures;
mod scale;

use maud::{Markup, html};

use self::scale::{Scale, ticks};
use super::part::{self, short_day};
use super::words::amount_words;
use crate::domain::calendar::Day;
use crate::domain::ledger::{HistoryDay, ResourceType, Window};
use crate::domain::quota::{Limit, State};
use crate::domain::unit::thousands;

/// Above so many days, bars are too thin for an outline.
const OUTLINED_DAYS_MAX: usize = 45;
/// Least height of what is held, in pixels.
const HELD_PIXELS_MIN: f64 = 5.0;

/// A chart of a resource's history.
#[derive(Clone, Copy, Debug)]
pub struct Chart<'a> {
    /// Of what.
    pub resource: ResourceType,
    /// The days, oldest first, today last.
    pub days: &'a [HistoryDay],
    /// The bound of now.
    pub limit: Limit,
    /// What is held now.
    pub reserved: i64,
    /// The user's first day: earlier ones are no days without usage.
    pub since: Day,
}

impl Chart<'_> {
    /// The chart with its heading, its key and the table of its figures.
    pub fn render(&self) -> Markup {
        html! {
            figure.chart-full[self.resource.window() == Window::Day] {
                figcaption.chart-head {
                    div { h3 { (self.heading()) } p.chart-sum { (self.nothing().unwrap_or_else(|| self.finding())) } }
                    @if self.nothing().is_none() { (self.key()) }
                }
                @if self.nothing().is_none() { div.plot { (self.drawing()) } }
                @if self.nothing().is_none() || self.refused() > 0 {
                    details {
                        summary data-open="Hide the figures" { span { "Show the figures as a table" } span.vh { ": " (self.heading()) } }
                        (self.table())
                    }
                }
            }
        }
    }

    const fn heading(&self) -> &'static str {
        match self.resource {
            ResourceType::LlmTokens => "LLM tokens per day",
            ResourceType::MemoryStorage => "Memory storage",
            ResourceType::AgentMinutes => "Agent minutes, added up by month",
        }
    }

    /// What is said in the place of a drawing that would be blank.
    fn nothing(&self) -> Option<String> {
        if self.peak() > 0 || self.reserved > 0 {
            return None;
        }
        let (days, refused) = (self.days.len(), self.refused());
        let requests =
            if refused == 1 { "1 request was".to_owned() } else { format!("{} requests were", thousands(refused)) };
        let refused = if refused > 0 { format!(" {requests} refused.") } else { String::new() };
        Some(match (self.limit, self.resource) {
            (Limit::AtMost(0), _) => format!("Not in this tier.{refused}"),
            (_, ResourceType::MemoryStorage) => format!("Nothing stored in these {days} days.{refused}"),
            (_, ResourceType::LlmTokens) => format!("No tokens used in these {days} days.{refused}"),
            (_, ResourceType::AgentMinutes) => format!("No agent minutes used in these {days} days.{refused}"),
        })
    }

    fn refused(&self) -> i64 {
        self.days.iter().fold(0, |sum, day| sum.saturating_add(day.refused))
    }

    fn peak(&self) -> i64 {
        self.days.iter().map(|day| day.standing).max().unwrap_or(0)
    }

    /// What the chart shows, in words.
    fn finding(&self) -> String {
        let resource = self.resource;
        let reached = self.days_of(State::Stop);
        let (count, first, last) = (self.days.len(), self.days.first(), self.days.last());
        let sum = self.days.iter().fold(0_i64, |sum, day| sum.saturating_add(day.amount));
        match resource.window() {
            Window::Day => {
                let mean = sum / i64::try_from(count.max(1)).unwrap_or(1);
                format!("{} in all, {} a day on average.{}", thousands(sum), thousands(mean), reached_on(&reached))
            }
            Window::Month => {
                let now = last.map_or(0, |day| day.standing);
                format!(
                    "{} in {count} days, {} of them this month.{}",
                    amount_words(resource, sum),
                    thousands(now.min(sum)),
                    reached_on(&reached)
                )
            }
            Window::Level => {
                let began = first.map_or(0, |day| day.standing.saturating_sub(day.amount));
                let change = last.map_or(0, |day| day.standing).saturating_sub(began);
                let words = match change {
                    0 => format!("As much as {count} days ago."),
                    1.. => format!("Up {} in {count} days.", amount_words(resource, change)),
                    _ => format!("Down {} in {count} days.", amount_words(resource, change.saturating_neg())),
                };
                format!("{words}{}", reached_on(&reached))
            }
        }
    }

    fn days_of(&self, state: State) -> Vec<Day> {
        self.days.iter().filter(|day| State::of(day.standing, self.limit) == state).map(|day| day.day).collect()
    }

    fn key(&self) -> Markup {
        let has = |state| self.days.iter().any(|day| day.standing > 0 && State::of(day.standing, self.limit) == state);
        let first = match self.resource.window() {
            Window::Day => ("bar", "Used"),
            Window::Month => ("bar", "Used that day"),
            Window::Level => ("bar-brought", "Stored at the end of the day"),
        };
        let is_level = self.resource.window() == Window::Level;
        html! {
            ul.key {
                li { (swatch(html! { rect class=(first.0) width="100%" height="100%" {} })) (first.1) }
                @if self.resource.window() == Window::Month {
                    li { (swatch(html! { rect.bar-brought width="100%" height="100%" {} })) "Brought forward" }
                }
                @if !is_level && has(State::Warn) {
                    li.is-warn { (swatch(html! { rect.sw-fill width="100%" height="100%" {} })) "80 % or more" }
                }
                @if !is_level && has(State::Stop) {
                    li.is-stop { (swatch(html! { rect.sw-fill width="100%" height="100%" {} })) "Limit reached" }
                }
                @if self.reserved > 0 {
                    li { (swatch(html! { rect width="100%" height="100%" fill="url(#hatch)" {} })) "Reserved now" }
                }
                @if self.days.iter().any(|day| day.refused > 0) {
                    li {
                        svg.icon.icon-solid viewBox="0 0 20 20" aria-hidden="true" focusable="false" {
                            path.refused d="M3 5h14l-7 11z" {}
                        }
                        "Requests refused"
                    }
                }
            }
        }
    }

    const fn height(&self) -> u32 {
        match self.resource.window() {
            Window::Day => 220,
            Window::Month | Window::Level => 170,
        }
    }

    fn drawing(&self) -> Markup {
        let height = self.height();
        let scale = Scale::new(self.resource, self.peak().saturating_add(self.reserved), self.limit);
        let base = f64::from(height);
        let label = format!("Chart of {} days: {}. {}", self.days.len(), self.heading(), self.finding());
        html! {
            svg role="img" aria-label=(label) width="100%" height=(height) class=[(self.days.len() > OUTLINED_DAYS_MAX).then_some("bars-thin")] {
                @for amount in scale.lines() {
                    @let y = y(base - scale.pixels(amount, height));
                    line class=(if amount == 0 { "base" } else { "grid" }) x1="0" x2="100%" y1=(y) y2=(y) {}
                    text x="-8" y=(y) dy=".34em" text-anchor="end" { (scale.label(amount)) }
                }
                @if self.resource.window() == Window::Level { (self.steps(&scale)) }
                @for slot in 0..self.days.len() { (self.day(slot, &scale)) }
                (self.limit_line(&scale))
                (self.axis())
            }
        }
    }

    /// The level at each day's end, as a path of steps.
    fn steps(&self, scale: &Scale) -> Markup {
        use std::fmt::Write;
        const TALL: u32 = 1_000;
        let mut line = String::from("M0 ");
        for (slot, day) in self.days.iter().enumerate() {
            let y = y(f64::from(TALL) - scale.pixels(day.standing, TALL));
            // Writing into a string cannot fail.
            let _ = if slot == 0 { write!(line, "{y}H1") } else { write!(line, "V{y}H{}", slot + 1) };
        }
        let count = self.days.len();
        html! {
            svg width="100%" height=(self.height()) viewBox={ "0 0 " (count) " " (TALL) } preserveAspectRatio="none" {
                path.level-area d={ (line) "V" (TALL) "H0z" } {}
                path.level-line d=(line) {}
            }
        }
    }

    fn day(&self, slot: usize, scale: &Scale) -> Markup {
        let Some(day) = self.days.get(slot) else { return html! {} };
        let (count, height) = (self.days.len(), self.height());
        let is_today = slot + 1 == count;
        let hit = html! { rect.hit x=(x(slot, 0, count)) width=(x(1, 0, count)) y="0" height=(height) {} };
        html! {
            g.day {
                title { (self.title(day, is_today)) }
                (hit)
                @match self.resource.window() {
                    Window::Day => { (self.bar(slot, day, is_today, scale)) }
                    Window::Month => { (self.accumulated(slot, day, is_today, scale)) }
                    Window::Level => {}
                }
                @if day.refused > 0 { (self.refusal(slot, day, is_today, scale)) }
            }
        }
    }

    /// A triangle on the limit's line, or on a bar that passes it: something was refused that day.
    fn refusal(&self, slot: usize, day: &HistoryDay, is_today: bool, scale: &Scale) -> Markup {
        let held = if is_today { self.reserved } else { 0 };
        let reached = match self.limit {
            Limit::AtMost(limit) if scale.shows_limit => {
                scale.pixels(limit.max(day.standing.saturating_add(held)), self.height())
            }
            _ => f64::from(self.height()),
        };
        let top = y((f64::from(self.height()) - reached - 12.0).max(0.0));
        html! { svg x=(x(slot, 50, self.days.len())) y=(top) overflow="visible" { path.refused d="M-5 0h10l-5 8z" {} } }
    }

    fn state_class(&self, day: &HistoryDay) -> &'static str {
        match State::of(day.standing, self.limit) {
            State::Ok => "bar",
            State::Warn => "bar bar-warn",
            State::Stop => "bar bar-stop",
        }
    }

    fn bar(&self, slot: usize, day: &HistoryDay, is_today: bool, scale: &Scale) -> Markup {
        let (count, height) = (self.days.len(), self.height());
        let thickness = match count {
            0..=10 => 44,
            11..=45 => 66,
            _ => 74,
        };
        let (left, width) = (x(slot, (100 - thickness) / 2, count), x(0, thickness, count));
        let reached = scale.pixels(day.amount, height);
        let base = f64::from(height);
        html! {
            @if day.amount > 0 {
                rect class=(self.state_class(day)) x=(left) width=(width) y=(y(base - reached)) height=(y(reached)) {}
            } @else if day.day >= self.since && !(is_today && self.reserved > 0) {
                circle.none cx=(x(slot, 50, count)) cy=(height - 4) r="2" {}
            }
            @if is_today { (self.held(&left, &width, day, scale)) }
        }
    }

    /// What is held now, on top of what is used.
    fn held(&self, left: &str, width: &str, day: &HistoryDay, scale: &Scale) -> Markup {
        if self.reserved <= 0 {
            return html! {};
        }
        let base = f64::from(self.height());
        let used = scale.pixels(day.standing, self.height());
        let taken = scale.pixels(day.standing.saturating_add(self.reserved), self.height());
        let held = (taken - used).max(HELD_PIXELS_MIN);
        html! { rect.bar-held x=(left) width=(width) y=(y(base - used - held)) height=(y(held)) fill="url(#hatch)" {} }
    }

    /// A day of a monthly count: what it brought forward, and on top what was used that day.
    fn accumulated(&self, slot: usize, day: &HistoryDay, is_today: bool, scale: &Scale) -> Markup {
        let (count, height) = (self.days.len(), self.height());
        let base = f64::from(height);
        let brought = scale.pixels(day.standing.saturating_sub(day.amount), height);
        let reached = scale.pixels(day.standing, height);
        let (left, width) = (x(slot, 0, count), x(1, 0, count));
        let is_first_of_month = day.day == *day.day.month().start() && slot > 0;
        html! {
            @if brought > 0.0 {
                rect.bar-brought shape-rendering="crispEdges" x=(left) width=(width) y=(y(base - brought)) height=(y(brought)) {}
                @if day.amount <= 0 { line.level-top x1=(left) x2=(x(slot + 1, 0, count)) y1=(y(base - brought)) y2=(y(base - brought)) {} }
            }
            @if day.amount > 0 {
                rect class=(self.state_class(day)) x=(left) width=(width) y=(y(base - reached)) height=(y(reached - brought)) {}
            }
            @if is_today { (self.held(&left, &width, day, scale)) }
            @if is_first_of_month {
                // Not through the words that stand above the limit.
                line.tick stroke-dasharray="2 3" x1=(left) x2=(left) y1=(y(self.limit_at(scale).unwrap_or(0.0))) y2=(height) {}
                @if x_percent(slot, 0, count) < 88.0 { text.note x=(left) dx="4" y=(height * 3 / 5) { "reset" } }
            }
        }
    }

    /// How far from the upper edge the limit's line is; none where it is not on the scale.
    fn limit_at(&self, scale: &Scale) -> Option<f64> {
        match self.limit {
            Limit::AtMost(limit) if scale.shows_limit => {
                Some(f64::from(self.height()) - scale.pixels(limit, self.height()))
            }
            _ => None,
        }
    }

    fn limit_line(&self, scale: &Scale) -> Markup {
        let Limit::AtMost(limit) = self.limit else { return html! {} };
        let per = match self.resource.window() {
            Window::Day => " a day",
            Window::Month => " a month",
            Window::Level => "",
        };
        let words = part::short_amount(self.resource, limit);
        let Some(line) = self.limit_at(scale) else {
            let far = if limit > 0 { "\u{2191} " } else { "" };
            let scaled = if limit > 0 { ", far above this scale" } else { "" };
            return html! { text.limit-text x="0" y="-6" { (far) "Limit " (words) (per) (scaled) } };
        };
        // Triangles stand on the line; the words go above them.
        let above = if self.days.iter().any(|day| day.refused > 0) { 19.0 } else { 7.0 };
        html! {
            line.limit x1="0" x2="100%" y1=(y(line)) y2=(y(line)) {}
            text.limit-text x="0" y=(y(line - above)) { "Limit " (words) (per) }
        }
    }

    fn axis(&self) -> Markup {
        let (count, height) = (self.days.len(), self.height());
        let days: Vec<Day> = self.days.iter().map(|day| day.day).collect();
        html! {
            @for tick in ticks(&days) {
                @let at = x(tick.slot, 50, count);
                line.tick x1=(at) x2=(at) y1=(height) y2=(height + 4) {}
                text class=[tick.is_for_wide.then_some("x-wide")] x=(at) y=(height + 19) text-anchor="middle" {
                    (days.get(tick.slot).copied().map(short_day).unwrap_or_default())
                }
            }
            text.now x="100%" y=(height + 19) text-anchor="end" { "today" }
        }
    }
}

fn swatch(drawing: Markup) -> Markup {
    html! { svg.sw aria-hidden="true" focusable="false" { (drawing) } }
}

/// A sentence that names the days on which the limit was reached, the last ones where they are many.
fn reached_on(days: &[Day]) -> String {
    const NAMED_MAX: usize = 3;
    let named: Vec<String> = days.iter().rev().take(NAMED_MAX).rev().copied().map(short_day).collect();
    match (days.len(), named.as_slice()) {
        (0, _) | (_, []) => String::new(),
        (1..=NAMED_MAX, [one]) => format!(" Limit reached on {one}."),
        (1..=NAMED_MAX, [others @ .., last]) => format!(" Limit reached on {} and {last}.", others.join(", ")),
        (count, [.., last]) => format!(" Limit reached on {count} days, last on {last}."),
    }
}

/// Slot `slot` and `hundredths` of a slot, of `count` slots, in percent of the width.
fn x_percent(slot: usize, hundredths: usize, count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a drawing of at most 366 slots")]
    let percent = (slot * 100 + hundredths) as f64 / count.max(1) as f64;
    percent
}

/// [`x_percent`] as a coordinate.
fn x(slot: usize, hundredths: usize, count: usize) -> String {
    let text = format!("{:.3}", x_percent(slot, hundredths, count));
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A vertical coordinate in pixels, to a tenth.
fn y(pixels: f64) -> String {
    let text = format!("{pixels:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(resource: ResourceType, days: &[HistoryDay], limit: Limit) -> String {
        let since = days.first().map_or(Day(0), |day| day.day);
        Chart { resource, days, limit, reserved: 0, since }.render().into_string()
    }

    fn days(amounts: &[i64]) -> Vec<HistoryDay> {
        let day = |(index, amount): (usize, &i64)| HistoryDay {
            day: Day(20_000 + i32::try_from(index).unwrap()),
            amount: *amount,
            standing: *amount,
            refused: 0,
        };
        amounts.iter().enumerate().map(day).collect()
    }

    #[test]
    fn bars_take_the_colour_of_their_share_of_the_limit() {
        let drawn = chart(ResourceType::LlmTokens, &days(&[790, 800, 1_000, 0]), Limit::AtMost(1_000));
        assert_eq!(drawn.matches(r#"<rect class="bar" x="#).count(), 1);
        assert_eq!(drawn.matches(r#"<rect class="bar bar-warn" x="#).count(), 1);
        assert_eq!(drawn.matches(r#"<rect class="bar bar-stop" x="#).count(), 1);
        assert_eq!(drawn.matches(r#"<circle class="none""#).count(), 1);
        assert!(drawn.contains("Limit 1,000 a day"));
        assert!(drawn.contains("100\u{202f}% of the limit"));
    }

    #[test]
    fn what_would_be_blank_is_said_in_a_sentence() {
        for (resource, limit, words) in [
            (ResourceType::LlmTokens, Limit::AtMost(5), "No tokens used in these 3 days."),
            (ResourceType::MemoryStorage, Limit::Unlimited, "Nothing stored in these 3 days."),
            (ResourceType::AgentMinutes, Limit::AtMost(0), "Not in this tier."),
        ] {
            let drawn = chart(resource, &days(&[0, 0, 0]), limit);
            assert!(drawn.contains(words) && !drawn.contains("<svg") && !drawn.contains("<table"), "{drawn}");
        }
        let mut refused = days(&[0, 0, 0]);
        refused[1].refused = 2;
        let drawn = chart(ResourceType::AgentMinutes, &refused, Limit::AtMost(0));
        assert!(drawn.contains("Not in this tier. 2 requests were refused.") && drawn.contains("<table"), "{drawn}");
    }

    #[test]
    fn every_day_has_a_title_and_a_row() {
        for resource in ResourceType::ALL {
            for limit in [Limit::Unlimited, Limit::AtMost(0), Limit::AtMost(5)] {
                for amounts in [vec![1], vec![1; 7], vec![i64::MAX / 200; 90]] {
                    let drawn = chart(resource, &days(&amounts), limit);
                    assert_eq!(drawn.matches("<title>").count(), amounts.len());
                    assert_eq!(drawn.matches("<th scope=\"row\">").count(), amounts.len());
                    assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
                }
            }
        }
    }

    #[test]
    fn days_of_a_reached_limit_are_named_while_they_are_few() {
        let day = |number| Day::from_date(format!("2026-11-{number}").parse().unwrap());
        assert_eq!(reached_on(&[]), "");
        assert_eq!(reached_on(&[day(13)]), " Limit reached on 13 Nov.");
        assert_eq!(reached_on(&[day(13), day(20)]), " Limit reached on 13 Nov and 20 Nov.");
        assert_eq!(reached_on(&[11, 12, 13, 20].map(day)), " Limit reached on 4 days, last on 20 Nov.");
    }
}
