//! The page of a user's own account: who they are, their password, their API tokens.

use maud::{Markup, html};

use super::door::new_password;
use super::layout::{self, Frame, Place};
use super::part::{Field, copy, done, field_error, limit, moment, pager, resource_name, section_head, select, wrong};
use super::usage::per;
use crate::domain::Fault;
use crate::domain::auth::{ApiToken, Role, Scope, Scopes, User};
use crate::domain::ledger::ResourceType;
use crate::domain::page::Page;
use crate::domain::quota::{Limit, Limits};

/// Lives of a token that the form offers: days, and how they are called.
pub const EXPIRIES: [(&str, &str); 4] =
    [("30", "In 30 days"), ("90", "In 90 days"), ("365", "In a year"), ("", "Never")];

/// What the page shows.
#[derive(Clone, Copy, Debug)]
pub struct AccountPage<'a> {
    /// Who looks, and when.
    pub frame: Frame<'a>,
    /// The user.
    pub user: &'a User,
    /// The limits of the user's tier.
    pub limits: Limits,
    /// Tokens that are not revoked, newest first.
    pub tokens: &'a Page<ApiToken>,
    /// Where programs find this server, as `http://127.0.0.1:8080`.
    pub base_url: &'a str,
    /// What the last act led to.
    pub said: Said<'a>,
}

