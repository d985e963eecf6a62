//! A box with people in every state, and the table of its pages: for the tests that look at each page.

use std::collections::BTreeMap;

use serde_json::{Value, json};
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
/// Has been disabled.
pub(crate) const GONE: &str = "gone@example.org";
/// Has asked for a link to choose a password.
pub(crate) const LOST: &str = "lost@example.org";

/// A page that is looked at in every way that pages are: add a row to [`PAGES`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    /// Names the snapshot.
    pub(crate) name: &'static str,
    /// Where it is. `{link}` stands for the secret of a link to choose a password, `{memory}` for the id of a memory of
    /// [`CALM`], `{user}` for the id of [`CALM`], `{disabled}` for that of [`GONE`].
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
    page("memories", "/memories", Some(CALM), "Memories", 200),
    page("memories_filtered", "/memories?tier=ltm&tier=itm&type=fact&tag=home&session=spring&from=2026-03-01", Some(CALM), "Memories", 200),
    page("memories_searched", "/memories?q=tea+or+coffee", Some(CALM), "Memories", 200),
    page("memories_unmatched", "/memories?tag=nowhere", Some(CALM), "Memories", 200),
    page("memories_not_understood", "/memories?from=yesterday", Some(CALM), "Memories", 422),
    page("memories_none", "/memories", Some(OVER), "Memories", 200),
    page("memory", "/memories/{memory}", Some(CALM), "Memory", 200),
    page("memory_delete", "/memories/{memory}/delete", Some(CALM), "Delete this memory?", 200),
    page("account", "/account", Some(CALM), "Account", 200),
    page("account_admin", "/account", Some(ADMIN), "Account", 200),
    page("admin", "/admin", Some(ADMIN), "Admin", 200),
    page("admin_nobody", "/admin?q=nobody", Some(ADMIN), "Admin", 200),
    page("admin_new_user", "/admin/users/new", Some(ADMIN), "Add a user", 200),
    page("admin_user", "/admin/users/{user}", Some(ADMIN), CALM, 200),
    page("admin_user_disabled", "/admin/users/{disabled}", Some(ADMIN), GONE, 200),
    page("admin_erase", "/admin/users/{user}/erase", Some(ADMIN), "Erase calm@example.org", 200),
    page("admin_audit", "/admin/audit", Some(ADMIN), "Audit log", 200),
    page("admin_audit_none", "/admin/audit?q=nobody", Some(ADMIN), "Audit log", 200),
    page("admin_forbidden", "/admin", Some(CALM), "This page is not open to you", 403),
    page("no_such_method", "/logout", Some(CALM), "This cannot be done here", 405),
    page("docs", "/docs", None, "API", 200),
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

/// Texts of the memories of [`CALM`], the last of which is [`World::memory`].
fn memories() -> [Value; 4] {
    let long = "The journey to Lisbon begins on the third of May with the early train; the seat is by the window, and the \
                hotel keeps the luggage until the room is ready. ";
    [
        json!({"type": "fact", "input_context": "Prefers tea to coffee", "tags": ["home"], "session": "spring"}),
        json!({"type": "fact", "input_context": "The invoice of March is due on the 14th", "tags": ["home"],
            "session": "spring"}),
        json!({"type": "preference", "input_context": "\u{5ea}\u{5d4} \u{5e2}\u{5dd} \u{5e0}\u{5e2}\u{5e0}\u{5e2}",
            "tier": "itm", "tags": ["home", "drinks"], "timestamp": "2026-02-28T22:30:00Z"}),
        json!({"type": "note", "input_context": long.repeat(5), "tier": "stm", "tags": ["travel", "Lisbon & around"],
            "session": "may", "metadata": {"source": "mail", "seats": [14, 15]}}),
    ]
}

/// The box.
pub(crate) struct World {
    pub(crate) app: TestApp,
    /// The people by address.
    #[allow(dead_code, reason = "the suite does not need them")]
    pub(crate) users: BTreeMap<&'static str, TestUser>,
    /// Secret of a link: to set up, where the box is fresh, else to choose a password.
    pub(crate) link: String,
    /// Id of a memory of [`CALM`]; empty where the box is fresh.
    pub(crate) memory: String,
    sessions: BTreeMap<&'static str, String>,
}

