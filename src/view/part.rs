//! The parts that pages are made of: notices, meters, tables' pagers, fields of forms.

use maud::{Markup, html};

use super::words::{amount_words, on_pages, size, unbroken};
use crate::domain::Fault;
use crate::domain::calendar::{Calendar, Day};
use crate::domain::ledger::{ResourceType, Window};
use crate::domain::memory::MemoryTier;
use crate::domain::quota::{Limit, Standing, State};
use crate::domain::unit::{Timestamp, thousands};

/// Height of a meter, in pixels.
const STICK_HEIGHT: u32 = 18;
/// Height of a meter within a table, in pixels.
const STICK_MINI_HEIGHT: u32 = 10;
/// What stands between a figure and its `%`: a narrow space that does not break.
const THIN: char = '\u{202f}';

/// A drawing of the sprite, for the eye alone.
pub fn icon(name: &str) -> Markup {
    html! { svg.icon aria-hidden="true" focusable="false" { use href=(format!("#{name}")) {} } }
}

/// An instant, as `14:32 UTC, Mon 24 Nov 2025`.
pub fn instant(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.to_utc().format("%H:%M UTC, %a %-d %b %Y")) } }
}

/// An instant in a list whose head says UTC, as `24 Nov 2025, 14:32`.
pub fn moment(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.to_utc().format("%-d %b %Y, %H:%M")) } }
}

/// The day of an instant by UTC, as `24 Nov 2025`.
pub fn day(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.to_utc().format("%-d %b %Y")) } }
}

/// An instant in a list whose head names the zone of `calendar`, as `24 Nov 2025, 14:32`.
pub fn local_moment(calendar: Calendar, at: Timestamp) -> Markup {
    html! { time datetime=(at) { (calendar.local(at).format("%-d %b %Y, %H:%M")) } }
}

