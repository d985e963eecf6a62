//! Copies of the database: made while it is written to, proven before they count, put back in its place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::reclaim::Old;
use super::{DirectoryLock, Reader, check, connection, fault, foreign, migrate};
use crate::clock::Clock;
use crate::domain::{Error, Result};

/// How long a step waits before it asks again for what another process holds.
const STEP_PAUSE: Duration = Duration::from_millis(20);
/// How often it asks.
const STEP_TRIES: u32 = 250;
/// Pages that are copied before they are brought to the disk. One sync of a large file at the end would have every commit wait
/// for it: 120 ms at 160 MB.
const STEP_PAGES: i32 = 512;

/// A copy that was made and proven.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Its size.
    pub bytes: u64,
}

/// Writes a copy of the database in `directory` to the file `target`, which then replaces whatever had that name. The copy
/// is one snapshot, taken by a reader while others write; it is proven whole before it gets its name.
///
/// # Errors
/// `Unavailable` where a file cannot be read or written, or the copy fails its proof.
pub fn back_up(directory: &Path, clock: &Clock, target: &Path) -> Result<Copied> {
    require_foreign(directory, target)?;
    copy_into(directory, clock, target, Unfinished::create(target)?)
}

/// As [`back_up`], by the name `unfinished` until it is done: beside the target, and nobody else's, so that what a killed
/// process has left there goes.
///
/// # Errors
/// As [`back_up`].
pub fn back_up_by_way_of(unfinished: PathBuf, directory: &Path, clock: &Clock, target: &Path) -> Result<Copied> {
    require_foreign(directory, target)?;
    copy_into(directory, clock, target, Unfinished::at(unfinished)?)
}

fn copy_into(directory: &Path, clock: &Clock, target: &Path, mut unfinished: Unfinished) -> Result<Copied> {
    copy(&connection::database_path(directory), &unfinished.path)?;
    prove(&unfinished.path, clock)?;
    unfinished.finish(target)
}

/// Refuses a target that is the database, or a file that SQLite or we keep beside it, there at the moment or not.
fn require_foreign(directory: &Path, target: &Path) -> Result<()> {
    let database = connection::database_path(directory);
    let mut its_own = [database.clone(), directory.join("tallybox.lock")].into_iter().chain(companions(&database));
    if its_own.any(|own| own == target || is_same(&own, target) || is_named_alike(&own, target)) {
        return Err(Error::Unavailable(format!("{} is the database itself, or belongs to it", target.display())));
    }
    Ok(())
}

/// Puts the copy `source` in the place of the database in `directory`, which stays beside it as
/// `tallybox.db.before-restore`. The lock shows that no server runs there.
///
/// # Errors
/// `Unavailable` for what is no database of ours, a newer schema, files that cannot be read or written, a database that
/// another process has open, or a copy that fails its proof. The database is then as it was.
pub fn restore(_lock: &DirectoryLock, directory: &Path, clock: &Clock, source: &Path) -> Result<Copied> {
    let database = connection::database_path(directory);
    if is_same(&database, source) {
        return Err(Error::Unavailable(format!("{} is the database itself", source.display())));
    }
    if !source.is_file() {
        return Err(Error::Unavailable(format!("there is no file {}", source.display())));
    }
    // The lock makes the name ours, also where a killed restore has left it.
    let mut unfinished = Unfinished::at(directory.join("tallybox.db.restoring"))?;
    copy(source, &unfinished.path)?;
    prove(&unfinished.path, clock)?;
    // The source may be what was kept aside before, whose name is about to change hands.
    unfinished.sync()?;
    keep_aside(&database, &directory.join("tallybox.db.before-restore"))?;
    unfinished.finish(&database)
}

fn is_same(left: &Path, right: &Path) -> bool {
    matches!((fs::canonicalize(left), fs::canonicalize(right)), (Ok(left), Ok(right)) if left == right)
}

/// Whether both are one name in one directory, whatever way leads there.
fn is_named_alike(left: &Path, right: &Path) -> bool {
    left.file_name() == right.file_name() && is_same(directory_of(left), directory_of(right))
}

/// A file that is taken away again unless it is finished.
struct Unfinished {
    path: PathBuf,
    kept: bool,
}

impl Unfinished {
    /// A new file beside `target`, on the same file system, for its owner alone.
    fn create(target: &Path) -> Result<Self> {
        let name =
            target.file_name().ok_or_else(|| Error::Unavailable(format!("{} names no file", target.display())))?;
        if target.is_dir() {
            return Err(Error::Unavailable(format!("{} is a directory", target.display())));
        }
        if !directory_of(target).is_dir() {
            return Err(Error::Unavailable(format!("there is no directory {}", directory_of(target).display())));
        }
        let mut partial = name.to_owned();
        partial.push(format!(".partial-{}", std::process::id()));
        // What a process of that number left behind when it was killed goes.
        Self::at(target.with_file_name(partial))
    }

    /// A new file of that name. A journal that lay beside another one would be played over it.
    fn at(path: PathBuf) -> Result<Self> {
        for old in companions(&path).iter().chain([&path]) {
            let _ = remove(old);
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| unwritable(&path, &error))?;
        Ok(Self { path, kept: false })
    }

    /// Brings it to the disk.
    fn sync(&self) -> Result<()> {
        let synced = File::open(&self.path).and_then(|file| file.sync_all());
        synced.map_err(|error| unwritable(&self.path, &error))
    }

