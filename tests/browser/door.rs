//! Setting up, signing in, signing out.

use super::browser::{Scripts, browse};
use super::every_page::faults_of;
use super::support::PASSWORD;
use super::world::{CALM, SETUP, World};

#[tokio::test]
async fn a_box_is_set_up_through_its_one_time_link() {
    browse(World::fresh().await, Scripts::On, async |browser, world| {
        assert_eq!(faults_of(browser, world, &SETUP).await, Vec::<String>::new());
        let path = world.path(&SETUP);
        browser.visit(&path).await;
        browser.fill("email", "first@example.org").await;
        browser.fill("password", "short").await;
        browser.press("Create the administrator").await;
        assert_eq!(browser.place().await, "/setup");
        assert_eq!(browser.text(".field-error").await, "must have 10 to 256 characters");
        browser.fill("password", PASSWORD).await;
        browser.press("Create the administrator").await;
        assert_eq!(browser.place().await, "/usage");
        assert_eq!(browser.heading().await, "Usage");
        assert!(browser.text(".who").await.contains("first@example.org"));
        browser.visit(&path).await;
        assert_eq!(browser.heading().await, "This link no longer works");
    })
    .await;
}

#[tokio::test]
async fn whoever_signs_in_returns_to_where_they_were_going() {
    for scripts in [Scripts::On, Scripts::Off] {
        browse(World::lived_in().await, scripts, async |browser, _| {
            browser.visit("/usage?days=7").await;
            assert_eq!(browser.heading().await, "Sign in");
            browser.sign_in(CALM, "not the password").await;
            assert_eq!(browser.heading().await, "Sign in");
            assert!(browser.text("[role='alert']").await.contains("Email or password is wrong."));
            browser.sign_in(CALM, PASSWORD).await;
            assert_eq!(browser.place().await, "/usage?days=7");
            assert_eq!(browser.heading().await, "Usage");
            browser.press("Sign out").await;
            assert_eq!(browser.place().await, "/login");
            browser.visit("/usage").await;
            assert_eq!(browser.place().await, "/login?next=%2Fusage");
        })
        .await;
    }
}
