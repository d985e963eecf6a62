//! The pages of whoever runs the box: the whole at a glance. What belongs to one user stands in `user.rs`, the record of
//! administrative acts in `audit.rs`.

pub mod audit;
pub mod entries;
mod upstreams;
pub mod user;

use maud::{Markup, html};

use super::layout::{self, Frame, Place};
use super::part::{
    done, icon, is_not_in_tier, limit, moment, pager, percent_of, resource_name, section_head, short_amount, span,
    state_marks, state_of, stick_mini, window_name,
};
use super::words::{amount_words, size};
use crate::domain::auth::{Role, User};
use crate::domain::ledger::ResourceType;
use crate::domain::overview::{RefusalCount, Sizes, UpstreamFigures, UserTotal};
use crate::domain::quota::{Limit, Standing, State, Tiers};
use crate::domain::unit::{Timestamp, UserId, thousands};

/// Most users that are named for a resource.
const TOP_USERS: usize = 5;
/// Most rows of recent refusals.
const REFUSALS: usize = 20;

/// The figures at the top of the page.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Users: all, enabled, administrators.
    pub users: (i64, i64, i64),
    /// Tokens of today and of the day before.
    pub tokens: (i64, i64),
    /// Bytes of memories held.
    pub memory_bytes: i64,
    /// Agent minutes of this month.
    pub minutes: i64,
    /// Refused writes of 24 hours, and of how many users.
    pub refusals: (i64, i64),
}

/// What the program is, for the section about it.
#[derive(Clone, Copy, Debug)]
pub struct System<'a> {
    /// Its version.
    pub version: &'a str,
    /// When it was started.
    pub started_at: Timestamp,
    /// The number of the schema.
    pub schema: i64,
    /// What the database holds.
    pub sizes: Sizes,
    /// Bytes of the write-ahead log.
    pub log_bytes: u64,
    /// The tiers of the configuration.
    pub tiers: &'a Tiers,
}

/// What the search form holds, as it was typed.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Part of an address or id.
    pub text: String,
    /// A tier; empty: any.
    pub tier: String,
    /// A role; empty: any.
    pub role: String,
    /// `true`, `false` or empty.
    pub disabled: String,
}

impl Search {
    fn is_empty(&self) -> bool {
        [&self.text, &self.tier, &self.role, &self.disabled].iter().all(|field| field.is_empty())
    }
}

/// What the page shows.
pub struct AdminPage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// What was just done, told at the top.
    pub done: Option<&'a str>,
    /// The figures at the top.
    pub totals: Totals,
    /// What is searched for.
    pub search: &'a Search,
    /// The users found, each with how its resources stand.
    pub users: &'a [(User, Vec<Standing>)],
    /// Addresses of other pages of users.
    pub pages: &'a [(String, &'static str, &'static str)],
    /// Who used most of each resource.
    pub top_users: &'a [UserTotal],
    /// Refused writes, newest hour first.
    pub refusals: &'a [RefusalCount],
    /// How the upstreams of the gateway do.
    pub upstreams: &'a [UpstreamFigures],
    /// Days that the last three look back.
    pub days: i32,
    /// About the program.
    pub system: System<'a>,
}

/// The page.
pub fn overview(page: &AdminPage<'_>) -> Markup {
    let content = html! {
        div.page-head {
            div { h1 { "Admin" } p { "Every user of this Tallybox, and the box itself." } }
            p.actions {
                a href="/admin/audit" { "Audit log" }
                a.btn.btn-primary href="/admin/users/new" { "Add a user" }
            }
        }
        @if let Some(text) = page.done { (done(text)) }
        (totals(&page.totals, page.system.sizes.memories))
        (users(page))
        (top_users(page))
        (upstreams::section(page.upstreams, page.days))
        div.split { (refusals(page)) (system(&page.system, page.frame.now)) }
    };
    layout::inside("Admin", Some(Place::Admin), page.frame, &content)
}

fn totals(totals: &Totals, memories: i64) -> Markup {
    let (users, enabled, admins) = totals.users;
    let (refusals, refused) = totals.refusals;
    html! {
        dl.totals {
            div { dt { "Users" } dd { (thousands(users)) span { (thousands(enabled)) " enabled, " (counted(admins, "admin", "admins")) } } }
            div { dt { "Tokens today" } dd { (figure(totals.tokens.0)) span { (thousands(totals.tokens.1)) " yesterday" } } }
            div { dt { "Memories" } dd { (thousands(memories)) span { (size(totals.memory_bytes)) " stored" } } }
            div { dt { "Agent minutes" } dd { (figure(totals.minutes)) span { "this month" } } }
            div { dt { "Refusals" } dd { (thousands(refusals)) span { "in 24 h, of " (counted(refused, "user", "users")) } } }
        }
    }
}

/// A large figure; smaller where it is long.
fn figure(amount: i64) -> Markup {
    const ROOM: usize = 11;
    let text = thousands(amount);
    if text.len() <= ROOM {
        html! { (text) }
    } else {
        html! { b.long { (text) } }
    }
}

