//! What ends with what: the table of the manual, row by row.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tallybox::domain::auth::{Role, Scope};
use tallybox::service::auth::account::{Changes, load_by_email, reset_password};
use tallybox::service::auth::password;
use tokio::time::timeout;
use tower::ServiceExt;

use super::matrix::session_of;
use crate::suite::gateway::fake::{Act, Fake, Piece, said};
use crate::suite::support::{PASSWORD, TestApp, TestUser, request};

/// What happens to a user.
#[derive(Clone, Copy, Debug)]
enum Event {
    PasswordChanged,
    PasswordChangedWithTokens,
    PasswordResetByAdmin,
    PasswordResetByCommandLine,
    Disabled,
    Lowered,
    TokenRevoked,
    TokenExpired,
    Erased,
}

/// What still opens something afterwards.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// The session in which it was done, where the user did it, and another one.
    sessions: [bool; 2],
    /// A token, and another one that nothing was done to.
    tokens: [bool; 2],
    /// Whether the token still reaches administration, and still acts for others.
    privileges: [bool; 2],
    /// Whether the old password opens the door.
    password: bool,
}

/// A user with all that can end.
struct Victim {
    user: TestUser,
    sessions: [String; 2],
    /// The first is revoked, or expires after a day.
    tokens: [String; 2],
    token_id: String,
    bystander: TestUser,
}

async fn victim(app: &TestApp, role: Role) -> Victim {
    let bystander = app.user("bystander@example.org", "basic").await;
    let user = match role {
        Role::Admin => app.admin("a@example.org").await,
        Role::User => app.user_with_password("a@example.org", "basic").await,
    };
    let sessions = [session_of(app, &user.email).await, session_of(app, &user.email).await];
    let scopes = match role {
        Role::Admin => json!(Scope::ALL.map(Scope::as_str)),
        Role::User => json!(["usage:read"]),
    };
    let body = json!({"name": "first", "scopes": scopes, "expiresInDays": 1});
    let made = app.tell(&sessions[0], "/auth/tokens", body).await.expect(201).json;
    let first = made["token"].as_str().unwrap().to_owned();
    let tokens = [first, user.token.clone()];
    Victim { user, sessions, tokens, token_id: made["id"].as_str().unwrap().to_owned(), bystander }
}

async fn happen(app: &TestApp, root: &TestUser, event: Event, victim: &Victim) {
    let path = format!("/api/admin/users/{}", victim.user.id);
    let root_session = session_of(app, &root.email).await;
    let changes = async |changes: Value| {
        app.call("PATCH", &path, Some(&root_session), Some(changes)).await.expect(200);
    };
    let change_own = async |revoke: bool| {
        let body = json!({"currentPassword": PASSWORD, "newPassword": "another good password", "revokeTokens": revoke});
        app.tell(&victim.sessions[0], "/auth/password", body).await.expect(204);
    };
    match event {
        Event::PasswordChanged => change_own(false).await,
        Event::PasswordChangedWithTokens => change_own(true).await,
        Event::PasswordResetByAdmin => {
            app.tell(&root_session, &format!("{path}/password"), json!({})).await.expect(200);
        }
        Event::PasswordResetByCommandLine => {
            let (by, hash) = (app.by(), password::hash("another good password").unwrap());
            let email = victim.user.email.clone();
            let reset = app.app.store().write(move |writer| {
                let user = load_by_email(writer, &email)?;
                reset_password(writer, &by, &user, Some(&hash))
            });
            reset.await.unwrap();
        }
        Event::Disabled => changes(json!({"disabled": true})).await,
        Event::Lowered => changes(json!({"role": "user"})).await,
        Event::TokenRevoked => {
            app.drop_at(&victim.sessions[0], &format!("/auth/tokens/{}", victim.token_id)).await.expect(204);
        }
        Event::TokenExpired => app.clock.advance_millis(86_400_000),
        Event::Erased => {
            app.drop_at(&root_session, &format!("{path}?erase=true")).await.expect(200);
        }
    }
}

async fn left(app: &TestApp, victim: &Victim) -> Left {
    let opens = async |secret: &str| app.ask(secret, "/auth/me").await.status == 200;
    let named = [("x-user-id", victim.bystander.id.as_str())];
    let acts = app.call_with("GET", "/usage/tier", Some(&victim.tokens[1]), None, &named).await.status == 200;
    let administers = app.ask(&victim.tokens[1], "/api/admin/users").await.status == 200;
    let body = json!({"email": victim.user.email, "password": PASSWORD});
    Left {
        sessions: [opens(&victim.sessions[0]).await, opens(&victim.sessions[1]).await],
        tokens: [opens(&victim.tokens[0]).await, opens(&victim.tokens[1]).await],
        privileges: [administers, acts],
        password: app.call("POST", "/auth/login", None, Some(body)).await.status == 200,
    }
}