/// How long it is from `now` to `until`, in its two largest units, as `6 d 9 h`.
pub fn span(now: Timestamp, until: Timestamp) -> String {
    let minutes = now.seconds_until(until).div_ceil(60);
    match (minutes / 1_440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// A time of milliseconds as people read it: `<1 ms`, `840 ms`, `2.3 s`, `41 s`, `3 min 20 s`.
pub fn millis(millis: u64) -> String {
    let tenths = millis.saturating_add(50) / 100;
    let seconds = millis.saturating_add(500) / 1_000;
    match millis {
        0 => "<1 ms".to_owned(),
        1..1_000 => format!("{millis} ms"),
        1_000..9_950 => format!("{}.{} s", tenths / 10, tenths % 10),
        9_950..59_500 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// A day, as `24 Nov`.
pub fn short_day(day: Day) -> String {
    day.to_date().format("%-d %b").to_string()
}

/// A resource's name at the head of a sentence.
pub const fn resource_name(resource: ResourceType) -> &'static str {
    match resource {
        ResourceType::LlmTokens => "LLM tokens",
        ResourceType::MemoryStorage => "Memory storage",
        ResourceType::AgentMinutes => "Agent minutes",
    }
}

/// The verb that goes with [`resource_name`].
pub const fn is_or_are(resource: ResourceType) -> &'static str {
    match resource {
        ResourceType::LlmTokens | ResourceType::AgentMinutes => "are",
        ResourceType::MemoryStorage => "is",
    }
}

/// When a resource's window is, beside its name.
pub const fn window_name(resource: ResourceType) -> &'static str {
    match resource.window() {
        Window::Day => "today",
        Window::Month => "this month",
        Window::Level => "now",
    }
}

/// An amount in the shortest form that a reader takes in at a glance: figures without a unit, sizes with theirs.
pub fn short_amount(resource: ResourceType, amount: i64) -> String {
    match resource {
        ResourceType::MemoryStorage => size(amount),
        ResourceType::LlmTokens | ResourceType::AgentMinutes => thousands(amount),
    }
}

/// A limit in words.
pub fn limit(resource: ResourceType, limit: Limit) -> String {
    match limit {
        Limit::Unlimited => "no limit".to_owned(),
        Limit::AtMost(0) => "not in tier".to_owned(),
        Limit::AtMost(limit) => short_amount(resource, limit),
    }
}

/// Class and drawing of a state.
pub const fn state_marks(state: State) -> (&'static str, &'static str) {
    match state {
        State::Ok => ("is-ok", "i-ok"),
        State::Warn => ("is-warn", "i-warn"),
        State::Stop => ("is-stop", "i-stop"),
    }
}

/// The state of a standing.
pub fn state_of(standing: &Standing) -> State {
    State::of(standing.usage.used, standing.limit)
}

/// Whether the tier has nothing of a resource: a limit of 0, of which nothing can be near or reached.
pub fn is_not_in_tier(limit: Limit) -> bool {
    limit == Limit::AtMost(0)
}

/// `used` of `limit` in whole percent, rounded down, as `85 %`; `<1 %` where something, but less than that, is used.
pub fn percent(used: i64, limit: i64) -> String {
    let (used, limit) = (i128::from(used.max(0)), i128::from(limit.max(0)));
    match used.saturating_mul(100).checked_div(limit) {
        None => format!("{}{THIN}%", if used > 0 { 100 } else { 0 }),
        Some(0) if used > 0 => format!("<1{THIN}%"),
        Some(percent) => format!("{percent}{THIN}%"),
    }
}

/// A share of `percent` that some `part` makes, as `34 %`; `<1 %` where that is 0 and the part is not.
pub fn share_words(part: i64, percent: i64) -> String {
    if percent == 0 && part > 0 { format!("<1{THIN}%") } else { format!("{percent}{THIN}%") }
}

/// [`percent`] of a standing; a resource without limit has none.
pub fn percent_of(standing: &Standing) -> Option<String> {
    match standing.limit {
        Limit::Unlimited => None,
        Limit::AtMost(limit) => Some(percent(standing.usage.used, limit)),
    }
}

/// A share of a whole as a coordinate, with three decimals, at most `100%`.
pub fn share(part: i64, whole: i64) -> String {
    let (part, whole) = (i128::from(part.max(0)), i128::from(whole.max(0)));
    let thousandths =
        if part >= whole { 100_000 } else { part.saturating_mul(100_000).checked_div(whole).unwrap_or(0) };
    let (units, rest) = (thousandths / 1_000, thousandths % 1_000);
    if rest == 0 { format!("{units}%") } else { format!("{units}.{rest:03}%") }
}

/// The bar of a standing: what is used, what is held after it (hatched), a cut at 80 % where amber begins. Without a limit
/// there is none.
pub fn stick(standing: &Standing, label: &str) -> Markup {
    bar(standing, label, STICK_HEIGHT)
}

/// [`stick`], for a table.
pub fn stick_mini(standing: &Standing, label: &str) -> Markup {
    bar(standing, label, STICK_MINI_HEIGHT)
}

fn bar(standing: &Standing, label: &str, height: u32) -> Markup {
    let Limit::AtMost(limit) = standing.limit else { return html! {} };
    let (resource, usage) = (standing.resource, standing.usage);
    let state = state_of(standing);
    let (class, _) = state_marks(state);
    let is_mini = height == STICK_MINI_HEIGHT;
    // A limit of nothing has no bar that could be filled, unless something is used all the same.
    if limit == 0 && usage.used == 0 {
        return html! {};
    }
    let whole = if limit == 0 { usage.used } else { limit };
    let (used, taken) = (share(usage.used, whole), share(usage.used.saturating_add(usage.reserved), whole));
    let held = share(usage.reserved.min(whole.saturating_sub(usage.used)), whole);
    let held_words = if usage.reserved > 0 {
        format!(", and {} reserved", amount_words(resource, usage.reserved))
    } else {
        String::new()
    };
    let words = format!(
        "{} of {} used, {}{held_words}",
        short_amount(resource, usage.used),
        amount_words(resource, limit),
        percent(usage.used, limit),
    );
    html! {
        div class={ "stick " (if is_mini { "stick-mini " } else { "" }) (class) } role="meter" aria-label=(label)
            aria-valuemin="0" aria-valuemax=(limit) aria-valuenow=(usage.used.clamp(0, limit)) aria-valuetext=(words)
        {
            svg width="100%" height=(height) aria-hidden="true" focusable="false" {
                rect.stick-fill width=(used) height=(height) {}
                @if usage.reserved > 0 && usage.used < whole {
                    rect x=(used) width=(held) height=(height) fill="url(#hatch)" {}
                    line.stick-level x1=(taken) x2=(taken) y1="0" y2=(height) {}
                }
                @if usage.used > 0 && state != State::Stop { line.stick-level x1=(used) x2=(used) y1="0" y2=(height) {} }
                @if state == State::Stop { svg x="100%" overflow="visible" { rect.stick-over x="-5" width="5" height=(height) {} } }
                @if !is_mini { @for notch in ["20%", "40%", "60%"] { rect.stick-cut x=(notch) y="-1" width="2" height="6" {} } }
                rect.stick-cut x="80%" y="-1" width=(if is_mini { 2 } else { 3 }) height=(height + 2) {}
            }
        }
    }
}

/// A notice in the colour of `class` (`is-ok`, `is-warn`, `is-stop`, `is-info`), with a link at its end.
pub fn notice(class: &str, lead: &str, text: &Markup, link: Option<(&str, &str)>) -> Markup {
    html! {
        div class={ "notice " (class) } {
            (icon(&class.replacen("is-", "i-", 1)))
            p { strong { (lead) } " " (text) }
            @if let Some((href, words)) = link { p.go { a href=(href) { (words) } } }
        }
    }
}

/// What an act has led to, told on the page that answers it.
pub fn done(text: &str) -> Markup {
    html! { div.notices role="status" { div.notice.is-ok { (icon("i-ok")) p { (text) } } } }
}

/// What was wrong with a form, told above it.
pub fn wrong(text: &str) -> Markup {
    html! { div.notices role="alert" { (notice("is-stop", "That did not work.", &html! { (text) }, None)) } }
}

/// The head of a section: a heading with `id`, a grey line under it, what stands at its right.
pub fn section_head(id: &str, heading: &str, line: &Markup, right: &Markup) -> Markup {
    html! { div.section-head { div { h2 id=(id) { (heading) } p { (line) } } (right) } }
}

/// The chip of a memory tier: 1, 3 or 5 strokes and its name.
pub fn tier_chip(tier: MemoryTier) -> Markup {
    html! { span.chip.chip-tier { (icon(tier_strokes(tier))) (tier.as_str()) } }
}

/// The drawing of a memory tier.
pub const fn tier_strokes(tier: MemoryTier) -> &'static str {
    match tier {
        MemoryTier::Short => "t-1",
        MemoryTier::Intermediate => "t-3",
        MemoryTier::Long => "t-5",
    }
}

