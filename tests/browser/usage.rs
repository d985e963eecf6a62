//! The page of the usage.

use fantoccini::key::Key;
use serde_json::json;

use super::browser::{Browser, Scripts, browse};
use super::world::{CALM, CLOSE, OVER, World};

/// The class that tells the state of the card of the tokens, the colour of its bar, and the colour that this state's
/// variable stands for.
const BAR: &str = r"
    const card = document.querySelector('[aria-labelledby=gauge-llm_tokens]');
    const state = [...card.classList].find(name => name.startsWith('is-'));
    const value = getComputedStyle(document.documentElement).getPropertyValue('--' + state.slice(3));
    const [r, g, b] = [1, 3, 5].map(at => parseInt(value.trim().slice(at, at + 2), 16));
    return [state, getComputedStyle(card.querySelector('.stick-fill')).fill, `rgb(${r}, ${g}, ${b})`];
";

#[tokio::test]
async fn green_amber_and_red_tell_how_close_a_limit_is() {
    browse(World::lived_in().await, Scripts::On, async |browser, world| {
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).await;
            let mut colours = Vec::new();
            for (email, class) in [(CALM, "is-ok"), (CLOSE, "is-warn"), (OVER, "is-stop")] {
                browser.hold_session(Some(world.session(email))).await;
                browser.visit("/usage").await;
                let (state, shown, meant): (String, String, String) = browser.script(BAR, Vec::new()).await;
                assert_eq!((state.as_str(), &shown), (class, &meant), "{scheme}, {email}");
                assert_eq!(browser.has(".notices").await, email != CALM, "{scheme}, {email}");
                colours.push(shown);
            }
            colours.sort_unstable();
            colours.dedup();
            assert_eq!(colours.len(), 3, "{scheme}: {colours:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_range_is_changed_by_a_click() {
    for scripts in [Scripts::On, Scripts::Off] {
        browse(World::lived_in().await, scripts, async |browser, world| {
            browser.hold_session(Some(world.session(CALM))).await;
            browser.visit("/usage").await;
            assert_eq!(chosen(browser).await, "30 days");
            for days in [7, 90, 30] {
                browser.press(&format!("{days} days")).await;
                assert_eq!(browser.place().await, format!("/usage?days={days}#history"));
                assert_eq!(chosen(browser).await, format!("{days} days"));
            }
        })
        .await;
    }
}

async fn chosen(browser: &Browser) -> String {
    browser.text(".seg [aria-current]").await
}

#[tokio::test]
async fn a_chart_reads_out_the_day_that_is_pointed_at_or_reached_by_the_keys() {
    const FOCUS: &str = "document.querySelector(arguments[0]).focus()";
    browse(World::lived_in().await, Scripts::On, async |browser, world| {
        browser.hold_session(Some(world.session(CALM))).await;
        browser.visit("/usage?days=7").await;
        assert!(browser.text(".reading").await.starts_with("Point at a day"));
        browser.point_at(".plot > svg g.day:nth-last-of-type(3)").await;
        let pointed = browser.text(".reading").await;
        assert!(pointed.contains("8 Mar"), "{pointed}");
        let () = browser.script(FOCUS, vec![json!(".plot > svg")]).await;
        for (key, day) in [(Key::End, "10 Mar"), (Key::Left, "9 Mar"), (Key::Right, "10 Mar"), (Key::Home, "4 Mar")] {
            browser.key(key).await;
            let read = browser.text(".reading").await;
            assert!(read.contains(day), "{day}: {read}");
            assert_eq!(browser.texts("g.day.is-read").await.len(), 1);
        }
        assert!(!browser.has("details[open]").await);
        let () = browser.script(FOCUS, vec![json!("summary")]).await;
        browser.key(Key::Enter).await;
        let table = browser.text("details[open] table").await;
        assert!(table.contains("10 Mar") && table.contains("12,500"), "{table}");
    })
    .await;
}

#[tokio::test]
async fn the_figures_of_a_chart_are_a_click_away_without_scripts() {
    browse(World::lived_in().await, Scripts::Off, async |browser, world| {
        browser.hold_session(Some(world.session(CALM))).await;
        browser.visit("/usage?days=7").await;
        assert!(!browser.has(".reading").await && browser.has(".plot > svg").await);
        browser.click("Show the figures as a table: LLM tokens per day").await;
        let table = browser.text("details[open] table").await;
        assert!(table.contains("10 Mar") && table.contains("12,500"), "{table}");
    })
    .await;
}
