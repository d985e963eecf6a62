//! What holds for every page of the table in `tests/suite/world.rs`.

use super::browser::{Browser, Scripts, browse};
use super::driver;
use super::world::{CALM, PAGES, Page, World};

/// Widths at which pages are looked at, in pixels: the narrowest telephone, a common one, a tablet, a desk.
const WIDTHS: [u32; 4] = [320, 360, 768, 1_280];
/// Places that the tabulator key may reach on a page before it is taken to go round in circles.
const STOPS_MAX: usize = 300;

#[tokio::test]
async fn every_page_is_fit_for_every_reader() {
    browse(World::lived_in().await, Scripts::On, async |browser, world| {
        let mut faults = Vec::new();
        for page in PAGES {
            faults.extend(faults_of(browser, world, page).await);
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
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

/// Where a page is not as any page is: quiet, reflowing, to be used by keyboard, accessible in both schemes.
pub(crate) async fn faults_of(browser: &Browser, world: &World, page: &Page) -> Vec<String> {
    browser.complaints().await;
    go(browser, world, page).await;
    assert_eq!(browser.status().await, page.status, "{}", page.name);
    let mut faults = wider_than_the_window(browser).await;
    faults.extend(beyond_the_keyboard(browser).await);
    faults.extend(browser.complaints().await);
    faults.extend(hard_to_access(browser).await);
    faults.into_iter().map(|fault| format!("{}: {fault}", page.name)).collect()
}

/// The widths at which one must scroll sideways, with all that opens shut and open.
async fn wider_than_the_window(browser: &Browser) -> Vec<String> {
    const MEASURE: &str = "
        const wide = () => document.scrollingElement.scrollWidth;
        const shut = [...document.querySelectorAll('details:not([open])')];
        const measured = [innerWidth, wide()];
        shut.forEach(found => { found.open = true });
        measured.push(wide());
        shut.forEach(found => { found.open = false });
        return measured";
    let mut faults = Vec::new();
    for width in WIDTHS {
        browser.widen(width).await;
        let (shown, wide, open): (u32, u32, u32) = browser.script(MEASURE, Vec::new()).await;
        assert_eq!(shown, width);
        if wide.max(open) > shown {
            faults.push(format!("{wide} pixels wide in a window of {shown}, {open} with all that opens"));
        }
    }
    faults
}

/// What the tabulator key does not reach, what it reaches without a mark, and what comes before the way past the navigation.
async fn beyond_the_keyboard(browser: &Browser) -> Vec<String> {
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
        // A date has three stops of its own, and its calendar another.
        const isWithin = here === window.last && here.type === 'date';
        if (!here || here === document.body || (window.reached.has(here) && !isWithin)) return null;
        window.reached.add(here);
        window.last = here;
        const style = getComputedStyle(here);
        return [here.getAttribute('class') ?? '', here.outerHTML, style.outlineStyle, parseFloat(style.outlineWidth)]";
    let mut faults = Vec::new();
    let is_inside: bool = browser.script(BEGIN, Vec::new()).await;
    for count in 0.. {
        assert!(count < STOPS_MAX, "the tabulator key does not come round");
        browser.tab().await;
        let stop: Option<(String, String, String, f64)> = browser.script(STOP, Vec::new()).await;
        let Some((class, html, style, width)) = stop else { break };
        if style == "none" || width <= 0.0 {
            faults.push(format!("the focus is not to be seen on {html}"));
        }
        if count == 0 && is_inside && class != "skip" {
            faults.push(format!("the first stop is {html}"));
        }
    }
    let missed: Vec<String> = browser.script("return window.missed()", Vec::new()).await;
    faults.extend(missed.iter().map(|html| format!("the tabulator key does not reach {html}")));
    faults
}

/// What axe-core finds, in the light on a desk and in the dark on a telephone: colours differ by the scheme, places by the
/// width, and neither by the other.
async fn hard_to_access(browser: &Browser) -> Vec<String> {
    const RUN: &str = "
        const done = arguments[arguments.length - 1];
        const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
        const told = node => [...node.any, ...node.all, ...node.none].map(check => check.message).join() + ' ' + node.html;
        axe.run(document, {runOnly: tags, resultTypes: ['violations']}).then(
            found => done(found.violations.map(fault => fault.id + ': ' + fault.nodes.map(told).join('; '))),
            error => done([String(error)]))";
    let mut faults = Vec::new();
    let () = browser.script(driver::axe(), Vec::new()).await;
    for (scheme, width) in [("light", 1_280), ("dark", 360)] {
        browser.prefer(scheme).await;
        browser.widen(width).await;
        let found: Vec<String> = browser.script_later(RUN, Vec::new()).await;
        faults.extend(found.iter().map(|fault| format!("{scheme}, {width} pixels: {fault}")));
    }
    browser.prefer("light").await;
    browser.widen(1_280).await;
    faults
}

#[tokio::test]
async fn the_tests_of_every_page_find_what_they_look_for() {
    const SPOIL: &str = "
        const add = (name, more) => document.querySelector('main').append(Object.assign(document.createElement(name), more));
        add('div', {innerHTML: '<button>' + 'wide'.repeat(100) + '</button>'});
        add('div', {innerHTML: '<a href=\"/\" tabindex=-1>Not by keyboard</a>'});
        add('div', {innerHTML: '<input>'});
        document.querySelector('.skip').before(Object.assign(document.createElement('button'), {textContent: 'First'}));
        const sheet = new CSSStyleSheet();
        sheet.replaceSync('main button:focus-visible { outline: none }');
        document.adoptedStyleSheets.push(sheet);
        add('script', {textContent: 'window.ran = 1'});
        add('img', {src: 'http://elsewhere.example/'});
        const done = arguments[arguments.length - 1];
        const frame = Object.assign(document.createElement('iframe'), {src: 'http://127.0.0.1:9/'});
        document.body.append(frame);
        setTimeout(() => done(window.ran ?? null), 100)";
    browse(World::lived_in().await, Scripts::On, async |browser, world| {
        browser.hold_session(Some(world.session(CALM))).await;
        browser.visit("/usage").await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        let ran: Option<u8> = browser.script_later(SPOIL, Vec::new()).await;
        assert_eq!(ran, None, "the policy lets scripts of a page run");
        let complaints = browser.complaints().await.join("\n");
        assert!(complaints.contains("script-src") && complaints.contains("elsewhere.example"), "{complaints}");
        let wide = wider_than_the_window(browser).await;
        assert!(wide.len() == WIDTHS.len(), "{wide:?}");
        let keyboard = beyond_the_keyboard(browser).await.join("\n");
        for found in
            ["not to be seen on <button>wide", "first stop is <button>First", "not reach <a href=\"/\" tabindex"]
        {
            assert!(keyboard.contains(found), "{keyboard}");
        }
        let access = hard_to_access(browser).await.join("\n");
        assert!(access.contains("label: "), "{access}");
    })
    .await;
}
