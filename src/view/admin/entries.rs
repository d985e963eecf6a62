//! A user's ledger on the page of an administrator: its entries, and the form to correct it.

use maud::{Markup, html};
use serde_json::Value;

use super::audit::value;
use crate::domain::Fault;
use crate::domain::ledger::{Entry, ResourceType, Source};
use crate::domain::unit::{UserId, thousands};
use crate::view::part::{Field, moment, pager, resource_name, section_head, select, wrong};
use crate::view::words::{amount_words, faults_in_words};

/// A page of the ledger.
pub struct Ledger<'a> {
    /// Newest first.
    pub entries: &'a [Entry],
    /// Of this resource alone.
    pub resource: Option<ResourceType>,
    /// Addresses of other pages.
    pub pages: &'a [(String, &'static str, &'static str)],
}

/// The form to correct the ledger, as it was filled in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Correction<'a> {
    /// A value for this form alone, so that sending it twice books once.
    pub once: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// How much.
    pub amount: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The entry that is taken back.
    pub reverses: &'a str,
}

/// The section of the entries.
pub fn ledger(user: UserId, ledger: &Ledger<'_>) -> Markup {
    let filters = html! {
        nav aria-label="Resource of the entries" { ul.seg {
            li { a href={ "/admin/users/" (user) "#h-ledger" } aria-current=[ledger.resource.is_none().then_some("true")] { "All" } }
            @for resource in ResourceType::ALL {
                li { a href={ "/admin/users/" (user) "?resource=" (resource.as_str()) "#h-ledger" }
                    aria-current=[(ledger.resource == Some(resource)).then_some("true")] { (short_name(resource)) } }
            }
        } }
    };
    html! {
        section.section aria-labelledby="h-ledger" {
            (section_head("h-ledger", "Ledger", &html! { "Newest first, in the order in which entries were written" }, &filters))
            @if ledger.entries.is_empty() {
                p.nothing {
                    @if ledger.resource.is_some() { "No such entry. " a href={ "/admin/users/" (user) "#h-ledger" } { "Show all resources" } "." }
                    @else { "Nothing has been booked for this user. Usage arrives by " code { "POST /usage/record" } " with one of their tokens, by reservations and by stored memories." }
                }
            } @else {
                table.stack role="table" aria-labelledby="h-ledger" {
                    thead role="rowgroup" { tr role="row" {
                        th role="columnheader" scope="col" { "Written, UTC" }
                        th role="columnheader" scope="col" { "Resource" }
                        th.num role="columnheader" scope="col" { "Amount" }
                        th role="columnheader" scope="col" { "Source" }
                        th role="columnheader" scope="col" { "Metadata" }
                        th role="columnheader" scope="col" { span.vh { "Take back" } }
                    } }
                    tbody role="rowgroup" { @for entry in ledger.entries { (row(user, entry)) } }
                }
                @if !ledger.pages.is_empty() { (pager("Pages of entries", "", ledger.pages)) }
            }
        }
    }
}

fn row(user: UserId, entry: &Entry) -> Markup {
    html! {
        tr role="row" {
            th role="rowheader" scope="row" {
                (moment(entry.recorded_at))
                @if entry.timestamp != entry.recorded_at { span.sub { "counts at " (moment(entry.timestamp)) } }
                span.sub.nowrap { code { (entry.id) } }
            }
            td role="cell" data-label="Resource" { (resource_name(entry.resource)) }
            td.num role="cell" data-label="Amount" {
                (thousands(entry.amount))
                @if entry.resource == ResourceType::MemoryStorage { span.sub { (amount_words(entry.resource, entry.amount)) } }
            }
            td role="cell" data-label="Source" {
                (source_words(entry.source))
                @if let Some(count) = entry.closed_entries() { span.sub { "stands for " (thousands(count)) @if count == 1 { " entry" } @else { " entries" } } }
                @if let Some(reversed) = entry.reverses { span.sub { "takes back " code.nowrap { (reversed) } } }
            }
            td.name.whole role="cell" data-label="Metadata" { @match &entry.metadata { Some(metadata) => { (in_words(metadata)) } None => { span.muted { "none" } } } }
            td.num role="cell" { @if may_be_taken_back(entry) {
                a.nowrap href={ "/admin/users/" (user) "?resourceType=" (entry.resource.as_str()) "&amount=" (entry.amount.saturating_neg()) "&reverses=" (entry.id) "#h-correction" } {
                    "Take back" span.vh { " " (amount_words(entry.resource, entry.amount)) ", entry " (entry.id) }
                }
            } }
        }
    }
}

