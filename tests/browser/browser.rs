//! A browser session on a box, and what tests do with it.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource, KeyAction, KeyActions, MouseActions, PointerAction};
use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use url::{ParseError, Url};

use super::driver;
use super::support::not_tested;
use super::world::World;

/// Whether scripts of pages run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scripts {
    On,
    Off,
}

/// How long a page may take to follow a click.
const PATIENCE: Duration = Duration::from_secs(20);

/// A browser of its own, with an empty profile.
pub(crate) struct Browser {
    client: Client,
    /// As `http://127.0.0.1:40000`.
    origin: String,
    _profile: TempDir,
}

/// Runs `test` in a browser while the application of `world` serves. Browser and server end with it, also where it panics.
pub(crate) async fn browse(world: World, scripts: Scripts, test: impl AsyncFnOnce(&Browser, &World)) {
    if std::env::var_os("TALLYBOX_SKIP_BROWSER").is_some_and(|value| value == "1") {
        not_tested("pages in a browser: TALLYBOX_SKIP_BROWSER=1 leaves the browser tests out");
        return;
    }
    let _place = driver::PLACES.acquire().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = watch::channel(false);
    let session = async {
        let browser = Browser::open(origin, scripts).await;
        let outcome = caught(test(&browser, &world)).await;
        let closed = browser.client.close().await;
        stop.send(true).unwrap();
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        closed.unwrap();
    };
    let (served, ()) = tokio::join!(world.app.app.clone().serve(listener, stopped), session);
    served.unwrap();
}

