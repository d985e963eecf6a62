//! Calls that many tests make, and what they ask of the whole afterwards.

use serde_json::{Value, json};
use tallybox::domain::unit::Timestamp;
use tallybox::service::check;

use super::support::{Reply, TestApp, TestUser};

impl TestApp {
    /// GET.
    pub(crate) async fn ask(&self, token: &str, path: &str) -> Reply {
        self.call("GET", path, Some(token), None).await
    }

    /// POST.
    pub(crate) async fn tell(&self, token: &str, path: &str, body: Value) -> Reply {
        self.call("POST", path, Some(token), Some(body)).await
    }

    /// POST with more headers.
    pub(crate) async fn tell_with(&self, token: &str, path: &str, body: Value, headers: &[(&str, &str)]) -> Reply {
        self.call_with("POST", path, Some(token), Some(body), headers).await
    }

    /// DELETE.
    pub(crate) async fn drop_at(&self, token: &str, path: &str) -> Reply {
        self.call("DELETE", path, Some(token), None).await
    }

    /// Records tokens as a fact and gives the entry's id.
    pub(crate) async fn used_up(&self, user: &TestUser, amount: i64) -> String {
        let reply = self.tell(&user.token, "/usage/record", tokens(amount)).await.expect(201);
        id_of(&reply)
    }

    /// Records tokens if they fit.
    pub(crate) async fn enforce(&self, user: &TestUser, amount: i64) -> Reply {
        let body = json!({"resourceType": "llm_tokens", "amount": amount, "enforce": true});
        self.tell(&user.token, "/usage/record", body).await
    }

    /// Holds tokens and gives the hold's id.
    pub(crate) async fn hold(&self, user: &TestUser, amount: i64) -> String {
        id_of(&self.tell(&user.token, "/usage/reservations", tokens(amount)).await.expect(201))
    }

    /// Settles a hold.
    pub(crate) async fn settle(&self, user: &TestUser, hold: &str, amount: i64) -> Reply {
        self.tell(&user.token, &format!("/usage/reservations/{hold}/settle"), json!({"amount": amount})).await
    }

    /// Gives a hold back.
    pub(crate) async fn release(&self, user: &TestUser, hold: &str) -> Reply {
        self.drop_at(&user.token, &format!("/usage/reservations/{hold}")).await
    }

    /// Used and reserved tokens of today.
    pub(crate) async fn tokens(&self, user: &TestUser) -> (i64, i64) {
        let reply = self.ask(&user.token, "/usage/tokens").await.expect(200);
        (reply.json["used"].as_i64().unwrap(), reply.json["reserved"].as_i64().unwrap())
    }

    /// Turns the clock to an instant in RFC 3339.
    pub(crate) fn turn_to(&self, instant: &str) {
        self.clock.turn_to(Timestamp::parse_rfc3339(instant).unwrap());
    }

    /// How many memories are stored, whosever they are, ended ones too.
    #[expect(clippy::disallowed_methods, reason = "past the program")]
    pub(crate) fn memories_stored(&self) -> i64 {
        let connection = rusqlite::Connection::open(self.directory.path().join("tallybox.db")).unwrap();
        connection.query_row("SELECT count(*) FROM memories", [], |row| row.get(0)).unwrap()
    }

    /// Every invariant of the database holds.
    #[track_caller]
    pub(crate) fn proves(&self) {
        let found = check::run(self.app.store()).unwrap();
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// The body of a record or a hold of tokens.
pub(crate) fn tokens(amount: i64) -> Value {
    json!({"resourceType": "llm_tokens", "amount": amount})
}

/// The id that an answer gives.
#[track_caller]
pub(crate) fn id_of(reply: &Reply) -> String {
    reply.json["id"].as_str().unwrap_or_else(|| unreachable!("no id in {}", reply.text)).to_owned()
}

/// The fields that a refused input names.
pub(crate) fn faults_of(reply: &Reply) -> Vec<String> {
    let errors = reply.json["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["field"].as_str().unwrap_or_default().to_owned()).collect()
}