/// Metadata as people read it: the names that the gateway gives are said in words.
fn in_words(metadata: &Value) -> String {
    let Value::Object(fields) = metadata else { return value(metadata) };
    let words: Vec<String> = fields
        .iter()
        .map(|(name, held)| {
            let name = match name.as_str() {
                "promptTokens" => "tokens in",
                "completionTokens" => "tokens out",
                other => other,
            };
            format!("{name} {}", value(held))
        })
        .collect();
    words.join(", ")
}

/// What a correction may name: positive, metered by hand, of a day that is not closed.
fn may_be_taken_back(entry: &Entry) -> bool {
    entry.amount > 0 && entry.resource != ResourceType::MemoryStorage && entry.source != Source::Closing
}

const fn short_name(resource: ResourceType) -> &'static str {
    match resource {
        ResourceType::LlmTokens => "Tokens",
        ResourceType::MemoryStorage => "Storage",
        ResourceType::AgentMinutes => "Minutes",
    }
}

const fn source_words(source: Source) -> &'static str {
    match source {
        Source::Record => "Recorded",
        Source::Settlement => "Settled reservation",
        Source::Memory => "Memory",
        Source::Correction => "Correction",
        Source::Closing => "Closed day",
        Source::Gateway => "Model call",
    }
}

/// What the fields of a correction are called.
const LABELS: [(&str, &str); 5] = [
    ("resourceType", "Resource"),
    ("amount", "Amount"),
    ("reverses", "Entry that is taken back"),
    ("reason", "Reason"),
    ("once", "Form"),
];

/// Whether `faults` are those of a correction.
pub(super) fn are_of_correction(faults: &[Fault]) -> bool {
    faults.iter().any(|fault| LABELS.iter().any(|(name, _)| *name == fault.field))
}

/// The section of the form to correct the ledger.
pub fn correction(user: UserId, form: &Correction<'_>, faults: &[Fault]) -> Markup {
    let resources: Vec<(&str, &str)> = ResourceType::ALL
        .into_iter()
        .filter(|resource| *resource != ResourceType::MemoryStorage)
        .map(|resource| (resource.as_str(), resource_name(resource)))
        .collect();
    let amount_hint = "Positive adds usage. Negative takes back the entry named below, wholly or in part.";
    let line = html! { "A new entry with your reason; what stands in the ledger is never changed" };
    html! {
        section.section aria-labelledby="h-correction" {
            (section_head("h-correction", "Correct the ledger", &line, &html! {}))
            // The form's address ends in this id: an answer that refuses it opens here, any other at its top.
            @if are_of_correction(faults) { div.form-narrow id="correction-refused" { (wrong(&faults_in_words(faults, &LABELS))) } }
            form.form.form-plain.form-narrow method="post" action={ "/admin/users/" (user) "/ledger#correction-refused" } {
                input type="hidden" name="once" value=(form.once);
                (select("resourceType", "Resource", &resources, form.resource, faults))
                (Field { name: "amount", label: "Amount", kind: "text", autocomplete: "off", value: form.amount, hint: amount_hint, is_optional: false }.render(faults))
                (Field { name: "reverses", label: "Entry that is taken back", kind: "text", autocomplete: "off", value: form.reverses, hint: "Its id, for a negative amount", is_optional: true }.render(faults))
                (Field { name: "reason", label: "Reason", kind: "text", autocomplete: "off", value: form.reason, hint: "Stands in the entry and in the audit log", is_optional: false }.render(faults))
                p.actions { button.btn type="submit" { "Book the correction" } }
            }
        }
    }
}
