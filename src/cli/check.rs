//! `tallybox check`.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use tallybox::adapter::embedder;
use tallybox::backup::give_way;
use tallybox::service::check::{invariants, run};
use tallybox::service::memory::{adopt_model, repair};
use tallybox::service::quota::Policy;
use tallybox::store::{DirectoryLock, Store};

use super::{Opened, Place, output, reembed};

/// What to do beside looking.
#[derive(Args)]
pub(super) struct Options {
    /// Make vectors, full text and totals of memories anew from the memories first, with the server stopped
    #[arg(long)]
    repair: bool,
}

impl Options {
    pub(super) fn run(&self, place: &Place) -> anyhow::Result<ExitCode> {
        if !self.repair {
            let opened = place.open()?;
            give_way();
            return report(&opened.store);
        }
        let Some(_lock) = DirectoryLock::try_take(&place.data_dir)? else {
            bail!("a server runs on {}: stop it first", place.data_dir.display());
        };
        let opened = place.open()?;
        repair_all(&opened)?;
        report(&opened.store)
    }
}

/// Makes anew what is derived from memories, and says what that was.
fn repair_all(opened: &Opened) -> anyhow::Result<()> {
    // A remote model is called on this runtime, from this thread.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let model = {
        let _within = runtime.enter();
        embedder::from_config(&opened.config.embedding)?
    };
    // What another model makes cannot be compared with what is there.
    let name = model.model().to_owned();
    opened.store.write_blocking(move |writer| adopt_model(writer, &name))?;
    let policy = Policy { tiers: opened.config.tiers.clone(), calendar: opened.config.calendar };
    let embed = |text: &str| Ok(model.embed(&model.windows(text))?);
    let repaired = repair(&opened.store, &policy, embed, reembed::show).context("the same command begins anew")?;
    if stderr().is_terminal() {
        output::note("");
    }
    output::result(format_args!(
        "repaired: {} vectors of no memory deleted, {} memories embedded, {} entered into the full text, {} totals put right",
        repaired.vectors_deleted, repaired.embedded, repaired.indexed, repaired.totals
    ))?;
    Ok(())
}

/// Prints every difference; exit 1 where there is one.
fn report(store: &Store) -> anyhow::Result<ExitCode> {
    let differences = run(store)?;
    for difference in &differences {
        output::result(format_args!("{}: {}", difference.invariant, difference.detail))?;
    }
    if differences.is_empty() {
        output::result(format_args!("ok: {} invariants hold", invariants().len()))?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