#[tokio::test]
async fn what_a_change_a_reset_a_disabling_and_the_others_end() {
    let (on, off) = (true, false);
    let left_of = |sessions, tokens, privileges, password| Left { sessions, tokens, privileges, password };
    let table = [
        (Event::PasswordChanged, Role::User, left_of([on, off], [on, on], [off, off], off)),
        (Event::PasswordChanged, Role::Admin, left_of([on, off], [on, on], [on, on], off)),
        (Event::PasswordChangedWithTokens, Role::Admin, left_of([on, off], [off, off], [off, off], off)),
        (Event::PasswordResetByAdmin, Role::Admin, left_of([off, off], [off, off], [off, off], off)),
        (Event::PasswordResetByCommandLine, Role::User, left_of([off, off], [off, off], [off, off], off)),
        (Event::Disabled, Role::Admin, left_of([off, off], [off, off], [off, off], off)),
        (Event::Lowered, Role::Admin, left_of([off, off], [on, on], [off, off], on)),
        (Event::TokenRevoked, Role::Admin, left_of([on, on], [off, on], [on, on], on)),
        (Event::TokenExpired, Role::Admin, left_of([on, on], [off, on], [on, on], on)),
        (Event::Erased, Role::Admin, left_of([off, off], [off, off], [off, off], off)),
    ];
    for (event, role, expected) in table {
        let app = TestApp::new();
        let root = app.admin("root@example.org").await;
        let victim = victim(&app, role).await;
        let is_admin = role == Role::Admin;
        let before = left_of([on, on], [on, on], [is_admin, is_admin], on);
        assert_eq!(left(&app, &victim).await, before, "{event:?} of {role:?}");
        happen(&app, &root, event, &victim).await;
        assert_eq!(left(&app, &victim).await, expected, "{event:?} of {role:?}");
        // Nobody else notices.
        app.ask(&victim.bystander.token, "/auth/me").await.expect(200);
        app.ask(&root.token, "/api/admin/users").await.expect(200);
        app.proves();
    }
}

/// A stream that has said a word.
async fn begin(app: &TestApp, secret: &str) -> Body {
    let messages = json!([{"role": "user", "content": "How are you today?"}]);
    let body = json!({"model": "gpt-4o", "stream": true, "max_tokens": 20, "messages": messages});
    let request = request("POST", "/v1/chat/completions", Some(secret), Some(body), &[]);
    let mut body = app.app.router().oneshot(request).await.unwrap().into_body();
    assert!(next(&mut body).await.unwrap().contains("One"));
    body
}

/// The next piece of a stream; none where it goes on and says nothing.
async fn next(body: &mut Body) -> Option<String> {
    let frame = timeout(Duration::from_millis(900), body.frame()).await.ok()??;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn a_stream_ends_with_its_credential_and_with_no_other() {
    let fake = Fake::start().await;
    fake.always(Act::Stream(vec![said("One"), Piece::Silence]));
    let upstream = format!("[[gateway.upstreams]]\nname = 'one'\nbase_url = '{}'\nmodels = ['*']\n", fake.url);
    for (event, ends) in [
        (Event::PasswordChanged, [false, true, false, false]),
        (Event::PasswordChangedWithTokens, [false, true, true, true]),
        (Event::PasswordResetByAdmin, [true; 4]),
        (Event::PasswordResetByCommandLine, [true; 4]),
        (Event::TokenExpired, [false, false, true, false]),
    ] {
        let app = TestApp::with_config(&upstream);
        let root = app.admin("root@example.org").await;
        let victim = victim(&app, Role::Admin).await;
        let mut streams = Vec::new();
        for secret in victim.sessions.iter().chain(&victim.tokens) {
            streams.push(begin(&app, secret).await);
        }
        happen(&app, &root, event, &victim).await;
        for (stream, is_over) in streams.iter_mut().zip(ends) {
            let last = next(stream).await;
            assert_eq!(last.is_some_and(|last| last.contains("credential_ended")), is_over, "{event:?}");
        }
        drop(streams);
        let count = |list: &[Value], outcome: &str| {
            list.iter().filter(|entry| entry["metadata"]["outcome"] == outcome && entry["amount"] == 12).count()
        };
        let over = ends.iter().filter(|is_over| **is_over).count();
        let path = format!("/api/admin/users/{}/ledger", victim.user.id);
        let mut left = 100;
        while left > 0 {
            let found = app.ask(&root.token, &path).await.expect(200).json["entries"].clone();
            let found = found.as_array().unwrap();
            if found.len() == ends.len() {
                assert_eq!(
                    (count(found, "credential_ended"), count(found, "client_gone")),
                    (over, 4 - over),
                    "{event:?}"
                );
                break;
            }
            left -= 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(left > 0, "{event:?}: a stream was not settled");
        app.proves();
    }
}

#[tokio::test]
async fn what_a_disabling_ends_comes_back_but_for_the_sessions() {
    let app = TestApp::new();
    app.admin("root@example.org").await;
    let victim = victim(&app, Role::User).await;
    let hold = app.hold(&victim.user, 10).await;
    for disabled in [true, false] {
        app.change(&victim.user.email, Changes { disabled: Some(disabled), ..Changes::default() }).await;
    }
    let left = left(&app, &victim).await;
    assert_eq!((left.sessions, left.tokens, left.password), ([false, false], [true, true], true));
    app.settle(&victim.user, &hold, 10).await.expect(200);
    app.proves();
}