/// The outcome of `future`, or its panic.
async fn caught(future: impl Future<Output = ()>) -> std::thread::Result<()> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// A command that chromedriver has beside the standard's.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base_url: &Url, session_id: Option<&str>) -> Result<Url, ParseError> {
        base_url.join(&format!("session/{}/{}", session_id.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

impl Browser {
    async fn open(origin: String, scripts: Scripts) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let setting = if scripts == Scripts::On { 1 } else { 2 };
        let capabilities = json!({
            "goog:chromeOptions": {
                "binary": driver::chromium(),
                "args": [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--disable-background-networking", "--window-size=1280,900",
                    format!("--user-data-dir={}", profile.path().display()),
                ],
                "prefs": {"profile.managed_default_content_settings.javascript": setting},
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(capabilities).connect(driver::url()).await.expect("Chromium starts");
        Self { client, origin, _profile: profile }
    }

    /// Goes to `path` of the box.
    pub(crate) async fn visit(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.origin)).await.unwrap();
    }

    /// Goes to any address.
    pub(crate) async fn visit_anywhere(&self, address: &str) {
        self.client.goto(address).await.unwrap();
    }

    /// The title of the page.
    pub(crate) async fn title(&self) -> String {
        self.client.title().await.unwrap()
    }

    /// Path and query of where the browser is; the whole address where that is not the box.
    pub(crate) async fn place(&self) -> String {
        let url = self.client.current_url().await.unwrap().to_string();
        url.strip_prefix(&self.origin).map(str::to_owned).unwrap_or(url)
    }

    /// The text of the first heading.
    pub(crate) async fn heading(&self) -> String {
        self.text("h1").await
    }

    /// The texts, as they are seen, of all that `css` selects.
    pub(crate) async fn texts(&self, css: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for found in self.client.find_all(Locator::Css(css)).await.unwrap() {
            texts.push(found.text().await.unwrap());
        }
        texts
    }

    /// The text, as it is seen, of the first element that `css` selects.
    pub(crate) async fn text(&self, css: &str) -> String {
        let found = self.client.find(Locator::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"));
        found.text().await.unwrap()
    }

    /// Whether `css` selects anything.
    pub(crate) async fn has(&self, css: &str) -> bool {
        !self.client.find_all(Locator::Css(css)).await.unwrap().is_empty()
    }

    /// Types `value` into the field `name`, in the place of what was there.
    pub(crate) async fn fill(&self, name: &str, value: &str) {
        let css = format!("[name='{name}']:not([type='hidden'])");
        let field = self.client.find(Locator::Css(&css)).await.unwrap_or_else(|error| panic!("{css}: {error}"));
        field.clear().await.unwrap();
        field.send_keys(value).await.unwrap();
    }

    /// Clicks the link or the button that says `label`, and waits for the page that follows.
    pub(crate) async fn press(&self, label: &str) {
        let before = self.root().await;
        self.click(label).await;
        self.leaves(&before, label).await;
    }

    /// The root of the page, for [`Browser::leaves`].
    pub(crate) async fn root(&self) -> Element {
        self.client.find(Locator::Css("html")).await.unwrap()
    }

    /// Waits until the page whose root is `before` has given way to another.
    pub(crate) async fn leaves(&self, before: &Element, what: &str) {
        let begun = Instant::now();
        while before.tag_name().await.is_ok() {
            assert!(begun.elapsed() < PATIENCE, "{what} leads nowhere");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Clicks what says `label`, and stays on the page.
    pub(crate) async fn click(&self, label: &str) {
        let path = format!("//*[self::a or self::button or self::summary][normalize-space()='{label}']");
        let found = self.client.find(Locator::XPath(&path)).await.unwrap_or_else(|error| panic!("{label}: {error}"));
        found.click().await.unwrap();
    }

    /// Fills in the form to sign in, and sends it.
    pub(crate) async fn sign_in(&self, email: &str, password: &str) {
        self.fill("email", email).await;
        self.fill("password", password).await;
        self.press("Sign in").await;
    }

    /// Takes a session without going through the door; none: lays it down.
    pub(crate) async fn hold_session(&self, session: Option<&str>) {
        self.devtools("Network.clearBrowserCookies", json!({})).await;
        if let Some(session) = session {
            let cookie = json!({"name": "tallybox_session", "value": session, "url": self.origin,
                "httpOnly": true, "sameSite": "Lax"});
            self.devtools("Network.setCookie", cookie).await;
        }
    }

    /// Chooses the option `value` of the field `name`.
    pub(crate) async fn choose(&self, name: &str, value: &str) {
        let css = format!("select[name='{name}'] option[value='{value}']");
        let option = self.client.find(Locator::Css(&css)).await.unwrap_or_else(|error| panic!("{css}: {error}"));
        option.click().await.unwrap();
    }

    /// Moves the pointer onto the first element that `css` selects.
    pub(crate) async fn point_at(&self, css: &str) {
        let element = self.client.find(Locator::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"));
        let there = PointerAction::MoveToElement { element, duration: None, x: 0.0, y: 0.0 };
        self.client.perform_actions(MouseActions::new("mouse".to_owned()).then(there)).await.unwrap();
    }

    /// Presses the tabulator key.
    pub(crate) async fn tab(&self) {
        self.key(Key::Tab).await;
    }

    /// Presses a key on what has the focus.
    pub(crate) async fn key(&self, key: Key) {
        let key: char = key.into();
        let keys =
            KeyActions::new("keys".to_owned()).then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
        self.client.perform_actions(keys).await.unwrap();
    }

    /// Lets scripts and loads through that the pages' policy forbids, so that nothing but escaping stands against them.
    pub(crate) async fn lift_policy(&self) {
        self.devtools("Page.setBypassCSP", json!({"enabled": true})).await;
    }

    /// Makes the window `width` pixels wide.
    pub(crate) async fn widen(&self, width: u32) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Asks for `light` or `dark`, without motion: a colour that is still on its way to another would be judged.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// What the body `script` of a function returns. No policy of the page keeps it from running.
    pub(crate) async fn script<T: DeserializeOwned>(&self, script: &str, arguments: Vec<Value>) -> T {
        let value = self.client.execute(script, arguments).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        serde_json::from_value(value).unwrap()
    }

    /// As [`Browser::script`], for one that calls its last argument when it is done.
    pub(crate) async fn script_later<T: DeserializeOwned>(&self, script: &str, arguments: Vec<Value>) -> T {
        let value = self.client.execute_async(script, arguments).await.unwrap();
        serde_json::from_value(value).unwrap()
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.client.issue_cmd(Vendor { path: "goog/cdp/execute", body }).await.unwrap()
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.client.issue_cmd(Vendor { path: "se/log", body: json!({"type": kind}) }).await.unwrap();
        serde_json::from_value(entries).unwrap()
    }

    /// The status of the answer that the page came with.
    pub(crate) async fn status(&self) -> u16 {
        self.script("return performance.getEntriesByType('navigation')[0].responseStatus", Vec::new()).await
    }

    /// What went wrong since the last time this was asked: complaints of the console, what the policy forbade, and requests
    /// that left the box. That the page is that of a failure is no complaint.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let status = self.status().await;
        let own = format!("the server responded with a status of {status}");
        let console = self.log("browser").await;
        let mut found: Vec<String> = console
            .iter()
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .filter(|message| status < 400 || !message.contains(&own))
            .collect();
        for entry in self.log("performance").await {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            let event = &event["message"];
            let url = event["params"]["request"]["url"].as_str().unwrap_or_default();
            // What an address holds in itself, as the drawing of the browser's own calendar, is no request to anybody.
            let stays = |url: &str| url.starts_with("data:");
            let is_ours = |url: &str| url.strip_prefix(&self.origin).is_some_and(|path| path.starts_with('/'));
            // The browser's own first page asks for files that it carries.
            let asker = event["params"]["documentURL"].as_str().unwrap_or_default();
            if event["method"] == "Network.requestWillBeSent" && is_ours(asker) && !is_ours(url) && !stays(url) {
                found.push(format!("asked for {url}"));
            }
        }
        found
    }
}
