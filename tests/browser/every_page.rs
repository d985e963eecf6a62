//! What holds for every page of the table in `tests/suite/world.rs`.

use serde_json::{Value, json};

use super::browser::{Browser, Scripts, browse};
use super::driver;
use super::world::{PAGES, Page, World};

/// Widths at which pages are looked at, in pixels: the narrowest telephone, a common one, a tablet, a desk.
const WIDTHS: [u32; 4] = [320, 360, 768, 1_280];
/// Places that the tabulator key may reach on a page before it is taken to go round in circles.
const STOPS_MAX: usize = 300;

#[tokio::test]
async fn every_page_is_fit_for_every_reader() {
    browse(World::lived_in().await, Scripts::On, async |browser, world| {
        for page in PAGES {
            is_fit(browser, world, page).await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_page_is_complete_without_scripts() {
    browse(World::lived_in().await, Scripts::Off, async |browser, world| {
        browser.visit_anywhere("data:text/html,<title>off</title><script>document.title = 'on'</script>").await;
        assert_eq!(browser.title().await, "off", "scripts of pages run");
        for page in PAGES {
            go(browser, world, page).await;
        }
    })
    .await;
}

/// Goes to `page` as who looks at it.
pub(crate) async fn go(browser: &Browser, world: &World, page: &Page) {
    browser.hold_session(page.user.map(|email| world.session(email))).await;
    browser.visit(&world.path(page)).await;
    assert_eq!(browser.heading().await, page.heading, "{}", page.name);
}

/// All that holds for any page: quiet, reflowing, to be used by keyboard, accessible in both schemes.
pub(crate) async fn is_fit(browser: &Browser, world: &World, page: &Page) {
    browser.complaints().await;
    go(browser, world, page).await;
    reflows(browser, page).await;
    shows_focus(browser, page).await;
    assert_eq!(browser.status().await, page.status, "{}", page.name);
    assert_eq!(browser.complaints().await, Vec::<String>::new(), "{}", page.name);
    is_accessible(browser, page).await;
}

/// Nothing is wider than the window.
async fn reflows(browser: &Browser, page: &Page) {
    for width in WIDTHS {
        browser.widen(width).await;
        let (shown, wide): (u32, u32) =
            browser.script("return [innerWidth, document.scrollingElement.scrollWidth]", Vec::new()).await;
        assert_eq!(shown, width, "{}", page.name);
        assert!(wide <= shown, "{} is {wide} pixels wide in a window of {shown}", page.name);
    }
}

/// The tabulator key reaches everything that can be used, the way past the navigation first, and what it reaches is marked.
async fn shows_focus(browser: &Browser, page: &Page) {
    const BEGIN: &str = "
        document.activeElement.blur();
        window.reached = new Set();
        const usable = 'a[href], button, input:not([type=hidden]):not([type=radio]), select, textarea, summary';
        window.missed = () => [...document.querySelectorAll(usable)]
            .filter(found => !found.disabled && found.checkVisibility() && !window.reached.has(found))
            .map(found => found.outerHTML);
        return document.body.classList.contains('app')";
    const STOP: &str = "
        const here = document.activeElement;
        if (!here || here === document.body || window.reached.has(here)) return null;
        window.reached.add(here);
        const style = getComputedStyle(here);
        return [here.className, here.outerHTML, style.outlineStyle, parseFloat(style.outlineWidth)]";
    let is_inside: bool = browser.script(BEGIN, Vec::new()).await;
    for count in 0.. {
        browser.tab().await;
        let stop: Option<(String, String, String, f64)> = browser.script(STOP, Vec::new()).await;
        let Some((class, html, style, width)) = stop else { break };
        assert!(count < STOPS_MAX, "{}: the tabulator key does not come round", page.name);
        assert!(style != "none" && width > 0.0, "{}: the focus is not to be seen on {html}", page.name);
        assert!(count > 0 || !is_inside || class == "skip", "{}: first comes {html}", page.name);
    }
    let missed: Vec<String> = browser.script("return window.missed()", Vec::new()).await;
    assert_eq!(missed, Vec::<String>::new(), "{}: out of the keyboard's reach", page.name);
}

/// axe-core finds nothing, in the light and in the dark.
async fn is_accessible(browser: &Browser, page: &Page) {
    const RUN: &str = "
        const done = arguments[arguments.length - 1];
        const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
        axe.run(document, {runOnly: tags, resultTypes: ['violations']}).then(
            found => done(found.violations.map(fault => [fault.id, fault.help, fault.nodes.map(node => node.any.map(check => check.message).join() + node.html)])),
            error => done([['axe', String(error), []]]))";
    let () = browser.script(&driver::axe(), Vec::new()).await;
    for (scheme, width) in [("light", 1_280), ("dark", 1_280), ("light", 360), ("dark", 360)] {
        browser.prefer(scheme).await;
        browser.widen(width).await;
        let faults: Vec<Value> = browser.script_later(RUN, Vec::new()).await;
        assert!(faults.is_empty(), "{}, {scheme}, {width} pixels: {:#}", page.name, json!(faults));
    }
    browser.prefer("light").await;
    browser.widen(1_280).await;
}
