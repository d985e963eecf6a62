//! What is logged holds no secret. The sieve looks at every line of the whole run; here is a run through all that has one.

use http_body_util::BodyExt;
use serde_json::json;
use tallybox::service::auth::link;
use tower::ServiceExt;

use super::matrix::session_of;
use crate::suite::gateway::fake::{Act, Fake, answer};
use crate::suite::sieve;
use crate::suite::support::{PASSWORD, TestApp, form, request};

#[tokio::test]
async fn neither_secrets_nor_what_people_say_is_logged_at_any_level() {
    let fake = Fake::start().await;
    sieve::keep();
    let toml = format!(
        "[[gateway.upstreams]]\nname = 'one'\nbase_url = '{}'\napi_key = 'sk-operator'\nmodels = ['*']\n",
        fake.url
    );
    let app = TestApp::with_config(&toml);
    // The ways in.
    let setup = app.app.store().write(link::issue_setup).await.unwrap().unwrap().address(None);
    let secret = setup.split_once("token=").unwrap().1.to_owned();
    app.call("GET", &setup, None, None).await.expect(200);
    let fields = [("token", secret.as_str()), ("email", "root@example.org"), ("password", PASSWORD)];
    app.send(form("/setup", None, &fields)).await.expect(303);
    app.call("GET", &setup, None, None).await.expect(410);
    let wrong = json!({"email": "root@example.org", "password": "not the password"});
    app.call("POST", "/auth/login", None, Some(wrong)).await.expect(401);
    let session = app.log_in("root@example.org").await;
    let made = app.tell(&session, "/auth/tokens", json!({"name": "t"})).await.expect(201).json;
    let token = made["token"].as_str().unwrap().to_owned();
    let new = json!({"email": "a@example.org"});
    let user = app.tell(&session, "/api/admin/users", new).await.expect(201).json;
    let link =
        user["link"].as_str().or_else(|| user["passwordLink"].as_str()).unwrap_or("/setup?token=none").to_owned();
    app.call("GET", &link, None, None).await;
    // What people say: stored, searched, asked, and in requests that fail.
    let said = "Ornithoptera the 47th";
    app.tell(&token, "/memory/store", json!({"type": "n", "input_context": said, "tags": [said]})).await.expect(201);
    app.tell(&token, "/memory/search", json!({"query": said})).await.expect(200);
    app.tell(&token, "/memory/store", json!({"input_context": said, "colour": said})).await.expect(422);
    app.ask(&token, "/memory?tag=Ornithoptera").await.expect(200);
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": said}], "max_tokens": 5});
    for act in [
        Act::Whole(200, answer(said, 1, 1).to_string()),
        Act::Whole(401, json!({"error": {"message": "bad key sk-operator"}}).to_string()),
        Act::Whole(500, json!({"error": {"message": said}}).to_string()),
        Act::Half,
        Act::Close,
    ] {
        fake.next(act);
        app.tell(&token, "/v1/chat/completions", chat.clone()).await;
    }
    let asked = request("POST", "/memory/store", Some(&token), Some(json!({"input_context": said})), &[]);
    app.app.router().oneshot(asked).await.unwrap().into_body().collect().await.unwrap();
    app.ask("tbx_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "/usage/tier").await.expect(401);
    app.pass().await;
    let _ = session_of(&app, "root@example.org").await;
    let logged = sieve::kept();
    assert!(logged.contains("answered") && logged.contains("an upstream failed"), "nothing is logged: {logged}");
    for secret in [said, "Ornithoptera", &secret, &session, &token, "tbx_AAAA", "sk-operator", PASSWORD] {
        assert!(!logged.contains(secret), "{secret} was logged");
    }
    assert_eq!(sieve::secret_in(&logged), None);
}
