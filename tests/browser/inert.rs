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
    let people = people_named_by_payloads(&world).await;
    let memories = memories_of_payloads(&world).await;
    browse(world, Scripts::On, async |browser, world| {
        browser.lift_policy().await;
        browser.complaints().await;
        for page in PAGES {
            browser.hold_session(page.user.map(|email| world.session(email))).await;
            browser.visit(&world.path(page)).await;
            is_inert(browser, page.name).await;
        }
        browser.hold_session(Some(world.session(CALM))).await;
        for (payload, id) in PAYLOADS.iter().zip(&memories) {
            for path in [format!("/memories/{id}"), format!("/memories/{id}/delete")] {
                browser.visit(&path).await;
                is_inert(browser, payload).await;
                assert_eq!(browser.text(".memory-text").await, *payload);
            }
            let asked = [("q", payload), ("tag", payload), ("type", payload), ("session", payload)];
            browser.visit(&format!("/memories?{}", serde_urlencoded::to_string(asked).unwrap())).await;
            is_inert(browser, payload).await;
            assert_eq!(browser.text(".result-text").await, *payload);
        }
        browser.hold_session(Some(world.session(ADMIN))).await;
        for (payload, person) in PAYLOADS.iter().zip(&people) {
            let asked = serde_urlencoded::to_string([("q", payload)]).unwrap();
            let user = format!("/admin/users/{}", person.id);
            for path in [format!("{user}/erase"), user, format!("/admin/audit?{asked}")] {
                browser.visit(&path).await;
                is_inert(browser, payload).await;
                let main: String =
                    browser.script("return document.querySelector('main').textContent", Vec::new()).await;
                assert!(main.contains(payload), "{path}: {main}");
            }
        }
        for (payload, person) in PAYLOADS.iter().zip(&people) {
            browser.hold_session(Some(&person.session)).await;
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
            let next = format!("/{payload}");
            send(browser, "/login", &[("email", payload), ("next", &next), ("password", "not it")]).await;
            let (email, next): (String, String) = browser.script(TYPED, Vec::new()).await;
            assert_eq!(email, *payload);
            // Where that is no address of the box, it is where everybody goes.
            assert!(next == format!("/{payload}") || next == "/usage", "{payload}: {next}");
            is_inert(browser, payload).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_form_refuses_is_shown_again_and_does_nothing() {
    const TYPED: &str = "return [...document.querySelectorAll(`[name='${arguments[0]}']`)].map(field => field.value)";
    browse(World::lived_in().await, Scripts::On, async |browser, world| {
        browser.lift_policy().await;
        browser.visit("/login").await;
        let memory = format!("/memories/{}", world.memory);
        let ledger = format!("/admin/users/{}/ledger", world.users[CALM].id);
        for (email, path, names) in [
            (CALM, &*memory, &["input_context", "type", "tier", "tags"][..]),
            (CALM, "/account/tokens", &["name"]),
            (ADMIN, "/admin/users", &["email", "role", "tier"]),
            (ADMIN, &ledger, &["amount", "reverses", "reason"]),
        ] {
            browser.hold_session(Some(world.session(email))).await;
            browser.complaints().await;
            for payload in PAYLOADS {
                let fields: Vec<(&str, &str)> = names.iter().map(|name| (*name, *payload)).collect();
                send(browser, path, &fields).await;
                is_inert(browser, payload).await;
                let typed: Vec<String> = browser.script(TYPED, vec![json!(names[0])]).await;
                assert!(typed.iter().any(|typed| typed == payload), "{path}: {payload}: {typed:?}");
            }
        }
    })
    .await;
}

/// Sends a form from the page that is shown, and waits for the answer.
async fn send(browser: &Browser, path: &str, fields: &[(&str, &str)]) {
    const SEND: &str = "
        const form = document.createElement('form');
        form.method = 'post';
        form.action = arguments[0];
        for (const [name, value] of arguments[1]) {
            const field = document.createElement('input');
            field.type = 'hidden';
            field.name = name;
            field.value = value;
            form.append(field);
        }
        document.body.append(form);
        form.submit()";
    let before = browser.root().await;
    let () = browser.script(SEND, vec![json!(path), json!(fields)]).await;
    browser.leaves(&before, path).await;
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

/// A user who is named by a payload.
struct Person {
    id: String,
    session: String,
}

/// A user for each payload, who is on the tier of that name.
async fn people_named_by_payloads(world: &World) -> Vec<Person> {
    let tiers = Config::parse(Some(&tiers_named_by_payloads()), &Environment::default()).unwrap().tiers;
    let password_hash = password::hash(PASSWORD).unwrap();
    let mut people = Vec::new();
    for payload in PAYLOADS {
        let (by, tiers) = (world.app.by(), tiers.clone());
        let email = format!("{payload}@example.org");
        let new = New {
            email: Some(email.clone()),
            role: Role::User,
            tier: (*payload).to_owned(),
            password_hash: Some(password_hash.clone()),
        };
        let made = world.app.app.store().write(move |writer| create(writer, &by, &tiers, &new)).await.unwrap();
        let session = world.app.log_in(&email).await;
        let run = json!({"name": payload});
        world.app.call("POST", "/agents/runs", Some(&session), Some(run)).await.expect(201);
        people.push(Person { id: made.0.id.to_string(), session });
    }
    people
}

/// Memories, tokens and entries that carry payloads wherever the API takes text, of those who look at the table's pages. The
/// ids of the memories of [`CALM`].
async fn memories_of_payloads(world: &World) -> Vec<String> {
    let mut ids = Vec::new();
    for email in [ADMIN, CALM] {
        ids.clear();
        let token = Some(world.users[email].token.as_str());
        let session = Some(world.session(email));
        for payload in PAYLOADS {
            let memory = json!({"type": payload, "input_context": payload, "tags": [payload], "session": payload,
                "metadata": {*payload: payload}});
            let stored = world.app.call("POST", "/memory/store", token, Some(memory)).await.expect(201);
            ids.push(stored.json["id"].as_str().unwrap().to_owned());
            let named = json!({"name": payload});
            world.app.call("POST", "/auth/tokens", session, Some(named)).await.expect(201);
            let entry = json!({"resourceType": "llm_tokens", "amount": 1, "metadata": {"text": payload}});
            world.app.call("POST", "/usage/record", token, Some(entry)).await.expect(201);
        }
    }
    ids
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
