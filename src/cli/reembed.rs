//! `tallybox reembed`.

use std::io::{IsTerminal, Write, stderr};

use anyhow::{Context, bail};
use tallybox::adapter::embedder;
use tallybox::service::memory::{Progress, reembed};
use tallybox::service::quota::Policy;
use tallybox::store::DirectoryLock;

use super::{Place, output};

/// Characters of the bar.
const BAR: u64 = 40;

/// Makes all embeddings anew with the configured model. Goes on where an interrupted run ended.
pub(super) fn run(place: &Place) -> anyhow::Result<()> {
    let Some(_lock) = DirectoryLock::try_take(&place.data_dir)? else {
        bail!("a server runs on {}: stop it first", place.data_dir.display());
    };
    let opened = place.open()?;
    // A remote model is called on this runtime, from this thread.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let model = {
        let _within = runtime.enter();
        embedder::from_config(&opened.config.embedding)?
    };
    let policy = Policy { tiers: opened.config.tiers.clone(), calendar: opened.config.calendar };
    let embed = |text: &str| Ok(model.embed(&model.windows(text))?);
    reembed(&opened.store, &policy, model.model(), embed, show)
        .context("what was done is kept; the same command goes on")?;
    if stderr().is_terminal() {
        output::note("");
    }
    output::result(format_args!("every embedding is by {}", model.model()))?;
    Ok(())
}

/// A bar that is drawn over itself on a terminal.
pub(super) fn show(progress: Progress) {
    let Progress { done, left } = progress;
    let total = (done + left).max(1);
    if stderr().is_terminal() {
        let filled = BAR * done / total;
        let bar: String = (0..BAR).map(|place| if place < filled { '#' } else { '.' }).collect();
        // A bar that cannot be drawn is no failure.
        let _ = write!(stderr().lock(), "\r[{bar}] {done} of {total}");
    } else {
        output::note(format_args!("{done} of {total}"));
    }
}
