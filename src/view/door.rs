//! The door: signing in, setting up, choosing a password.

use maud::{Markup, PreEscaped, html};

use super::layout;
use super::part::{Field, wrong};
use super::words::sentence;
use crate::domain::Fault;
use crate::domain::auth::PASSWORD_CHARACTERS;

/// The wall of tally marks beside the door.
const TALLY: &str = include_str!("../../assets/door-tally.svg");

fn door(title: &str, is_wide: bool, content: &Markup) -> Markup {
    let body = html! {
        header.door-side { div.door-side-in {
            (layout::brand())
            (PreEscaped(TALLY))
            p.claim { "Memory, metering and limits for AI assistants and agents, kept on your own machine." }
        } }
        main.door-main id="main" { div class=(if is_wide { "door-box wide" } else { "door-box" }) { (content) } }
    };
    layout::page(title, "door", &body)
}

/// The form to sign in. `next`: where it leads; `email`: as it was typed; `problem`: what was wrong the last time.
pub fn login(next: &str, email: &str, problem: Option<&str>) -> Markup {
    let content = html! {
        h1 { "Sign in" }
        p { "Your usage, limits and memories are behind this door." }
        @if let Some(problem) = problem { (wrong(&sentence(problem))) }
        form.form method="post" action="/login" {
            input type="hidden" name="next" value=(next);
            (Field { name: "email", label: "Email", kind: "email", autocomplete: "username", value: email, ..Field::default() }.render(&[]))
            (Field { name: "password", label: "Password", kind: "password", autocomplete: "current-password", ..Field::default() }.render(&[]))
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
        @else { p { "Create the first administrator. This link works once." } }
        @for fault in others { (wrong(&sentence(&format!("{}: {}", fault.field, fault.message)))) }
        form.form method="post" action="/setup" {
            input type="hidden" name="token" value=(form.secret);
            // Nothing that is sent: it tells a password manager whose password this is.
            @if let Some(user) = form.user { input type="text" autocomplete="username" value=(user) readonly hidden; }
            @else {
                (Field { name: "email", label: "Email", kind: "email", autocomplete: "username", value: form.email, ..Field::default() }.render(form.faults))
            }
            (new_password("password", "Password", form.faults))
            button.btn.btn-primary.btn-block type="submit" {
                @if form.user.is_some() { "Set the password" } @else { "Create the administrator" }
            }
        }
    };
    door(title, true, &content)
}

/// The field for a password that is chosen.
pub fn new_password(name: &str, label: &str, faults: &[Fault]) -> Markup {
    let hint = format!(
        "{} to {} characters. A few unrelated words work well.",
        PASSWORD_CHARACTERS.start(),
        PASSWORD_CHARACTERS.end(),
    );
    Field { name, label, kind: "password", autocomplete: "new-password", hint: &hint, ..Field::default() }
        .render(faults)
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
