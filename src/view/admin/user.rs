//! The pages of one user: made, shown, changed, erased.

use maud::{Markup, html};

use super::entries::{self, Correction, Ledger};
use super::name_of;
use crate::domain::Fault;
use crate::domain::auth::{ApiToken, Role, User};
use crate::domain::quota::{Standing, Tiers};
use crate::domain::unit::UserId;
use crate::view::agent::Runs;
use crate::view::layout::{self, Frame, Place};
use crate::view::part::{Field, copy, copy_path, day, done, icon, moment, pager, section_head, select, wrong};
use crate::view::usage::gauge;
use crate::view::words::faults_in_words;

const ROLES: [(&str, &str); 2] = [("user", "User"), ("admin", "Administrator")];

fn tier_options(tiers: &Tiers) -> Vec<(&str, &str)> {
    tiers.0.keys().map(|tier| (tier.as_str(), tier.as_str())).collect()
}

/// What the fields of these pages are called.
const LABELS: [(&str, &str); 7] = [
    ("email", "Email"),
    ("role", "Role"),
    ("tier", "Tier"),
    ("password", "Password"),
    ("newPassword", "Password"),
    ("disabled", "State"),
    ("confirm", "What was typed"),
];

/// What was wrong, told above a form: every fault, since one may be of no field that is shown.
fn told(faults: &[Fault]) -> Markup {
    html! { @if !faults.is_empty() { (wrong(&faults_in_words(faults, &LABELS))) } }
}

/// The form to add a user.
pub struct NewUserPage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// The tiers of the configuration.
    pub tiers: &'a Tiers,
    /// The address as it was typed.
    pub email: &'a str,
    /// The role as it was chosen.
    pub role: &'a str,
    /// The tier as it was chosen.
    pub tier: &'a str,
    /// What was wrong the last time.
    pub faults: &'a [Fault],
}

/// The page with the form to add a user.
pub fn new_user(page: &NewUserPage<'_>) -> Markup {
    let content = html! {
        div.page-head { div { h1 { "Add a user" } p { "With a password of your choosing, or a link by which they choose one." } } }
        (told(page.faults))
        form.form.form-narrow method="post" action="/admin/users" {
            (Field { name: "email", label: "Email", kind: "email", autocomplete: "off", value: page.email, ..Field::default() }.render(page.faults))
            (select("role", "Role", &ROLES, page.role, page.faults))
            (select("tier", "Tier", &tier_options(page.tiers), page.tier, page.faults))
            (password_field("password", page.faults))
            p.actions { button.btn.btn-primary type="submit" { "Add the user" } a href="/admin" { "Cancel" } }
        }
    };
    layout::inside("Add a user", Some(Place::Admin), page.frame, &content)
}

fn password_field(name: &str, faults: &[Fault]) -> Markup {
    let hint = "10 to 256 characters. Leave it empty for a one-time link instead.";
    let label = "Password, if you choose it";
    Field { name, label, kind: "password", autocomplete: "new-password", hint, is_optional: true, ..Field::default() }
        .render(faults)
}

/// What a link that is shown once is called.
const LINK: &str = "One-time link to choose a password";

/// A link that is shown once.
pub struct LinkPage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// For whom.
    pub user: &'a User,
    /// Where it leads: whole, or the path of it.
    pub address: &'a str,
    /// What was done.
    pub done: &'a str,
}

/// The page that shows a link.
pub fn link(page: &LinkPage<'_>) -> Markup {
    let content = html! {
        div.page-head { div { h1 { "A link for " span.name { (name_of(page.user.email.as_deref(), page.user.id)) } } p { "It is shown this once, works once, and for 24 hours." } } }
        (done(page.done))
        @let is_whole = !page.address.starts_with('/');
        @if is_whole { (copy(LINK, page.address)) } @else { (copy_path(LINK, page.address)) }
        p.note {
            "Send it to them by a way that you trust: whoever opens it first chooses the password."
            @if !is_whole {
                // The script that makes the link whole puts other words here.
                " " span data-path-note="" { "This is the path of the link. Put this server's address before it, such as " code { "https://tallybox.example.com" } "." }
                " With " code { "server.public_url" } " in the configuration it comes whole."
            }
        }
        p.actions { a.btn href={ "/admin/users/" (page.user.id) } { "Go to the user" } a href="/admin" { "Back to admin" } }
    };
    layout::inside("A link to choose a password", Some(Place::Admin), page.frame, &content)
}

