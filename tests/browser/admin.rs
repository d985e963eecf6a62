//! The pages of whoever runs the box.

use super::browser::{Scripts, browse};
use super::support::PASSWORD;
use super::world::{ADMIN, CALM, OVER, World};

#[tokio::test]
async fn another_tier_holds_at_once() {
    for scripts in [Scripts::On, Scripts::Off] {
        browse(World::lived_in().await, scripts, async |browser, world| {
            let token = Some(world.users[OVER].token.as_str());
            let more = || serde_json::json!({"resourceType": "llm_tokens", "amount": 1, "enforce": true});
            world.app.call("POST", "/usage/record", token, Some(more())).await.expect(429);
            browser.hold_session(Some(world.session(ADMIN))).await;
            browser.visit("/admin").await;
            browser.fill("q", "OVER@").await;
            browser.press("Find").await;
            assert_eq!(browser.texts("[aria-labelledby='h-users'] tbody tr").await.len(), 1);
            browser.press(OVER).await;
            assert_eq!(browser.heading().await, OVER);
            browser.choose("tier", "pro").await;
            browser.press("Set tier").await;
            assert!(browser.has("[role='status'] .is-ok").await);
            assert!(browser.text(".gauges").await.contains("no limit"));
            world.app.call("POST", "/usage/record", token, Some(more())).await.expect(201);
            browser.hold_session(Some(world.session(OVER))).await;
            browser.visit("/usage").await;
            assert!(browser.text(".who").await.contains("pro"));
            let gauge = browser.text("[aria-labelledby='gauge-llm_tokens']").await;
            assert!(gauge.contains("50,001") && gauge.contains("no limit"), "{gauge}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_link_is_whole_where_scripts_run() {
    browse(World::lived_in().await, Scripts::On, async |browser, world| {
        browser.hold_session(Some(world.session(ADMIN))).await;
        browser.visit("/admin/users/new").await;
        browser.fill("email", "new@example.org").await;
        browser.press("Add the user").await;
        let origin: String = browser.script("return location.origin", Vec::new()).await;
        let link = browser.text("figure.copy pre").await;
        assert!(link.starts_with(&format!("{origin}/setup?token=")), "{link}");
        assert!(browser.text(".note").await.contains(&origin));
    })
    .await;
}

#[tokio::test]
async fn a_user_is_added_disabled_and_erased() {
    const NEW: &str = "new@example.org";
    browse(World::lived_in().await, Scripts::Off, async |browser, world| {
        browser.hold_session(Some(world.session(ADMIN))).await;
        browser.visit("/admin").await;
        browser.press("Add a user").await;
        browser.fill("email", NEW).await;
        browser.press("Add the user").await;
        let link = browser.text("figure.copy pre").await;
        browser.hold_session(None).await;
        browser.visit(&link).await;
        browser.fill("password", PASSWORD).await;
        browser.press("Set the password").await;
        assert_eq!(browser.heading().await, "Usage");
        assert!(browser.text(".who").await.contains(NEW));

        browser.hold_session(Some(world.session(ADMIN))).await;
        browser.visit("/admin").await;
        browser.press(NEW).await;
        browser.press("Disable the user").await;
        assert!(browser.text(".page-head .state").await.starts_with("Disabled"));
        browser.press("Erase the user").await;
        browser.fill("confirm", CALM).await;
        browser.press("Erase for good").await;
        assert_eq!(browser.heading().await, format!("Erase {NEW}"));
        assert!(browser.has(".field-error").await);
        browser.fill("confirm", NEW).await;
        browser.press("Erase for good").await;
        assert_eq!(browser.heading().await, "Admin");
        assert!(!browser.text("[aria-labelledby='h-users'] table").await.contains(NEW));
        browser.press("Audit log").await;
        assert!(browser.text("table tbody tr").await.contains("Erased a user"));

        browser.hold_session(None).await;
        browser.visit("/login").await;
        browser.sign_in(NEW, PASSWORD).await;
        assert!(browser.text("[role='alert']").await.contains("Email or password is wrong."));
    })
    .await;
}

#[tokio::test]
async fn whoever_is_no_admin_is_told_so() {
    for scripts in [Scripts::On, Scripts::Off] {
        browse(World::lived_in().await, scripts, async |browser, world| {
            browser.hold_session(Some(world.session(CALM))).await;
            browser.visit("/usage").await;
            assert!(!browser.has("nav a[href^='/admin']").await);
            for path in
                ["/admin", "/admin/audit", "/admin/users/new", &format!("/admin/users/{}", world.users[OVER].id)]
            {
                browser.visit(path).await;
                assert_eq!(browser.heading().await, "This page is not open to you", "{path}");
                assert!(!browser.text("body").await.contains(OVER), "{path}");
            }
        })
        .await;
    }
}
