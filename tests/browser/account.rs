//! The page of one's own account.

use super::browser::{Scripts, browse};
use super::support::PASSWORD;
use super::world::{CALM, World};

/// Where the secret is, and how high the window is.
const SECRET_AT: &str = "
    const place = document.querySelector('figure.copy pre').getBoundingClientRect();
    return [place.top, place.bottom, innerHeight]";

#[tokio::test]
async fn a_token_is_made_used_and_revoked_by_clicks() {
    for scripts in [Scripts::On, Scripts::Off] {
        browse(World::lived_in().await, scripts, async |browser, world| {
            browser.hold_session(Some(world.session(CALM))).await;
            browser.visit("/account").await;
            browser.fill("name", "laptop").await;
            browser.choose("expires", "30").await;
            browser.press("Create the token").await;
            let secret = browser.text("figure.copy pre").await;
            assert!(secret.starts_with("tbx_"), "{secret}");
            let (top, bottom, window): (f64, f64, f64) = browser.script(SECRET_AT, Vec::new()).await;
            assert!(top >= 0.0 && bottom <= window, "the secret is not on the screen: {top} to {bottom} of {window}");
            assert_eq!(browser.has("figure.copy button").await, scripts == Scripts::On, "a button to copy it");
            world.app.call("GET", "/usage/tokens", Some(&secret), None).await.expect(200);
            browser.visit("/account").await;
            let page = browser.text("main").await;
            assert!(page.contains("laptop") && !page.contains(&secret), "{page}");
            browser.press("Revoke token laptop").await;
            assert!(browser.text("[role='status']").await.starts_with("The token is revoked."));
            assert!(!browser.text("table").await.contains("laptop"));
            world.app.call("GET", "/usage/tokens", Some(&secret), None).await.expect(401);
        })
        .await;
    }
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_the_old_one() {
    const NEW: &str = "other horse, other staple";
    browse(World::lived_in().await, Scripts::On, async |browser, world| {
        browser.hold_session(Some(world.session(CALM))).await;
        browser.complaints().await;
        browser.visit("/account").await;
        browser.fill("current", "not the password").await;
        browser.fill("new", NEW).await;
        browser.press("Change the password").await;
        assert_eq!(browser.text("#current-fault").await, "is not your password");
        browser.fill("current", PASSWORD).await;
        browser.fill("new", NEW).await;
        browser.press("Change the password").await;
        assert!(browser.text("[role='status']").await.contains("password is changed"));
        browser.press("Sign out").await;
        browser.sign_in(CALM, NEW).await;
        assert_eq!(browser.heading().await, "Usage");
    })
    .await;
}
