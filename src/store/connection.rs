//! Opening SQLite: the data directory, its files' modes, and the pragmas of each kind of connection.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags};

use super::{fault, foreign};
use crate::domain::{Error, Result};

/// The oldest SQLite without the WAL-reset corruption bug, as `SQLITE_VERSION_NUMBER`.
const SQLITE_VERSION_LEAST: i32 = 3_051_003;
/// Statements that each connection keeps prepared.
const STATEMENTS_KEPT: usize = 256;
/// Bytes of a page.
const PAGE_BYTES: u32 = 8_192;
/// What is cut off a long log at once. Cutting 440 MB had commits wait for 200 ms (ext4 mounted with `discard`).
pub(super) const LOG_PIECE_BYTES: u64 = 8 << 20;
/// How long a connection waits for another process's write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a checkpoint waits for readers before it looks anew which of them are in its way, and how long it then lets be.
const CHECKPOINT_ROUND: Duration = Duration::from_millis(10);
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(1);

/// Path of the database in its directory.
pub(super) fn database_path(directory: &Path) -> PathBuf {
    directory.join("tallybox.db")
}

/// Bytes of the write-ahead log beside a database; 0 where there is none.
pub(super) fn log_bytes(database: &Path) -> u64 {
    fs::metadata(with_suffix(database, "-wal")).map_or(0, |log| log.len())
}

/// The path of what lies beside `path`, by that name and more.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates the data directory (0700) and an empty database file (0600) where they are missing. SQLite gives the mode of
/// the database to the files beside it.
pub(super) fn create_files(directory: &Path) -> Result<()> {
    create_directory(directory)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(database_path(directory)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable(directory, &error)),
    }
}

/// Creates the data directory (0700) where it is missing.
pub(super) fn create_directory(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    created.map_err(|error| unusable(directory, &error))
}

/// The failure of a directory that cannot be used, and what to do about it.
pub(super) fn unusable(directory: &Path, error: &std::io::Error) -> Error {
    let place = directory.display();
    Error::Unavailable(match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("the data directory {place} cannot be written ({error}). {}", how_to_give(directory))
        }
        ErrorKind::ReadOnlyFilesystem => {
            format!("the data directory {place} is mounted read-only. Mount it so that it can be written")
        }
        _ => format!(
            "the data directory {place} cannot be used: {error}. Give a directory that this user may write to \
             (--data-dir)"
        ),
    })
}

/// Who must own what for this process to write to `directory`.
fn how_to_give(directory: &Path) -> String {
    let place = directory.display();
    let other = "or name a directory that it may write to (--data-dir)";
    // The kernel gives a process's own entry to the user that it runs as.
    let Ok(process) = fs::metadata("/proc/self") else {
        return format!("Give it to the user of this process, {other}");
    };
    let me = format!("{}:{}", process.uid(), process.gid());
    let owner = fs::metadata(directory).ok().filter(|owner| owner.uid() != process.uid());
    let owner = owner.map_or(String::new(), |owner| format!(" and it belongs to {}:{}", owner.uid(), owner.gid()));
    format!(
        "This process runs as {me}{owner}: give it all of the directory with `chown -R {me} {place}` (of a container: the \
         folder or volume that is mounted there), {other}"
    )
}

/// The connection that writes.
#[expect(clippy::disallowed_methods, reason = "the room that opens connections")]
pub(super) fn open_writer(path: &Path, checkpoint_pages: u32) -> Result<Connection> {
    assert!(
        rusqlite::version_number() >= SQLITE_VERSION_LEAST,
        "SQLite {} can corrupt its log; {SQLITE_VERSION_LEAST} is the oldest that is safe",
        rusqlite::version()
    );
    foreign::register();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| unwritable(path, &error.to_string()))?;
    if connection.is_readonly("main").map_err(fault)? {
        return Err(unwritable(path, "it is read-only"));
    }
    set_common(&connection).map_err(fault)?;
    // Holds for a new file alone. Five vectors fit on a page; on one of the usual 4,096 bytes two, with a quarter of it empty.
    connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(fault)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fault)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fault)?;
    // Who commits first after it is begun anew cuts it, be it the server or a command beside it.
    cut_log_at(&connection, cut_of(log_bytes(path), log_bytes_kept(checkpoint_pages)))?;
    connection.pragma_update(None, "wal_autocheckpoint", checkpoint_pages).map_err(fault)?;
    // What is deleted is overwritten: an erased person must not be read from a free page.
    connection.pragma_update(None, "secure_delete", true).map_err(fault)?;
    connection.pragma_update(None, "cache_size", -32 * 1024).map_err(fault)?;
    Ok(connection)
}

/// The failure of a database that this process may not write.
fn unwritable(path: &Path, why: &str) -> Error {
    Error::Unavailable(format!(
        "{} cannot be opened for writing: {why}. Give the data directory and all in it to the user that runs tallybox",
        path.display()
    ))
}

/// Brings the planner's statistics up to date; cheap when there is nothing to do.
pub(super) fn optimize(connection: &Connection) -> Result<()> {
    connection.execute_batch("PRAGMA optimize = 0x10002").map_err(fault)
}

/// How long the log may get before it is begun anew even if the writer has to wait for readers.
pub(super) fn log_bytes_max(checkpoint_pages: u32) -> u64 {
    2 * log_bytes_kept(checkpoint_pages)
}