impl World {
    /// Without anybody.
    pub(crate) async fn fresh() -> Self {
        let app = TestApp::new();
        let link = app.app.store().write(link::issue_setup).await.unwrap().unwrap();
        let link = secret_of(&link.address(None));
        Self { app, users: BTreeMap::new(), link, memory: String::new(), sessions: BTreeMap::new() }
    }

    /// With everybody.
    pub(crate) async fn lived_in() -> Self {
        // Nobody listens there: each call is an error of the upstream.
        let gateway = "[[gateway.upstreams]]\nname = 'nobody'\nbase_url = 'http://127.0.0.1:9/v1'\nmodels = ['*']";
        let world = Self::of(TestApp::with_config(&format!("[dashboard]\nupgrade_url = '/account'\n{gateway}"))).await;
        let call = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Is anybody there?"}]});
        world.app.call("POST", "/v1/chat/completions", Some(&world.users[CALM].token), Some(call)).await.expect(502);
        world.app.pass().await;
        world
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
        // One run that was stopped, one that goes on.
        for name in ["inbox-sorter", "night-editor"] {
            let run = app.call("POST", "/agents/runs", Some(&users[CALM].token), Some(json!({"name": name}))).await;
            let stop = format!("/agents/runs/{}/stop", run.expect(201).json["id"].as_str().unwrap());
            if name == "inbox-sorter" {
                app.call("POST", &stop, Some(&users[CALM].token), Some(json!({}))).await.expect(200);
            }
        }
        let refused = json!({"resourceType": "llm_tokens", "amount": 1, "enforce": true});
        app.call("POST", "/usage/record", Some(&users[OVER].token), Some(refused)).await.expect(429);
        // The worker writes down what was refused.
        app.pass().await;
        let mut memory = String::new();
        for body in memories() {
            let stored = app.call("POST", "/memory/store", Some(&users[CALM].token), Some(body)).await.expect(201);
            stored.json["id"].as_str().unwrap().clone_into(&mut memory);
        }
        administered(&app, &mut users).await;
        let mut sessions = BTreeMap::new();
        for email in users.keys().filter(|email| **email != GONE) {
            sessions.insert(*email, app.log_in(email).await);
        }
        let by = app.by();
        let link = app.app.store().write(move |writer| {
            let user = load_by_email(writer, LOST)?;
            reset_password(writer, &by, &user, None)
        });
        let link = secret_of(&link.await.unwrap().unwrap().address(None));
        Self { app, users, link, memory, sessions }
    }

    /// Where `page` is in this box.
    pub(crate) fn path(&self, page: &Page) -> String {
        let id = |email| self.users.get(email).map_or("", |user| user.id.as_str());
        let places = [
            ("{link}", self.link.as_str()),
            ("{memory}", &self.memory),
            ("{user}", id(CALM)),
            ("{disabled}", id(GONE)),
        ];
        places.iter().fold(page.path.to_owned(), |path, (place, value)| path.replace(place, value))
    }

    /// The session of `email`.
    pub(crate) fn session(&self, email: &str) -> &str {
        &self.sessions[email]
    }
}

/// What an admin has done: a user disabled, another erased, a ledger corrected.
async fn administered(app: &TestApp, users: &mut BTreeMap<&'static str, TestUser>) {
    let admin = Some(users[ADMIN].token.clone());
    let admin = admin.as_deref();
    let gone = app.user(GONE, "free_trial").await;
    let changes = json!({"disabled": true, "tier": "basic"});
    app.call("PATCH", &format!("/api/admin/users/{}", gone.id), admin, Some(changes)).await.expect(200);
    users.insert(GONE, gone);
    let erased = app.user("erased@example.org", "free_trial").await;
    app.call("DELETE", &format!("/api/admin/users/{}?erase=true", erased.id), admin, None).await.expect(200);
    let correction = json!({"resourceType": "llm_tokens", "amount": 500, "reason": "Counted by hand"});
    let path = format!("/api/admin/users/{}/ledger", users[CALM].id);
    app.call("POST", &path, admin, Some(correction)).await.expect(201);
}

/// The secret of a link.
fn secret_of(link: &str) -> String {
    link.split_once("token=").unwrap().1.to_owned()
}
