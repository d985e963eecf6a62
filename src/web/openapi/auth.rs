//! Sessions, passwords and tokens.

use serde_json::{Value, json};

use super::operation::{Operation, delete, get, post};
use super::schema::{Told, answer, body, flag, list, list_of, named, or_null, text, time, whole, words};
use super::shared::{AT, ID, LATER, id_of, next_cursor, scope};
use crate::domain::auth::PASSWORD_CHARACTERS;
use crate::service::auth::token::{EXPIRES_DAYS, NAME_CHARACTERS};
use crate::web::auth::{COMPARED_CHARACTERS, EMAIL_CHARACTERS};

/// The heading.
pub(super) const GROUP: (&str, &str) = ("Identity", "Sessions, the caller's own password, and its API tokens.");

/// A role.
pub(super) fn role() -> Value {
    super::schema::one_of(["user", "admin"])
}

/// A password to be set.
pub(super) fn new_password() -> Value {
    text(PASSWORD_CHARACTERS)
}

/// The name of a token.
fn token_name() -> Value {
    let mut name = text(NAME_CHARACTERS).about("Without control characters.");
    name["pattern"] = json!("^[^\\u0000-\\u001f\\u007f-\\u009f]*$");
    name
}

/// The calls.
pub(super) fn operations() -> Vec<Operation> {
    let me = json!({"id": ID, "email": "ada@example.org", "role": "user", "tier": "basic"});
    let limited = "`rate_limited`: too many failed attempts from this address.";
    let wrong = "`wrong_password`: the password is not the caller's.";
    let mut with_scopes = me.clone();
    with_scopes["scopes"] = json!(["usage:read", "usage:write", "memory:read", "memory:write", "gateway"]);
    vec![
        post("/auth/login", "logIn", "Begin a session")
            .takes("Login", json!({"email": "ada@example.org", "password": "correct-horse-battery"}))
            .answers(
                200,
                "The session has begun.",
                "Session",
                json!({"token": "tbs_...", "expiresAt": LATER, "user": me}),
            )
            .fails(401, "`wrong_password`: e-mail and password do not belong together.")
            .fails(403, "`user_disabled`: the user is disabled.")
            .fails(429, limited),
        post("/auth/logout", "logOut", "End the session")
            .may_take("Nothing", json!({}))
            .answers_nothing(204, "The session has ended."),
        get("/auth/me", "getMe", "Who the credential belongs to").answers(200, "The user.", "Me", with_scopes),
        post("/auth/password", "changePassword", "Change one's own password")
            .about("All other sessions of the user end.")
            .takes(
                "PasswordChange",
                json!({"currentPassword": "correct-horse-battery", "newPassword": "battery-horse-correct"}),
            )
            .answers_nothing(204, "It is changed.")
            .fails(401, wrong)
            .fails(429, limited),
        get("/auth/tokens", "listTokens", "List one's own API tokens").paged().answers(
            200,
            "The tokens, newest first, without their secrets.",
            "Tokens",
            json!({"tokens": [token()], "nextCursor": null}),
        ),
        post("/auth/tokens", "createToken", "Make an API token")
            .about("Without `scopes` it has all but `metrics`, `admin` and `act-as`, which only an admin may name.")
            .takes("NewToken", json!({"name": "laptop", "scopes": ["usage:read"], "expiresInDays": 90}))
            .answers(201, "The token, with its secret this once.", "CreatedToken", {
                let mut made = token();
                made["token"] = json!("tbx_...");
                made
            })
            .fails(403, "`admin_required`: a scope that only an admin may put on a token; or `session_required`."),
        delete("/auth/tokens/{id}", "revokeToken", "Revoke one of one's own API tokens")
            .of("id", "The token's id.")
            .answers_nothing(204, "It opens nothing any more."),
    ]
}

/// A token, for examples.
pub(super) fn token() -> Value {
    json!({
        "id": ID, "name": "laptop", "scopes": ["usage:read"], "createdAt": AT, "expiresAt": null, "lastUsedAt": null,
    })
}

fn user_fields() -> super::schema::Object {
    answer().has("id", id_of("The user.")).has("email", or_null(words())).has("role", role()).has("tier", words())
}

fn token_fields() -> super::schema::Object {
    answer()
        .has("id", id_of("Names the token in lists; it is not the secret."))
        .has("name", words())
        .has("scopes", list(scope()))
        .has("createdAt", time())
        .has("expiresAt", or_null(time()).about("Null: never."))
        .has("lastUsedAt", or_null(time()).about("To the minute."))
}

/// What they take and answer.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("Nothing", body().done().about("An empty object.")),
        ("Login", body().has("email", text(EMAIL_CHARACTERS)).has("password", text(COMPARED_CHARACTERS)).done()),
        ("User", user_fields().done()),
        (
            "Session",
            answer()
                .has("token", words().about("The bearer of the session."))
                .has("expiresAt", time())
                .has("user", named("User"))
                .done(),
        ),
        ("Me", user_fields().has("scopes", list(scope()).about("What the credential opens.")).done()),
        (
            "PasswordChange",
            body()
                .has("currentPassword", text(COMPARED_CHARACTERS))
                .has("newPassword", new_password())
                .may("revokeTokens", flag().default(false).about("Revokes the API tokens too."))
                .done(),
        ),
        (
            "NewToken",
            body()
                .has("name", token_name())
                .may("scopes", list_of(scope(), 1..=16))
                .may("expiresInDays", whole(EXPIRES_DAYS).about("Absent: it never expires."))
                .done(),
        ),
        ("Token", token_fields().done()),
        ("Tokens", answer().has("tokens", list(named("Token"))).has("nextCursor", next_cursor()).done()),
        ("CreatedToken", token_fields().has("token", words().about("The secret, shown this once.")).done()),
    ]
}
