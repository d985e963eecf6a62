//! The command line.

use std::path::PathBuf;

use clap::Parser;
use tallybox::app::App;
use tallybox::clock::Clock;
use tallybox::config::{Config, Environment};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    data_dir: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = Config::load(None, &Environment::of_process()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let app = App::build(config, &arguments.data_dir, Clock::system())?;
    let listener = app.bind().await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::select! {
        served = app.serve(listener, stopped) => served,
        _ = tokio::signal::ctrl_c() => { let _ = stop.send(true); Ok(()) }
    }
}