/// The tokens of a user, a page of them.
pub struct Tokens<'a> {
    /// Newest first.
    pub items: &'a [ApiToken],
    /// Addresses of other pages.
    pub pages: &'a [(String, &'static str, &'static str)],
}

/// What the page of a user shows.
pub struct UserPage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// Whose page it is.
    pub user: &'a User,
    /// Whether it is the page of who looks.
    pub is_own: bool,
    /// The tiers of the configuration.
    pub tiers: &'a Tiers,
    /// How each resource stands.
    pub standings: &'a [Standing],
    /// The agent runs.
    pub runs: Runs<'a>,
    /// The API tokens.
    pub tokens: Tokens<'a>,
    /// The ledger's entries.
    pub ledger: Ledger<'a>,
    /// The form to correct the ledger.
    pub correction: Correction<'a>,
    /// The e-mail address as it was typed, else as it is.
    pub email: &'a str,
    /// What was just done.
    pub done: Option<&'a str>,
    /// What was wrong with the last form.
    pub faults: &'a [Fault],
}

/// The page of a user.
pub fn user(page: &UserPage<'_>) -> Markup {
    let user = page.user;
    let content = html! {
        div.page-head {
            div {
                h1.name { (name_of(user.email.as_deref(), user.id)) }
                p { @if user.role == Role::Admin { "Administrator. " } "Tier " (user.tier) ". Added " (day(user.created_at)) ". Id " code.name { (user.id) } }
            }
            @match user.disabled_at {
                None => { p.state.is-ok { (icon("i-ok")) "Enabled" } }
                Some(at) => { p.state.is-stop { (icon("i-stop")) span { "Disabled since " (moment(at)) " UTC" } } }
            }
        }
        @if let Some(text) = page.done { (done(text)) }
        // What was wrong with a correction is told where its form is.
        @if !entries::are_of_correction(page.faults) { (told(page.faults)) }
        div.gauges { @for standing in page.standings { (gauge(standing, page.frame.now)) } }
        (settings(page))
        (access(page))
        (tokens(page))
        (page.runs.section(page.frame.now))
        (entries::ledger(user.id, &page.ledger))
        (entries::correction(user.id, &page.correction, page.faults))
    };
    let title = user.email.clone().unwrap_or_else(|| user.id.to_string());
    layout::inside(&title, Some(Place::Admin), page.frame, &content)
}

fn settings(page: &UserPage<'_>) -> Markup {
    let user = page.user;
    let action = format!("/admin/users/{}", user.id);
    let audit = format!("/admin/audit?q={}", user.id);
    html! {
        section.section aria-labelledby="h-settings" {
            (section_head("h-settings", "Settings", &html! { "A new tier's limits hold from the next request on; what is used stays" }, &html! { a.small href=(audit) { "Audit log of this user" } }))
            div.forms.forms-settings {
                form.line-form method="post" action=(action) {
                    (select("tier", "Tier", &tier_options(page.tiers), &user.tier, page.faults))
                    button.btn type="submit" { "Set tier" }
                }
                form.line-form method="post" action=(action) {
                    (select("role", "Role", &ROLES, user.role.as_str(), page.faults))
                    button.btn type="submit" { "Set role" }
                }
                form.line-form method="post" action=(action) {
                    (Field { name: "email", label: "Email", kind: "email", autocomplete: "off", value: page.email, ..Field::default() }.render(page.faults))
                    button.btn type="submit" { "Change email" }
                }
            }
            @if page.is_own { p.note { "This is your own account. Lowering its role or disabling it signs you out of these pages." } }
        }
    }
}

