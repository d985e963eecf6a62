//! Things of one user, for others to try.

use serde_json::json;

use super::matrix::{Thing, session_of};
use crate::suite::calls::id_of;
use crate::suite::support::{TestApp, TestUser};

/// An id that no table has.
pub(super) const MISSING: &str = "00000000-0000-7000-8000-000000000000";

/// A vector that needs no model.
pub(super) fn embedding() -> serde_json::Value {
    let mut numbers = vec![0.0; 384];
    numbers[3] = 1.0;
    json!(numbers)
}

/// Makes things of the owner.
pub(super) struct Things<'a> {
    pub(super) app: &'a TestApp,
    pub(super) owner: &'a TestUser,
    pub(super) admin: &'a TestUser,
}

impl Things<'_> {
    /// A new one; its id.
    pub(super) async fn make(&self, thing: Thing) -> String {
        let (app, token) = (self.app, &self.owner.token);
        match thing {
            Thing::Nothing | Thing::User => String::new(),
            Thing::Hold => app.hold(self.owner, 5).await,
            Thing::Run => id_of(&app.tell(token, "/agents/runs", json!({"maxMinutes": 1})).await.expect(201)),
            Thing::Memory => {
                let memory = json!({"type": "note", "input_context": "the owner's", "embedding": embedding()});
                id_of(&app.tell(token, "/memory/store", memory).await.expect(201))
            }
            Thing::Token => {
                let session = session_of(app, &self.owner.email).await;
                id_of(&app.tell(&session, "/auth/tokens", json!({"name": "one"})).await.expect(201))
            }
        }
    }

    /// The id of a new token of `user`.
    pub(super) async fn token_of(&self, user: &TestUser) -> String {
        self.app.token(&user.email, &[tallybox::domain::auth::Scope::UsageRead]).await;
        let path = format!("/api/admin/users/{}/tokens", user.id);
        let list = self.app.ask(&self.admin.token, &path).await.expect(200).json;
        list["tokens"][0]["id"].as_str().unwrap().to_owned()
    }
}
