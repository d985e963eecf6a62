//! The pages of memories.

use super::browser::{Scripts, browse};
use super::world::{CALM, CLOSE, World};

#[tokio::test]
async fn a_memory_is_searched_for_changed_and_deleted() {
    for scripts in [Scripts::On, Scripts::Off] {
        browse(World::lived_in().await, scripts, async |browser, world| {
            browser.hold_session(Some(world.session(CALM))).await;
            browser.visit("/memories").await;
            assert_eq!(browser.texts("ol.results > li").await.len(), 4);
            browser.fill("q", "tea or lemonade").await;
            browser.press("Search").await;
            assert!(browser.text(".results-head h2").await.contains("match"));
            assert_eq!(browser.text("ol.results > li:first-child .result-text").await, "Prefers tea to coffee");
            assert_eq!(browser.texts("ol.results > li:first-child mark").await, ["tea"]);
            assert_eq!(browser.texts("ol.results > li:first-child dt").await, ["semantic", "keyword"]);
            for figure in browser.texts("ol.results > li:first-child .score b").await {
                let figure: f32 = figure.parse().unwrap();
                assert!(figure > 0.2 && figure <= 1.0, "{figure}");
            }
            browser.press("home").await;
            assert_eq!(browser.texts("ul.in-force li").await.len(), 1);
            let list = browser.place().await;
            assert!(list.contains("tag=home") && list.contains("q=tea+or+lemonade"), "{list}");

            browser.press("Open").await;
            assert_eq!(browser.heading().await, "Memory");
            browser.fill("input_context", "Prefers <b>iced</b> lemonade").await;
            browser.choose("tier", "itm").await;
            browser.press("Save changes").await;
            assert_eq!(browser.text("[role='status']").await, "The changes are saved.");
            assert_eq!(browser.text(".memory-text").await, "Prefers <b>iced</b> lemonade");
            browser.press("Back to the list").await;
            assert_eq!(browser.place().await, list);
            let first = browser.text("ol.results > li:first-child .result-text").await;
            assert_eq!(first, "Prefers <b>iced</b> lemonade", "the new text is what a search finds");

            browser.press("Open").await;
            browser.press("Delete").await;
            assert_eq!(browser.heading().await, "Delete this memory?");
            browser.press("Keep it").await;
            assert_eq!(browser.heading().await, "Memory");
            browser.press("Delete").await;
            browser.press("Delete memory").await;
            assert_eq!(browser.text("[role='status']").await, "The memory is deleted.");
            assert!(browser.place().await.starts_with(&list), "{}", browser.place().await);
            browser.visit("/memories").await;
            let left = browser.texts("ol.results > li").await;
            assert!(left.len() == 3 && !left.iter().any(|row| row.contains("lemonade")), "{left:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_text_that_is_too_long_is_told_beside_its_field() {
    browse(World::lived_in().await, Scripts::On, async |browser, world| {
        browser.hold_session(Some(world.session(CALM))).await;
        browser.visit(&format!("/memories/{}", world.memory)).await;
        browser.fill("type", &"x".repeat(200)).await;
        browser.press("Save changes").await;
        assert_eq!(browser.status().await, 422);
        assert!(browser.text("#type-fault").await.contains("characters"));
        browser.hold_session(Some(world.session(CLOSE))).await;
        browser.visit(&format!("/memories/{}", world.memory)).await;
        assert_eq!(browser.status().await, 404, "the memory of another");
    })
    .await;
}