    /// Brings it to the disk and gives it its name.
    fn finish(&mut self, target: &Path) -> Result<Copied> {
        self.sync()?;
        let named = || -> io::Result<u64> {
            let (file, old) = (File::open(&self.path)?, Old::at(target));
            fs::rename(&self.path, target)?;
            sync_directory(target)?;
            let_go(old, target);
            Ok(file.metadata()?.len())
        };
        let bytes = named().map_err(|error| unwritable(target, &error))?;
        self.kept = true;
        Ok(Copied { bytes })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept {
            for path in companions(&self.path).iter().chain([&self.path]) {
                let _ = remove(path);
            }
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::Unavailable(format!("{} cannot be written: {error}", path.display()))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Takes away a copy that is kept no longer.
///
/// # Errors
/// Those of the file system.
pub fn remove(copy: &Path) -> io::Result<()> {
    let old = Old::at(copy);
    fs::remove_file(copy)?;
    sync_directory(copy)?;
    let_go(old, copy);
    Ok(())
}

/// Whatever hinders that, its room comes back as it is closed.
fn let_go(old: Old, name: &Path) {
    if let Err(error) = old.free() {
        tracing::debug!(%error, "what was called {} is freed as a whole", name.display());
    }
}

fn sync_directory(of: &Path) -> io::Result<()> {
    File::open(directory_of(of))?.sync_all()
}

/// Copies every page of one snapshot, and leaves a database in a single file.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let source =
        open(from, OpenFlags::SQLITE_OPEN_READ_WRITE).or_else(|_| open(from, OpenFlags::SQLITE_OPEN_READ_ONLY))?;
    source.pragma_update(None, "query_only", true).map_err(fault)?;
    migrate::require_known(&source)?;
    let mut copy = open(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // The file has no name yet: it is synced as a whole before it gets one.
    copy.pragma_update(None, "synchronous", "OFF").map_err(fault)?;
    {
        // One snapshot for all steps: without it, a commit between two of them would make it begin anew.
        let snapshot = source.unchecked_transaction().map_err(fault)?;
        snapshot.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(fault)?;
        let backup = Backup::new(&snapshot, &mut copy).map_err(fault)?;
        let file = File::open(to).map_err(|error| unwritable(to, &error))?;
        let mut tries = 0;
        loop {
            match backup.step(STEP_PAGES).map_err(fault)? {
                StepResult::Done => break,
                StepResult::More => file.sync_data().map_err(|error| unwritable(to, &error))?,
                _ if tries < STEP_TRIES => {
                    tries += 1;
                    std::thread::sleep(STEP_PAUSE);
                }
                _ => return Err(Error::Busy("the database")),
            }
        }
    }
    copy.pragma_update(None, "journal_mode", "DELETE").map_err(fault)?;
    copy.close().map_err(|(_, error)| fault(error))
}

#[expect(clippy::disallowed_methods, reason = "the room that copies databases")]
fn open(path: &Path, mode: OpenFlags) -> Result<Connection> {
    foreign::register();
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX);
    connection.map_err(|error| Error::Unavailable(format!("{} cannot be opened: {error}", path.display())))
}

/// Asks every question of `tallybox check` of a copy. What an older schema has not, only its file can prove.
fn prove(path: &Path, clock: &Clock) -> Result<()> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true).map_err(fault)?;
    let is_older = migrate::version(&connection)? < migrate::VERSION;
    let reader = Reader { connection: &connection, now: clock.now(), recall: None };
    let found = if is_older { check::run_of_file(&reader, 1) } else { check::run(&reader, 1) };
    match found.first() {
        None => Ok(()),
        Some(first) => Err(Error::Unavailable(format!("the copy is not whole: {}: {}", first.invariant, first.detail))),
    }
}

/// SQLite's own files beside a database.
fn companions(database: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|suffix| connection::with_suffix(database, suffix))
}

/// Gives what is about to be replaced a second name, with all that its log holds. At no moment is there no database, and at
/// the end there is no log beside it: SQLite would play an old one over the new file.
fn keep_aside(database: &Path, aside: &Path) -> Result<()> {
    let fold = || -> Result<()> {
        let connection = open(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mode = connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0));
        if mode.map_err(fault)? == "wal" {
            return Err(Error::Busy("the database"));
        }
        connection.close().map_err(|(_, error)| fault(error))
    };
    let had_one = database.exists();
    // A database that is damaged may not be able to; its log then goes with it.
    if had_one && matches!(fold(), Err(Error::Busy(_))) {
        return Err(Error::Unavailable("another process has the database open: let it end first".to_owned()));
    }
    let aside_them = || -> io::Result<()> {
        if had_one {
            let next = connection::with_suffix(aside, ".next");
            let _ = fs::remove_file(&next);
            if fs::hard_link(database, &next).is_err() {
                // A file system without second names.
                fs::copy(database, &next)?;
                File::open(&next)?.sync_all()?;
            }
            fs::rename(&next, aside)?;
        }
        for (own, with_aside) in companions(database).iter().zip(companions(aside)) {
            // A log without its database must not come to lie beside another one.
            let kept = if had_one { with_aside } else { connection::with_suffix(own, ".before-restore") };
            for result in [fs::remove_file(&kept), fs::rename(own, &kept)] {
                match result {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        sync_directory(aside)
    };
    aside_them().map_err(|error| unwritable(aside, &error))
}
