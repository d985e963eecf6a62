//! The door: signing in, setting up, choosing a password.

use maud::{Markup, PreEscaped, html};

use super::layout::{self, icon};
use crate::domain::Fault;
use crate::domain::auth::PASSWORD_CHARACTERS;

/// The wall of tally marks beside the door.
const TALLY: &str = include_str!("../../assets/door-tally.svg");

fn door(title: &str, is_wide: bool, content: &Markup) -> Markup {
    let body = html! {
        header.door-side { div.door-side-in {
            (layout::brand())
            (PreEscaped(TALLY))
            p.claim { "Memory, metering and limits for one AI product, kept on your own machine." }
        } }
        main.door-main id="main" { div class=(if is_wide { "door-box wide" } else { "door-box" }) { (content) } }
    };
    layout::page(title, "door", &body)
}

fn notice(problem: &str) -> Markup {
    html! {
        div.notices { div.notice.is-stop role="alert" { (icon("i-stop")) p { strong { "That did not work." } " " (problem) } } }
    }
}

/// The form to sign in. `next`: where it leads; `email`: as it was typed; `problem`: what was wrong the last time.
pub fn login(next: &str, email: &str, problem: Option<&str>) -> Markup {
    let content = html! {
        h1 { "Sign in" }
        p { "Your usage, limits and memories are behind this door." }
        @if let Some(problem) = problem { (notice(problem)) }
        form.form method="post" action="/login" {
            input type="hidden" name="next" value=(next);
            div.field {
                label for="email" { "Email" }
                input.input id="email" name="email" type="email" autocomplete="username" value=(email) required;
            }
            div.field {
                label for="password" { "Password" }
                input.input id="password" name="password" type="password" autocomplete="current-password" required;
            }
            button.btn.btn-primary.btn-block type="submit" { "Sign in" }
        }
        p.door-note { "Lost your password? Whoever runs this Tallybox can send you a link to choose another." }
    };
    door("Sign in", false, &content)
}

/// The form behind a one-time link.
pub struct SetupForm<'a> {
    /// The secret of the link.
    pub secret: &'a str,
    /// Whose password is chosen; none: the first administrator is made.
    pub user: Option<&'a str>,
    /// The address as it was typed.
    pub email: &'a str,
    /// What was wrong the last time.
    pub faults: &'a [Fault],
}

/// The form to make the first administrator or to choose a password.
pub fn setup(form: &SetupForm<'_>) -> Markup {
    let title = if form.user.is_some() { "Choose a password" } else { "Set up this Tallybox" };
    let others: Vec<&Fault> =
        form.faults.iter().filter(|fault| !["email", "password"].contains(&fault.field.as_str())).collect();
    let content = html! {
        h1 { (title) }
        @if let Some(user) = form.user { p { "For " strong { (user) } ". This link works once." } }
        @else { p { "Make the first administrator. This link works once." } }
        @for fault in others { (notice(&format!("{}: {}", fault.field, fault.message))) }
        form.form method="post" action="/setup" {
            input type="hidden" name="token" value=(form.secret);
            @if form.user.is_none() {
                (field(form, "email", "Email", "email", "username", form.email))
            }
            (field(form, "password", "Password", "password", "new-password", ""))
            button.btn.btn-primary.btn-block type="submit" {
                @if form.user.is_some() { "Set the password" } @else { "Make the administrator" }
            }
        }
    };
    door(title, true, &content)
}

fn field(form: &SetupForm<'_>, name: &str, label: &str, kind: &str, autocomplete: &str, value: &str) -> Markup {
    let fault = form.faults.iter().find(|fault| fault.field == name);
    let described_by = format!("{name}-fault");
    html! {
        div.field {
            label for=(name) { (label) }
            input.input id=(name) name=(name) type=(kind) autocomplete=(autocomplete) value=(value) required
                aria-invalid=[fault.map(|_| "true")] aria-describedby=[fault.map(|_| described_by.as_str())];
            @if kind == "password" {
                p.hint {
                    (PASSWORD_CHARACTERS.start()) " to " (PASSWORD_CHARACTERS.end())
                    " characters. A few unrelated words work well."
                }
            }
            @if let Some(fault) = fault {
                p.field-error id=(described_by) { (icon("i-stop")) (fault.message) }
            }
        }
    }
}

/// What a link leads to that was used, replaced or is too old.
pub fn void_link() -> Markup {
    let content = html! {
        h1 { "This link no longer works" }
        p { "It was used, replaced by a newer one, or is too old." }
        p.door-note {
            "A link to set up is printed at every start that finds no administrator. For a link to choose a password, ask \
             whoever runs this Tallybox. " a href="/login" { "Sign in" }
        }
    };
    door("This link no longer works", false, &content)
}