/// What an act on the page led to.
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// Nothing was done.
    Nothing,
    /// A sentence about what was done.
    Done(&'a str),
    /// A token was made: its secret, shown this once.
    Made(&'a str),
    /// The password was not changed.
    PasswordFaults(&'a [Fault]),
    /// No token was made of what was filled in.
    TokenFaults(&'a TokenForm, &'a [Fault]),
}

/// The form for a new token, as it was filled in.
#[derive(Clone, Debug)]
pub struct TokenForm {
    /// Its name.
    pub name: String,
    /// One of [`EXPIRIES`].
    pub expires: String,
    /// What it shall open.
    pub scopes: Scopes,
}

impl Default for TokenForm {
    fn default() -> Self {
        Self { name: String::new(), expires: "90".to_owned(), scopes: Scopes::default_of_tokens() }
    }
}

/// What a scope opens, in a few words.
const fn scope_words(scope: Scope) -> &'static str {
    match scope {
        Scope::UsageRead => "read usage and limits",
        Scope::UsageWrite => "record and reserve usage",
        Scope::MemoryRead => "read and search memories",
        Scope::MemoryWrite => "store, change and delete memories",
        Scope::Gateway => "call models and run agents",
        Scope::Metrics => "read the metrics of this server",
        Scope::Admin => "administer this server",
        Scope::ActAs => "act for any user",
    }
}

/// The name of a scope's tick box.
pub fn scope_field(scope: Scope) -> String {
    format!("scope-{}", scope.as_str().replace(':', "-"))
}

impl AccountPage<'_> {
    /// The page.
    pub fn render(&self) -> Markup {
        let content = html! {
            div.page-head { div { h1 { "Account" } p { (self.frame.who.name) } } }
            @match self.said {
                Said::Done(text) => { (done(text)) }
                Said::Made(secret) => { (self.made(secret)) }
                // What was wrong with a form is told where the form is.
                Said::Nothing | Said::PasswordFaults(_) | Said::TokenFaults(..) => {}
            }
            (self.profile())
            (self.tokens())
            (self.password())
        };
        layout::inside("Account", Some(Place::Account), self.frame, &content)
    }

    fn made(&self, secret: &str) -> Markup {
        let example = format!("curl {}/usage/tokens \\\n  -H \"Authorization: Bearer {secret}\"", self.base_url);
        html! {
            // The form's address ends in this id, so that its answer opens where the secret is.
            div id="token-answer" {
                (done("Token created. It is shown this once: copy it now."))
                div.copies { (copy("The token", secret)) (copy("Try it in a terminal", &example)) }
            }
        }
    }

    fn profile(&self) -> Markup {
        let user = self.user;
        html! {
            section aria-labelledby="h-profile" {
                h2.vh id="h-profile" { "Profile" }
                dl.facts.facts-ruled {
                    div { dt { "Email" } dd { (user.email.as_deref().unwrap_or("none")) } }
                    div { dt { "Role" } dd { (role_words(user.role)) } }
                    div {
                        dt { "Tier" }
                        dd {
                            (self.frame.who.tier)
                            @for resource in ResourceType::ALL {
                                span.sub { (resource_name(resource)) ": " (limit(resource, self.limits.of(resource))) @if self.limits.of(resource) != Limit::Unlimited { (per(resource)) } }
                            }
                        }
                    }
                    div { dt { "Added" } dd { (moment(user.created_at)) " UTC" } }
                    div { dt { "User id" } dd { code { (user.id) } } }
                }
            }
        }
    }

    fn tokens(&self) -> Markup {
        let line = html! {
            "Each opens what its scopes say, for this account alone. Only a hash of it is kept. "
            a href="/docs" { "What the API offers" }
        };
        let tokens = &self.tokens.items;
        html! {
            section.section id="tokens" aria-labelledby="h-tokens" {
                (section_head("h-tokens", "API tokens", &line, &html! {}))
                @if tokens.is_empty() {
                    p.muted { "There is none yet. A program of yours needs one to call this server: create it below." }
                } @else {
                    (self.token_table())
                }
                @if let Some(next) = &self.tokens.next {
                    (pager("Pages of tokens", "", &[(format!("/account?cursor={next}#tokens"), "Older tokens", "next")]))
                }
                (self.token_form())
            }
        }
    }

    fn token_table(&self) -> Markup {
        html! {
            table.stack role="table" aria-labelledby="h-tokens" {
                thead role="rowgroup" { tr role="row" {
                    @for head in ["Name", "Scopes", "Created, UTC", "Last used, UTC", "Ends, UTC"] { th role="columnheader" scope="col" { (head) } }
                    th role="columnheader" scope="col" { span.vh { "Revoke" } }
                } }
                tbody role="rowgroup" { @for token in &self.tokens.items { tr role="row" {
                    th role="rowheader" scope="row" { (token.name) }
                    td role="cell" data-label="Scopes" { span.scopes { @for scope in token.scopes.iter() { code { (scope.as_str()) } " " } } }
                    td role="cell" data-label="Created, UTC" { (moment(token.created_at)) }
                    td role="cell" data-label="Last used, UTC" {
                        @if let Some(at) = token.last_used_at { (moment(at)) } @else { "never" }
                    }
                    td role="cell" data-label="Ends, UTC" {
                        @match token.expires_at {
                            None => { "never" }
                            Some(at) if at <= self.frame.now => { "ended " (moment(at)) }
                            Some(at) => { (moment(at)) }
                        }
                    }
                    td role="cell" {
                        form method="post" action={ "/account/tokens/" (token.id) "/revoke" } {
                            button.linkish type="submit" { "Revoke" span.vh { " token " (token.name) } }
                        }
                    }
                } } }
            }
        }
    }

    fn token_form(&self) -> Markup {
        let fresh = TokenForm::default();
        let (form, faults) = match self.said {
            Said::TokenFaults(form, faults) => (form, faults),
            _ => (&fresh, &[][..]),
        };
        let is_admin = self.user.role == Role::Admin;
        let offered = Scope::ALL.into_iter().filter(|scope| is_admin || !scope.is_privileged());
        html! {
            div.form-head.form-narrow id=[(!faults.is_empty()).then_some("token-answer")] {
                h3.form-title id="h-new-token" { "Create a token" }
                @if !faults.is_empty() { (wrong("No token was created: see the fields marked below.")) }
            }
            form.form.form-narrow method="post" action="/account/tokens#token-answer" aria-labelledby="h-new-token" {
                (Field {
                    name: "name", label: "Name", kind: "text", autocomplete: "off", value: &form.name,
                    hint: "Where it is used, such as \u{201c}laptop\u{201d}. 1 to 64 characters.", ..Field::default()
                }.render(faults))
                (select("expires", "Ends", &EXPIRIES, &form.expires, faults))
                fieldset.field {
                    legend { "Scopes" }
                    @for scope in offered {
                        @let name = scope_field(scope);
                        label.check {
                            input type="checkbox" name=(name) value="on" checked[form.scopes.has(scope)];
                            span { code { (scope.as_str()) } " " span.muted { (scope_words(scope)) } }
                        }
                    }
                    (field_error("scopes", faults))
                }
                p.actions { button.btn.btn-primary type="submit" { "Create the token" } }
            }
        }
    }

    fn password(&self) -> Markup {
        let faults = if let Said::PasswordFaults(faults) = self.said { faults } else { &[] };
        let line = html! { "A change ends every other session of yours." };
        html! {
            section.section id="password" aria-labelledby="h-password" {
                (section_head("h-password", "Password", &line, &html! {}))
                @if !faults.is_empty() { div.form-narrow { (wrong("The password was not changed: see the fields marked below.")) } }
                form.form.form-narrow method="post" action="/account/password#password" aria-labelledby="h-password" {
                    // Password managers look for the address that a password belongs to.
                    input type="text" name="username" autocomplete="username" value=(self.user.email.as_deref().unwrap_or_default()) hidden;
                    (Field { name: "current", label: "Current password", kind: "password", autocomplete: "current-password", ..Field::default() }.render(faults))
                    (new_password("new", "New password", faults))
                    label.check { input type="checkbox" name="revoke" value="on"; span { "Revoke all my API tokens too" } }
                    p.actions { button.btn type="submit" { "Change the password" } }
                }
            }
        }
    }
}

const fn role_words(role: Role) -> &'static str {
    match role {
        Role::User => "User",
        Role::Admin => "Administrator",
    }
}