fn access(page: &UserPage<'_>) -> Markup {
    let user = page.user;
    let action = format!("/admin/users/{}", user.id);
    let is_enabled = user.is_enabled();
    html! {
        section.section aria-labelledby="h-access" {
            (section_head("h-access", "Access", &html! { "Who may come in, and how" }, &html! {}))
            div.forms {
                form.form.form-plain method="post" action={ (action) "/password" } {
                    h3 { "Reset the password" }
                    p.note { "All sessions end and all API tokens are revoked." }
                    // Nothing that is sent: it tells a password manager whose password this is.
                    input type="text" autocomplete="username" value=(user.email.as_deref().unwrap_or_default()) readonly hidden;
                    (password_field("newPassword", page.faults))
                    p.actions { button.btn type="submit" { "Reset the password" } }
                }
                form.form.form-plain method="post" action=(action) {
                    h3 { @if is_enabled { "Disable" } @else { "Enable" } }
                    p.note {
                        @if is_enabled { "All sessions end, links are void and API tokens are refused until the user is enabled again. Nothing is deleted." }
                        @else { "The user may sign in again, and the API tokens that were not revoked work again." }
                    }
                    input type="hidden" name="disabled" value=(is_enabled);
                    p.actions { button.btn.btn-danger[is_enabled] type="submit" { @if is_enabled { "Disable the user" } @else { "Enable the user" } } }
                }
                div.form.form-plain {
                    h3 { "Erase" }
                    p.note { "Everything of this user is deleted for good: memories, ledger, tokens. A page asks once more." }
                    p.actions { a.btn.btn-danger href={ (action) "/erase" } { "Erase the user" } }
                }
            }
        }
    }
}

fn tokens(page: &UserPage<'_>) -> Markup {
    let tokens = &page.tokens;
    html! {
        section.section aria-labelledby="h-tokens" {
            (section_head("h-tokens", "API tokens", &html! { "Those that are not revoked, newest first" }, &html! {}))
            @if tokens.items.is_empty() {
                p.nothing { "No token opens this account. Its owner creates one on the account page, or you do on the command line with " code { "tallybox token create" } "." }
            } @else {
                table.stack role="table" aria-labelledby="h-tokens" {
                    thead role="rowgroup" { tr role="row" {
                        th role="columnheader" scope="col" { "Name" }
                        th role="columnheader" scope="col" { "Created, UTC" }
                        th role="columnheader" scope="col" { "Last used, UTC" }
                        th role="columnheader" scope="col" { "Ends, UTC" }
                        th role="columnheader" scope="col" { span.vh { "Revoke" } }
                    } }
                    tbody role="rowgroup" { @for token in tokens.items { (token_row(page.user.id, token)) } }
                }
                @if !tokens.pages.is_empty() { (pager("Pages of tokens", "", tokens.pages)) }
            }
        }
    }
}

fn token_row(user: UserId, token: &ApiToken) -> Markup {
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { span.name { (token.name) } span.sub { (token.scopes.names().join(", ")) } }
            td role="cell" data-label="Created, UTC" { (moment(token.created_at)) }
            td role="cell" data-label="Last used, UTC" { @match token.last_used_at { Some(at) => { (moment(at)) } None => { "never" } } }
            td role="cell" data-label="Ends, UTC" { @match token.expires_at { Some(at) => { (moment(at)) } None => { "never" } } }
            td.num role="cell" {
                form method="post" action={ "/admin/users/" (user) "/tokens/" (token.id) "/revoke" } {
                    button.linkish type="submit" { "Revoke" span.vh { " " (token.name) } }
                }
            }
        }
    }
}

/// What the page before an erasure shows.
pub struct ErasePage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// Who would be erased.
    pub user: &'a User,
    /// What was typed the last time.
    pub typed: &'a str,
    /// What was wrong the last time.
    pub faults: &'a [Fault],
}

/// The page that asks once more.
pub fn erase(page: &ErasePage<'_>) -> Markup {
    let id = page.user.id;
    let label =
        if page.user.email.is_some() { "Type the email or the id to confirm" } else { "Type the id to confirm" };
    let hint = format!("The id is {id}");
    let content = html! {
        div.page-head { div { h1 { "Erase " span.name { (name_of(page.user.email.as_deref(), id)) } } p { "This cannot be undone." } } }
        (told(page.faults))
        ul.plain {
            li { "Memories, ledger, reservations, tokens and sessions are deleted from the database." }
            li { "The bare id stays, so that it is never given again." }
            li { "Audit rows lose this person's email and address; that the user was erased is noted." }
            li { "Copies of the database that were made before still hold everything." }
        }
        form.form.form-narrow method="post" action={ "/admin/users/" (id) "/erase" } {
            (Field { name: "confirm", label, kind: "text", autocomplete: "off", value: page.typed, hint: &hint, is_optional: false }.render(page.faults))
            p.actions { button.btn.btn-danger type="submit" { "Erase for good" } a href={ "/admin/users/" (id) } { "Keep the user" } }
        }
    };
    layout::inside("Erase a user", Some(Place::Admin), page.frame, &content)
}
