//! Serving: the lock, the database, the first administrator, then the listener.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tallybox::app::App;
use tallybox::clock::Clock;
use tallybox::config::{Config, Environment, admin_bootstrap};
use tallybox::domain::auth::{Role, check_password, parse_email};
use tallybox::domain::{Error, Fault};
use tallybox::service::auth::account::{By, New, bootstrap_admin, has_admin, missing_tiers};
use tallybox::service::auth::{link, password};
use tallybox::store::{DirectoryLock, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::healthcheck::reachable;
use super::{Place, logging, output, refuse, volume};

/// How long a second server waits for the first to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const LOCK_PERIOD: Duration = Duration::from_millis(100);

pub(super) fn run(place: &Place, listen: Option<SocketAddr>) -> anyhow::Result<()> {
    let loaded = place.try_load().or_else(|mut faults| {
        faults.extend(tiers_missing(place));
        refuse("the configuration", &faults)
    });
    let mut config = loaded?;
    if let Some(listen) = listen {
        config.listen_on(listen);
    }
    logging::start(&config.log)?;
    volume::look(&place.data_dir, &Environment::of_process(), config.server.require_volume)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build()?;
    runtime.block_on(serve(config, &place.data_dir))
}

/// Threads that serve connections: a processor is left to the thread that writes, on which every call waits
/// (docs/decisions/one-writer.md).
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().saturating_sub(1).max(1))
}

/// The tiers that users hold and a faulty configuration lacks, as far as they can be told: all that is wrong is named at once.
fn tiers_missing(place: &Place) -> Vec<Fault> {
    let look = || {
        place.require_database().ok()?;
        let tiers = Config::tiers_of(place.config.as_deref(), &Environment::of_process())?;
        let defaults = Config::parse(None, &Environment::default()).ok()?;
        // To open it may bring its schema up: never beneath a server that runs.
        let _lock = DirectoryLock::try_take(&place.data_dir).ok()??;
        let store = Store::open(&place.data_dir, Clock::system(), &defaults.store).ok()?;
        store.read_blocking(move |reader| missing_tiers(reader, &tiers)).ok()
    };
    look().unwrap_or_default()
}

async fn serve(config: Config, directory: &Path) -> anyhow::Result<()> {
    // Before anything that takes time: the first process of a container ignores signals that it has no handler for.
    let mut signals = Signals::listen()?;
    let _lock = tokio::select! {
        lock = take_lock(directory) => lock?,
        () = signals.stop() => return Ok(()),
    };
    let app = App::build(config.clone(), directory, Clock::system())?;
    prepare(app.store(), &config).await?;
    let listener = app.bind().await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    serve_until(app, listener, signals.stop()).await
}

/// Serves until `stopped` ends, then drains.
pub(super) async fn serve_until(
    app: App,
    listener: TcpListener,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let mut serving = std::pin::pin!(app.serve(listener, stopping));
    tokio::select! {
        served = &mut serving => return served,
        () = stopped => {}
    }
    tracing::info!("stopping: what is under way may finish");
    stop.send(true).context("the server has ended already")?;
    serving.await?;
    tracing::info!("stopped");
    Ok(())
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn take_lock(directory: &Path) -> anyhow::Result<DirectoryLock> {
    let begun = tokio::time::Instant::now();
    let mut has_waited = false;
    loop {
        if let Some(lock) = DirectoryLock::try_take(directory)? {
            return Ok(lock);
        }
        if !has_waited {
            tracing::warn!("another tallybox holds {}; waiting for it to end", directory.display());
            has_waited = true;
        }
        if begun.elapsed() >= LOCK_PATIENCE {
            bail!(
                "another tallybox still holds {} (tallybox.lock) after {} s",
                directory.display(),
                LOCK_PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(LOCK_PERIOD).await;
    }
}

/// What must hold before anybody is let in: every tier in use is known, and there is an administrator or a way to make one.
async fn prepare(store: &Store, config: &Config) -> anyhow::Result<()> {
    let tiers = config.tiers.clone();
    let missing = store.read(move |reader| missing_tiers(reader, &tiers)).await?;
    if !missing.is_empty() {
        return refuse("the configuration", &missing);
    }
    if store.read(has_admin).await? {
        return Ok(());
    }
    let by = By::system(store.clock().clone(), None);
    if let Some(new) = configured_admin(config)? {
        let made = store.write(move |writer| bootstrap_admin(writer, &by, &new)).await;
        made.map_err(|error| match error {
            Error::Conflict { .. } => anyhow::anyhow!(
                "TALLYBOX_ADMIN_EMAIL: a user who is no administrator has this address; \
                 `tallybox user set-role` can make it one"
            ),
            other => other.into(),
        })?;
        tracing::info!("the first administrator was made from TALLYBOX_ADMIN_EMAIL");
        return Ok(());
    }
    if let Some(link) = store.write(link::issue_setup).await? {
        let address = link.address(config.server.public_url.as_deref());
        let here = reachable(config.server.listen);
        let shown = match config.server.public_url {
            Some(_) => address,
            // Who sits before it opens it by a click; what reads it knows how it reaches this machine.
            None if std::io::stdout().is_terminal() => format!("http://{here}{address}"),
            None => format!("{address} on http://{here}"),
        };
        // The one place where the link is ever shown: never in the log.
        output::result(format_args!("Set up the first administrator (valid 30 minutes): {shown}"))?;
    }
    Ok(())
}

/// The administrator that the environment names, every fault of which is named.
fn configured_admin(config: &Config) -> anyhow::Result<Option<New>> {
    const WHAT: &str = "the first administrator";
    let named = admin_bootstrap(&Environment::of_process()).or_else(|faults| refuse(WHAT, &faults))?;
    let Some((email, secret)) = named else { return Ok(None) };
    let mut faults: Vec<Fault> = Vec::new();
    let mut note = |result: tallybox::domain::Result<()>| {
        if let Err(Error::Invalid(found)) = result {
            faults.extend(found);
        }
    };
    let email = parse_email(&email, "TALLYBOX_ADMIN_EMAIL");
    note(
        email
            .as_ref()
            .map(drop)
            .map_err(|_| Error::invalid("TALLYBOX_ADMIN_EMAIL", "must be an e-mail address of at most 254 characters")),
    );
    note(check_password(&secret, "TALLYBOX_ADMIN_PASSWORD"));
    if !faults.is_empty() {
        return refuse(WHAT, &faults);
    }
    let password_hash = Some(password::hash(&secret)?);
    Ok(Some(New { email: Some(email?), role: Role::Admin, tier: config.auth.default_tier.clone(), password_hash }))
}
