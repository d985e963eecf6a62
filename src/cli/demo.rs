//! `tallybox demo`: an instance that lives in a directory of its own for as long as somebody looks at it.

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tallybox::adapter::embedder;
use tallybox::app::App;
use tallybox::clock::{Clock, new_request_id};
use tallybox::config::{Config, Environment};
use tallybox::demo::{ACCOUNTS, DAYS, Made, beat, fill};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::healthcheck::reachable;
use super::serve::{Signals, serve_until};
use super::{logging, output, refuse};

/// How often the runs that go on give a sign of life.
const BEAT_EVERY: Duration = Duration::from_secs(30);

pub(super) fn run(listen: Option<SocketAddr>) -> anyhow::Result<()> {
    let loaded = Config::parse(None, &Environment::default());
    let mut config = loaded.or_else(|faults| refuse("the default configuration", &faults))?;
    if let Some(listen) = listen {
        config.listen_on(listen);
    }
    // What is printed is for a person; the log speaks up only where something is wrong.
    "warn".clone_into(&mut config.log.level);
    logging::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Before there is anything to remove.
    let stopped = {
        let _within = runtime.enter();
        stopped()?
    };
    let scratch = Scratch::make()?;
    let shown = runtime.block_on(show(config, &scratch.0, stopped));
    // It waits for whatever still writes into the directory, which goes after that.
    drop(runtime);
    drop(scratch);
    shown
}

/// Ends with the first signal that asks the program to: whoever closes the terminal leaves too.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let mut signals = Signals::listen()?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            () = signals.stop() => {}
            _ = hangup.recv() => {}
        }
    })
}

async fn show(config: Config, directory: &Path, stopped: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut stopped = std::pin::pin!(stopped);
    // Before the data is made, so that nobody waits for an address that cannot be had.
    let listener = TcpListener::bind(config.server.listen).await;
    let listener = listener.with_context(|| {
        format!("cannot listen on {}; another address can be given with --listen ADDR", config.server.listen)
    })?;
    let embedder = embedder::from_config(&config.embedding)?;
    let filling = {
        let (config, directory, embedder) = (config.clone(), directory.to_owned(), embedder.clone());
        tokio::task::spawn_blocking(move || fill(&directory, &config, Clock::system().now(), embedder.as_ref()))
    };
    let made = tokio::select! {
        made = filling => made.context("making the demo's data")??,
        () = &mut stopped => return Ok(()),
    };
    let app = App::build_with(config.clone(), directory, Clock::system(), embedder)?;
    let address = listener.local_addr()?;
    output::result(describe(address, &made))?;
    if !address.ip().is_loopback() {
        output::note("note: the passwords are known to everybody, and others can reach this address");
    }
    let store = app.store().clone();
    let beating = async {
        loop {
            // A store that is busy takes the next one.
            let _ = beat(&store, &config, &made).await;
            tokio::time::sleep(BEAT_EVERY).await;
        }
    };
    tokio::select! {
        served = serve_until(app, listener, stopped) => served,
        () = beating => Ok(()),
    }
}

/// A directory that goes with its holder.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tallybox-demo-{}", new_request_id()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make the directory {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            output::note(format_args!("tallybox: {} could not be removed: {error}", self.0.display()));
        }
    }
}

/// What a newcomer needs to know.
fn describe(address: SocketAddr, made: &Made) -> String {
    let url = format!("http://{}", reachable(address));
    let head = ("e-mail", "password", "tier", "what there is to see");
    let rows = ACCOUNTS.iter().map(|account| (account.email, account.password, account.tier, account.about));
    let table: Vec<String> = std::iter::once(head)
        .chain(rows)
        .map(|(email, password, tier, about)| format!("  {email:<21}{password:<20}{tier:<13}{about}"))
        .collect();
    let token = made.tokens.first().map_or("", String::as_str);
    format!(
        "Tallybox demo: open {url} and sign in.\n\n{}\n\n\
         {} memories and {DAYS} days of usage were made up. A token of {}, to search its memories:\n\n  \
         curl -s {url}/memory/search -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \
         -d '{{\"query\": \"an alarm that rings too often\", \"limit\": 3}}'\n\n\
         Ctrl-C ends it, and everything is gone.",
        table.join("\n"),
        made.memories,
        ACCOUNTS[0].email,
    )
}
