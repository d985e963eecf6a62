//! A backup that is made while the server works, and dies.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;

use super::server::{output_of, tallybox};
use super::verdict::{entries, open};

/// What became of backups.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Whole, and with all that had been acknowledged.
    pub(super) whole: u64,
    /// Killed before they were whole: nothing has their name.
    pub(super) cut: u64,
}

/// A backup under way.
pub(super) struct Copying {
    process: Child,
    /// A directory of its own, in which the copy has the name of a database.
    directory: PathBuf,
    /// What had been acknowledged before it began.
    acknowledged: Vec<u64>,
}

pub(super) fn begin(there: &Path, aside: &Path, round: u64, acknowledged: &Mutex<Vec<u64>>) -> Copying {
    let directory = aside.join(round.to_string());
    std::fs::create_dir(&directory).unwrap();
    let target = directory.join("tallybox.db");
    let acknowledged = acknowledged.lock().unwrap().clone();
    let mut command = tallybox(there, &["backup", target.to_str().unwrap()]);
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    Copying { process, directory, acknowledged }
}

impl Copying {
    /// Waits for it, or kills it. A copy that has its name is whole and holds all that was acknowledged before.
    pub(super) fn end(mut self, is_killed: bool, copied: &mut Copied) {
        if is_killed {
            self.process.kill().unwrap();
        }
        let succeeded = self.process.wait().unwrap().success();
        assert!(succeeded || is_killed, "a backup failed beside a server that was killed");
        if self.directory.join("tallybox.db").exists() {
            let found = entries(&open(&self.directory));
            let missing: Vec<_> = self.acknowledged.iter().filter(|mark| found.get(mark) != Some(&1)).collect();
            assert!(missing.is_empty(), "the backup lacks {missing:?}");
            assert!(output_of(&self.directory, &["check"]).starts_with("ok"));
            copied.whole += 1;
        } else {
            assert!(!succeeded, "a backup that succeeded is not there");
            copied.cut += 1;
        }
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}