/// A number with its noun.
fn counted(number: i64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(number), if number == 1 { one } else { many })
}

/// What a user is called: the e-mail address, which may break at its `@`, else the id.
fn name_of(email: Option<&str>, id: UserId) -> Markup {
    match (email, email.and_then(|email| email.rsplit_once('@'))) {
        (_, Some((local, host))) => html! { (local) "@" wbr; (host) },
        (Some(email), None) => html! { (email) },
        (None, None) => html! { (id) },
    }
}

/// The way to a user's page.
fn user_link(email: Option<&str>, id: UserId) -> Markup {
    html! { a.name href={ "/admin/users/" (id) } { (name_of(email, id)) } }
}

fn users(page: &AdminPage<'_>) -> Markup {
    html! {
        section.section aria-labelledby="h-users" {
            div.section-head { h2 id="h-users" { "Users" } (search_form(page.search, page.system.tiers)) }
            @if page.users.is_empty() { (nobody(page.search)) } @else {
                (users_table(page.users))
                (pager("Pages of users", &format!("{} on this page, newest first", counted(len(page.users), "user", "users")), page.pages))
            }
        }
    }
}

fn len<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

fn search_form(search: &Search, tiers: &Tiers) -> Markup {
    let choice = |name: &str, label: &str, any: &str, options: &[(&str, &str)], chosen: &str| {
        html! {
            label.vh for=(name) { (label) }
            select.input id=(name) name=(name) {
                option value="" { (any) }
                @for (value, words) in options { option value=(value) selected[*value == chosen] { (words) } }
            }
        }
    };
    let tiers: Vec<(&str, &str)> = tiers.0.keys().map(|tier| (tier.as_str(), tier.as_str())).collect();
    html! {
        form.toolbar method="get" action="/admin" role="search" aria-label="Users" {
            label.vh for="q" { "Find a user" }
            input.input id="q" name="q" type="search" placeholder="Email or id" value=(search.text) maxlength="254";
            (choice("tier", "Tier", "Any tier", &tiers, &search.tier))
            (choice("role", "Role", "Any role", &[("user", "Users"), ("admin", "Admins")], &search.role))
            (choice("disabled", "State", "Any state", &[("false", "Enabled"), ("true", "Disabled")], &search.disabled))
            button.btn type="submit" { "Find" }
        }
    }
}

fn nobody(search: &Search) -> Markup {
    html! {
        p.nothing {
            @if search.is_empty() { "There are no more users. " a href="/admin" { "Begin at the newest" } " or " a href="/admin/users/new" { "add one" } "." }
            @else { "No user matches. Try less of the address, drop a filter, or " a href="/admin" { "show all users" } "." }
        }
    }
}

fn users_table(users: &[(User, Vec<Standing>)]) -> Markup {
    html! {
        table.stack.stack-wide role="table" aria-labelledby="h-users" {
            thead role="rowgroup" { tr role="row" {
                th role="columnheader" scope="col" { "User" }
                th role="columnheader" scope="col" { "Tier" }
                @for resource in ResourceType::ALL { th role="columnheader" scope="col" { (column_name(resource)) } }
            } }
            tbody role="rowgroup" { @for (user, standings) in users { tr role="row" {
                th role="rowheader" scope="row" {
                    (user_link(user.email.as_deref(), user.id))
                    @if let Some(words) = standing_out(user) { span.sub { (words) } }
                }
                td role="cell" data-label="Tier" { (user.tier) }
                @for standing in standings {
                    td role="cell" data-label=(column_name(standing.resource)) { (meter_cell(standing, user.email.as_deref())) }
                }
            } } }
        }
    }
}

/// What sets a user apart from a plain one that may log in.
fn standing_out(user: &User) -> Option<&'static str> {
    match (user.role, user.is_enabled()) {
        (Role::User, true) => None,
        (Role::Admin, true) => Some("Administrator"),
        (Role::User, false) => Some("Disabled"),
        (Role::Admin, false) => Some("Administrator, disabled"),
    }
}

const fn column_name(resource: ResourceType) -> &'static str {
    match resource {
        ResourceType::LlmTokens => "Tokens today",
        ResourceType::MemoryStorage => "Storage",
        ResourceType::AgentMinutes => "Minutes this month",
    }
}

fn meter_cell(standing: &Standing, whose: Option<&str>) -> Markup {
    let state = state_of(standing);
    let (class, drawing) = state_marks(state);
    let used = short_amount(standing.resource, standing.usage.used);
    let Limit::AtMost(_) = standing.limit else {
        return html! { (used) span.sub { "no limit" } };
    };
    if is_not_in_tier(standing.limit) && standing.usage.used == 0 {
        return html! { (used) span.sub { "not in tier" } };
    }
    let label = format!("{} of {}", column_name(standing.resource), whose.unwrap_or("this user"));
    html! {
        div.meter-cell {
            (stick_mini(standing, &label))
            span class={ "pct " (class) } {
                (percent_of(standing).unwrap_or_default())
                @match state {
                    State::Ok => {}
                    State::Warn => { (icon(drawing)) span.vh { "near the limit" } }
                    State::Stop => { (icon(drawing)) span.vh { "limit reached" } }
                }
            }
            span.sub { (used) @if is_not_in_tier(standing.limit) { ", " } @else { " of " } (limit(standing.resource, standing.limit)) }
        }
    }
}

