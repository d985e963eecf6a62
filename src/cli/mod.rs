//! The commands.

mod backup;
mod bar;
mod check;
mod demo;
mod export;
mod healthcheck;
mod import;
mod logging;
pub(crate) mod output;
mod reembed;
mod serve;
mod token;
mod user;
mod volume;

use std::io::{BufRead, Read, stdin};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use tallybox::clock::Clock;
use tallybox::config::{Config, Environment};
use tallybox::domain::Fault;
use tallybox::domain::auth::{PASSWORD_CHARACTERS, check_password};
use tallybox::service::auth::account::By;
use tallybox::store::{Store, keep_temporary_files_in};

/// Memory, metering and limits for AI assistants, in one binary.
#[derive(Parser)]
#[command(name = "tallybox", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Where the settings and the data are.
#[derive(Args)]
struct Place {
    /// File with the settings that differ from the defaults
    #[arg(long, global = true, value_name = "FILE", env = "TALLYBOX_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Directory that holds the database
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "TALLYBOX_DATA_DIR",
        hide_env_values = true,
        default_value = "./data"
    )]
    data_dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP until SIGTERM or SIGINT
    Serve(Listen),
    /// Serve a throw-away instance with three users and 90 days of usage, by the default settings in a directory of its own
    /// that goes at the end
    Demo(Listen),
    /// Add, list and change users, also beside a running server
    #[command(subcommand)]
    User(user::Command),
    /// Create, list and revoke API tokens, also beside a running server
    #[command(subcommand)]
    Token(token::Command),
    /// Write down what users have, also beside a running server
    #[command(subcommand)]
    Export(export::Command),
    /// Take in what users have elsewhere, also beside a running server
    #[command(subcommand)]
    Import(import::Command),
    /// Print the settings that hold, with secrets masked
    Config(Listen),
    /// Prove that totals are the sums of their entries and nothing is orphaned: exit 1 and the differences where not
    Check(check::Options),
    /// Write a copy of the database to a file, proven whole, also beside a running server
    Backup {
        /// The file; one of that name is replaced once the copy is proven
        path: PathBuf,
    },
    /// Put a backup in the place of the database, with the server stopped; what was there is kept as
    /// tallybox.db.before-restore
    Restore {
        /// The backup
        path: PathBuf,
    },
    /// Make all embeddings anew after a change of the embedding model, with the server stopped; resumable
    Reembed,
    /// Ask the server on this machine whether it is alive: exit 0 if so, else 1
    Healthcheck(Listen),
}

/// The address of the server.
#[derive(Args)]
struct Listen {
    /// Address and port, in place of the setting server.listen
    #[arg(long, value_name = "ADDR", env = "TALLYBOX_LISTEN", hide_env_values = true)]
    listen: Option<SocketAddr>,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        keep_temporary_files_in(&self.place.data_dir);
        match self.command {
            Command::Serve(listen) => serve::run(&self.place, listen.listen)?,
            Command::Demo(listen) => demo::run(listen.listen)?,
            Command::User(command) => command.run(&self.place)?,
            Command::Token(command) => command.run(&self.place)?,
            Command::Export(command) => command.run(&self.place)?,
            Command::Import(command) => return command.run(&self.place),
            Command::Config(listen) => {
                let mut config = self.place.load()?;
                if let Some(listen) = listen.listen {
                    config.listen_on(listen);
                }
                output::result(config.to_masked_toml().trim_end())?;
            }
            Command::Backup { path } => backup::back_up(&self.place, &path)?,
            Command::Restore { path } => backup::restore(&self.place, &path)?,
            Command::Reembed => reembed::run(&self.place)?,
            Command::Check(options) => return options.run(&self.place),
            Command::Healthcheck(listen) => {
                let address = listen.listen.map_or_else(|| self.place.load().map(|config| config.server.listen), Ok)?;
                healthcheck::ask(address)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Place {
    /// The settings, every fault of which is named.
    fn load(&self) -> anyhow::Result<Config> {
        self.try_load().or_else(|faults| refuse("the configuration", &faults))
    }

    fn try_load(&self) -> Result<Config, Vec<Fault>> {
        Config::load(self.config.as_deref(), &Environment::of_process())
    }

    /// The settings and the database, for a command that may run beside a server.
    fn open(&self) -> anyhow::Result<Opened> {
        self.require_database()?;
        self.open_or_create()
    }

    fn require_database(&self) -> anyhow::Result<()> {
        if !self.data_dir.join("tallybox.db").is_file() {
            bail!("there is no database in {} (--data-dir, TALLYBOX_DATA_DIR)", self.data_dir.display());
        }
        Ok(())
    }

    /// As [`Place::open`]; where there is no database yet, one is made.
    fn open_or_create(&self) -> anyhow::Result<Opened> {
        let config = self.load()?;
        logging::start(&config.log)?;
        let store = Store::open(&self.data_dir, Clock::system(), &config.store)?;
        Ok(Opened { config, store })
    }
}

/// What most commands work on.
struct Opened {
    config: Config,
    store: Store,
}

impl Opened {
    fn by(&self) -> By {
        By::command_line(self.store.clock().clone())
    }
}

/// The failure that names every fault of `what`.
fn refuse<T>(what: &str, faults: &[Fault]) -> anyhow::Result<T> {
    let lines: Vec<String> = faults.iter().map(|fault| format!("\n  {}: {}", fault.field, fault.message)).collect();
    let count = if faults.len() == 1 { "a fault".to_owned() } else { format!("{} faults", faults.len()) };
    bail!("{what} has {count}:{}", lines.concat())
}

/// A new password from stdin: all up to the first newline, which is not part of it.
fn read_password() -> anyhow::Result<String> {
    // Room for the longest password and for what shows that one is longer.
    let most = u64::try_from(PASSWORD_CHARACTERS.end() * 4 + 2)?;
    let mut line = Vec::new();
    stdin().lock().take(most).read_until(b'\n', &mut line).context("the password cannot be read from stdin")?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    let password = String::from_utf8(line).map_err(|_| anyhow::anyhow!("the password must be UTF-8"))?;
    check_password(&password, "password")?;
    Ok(password)
}
