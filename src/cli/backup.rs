//! `tallybox backup` and `tallybox restore`.

use std::path::Path;

use anyhow::{Context, bail};
use tallybox::backup::give_way;
use tallybox::clock::Clock;
use tallybox::domain::unit::human_bytes;
use tallybox::store::DirectoryLock;
use tallybox::store::backup::{self, Copied};

use super::{Place, output};

/// Writes a proven copy to `target`, also beside a running server.
pub(super) fn back_up(place: &Place, target: &Path) -> anyhow::Result<()> {
    place.require_database()?;
    give_way();
    let copied = backup::back_up(&place.data_dir, &Clock::system(), target).context("no backup was made")?;
    output::result(format_args!("{}: {}, proven", target.display(), size(&copied)))?;
    Ok(())
}

/// Puts `source` in the place of the database.
pub(super) fn restore(place: &Place, source: &Path) -> anyhow::Result<()> {
    let Some(lock) = DirectoryLock::try_take(&place.data_dir)? else {
        bail!("a server runs on {}: stop it first", place.data_dir.display());
    };
    let had_one = place.require_database().is_ok();
    let copied = backup::restore(&lock, &place.data_dir, &Clock::system(), source).context("nothing was restored")?;
    output::result(format_args!("restored {}: {}, proven", source.display(), size(&copied)))?;
    if had_one {
        let kept = place.data_dir.join("tallybox.db.before-restore");
        output::note(format_args!("what was there before is kept as {}", kept.display()));
    }
    Ok(())
}

fn size(copied: &Copied) -> String {
    human_bytes(i64::try_from(copied.bytes).unwrap_or(i64::MAX))
}