fn top_users(page: &AdminPage<'_>) -> Markup {
    let of = |resource| page.top_users.iter().filter(move |total| total.resource == resource).take(TOP_USERS);
    html! {
        section.section aria-labelledby="h-top" {
            (section_head("h-top", "Top users", &html! { "Last " (page.days) " days. Storage: bytes added." }, &html! {}))
            @if page.top_users.is_empty() {
                p.nothing { "No usage in the last " (page.days) " days. Usage arrives by " code { "POST /usage/record" } ", by reservations and by stored memories." }
            } @else {
                div.thirds { @for resource in ResourceType::ALL { div {
                    @let id = format!("h-top-{}", resource.as_str());
                    h3 id=(id) { (resource_name(resource)) }
                    @if of(resource).next().is_none() { p.nothing { "None." } } @else {
                        table aria-labelledby=(id) {
                            thead.vh { tr { th scope="col" { "User" } th.num scope="col" { "Used" } } }
                            tbody { @for total in of(resource) { tr {
                                th scope="row" { (user_link(total.email.as_deref(), total.user)) span.sub { (total.tier) } }
                                td.num { (short_amount(resource, total.amount)) }
                            } } }
                        }
                    }
                } } }
            }
        }
    }
}

fn refusals(page: &AdminPage<'_>) -> Markup {
    let line = html! { "Writes answered with 429 in the last " (page.days) " days, newest hour first" };
    html! {
        section.section aria-labelledby="h-refusals" {
            (section_head("h-refusals", "Recent refusals", &line, &html! {}))
            @if page.refusals.is_empty() {
                p.nothing { "Nothing was refused in these days. Users stopped by a limit appear here within a minute." }
            } @else {
                table.stack.stack-tight role="table" aria-labelledby="h-refusals" {
                    thead role="rowgroup" { tr role="row" {
                        th role="columnheader" scope="col" { "Hour, UTC" }
                        th role="columnheader" scope="col" { "User" }
                        th role="columnheader" scope="col" { "Resource" }
                        th.num role="columnheader" scope="col" { "Times" }
                    } }
                    tbody role="rowgroup" { @for refusal in page.refusals.iter().take(REFUSALS) { tr role="row" {
                        th role="rowheader" scope="row" { (moment(refusal.hour)) }
                        td.person.whole role="cell" data-label="User" { (user_link(refusal.email.as_deref(), refusal.user)) }
                        td.nowrap.end role="cell" data-label="Resource" { (resource_name(refusal.resource)) }
                        td.num.figure-first role="cell" data-label="Times" data-unit=(if refusal.count == 1 { " time" } else { " times" }) { (thousands(refusal.count)) }
                    } } }
                }
                @if page.refusals.len() > REFUSALS { p.pager { "The newest " (REFUSALS) " rows; the rest by " code { "GET /api/admin/overview" } } }
            }
        }
    }
}

fn system(system: &System<'_>, now: Timestamp) -> Markup {
    html! {
        section.section aria-labelledby="h-system" {
            (section_head("h-system", "System", &html! { "This instance" }, &html! {}))
            dl.facts {
                div { dt { "Version" } dd { (system.version) span.sub { "Schema " (system.schema) } } }
                div { dt { "Uptime" } dd { (span(system.started_at, now)) span.sub { "Since " (moment(system.started_at)) " UTC" } } }
                div { dt { "Database" } dd { (size(system.sizes.database_bytes)) } }
                div { dt { "WAL" } dd { (size(i64::try_from(system.log_bytes).unwrap_or(i64::MAX))) } }
                div { dt { "Ledger" } dd { (counted(system.sizes.ledger_entries, "entry", "entries")) } }
                div { dt { "Memories" } dd { (thousands(system.sizes.memories)) } }
                div { dt { "Tiers" } dd { @for (name, limits) in &system.tiers.0 { p {
                    (name)
                    span.sub { @for (position, resource) in ResourceType::ALL.into_iter().enumerate() {
                        @if position > 0 { ", " }
                        (limit_words(resource, limits.of(resource)))
                    } }
                } } } }
            }
        }
    }
}

/// A limit with what it is a limit of.
fn limit_words(resource: ResourceType, limit: Limit) -> String {
    match limit {
        Limit::Unlimited => {
            format!("{} without limit", resource_name(resource).to_lowercase().replacen("llm", "LLM", 1))
        }
        Limit::AtMost(0) => format!("no {}", resource_name(resource).to_lowercase().replacen("llm", "LLM", 1)),
        Limit::AtMost(amount) => format!("{} {}", amount_words(resource, amount), window_words(resource)),
    }
}

fn window_words(resource: ResourceType) -> &'static str {
    match window_name(resource) {
        "today" => "a day",
        "this month" => "a month",
        _ => "held",
    }
}
