//! The lock that whoever must be alone with a data directory takes before anything else.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::connection::{create_directory, unusable};
use crate::domain::Result;

/// A kernel lock on `tallybox.lock`, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held, not read")] File);

impl DirectoryLock {
    /// Takes the lock of `directory` (which is created where it is missing); none while another process holds it.
    ///
    /// # Errors
    /// `Unavailable` where the directory cannot be used.
    pub fn try_take(directory: &Path) -> Result<Option<Self>> {
        create_directory(directory)?;
        let path = directory.join("tallybox.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = file.map_err(|error| unusable(directory, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(unusable(directory, &error)),
        }
    }
}