/// What stands in the place of a list that is empty: why, what to do next, and `command` to copy.
pub fn empty(heading: &str, text: &Markup, command: Option<&str>, next: &Markup) -> Markup {
    html! {
        section.empty aria-labelledby="h-empty" {
            svg.empty-art viewBox="0 0 112 72" aria-hidden="true" focusable="false" {
                path.inked d="M16 8v56" {}
                path.ghost d="M38 8v56M60 8v56M82 8v56M4 54 108 18" {}
            }
            div { h2 id="h-empty" { (heading) } p.lead { (text) } }
            @if let Some(command) = command { (copy("Run in a terminal", command)) }
            p.actions { (next) }
        }
    }
}

/// Text to copy: one click selects all of it, with or without a script.
pub fn copy(caption: &str, text: &str) -> Markup {
    html! {
        figure.copy {
            figcaption { b { (caption) } span { "One click selects all of it" } }
            pre tabindex="0" role="region" aria-label=(caption) { (text) }
        }
    }
}

/// [`copy`] of a path of this server. The script makes a whole address of it, by the one that the browser has gone to.
pub fn copy_path(caption: &str, path: &str) -> Markup {
    html! {
        figure.copy data-path="" {
            figcaption { b { (caption) } span { "One click selects all of it" } }
            pre tabindex="0" role="region" aria-label=(caption) { (path) }
        }
    }
}

/// The pages of a list: `line` says which part is shown, `links` lead to others (address, words, `rel`).
pub fn pager(name: &str, line: &str, links: &[(String, &str, &str)]) -> Markup {
    html! {
        nav.pager aria-label=(name) {
            span { (line) }
            span.actions { @for (href, words, rel) in links { a href=(href) rel=(rel) { (words) } } }
        }
    }
}

