//! A box with people in every state, and the table of its pages: for the tests that look at each page.

use std::collections::BTreeMap;

use serde_json::json;
use tallybox::service::auth::account::{load_by_email, reset_password};
use tallybox::service::auth::link;

use super::support::{TestApp, TestUser};

/// An admin who has used nothing.
pub(crate) const ADMIN: &str = "admin@example.org";
/// Far from every limit.
pub(crate) const CALM: &str = "calm@example.org";
/// At 85 % of the tokens of the day.
pub(crate) const CLOSE: &str = "close@example.org";
/// At 100 % of the tokens of the day.
pub(crate) const OVER: &str = "over@example.org";
/// On a tier without limits.
pub(crate) const FREE: &str = "free@example.org";

/// Has asked for a link to choose a password.
pub(crate) const LOST: &str = "lost@example.org";

/// A page that is looked at in every way that pages are: add a row to [`PAGES`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    /// Names the snapshot.
    pub(crate) name: &'static str,
    /// Where it is; `{link}` stands for the secret of a link to choose a password.
    pub(crate) path: &'static str,
    /// Who looks; none: nobody is signed in.
    pub(crate) user: Option<&'static str>,
    /// What its first heading says.
    pub(crate) heading: &'static str,
    pub(crate) status: u16,
}

/// All the pages of the box, but for [`SETUP`].
#[rustfmt::skip]
pub(crate) const PAGES: &[Page] = &[
    page("login", "/login", None, "Sign in", 200),
    page("choose_password", "/setup?token={link}", None, "Choose a password", 200),
    page("void_link", "/setup?token=void", None, "This link no longer works", 410),
    page("usage_calm", "/usage", Some(CALM), "Usage", 200),
    page("usage_close", "/usage?days=7", Some(CLOSE), "Usage", 200),
    page("usage_over", "/usage?days=90", Some(OVER), "Usage", 200),
    page("usage_unlimited", "/usage", Some(FREE), "Usage", 200),
    page("usage_admin", "/usage", Some(ADMIN), "Usage", 200),
    page("not_found", "/nowhere", None, "One mark is missing", 404),
    page("not_understood", "/usage?days=8", Some(CALM), "That was not understood", 422),
];

/// The page to set a box up, which only a box without an administrator has.
pub(crate) const SETUP: Page = page("setup", "/setup?token={link}", None, "Set up this Tallybox", 200);

const fn page(
    name: &'static str,
    path: &'static str,
    user: Option<&'static str>,
    heading: &'static str,
    status: u16,
) -> Page {
    Page { name, path, user, heading, status }
}

/// The box.
pub(crate) struct World {
    pub(crate) app: TestApp,
    /// The people by address.
    #[allow(dead_code, reason = "the suite does not need them")]
    pub(crate) users: BTreeMap<&'static str, TestUser>,
    /// Secret of a link: to set up, where the box is fresh, else to choose a password.
    pub(crate) link: String,
    sessions: BTreeMap<&'static str, String>,
}

impl World {
    /// Without anybody.
    pub(crate) async fn fresh() -> Self {
        let app = TestApp::new();
        let link = app.app.store().write(link::issue_setup).await.unwrap().unwrap();
        let link = secret_of(&link.address(None));
        Self { app, users: BTreeMap::new(), link, sessions: BTreeMap::new() }
    }

    /// With everybody.
    pub(crate) async fn lived_in() -> Self {
        Self::of(TestApp::with_config("[dashboard]\nupgrade_url = '/account'")).await
    }

    /// With everybody, on an application of the caller's settings.
    pub(crate) async fn of(app: TestApp) -> Self {
        let mut users = BTreeMap::from([(ADMIN, app.admin(ADMIN).await)]);
        for (email, tier) in [(CALM, "basic"), (CLOSE, "basic"), (OVER, "basic"), (FREE, "pro"), (LOST, "basic")] {
            users.insert(email, app.user_with_password(email, tier).await);
        }
        // The limits of basic: 50,000 tokens a day, 60 minutes a month.
        for (email, resource, amount) in [
            (CALM, "llm_tokens", 12_000),
            (CALM, "agent_minutes", 5),
            (CLOSE, "llm_tokens", 42_500),
            (CLOSE, "agent_minutes", 50),
            (OVER, "llm_tokens", 50_000),
            (OVER, "agent_minutes", 60),
            (FREE, "llm_tokens", 1_234_567),
        ] {
            let body = json!({"resourceType": resource, "amount": amount});
            app.call("POST", "/usage/record", Some(&users[email].token), Some(body)).await.expect(201);
        }
        let held = json!({"resourceType": "llm_tokens", "amount": 2_000});
        app.call("POST", "/usage/reservations", Some(&users[CLOSE].token), Some(held)).await.expect(201);
        for text in ["Prefers tea to coffee", "The invoice of March is due on the 14th"] {
            let memory = json!({"type": "fact", "input_context": text, "tags": ["home"], "session": "spring"});
            app.call("POST", "/memory/store", Some(&users[CALM].token), Some(memory)).await.expect(201);
        }
        let mut sessions = BTreeMap::new();
        for email in users.keys() {
            sessions.insert(*email, app.log_in(email).await);
        }
        let by = app.by();
        let link = app.app.store().write(move |writer| {
            let user = load_by_email(writer, LOST)?;
            reset_password(writer, &by, &user, None)
        });
        let link = secret_of(&link.await.unwrap().unwrap().address(None));
        Self { app, users, link, sessions }
    }

    /// Where `page` is in this box.
    pub(crate) fn path(&self, page: &Page) -> String {
        page.path.replace("{link}", &self.link)
    }

    /// The session of `email`.
    pub(crate) fn session(&self, email: &str) -> &str {
        &self.sessions[email]
    }
}

/// The secret of a link.
fn secret_of(link: &str) -> String {
    link.split_once("token=").unwrap().1.to_owned()
}
