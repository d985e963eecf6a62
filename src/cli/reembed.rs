//! `tallybox reembed`.

use anyhow::{Context, bail};
use tallybox::adapter::embedder;
use tallybox::service::memory::{Progress, reembed};
use tallybox::service::quota::Policy;
use tallybox::store::DirectoryLock;

use super::{Place, bar, output};

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
    bar::end();
    output::result(format_args!("every embedding is by {}", model.model()))?;
    Ok(())
}

/// A bar on a terminal, else a line.
pub(super) fn show(progress: Progress) {
    let Progress { done, left } = progress;
    let said = format!("{done} of {}", done + left);
    if bar::is_seen() {
        bar::show(done, Some(done + left), said);
    } else {
        output::note(said);
    }
}