/// A text field of a form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field<'a> {
    /// Name and id.
    pub name: &'a str,
    /// What stands above it.
    pub label: &'a str,
    /// The input's `type`.
    pub kind: &'a str,
    /// The input's `autocomplete`.
    pub autocomplete: &'a str,
    /// What it holds.
    pub value: &'a str,
    /// What stands below it.
    pub hint: &'a str,
    /// Whether it may stay empty.
    pub is_optional: bool,
}

impl Field<'_> {
    /// The field, with what was wrong with it the last time where `faults` name it.
    pub fn render(&self, faults: &[Fault]) -> Markup {
        let fault = faults.iter().find(|fault| fault.field == self.name);
        let described_by = described_by(self.name, !self.hint.is_empty(), fault.is_some());
        html! {
            div.field {
                label for=(self.name) { (self.label) }
                input.input id=(self.name) name=(self.name) type=(self.kind) autocomplete=(self.autocomplete) value=(self.value)
                    required[!self.is_optional] aria-invalid=[fault.map(|_| "true")] aria-describedby=[described_by];
                @if !self.hint.is_empty() { p.hint id={ (self.name) "-hint" } { (self.hint) } }
                (field_error(self.name, faults))
            }
        }
    }
}

/// The ids that describe the field `name`, for `aria-describedby`.
pub fn described_by(name: &str, has_hint: bool, has_fault: bool) -> Option<String> {
    match (has_hint, has_fault) {
        (false, false) => None,
        (true, false) => Some(format!("{name}-hint")),
        (false, true) => Some(format!("{name}-fault")),
        (true, true) => Some(format!("{name}-hint {name}-fault")),
    }
}

/// What was wrong with the field `name`, where `faults` name it.
pub fn field_error(name: &str, faults: &[Fault]) -> Markup {
    html! {
        @if let Some(fault) = faults.iter().find(|fault| fault.field == name) {
            p.field-error id={ (name) "-fault" } { (icon("i-stop")) span { (unbroken(&on_pages(&fault.message))) } }
        }
    }
}

/// A choice among `options` (value, words), `chosen` one of the values.
pub fn select(name: &str, label: &str, options: &[(&str, &str)], chosen: &str, faults: &[Fault]) -> Markup {
    let has_fault = faults.iter().any(|fault| fault.field == name);
    html! {
        div.field {
            label for=(name) { (label) }
            select.input id=(name) name=(name) aria-describedby=[described_by(name, false, has_fault)] {
                @for (value, words) in options { option value=(value) selected[*value == chosen] { (words) } }
            }
            (field_error(name, faults))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_rounded_down_and_never_hides_that_something_is_used() {
        assert_eq!(percent(0, 10), "0\u{202f}%");
        assert_eq!(percent(1, 1_000), "<1\u{202f}%");
        assert_eq!(percent(799, 1_000), "79\u{202f}%");
        assert_eq!(percent(1_129, 1_000), "112\u{202f}%");
        assert_eq!(percent(0, 0), "0\u{202f}%");
        assert_eq!(percent(1, 0), "100\u{202f}%");
        assert_eq!(percent(i64::MAX, i64::MAX), "100\u{202f}%");
    }

    #[test]
    fn a_time_is_told_with_two_figures_or_so() {
        let known = [
            (0, "<1 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (2_349, "2.3 s"),
            (9_949, "9.9 s"),
            (9_950, "10 s"),
            (59_499, "59 s"),
            (59_500, "1 min 0 s"),
            (200_000, "3 min 20 s"),
        ];
        for (time, words) in known {
            assert_eq!(millis(time), words);
        }
    }

    #[test]
    fn share_stays_within_the_bar() {
        assert_eq!(share(1, 3), "33.333%");
        assert_eq!(share(5, 4), "100%");
        assert_eq!(share(0, 0), "100%");
        assert_eq!(share(-1, 4), "0%");
        assert_eq!(share(1, 2), "50%");
    }

    #[test]
    fn span_names_the_two_largest_units() {
        let now = Timestamp(0);
        assert_eq!(span(now, Timestamp(30_000)), "1 min");
        assert_eq!(span(now, Timestamp(3_600_000 * 9 + 28 * 60_000)), "9 h 28 min");
        assert_eq!(span(now, Timestamp(86_400_000 * 6 + 3_600_000 * 9)), "6 d 9 h");
    }
}