/// Where a log of so many bytes is cut: it loses a piece, down to what is `kept`.
pub(super) fn cut_of(bytes: u64, kept: u64) -> u64 {
    bytes.saturating_sub(LOG_PIECE_BYTES).max(kept)
}

/// Where the file of the log is cut when it is next begun anew.
pub(super) fn cut_log_at(connection: &Connection, bytes: u64) -> Result<()> {
    connection.pragma_update(None, "journal_size_limit", bytes.cast_signed()).map_err(fault)
}

/// What the file of the log is cut down to in the end, however long it has been.
pub(super) fn log_bytes_kept(checkpoint_pages: u32) -> u64 {
    2 * u64::from(checkpoint_pages) * u64::from(PAGE_BYTES)
}

/// Copies the whole log into the database and empties it; false where a reader still needed it after `patience`. Writes
/// wait meanwhile, so keep `patience` short.
pub(super) fn empty_log(connection: &Connection, patience: Duration) -> Result<bool> {
    checkpoint(connection, "TRUNCATE", patience)
}

/// False where readers were in the way until the end of `patience`. SQLite waits for a reader by the lock of its mark,
/// and another that reads what is newer may have taken that mark over, so it is asked anew after a while.
fn checkpoint(connection: &Connection, mode: &str, patience: Duration) -> Result<bool> {
    let until = Instant::now() + patience;
    connection.busy_timeout(patience.min(CHECKPOINT_ROUND)).map_err(fault)?;
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let copied = loop {
        match connection.query_row(&sql, [], |row| row.get::<_, bool>(0)) {
            Ok(true) if Instant::now() < until => std::thread::sleep(CHECKPOINT_PAUSE),
            is_busy => break is_busy.map(|is_busy| !is_busy),
        }
    };
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fault)?;
    copied.map_err(fault)
}

/// Pages in the log, and how many of them, from its beginning, have been copied into the database.
#[derive(Clone, Copy)]
pub(super) struct LogPages {
    pub(super) written: u64,
    pub(super) copied: u64,
}

impl LogPages {
    /// Bytes of what is in the log; its file may be longer.
    pub(super) fn bytes(self) -> u64 {
        self.written * u64::from(PAGE_BYTES)
    }
}

/// Copies what no reader is in the way of, and waits for none.
pub(super) fn copy_log(connection: &Connection) -> Result<LogPages> {
    connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            // Both are -1 where another process copies at this moment.
            let pages = |column| row.get(column).map(|pages: i64| u64::try_from(pages).unwrap_or(0));
            Ok(LogPages { written: pages(1)?, copied: pages(2)? })
        })
        .map_err(fault)
}

/// As [`empty_log`], for a log that has merely grown too long: the next commit begins it anew, and cuts the file.
pub(super) fn restart_log(connection: &Connection, patience: Duration) -> Result<bool> {
    checkpoint(connection, "RESTART", patience)
}

/// The connections that read.
pub(super) fn open_readers(path: &Path, count: u32) -> Result<Pool<SqliteConnectionManager>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let manager = SqliteConnectionManager::file(path).with_flags(flags).with_init(|connection| {
        set_common(connection)?;
        connection.pragma_update(None, "cache_size", -24 * 1024)?;
        connection.pragma_update(None, "query_only", true)
    });
    Pool::builder()
        .max_size(count)
        .min_idle(Some(1))
        .test_on_check_out(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connection_timeout(BUSY_TIMEOUT)
        .build(manager)
        .map_err(|error| Error::Unavailable(format!("the database cannot be opened: {error}")))
}

fn set_common(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_directory_that_cannot_be_written_is_named_with_what_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let me = fs::metadata(directory.path()).unwrap();
        let said = unusable(directory.path(), &ErrorKind::PermissionDenied.into()).to_string();
        let command = format!("chown -R {}:{} {}", me.uid(), me.gid(), directory.path().display());
        assert!(said.contains(&command) && !said.contains("belongs to"), "{said}");
        let said = unusable(Path::new("/data"), &ErrorKind::ReadOnlyFilesystem.into()).to_string();
        assert!(said.contains("/data is mounted read-only"), "{said}");
    }

    #[test]
    fn who_comes_while_readers_are_waited_for_does_not_keep_the_log() {
        let directory = tempfile::tempdir().unwrap();
        create_files(directory.path()).unwrap();
        let path = database_path(directory.path());
        let writer = open_writer(&path, 1_000_000).unwrap();
        writer.execute_batch("CREATE TABLE counts (count)").unwrap();
        let (stop, comes) = (AtomicBool::new(false), AtomicU64::new(0));
        let begun_anew: Vec<bool> = std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let reader = open_writer(&path, 1_000_000).unwrap();
                    while !stop.load(Ordering::SeqCst) {
                        reader.execute_batch("BEGIN; SELECT count(*) FROM counts").unwrap();
                        std::thread::sleep(Duration::from_millis(5 + comes.fetch_add(1, Ordering::SeqCst) % 5));
                        reader.execute_batch("COMMIT").unwrap();
                    }
                });
            }
            let restart = |_| {
                for _ in 0..20 {
                    writer.execute("INSERT INTO counts VALUES (1)", []).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
                restart_log(&writer, Duration::from_secs(2)).unwrap()
            };
            let begun_anew = (0..20).map(restart).collect();
            stop.store(true, Ordering::SeqCst);
            begun_anew
        });
        assert_eq!(begun_anew, [true; 20]);
    }
}
