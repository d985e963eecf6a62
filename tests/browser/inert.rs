//! What people write stays text, wherever a page shows it.

use std::fmt::Write;

use serde_json::{Value, json};
use tallybox::config::{Config, Environment};
use tallybox::domain::auth::Role;
use tallybox::service::auth::account::{New, create};
use tallybox::service::auth::password;

use super::browser::{Browser, Scripts, browse};
use super::payloads::PAYLOADS;
use super::support::{PASSWORD, TestApp};
use super::world::{ADMIN, CALM, PAGES, World};

/// Elements and attributes that no page of ours has in its content: found, a payload was taken for markup.
const FOREIGN: &str = "
    const foreign = 'script:not([src]), head script ~ script, body script, style, iframe, object, embed, base, math, '
        + 'meta[http-equiv], link[href^=\"//\"], img:not([src^=\"/assets/\"]), form:not([action^=\"/\"]), '
        + '[href^=\"javascript:\"], [autofocus], [onerror], [onload], [onfocus], [ontoggle], [onmouseover]';
    return [window.pwned ?? null, [...document.querySelectorAll(foreign)].map(found => found.outerHTML)]";

#[tokio::test]
async fn what_people_write_is_shown_and_does_nothing() {
    let world = World::of(TestApp::with_config(&tiers_named_by_payloads())).await;
    let sessions = people_named_by_payloads(&world).await;
    memories_of_payloads(&world).await;
    browse(world, Scripts::On, async |browser, world| {
        browser.lift_policy().await;
        browser.complaints().await;
        for page in PAGES {
            browser.hold_session(page.user.map(|email| world.session(email))).await;
            browser.visit(&world.path(page)).await;
            is_inert(browser, page.name).await;
        }
        for (payload, session) in PAYLOADS.iter().zip(&sessions) {
            browser.hold_session(Some(session)).await;
            browser.visit("/usage").await;
            is_inert(browser, payload).await;
            let shown: String = browser.script("return document.querySelector('.who').textContent", Vec::new()).await;
            assert_eq!(shown.matches(payload).count(), 2, "the address and the tier: {shown}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_request_says_is_shown_and_does_nothing() {
    const SEND: &str = "
        const form = document.createElement('form');
        form.method = 'post';
        form.action = '/login';
        for (const [name, value] of [['email', arguments[0]], ['next', '/' + arguments[0]], ['password', 'not it']]) {
            const field = document.createElement('input');
            field.type = 'hidden';
            field.name = name;
            field.value = value;
            form.append(field);
        }
        document.body.append(form);
        form.submit()";
    const TYPED: &str = "
        const form = document.querySelector('form[action=\"/login\"]');
        return [form.email.value, form.next.value]";
    browse(World::lived_in().await, Scripts::On, async |browser, _| {
        browser.lift_policy().await;
        browser.complaints().await;
        for payload in PAYLOADS {
            let quoted = serde_urlencoded::to_string([("q", payload)]).unwrap().split_off(2).replace('+', "%20");
            browser.visit(&format!("/{quoted}")).await;
            is_inert(browser, payload).await;
            let before = browser.root().await;
            let () = browser.script(SEND, vec![json!(payload)]).await;
            browser.leaves(&before, payload).await;
            let (email, next): (String, String) = browser.script(TYPED, Vec::new()).await;
            assert_eq!(email, *payload);
            // Where that is no address of the box, it is where everybody goes.
            assert!(next == format!("/{payload}") || next == "/usage", "{payload}: {next}");
            is_inert(browser, payload).await;
        }
    })
    .await;
}

/// Nothing of the page ran, was taken for markup or was loaded from elsewhere. (A dialogue that is open fails any command.)
async fn is_inert(browser: &Browser, what: &str) {
    let (pwned, foreign): (Option<Value>, Vec<String>) = browser.script(FOREIGN, Vec::new()).await;
    assert_eq!(pwned, None, "{what}: a script ran");
    assert_eq!(foreign, Vec::<String>::new(), "{what}: taken for markup");
    assert_eq!(browser.complaints().await, Vec::<String>::new(), "{what}");
}

/// A tier for each payload, with limits that no text acts on.
fn tiers_named_by_payloads() -> String {
    let mut config = String::new();
    for payload in PAYLOADS {
        let name = toml_text(payload);
        write!(config, "[tiers.{name}]\nllm_tokens_day = 10\nmemory_storage_bytes = 10\nagent_minutes_month = 10\n")
            .unwrap();
    }
    config
}

/// `text` as a basic string of TOML, which JSON's is too.
fn toml_text(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A user for each payload, who is on the tier of that name; their sessions.
async fn people_named_by_payloads(world: &World) -> Vec<String> {
    let tiers = Config::parse(Some(&tiers_named_by_payloads()), &Environment::default()).unwrap().tiers;
    let password_hash = password::hash(PASSWORD).unwrap();
    let mut sessions = Vec::new();
    for payload in PAYLOADS {
        let (by, tiers) = (world.app.by(), tiers.clone());
        let email = format!("{payload}@example.org");
        let new = New {
            email: Some(email.clone()),
            role: Role::User,
            tier: (*payload).to_owned(),
            password_hash: Some(password_hash.clone()),
        };
        world.app.app.store().write(move |writer| create(writer, &by, &tiers, &new)).await.unwrap();
        sessions.push(world.app.log_in(&email).await);
    }
    sessions
}

/// Memories, tokens and entries that carry payloads wherever the API takes text, of those who look at the table's pages.
async fn memories_of_payloads(world: &World) {
    for email in [CALM, ADMIN] {
        let token = Some(world.users[email].token.as_str());
        let session = Some(world.session(email));
        for payload in PAYLOADS {
            let memory = json!({"type": payload, "input_context": payload, "tags": [payload], "session": payload,
                "metadata": {*payload: payload}});
            world.app.call("POST", "/memory/store", token, Some(memory)).await.expect(201);
            let named = json!({"name": payload});
            world.app.call("POST", "/auth/tokens", session, Some(named)).await.expect(201);
            let entry = json!({"resourceType": "llm_tokens", "amount": 1, "metadata": {"text": payload}});
            world.app.call("POST", "/usage/record", token, Some(entry)).await.expect(201);
        }
    }
}

#[tokio::test]
async fn a_payload_that_acts_is_noticed() {
    const SPOIL: &str = "
        document.querySelector('h1').innerHTML = arguments[0];
        setTimeout(arguments[arguments.length - 1], 200)";
    browse(World::lived_in().await, Scripts::On, async |browser, _| {
        browser.lift_policy().await;
        browser.visit("/login").await;
        browser.complaints().await;
        let () = browser.script_later(SPOIL, vec![json!(SPOILT)]).await;
        let (_, foreign): (Option<Value>, Vec<String>) = browser.script(FOREIGN, Vec::new()).await;
        assert_eq!(foreign.len(), 2, "{foreign:?}");
        let complaints = browser.complaints().await.join("\n");
        assert!(complaints.contains("asked for http://127.0.0.1:9/x"), "{complaints}");
        let pwned: Option<Value> = browser.script("return window.pwned ?? null", Vec::new()).await;
        assert_eq!(pwned, Some(json!(1)));
    })
    .await;
}

/// What a heading that was not escaped would hold.
const SPOILT: &str = "<img src=http://127.0.0.1:9/x onerror=window.pwned=1><b onload=x>bold</b>";
