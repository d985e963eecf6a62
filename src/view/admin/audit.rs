//! The page of the record of administrative acts.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::{name_of, user_link};
use crate::domain::audit::Act;
use crate::domain::unit::{UserId, thousands};
use crate::view::layout::{self, Frame, Place};
use crate::view::part::{moment, pager};

/// What can be done, and how people say it.
pub const ACTIONS: [(&str, &str); 7] = [
    ("user.create", "Created a user"),
    ("user.update", "Changed a user"),
    ("user.reset_password", "Reset a password"),
    ("user.erase", "Erased a user"),
    ("token.create", "Created a token"),
    ("token.revoke", "Revoked a token"),
    ("ledger.correct", "Corrected the ledger"),
];

/// What the page shows.
pub struct AuditPage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// What is searched for, as it was typed.
    pub text: &'a str,
    /// The action searched for; empty: any.
    pub action: &'a str,
    /// The acts, newest first.
    pub acts: &'a [Act],
    /// Addresses of other pages.
    pub pages: &'a [(String, &'static str, &'static str)],
}

/// The page.
pub fn audit(page: &AuditPage<'_>) -> Markup {
    let content = html! {
        div.page-head {
            div { h1 { "Audit log" } p { "What was done to users by whoever runs this box. Newest first, times are UTC." } }
            p.actions { a href="/admin" { "Back to admin" } }
        }
        section aria-label="Acts" {
            form.toolbar method="get" action="/admin/audit" role="search" aria-label="Acts" {
                label.vh for="q" { "User, or who did it" }
                input.input id="q" name="q" type="search" placeholder="Email or id" value=(page.text) maxlength="254";
                label.vh for="action" { "What was done" }
                select.input id="action" name="action" {
                    option value="" { "Any action" }
                    @for (value, words) in ACTIONS { option value=(value) selected[value == page.action] { (words) } }
                }
                button.btn type="submit" { "Find" }
            }
            @if page.acts.is_empty() { (nothing(page)) } @else {
                (table(page.acts))
                (pager("Pages of acts", &on_this_page(page.acts.len()), page.pages))
            }
        }
    };
    layout::inside("Audit log", Some(Place::Admin), page.frame, &content)
}

fn on_this_page(count: usize) -> String {
    if count == 1 { "1 entry on this page".to_owned() } else { format!("{count} entries on this page") }
}

fn nothing(page: &AuditPage<'_>) -> Markup {
    html! {
        p.nothing {
            @if page.text.is_empty() && page.action.is_empty() {
                "Nothing is recorded here. Whatever is done to a user, by these pages, by the API or on the command line, is. "
                a href="/admin/users/new" { "Add a user" } " to see how."
            } @else { "No entry matches. Drop a filter, or " a href="/admin/audit" { "show all entries" } "." }
        }
    }
}

fn table(acts: &[Act]) -> Markup {
    html! {
        table.stack role="table" aria-label="Acts, newest first" {
            thead role="rowgroup" { tr role="row" {
                th role="columnheader" scope="col" { "When, UTC" }
                th role="columnheader" scope="col" { "What" }
                th role="columnheader" scope="col" { "User" }
                th role="columnheader" scope="col" { "Done by" }
                th role="columnheader" scope="col" { "Changes" }
            } }
            tbody role="rowgroup" { @for act in acts { tr role="row" {
                th role="rowheader" scope="row" { (moment(act.at)) }
                td.nowrap role="cell" data-label="What" { (words(&act.action)) }
                td.person role="cell" data-label="User" { @if let Some((id, email)) = &act.subject { (subject(act, *id, email.as_deref())) } @else { "nobody" } }
                td.person role="cell" data-label="Done by" {
                    (actor(act))
                    @if let Some(address) = &act.address { span.sub { "from " (address) } }
                }
                td.whole role="cell" data-label="Changes" { (changes(act.before.as_ref(), act.after.as_ref())) }
            } } }
        }
    }
}

/// An erased user has no page any more.
fn subject(act: &Act, id: UserId, email: Option<&str>) -> Markup {
    if act.action == "user.erase" {
        html! { span.name { (name_of(email, id)) } }
    } else {
        user_link(email, id)
    }
}

fn actor(act: &Act) -> Markup {
    match (&act.actor, act.actor_kind) {
        (Some((id, email)), _) => user_link(email.as_deref(), *id),
        (None, "command_line") => html! { "Command line" },
        (None, _) => html! { "Tallybox itself" },
    }
}

fn words(action: &str) -> &str {
    ACTIONS.iter().find(|(value, _)| *value == action).map_or(action, |(_, words)| words)
}

/// A line a field that differs.
fn changes(before: Option<&Value>, after: Option<&Value>) -> Markup {
    let (none, mut fields) = (Map::new(), Vec::new());
    let map = |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned();
    let (before, after) = (map(before), map(after));
    let (was, is) = (before.as_ref().unwrap_or(&none), after.as_ref().unwrap_or(&none));
    for name in was.keys().chain(is.keys()) {
        if !fields.contains(&name) {
            fields.push(name);
        }
    }
    html! {
        @if fields.is_empty() { span.muted { "nothing to compare" } } @else {
            ul.changes { @for name in fields { li {
                span.muted { (field_words(name)) } " "
                @match (was.get(name), is.get(name)) {
                    (Some(was), Some(is)) => { del { (value(was)) } " " span.vh { "became" } span aria-hidden="true" { "→" } " " ins { (value(is)) } }
                    (Some(was), None) => { (value(was)) }
                    (None, is) => { (value(is.unwrap_or(&Value::Null))) }
                }
            } } }
        }
    }
}

fn field_words(name: &str) -> &str {
    match name {
        "entryId" => "entry",
        "resourceType" => "resource",
        "expiresAt" => "expires",
        other => other,
    }
}

/// A value as text: what was typed by somebody is never more than that.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_i64().map_or_else(|| number.to_string(), thousands),
        Value::Array(items) => items.iter().map(self::value).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            map.iter().map(|(name, held)| format!("{name}: {}", self::value(held))).collect::<Vec<_>>().join(", ")
        }
    }
}
