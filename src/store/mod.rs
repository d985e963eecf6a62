//! All the SQL. The only place that names rusqlite or r2d2.
//!
//! [`Store::read`] gives a [`Reader`]: a snapshot of the database in a transaction of its own. [`Store::write`] gives a
//! [`Writer`]: the one transaction that writes, shared with whatever else was waiting (see `writer/`), and answers only
//! after it has been committed and synced.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod auth;
pub mod backup;
pub(crate) mod check;
mod connection;
mod effects;
pub(crate) mod entries;
pub(crate) mod erasure;
mod foreign;
pub(crate) mod gateway;
mod id;
pub(crate) mod idempotency;
pub(crate) mod ledger;
mod lock;
pub(crate) mod memory;
mod meters;
mod migrate;
pub(crate) mod overview;
pub(crate) mod quota;
pub(crate) mod recall;
mod reclaim;
pub(crate) mod retention;
mod writer;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{CachedStatement, Connection, ErrorCode};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::domain::auth::UserKey;
use crate::domain::unit::Timestamp;
use crate::domain::{Error, Result};
use effects::Effects;
pub use foreign::keep_temporary_files_in;
pub use lock::DirectoryLock;
pub(crate) use migrate::VERSION as SCHEMA_VERSION;
use recall::Recall;
pub use writer::Commit;

/// How a store is sized.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Connections that read, at least 1.
    pub readers: u32,
    /// Reads that may wait for one; one more is `Busy`.
    pub read_queue: usize,
    /// Writes that may wait; one more is `Busy`.
    pub write_queue: usize,
    /// Most writes of one commit.
    pub commit_jobs_max: usize,
    /// Pages in the log after which it is copied into the database.
    pub checkpoint_pages: u32,
    /// Bytes that the index of memories may take in memory; 0 for none.
    pub index_bytes_max: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            readers: 4,
            read_queue: 1_024,
            write_queue: 4_096,
            commit_jobs_max: 256,
            checkpoint_pages: 5_000,
            index_bytes_max: 256 * 1024 * 1024,
        }
    }
}

/// The database: any number of readers, one writer.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    clock: Clock,
    readers: Pool<SqliteConnectionManager>,
    read_places: Arc<Semaphore>,
    reads_admitted: Semaphore,
    writer: writer::Handle,
    auth_version: Arc<AtomicU64>,
    meters: meters::Meters,
    recall: Arc<Recall>,
}

impl Store {
    /// Opens (and where needed creates or migrates) the database in `directory`.
    ///
    /// # Errors
    /// `Unavailable` where the directory cannot be used or the schema is newer than this program.
    pub fn open(directory: &Path, clock: Clock, options: &StoreOptions) -> Result<Self> {
        Self::open_by(directory, clock, options, migrate::MIGRATIONS)
    }

    /// As [`Store::open`], by the migrations of any program.
    fn open_by(directory: &Path, clock: Clock, options: &StoreOptions, migrations: &[&str]) -> Result<Self> {
        connection::create_files(directory)?;
        let path = connection::database_path(directory);
        let mut connection = connection::open_writer(&path, options.checkpoint_pages)?;
        if migrate::is_outdated(&connection, migrations)? {
            // What a migration may lose, however well it was tried, this still has.
            let version = migrate::version_after(migrations);
            let kept = directory.join(format!("tallybox.db.before-version-{version}"));
            backup::back_up(directory, &clock, &kept)?;
        }
        migrate::migrate(&mut connection, migrations)?;
        connection::optimize(&connection)?;
        let readers = connection::open_readers(&path, options.readers)?;
        let auth_version = Arc::new(AtomicU64::new(0));
        let meters = meters::Meters::new()?;
        let recall = Arc::new(Recall::new(options.index_bytes_max));
        let shared = writer::Shared {
            auth_version: Arc::clone(&auth_version),
            recall: Arc::clone(&recall),
            meters: meters.clone(),
        };
        let writer = writer::start(connection, clock.clone(), shared, options)?;
        let readers_count = options.readers as usize;
        let inner = Inner {
            directory: directory.to_owned(),
            clock,
            readers,
            read_places: Arc::new(Semaphore::new(readers_count)),
            reads_admitted: Semaphore::new(options.read_queue.saturating_add(readers_count)),
            writer,
            auth_version,
            meters,
            recall,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Bytes of the write-ahead log; 0 where there is none.
    pub fn log_bytes(&self) -> u64 {
        connection::log_bytes(&connection::database_path(&self.inner.directory))
    }

    /// Bytes that may still be written where the database is; none where the file system does not say.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be asked.
    pub fn disk_free_bytes(&self) -> Result<Option<u64>> {
        let found = rustix::fs::statvfs(&self.inner.directory);
        let found = found.map_err(|error| connection::unusable(&self.inner.directory, &error.into()))?;
        // Some file systems have no blocks to count.
        Ok((found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize)))
    }

    /// Where the database is.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Bytes of the database without its log.
    pub fn database_bytes(&self) -> u64 {
        std::fs::metadata(connection::database_path(&self.inner.directory)).map_or(0, |file| file.len())
    }

    /// The instruments of the writer.
    pub(crate) fn meters(&self) -> &meters::Meters {
        &self.inner.meters
    }

    /// About how many bytes the index of memories takes.
    pub fn index_bytes(&self) -> usize {
        self.inner.recall.size_bytes()
    }

    /// The time source.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Runs `work` on a snapshot, on the blocking pool.
    ///
    /// # Errors
    /// `Busy` when too many reads wait already; whatever `work` fails with.
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        // Both are given back however the read ends, also when a caller that hung up no longer waits for it.
        let _admitted = self.inner.reads_admitted.try_acquire().map_err(|_| Error::Busy("the read queue"))?;
        let place = Arc::clone(&self.inner.read_places).acquire_owned().await;
        let place = place.map_err(|_| Error::Unavailable("the store is closed".to_owned()))?;
        let store = self.clone();
        let read = move || {
            let result = store.read_blocking(work);
            drop(place);
            result
        };
        tokio::task::spawn_blocking(read).await.map_err(|panic| Error::Internal(format!("a read panicked: {panic}")))?
    }

    /// As [`Store::read`], for a search through the memories of `user`: while these are being loaded into the index,
    /// the user's other searches wait without taking one of the few reader connections.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn search<T, F>(&self, user: UserKey, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let _turn = self.inner.recall.turn(user).await;
        self.read(work).await
    }

    /// Runs `work` on a snapshot, here.
    ///
    /// # Errors
    /// Whatever `work` fails with.
    pub fn read_blocking<T>(&self, work: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self
            .inner
            .readers
            .get()
            .map_err(|error| Error::Unavailable(format!("no connection to read by: {error}")))?;
        // A fault of the disk may have kept the last transaction of this connection from ending.
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").map_err(fault)?;
        }
        let transaction = connection.transaction().map_err(fault)?;
        let recall = Some(self.inner.recall.as_ref());
        let reader = Reader { connection: &transaction, now: self.inner.clock.now(), recall };
        let result = work(&reader);
        transaction.finish().map_err(fault)?;
        result
    }

    /// Runs `work` in the writing transaction and answers once it is durable. A failure of `work` undoes what it did.
    ///
    /// # Errors
    /// `Busy` when too many writes wait already; `Unavailable` where the commit failed; whatever `work` fails with.
    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        let reply = self.inner.writer.submit(work)?;
        reply.await.unwrap_or_else(|_| Err(Error::Unavailable("the store is closed".to_owned())))
    }

    /// As [`Store::write`], but answers once `work` has been decided in the writing transaction; the commit is still to come.
    /// For what may be begun meanwhile. Nobody may be told of it before [`Commit::done`].
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write_ahead<T, F>(&self, work: F) -> Result<(T, Commit)>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        let (decided, commit) = self.inner.writer.submit_ahead(work)?;
        let decided = decided.await.unwrap_or_else(|_| Err(Error::Unavailable("the store is closed".to_owned())));
        decided.map(|value| (value, commit))
    }

    /// As [`Store::write`], for threads that may wait.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write_blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        let reply = self.inner.writer.submit(work)?;
        reply.blocking_recv().unwrap_or_else(|_| Err(Error::Unavailable("the store is closed".to_owned())))
    }

    /// Counts the commits that changed who may do what, ours and other processes' (as far as the writer has seen them).
    /// What was learnt of a credential at one value holds at the same value.
    pub fn auth_version(&self) -> u64 {
        self.inner.auth_version.load(Ordering::Acquire)
    }

    /// Finishes the writes that wait and closes the writer. Idempotent.
    pub fn close(&self) {
        self.inner.writer.close();
    }
}

/// A snapshot of the database with a frozen `now`.
pub struct Reader<'c> {
    connection: &'c Connection,
    now: Timestamp,
    /// The index of memories; none in the transaction that writes, which is ahead of it.
    recall: Option<&'c Recall>,
}

impl Reader<'_> {
    /// The instant of this transaction.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql).map_err(fault)
    }
}

/// The writing transaction with a frozen `now`. Reads through it see what it wrote.
pub struct Writer<'c> {
    reader: Reader<'c>,
    auth_version: u64,
    effects: Effects,
}

impl<'c> Deref for Writer<'c> {
    type Target = Reader<'c>;

    fn deref(&self) -> &Reader<'c> {
        &self.reader
    }
}

impl Writer<'_> {
    /// Whether what was learnt of a credential at `version` still holds in this transaction.
    pub const fn auth_holds(&self, version: u64) -> bool {
        !self.effects.auth && self.auth_version == version
    }

    /// To be called by whatever changes who may do what.
    const fn touch_auth(&mut self) {
        self.effects.auth = true;
    }

    /// To be called by an erasure: once it is committed, the log must not tell what was there before.
    const fn leave_no_trace(&mut self) {
        self.effects.erased = true;
    }

    /// Brings the planner's statistics up to date; cheap when there is nothing to do.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub fn optimize(&mut self) -> Result<()> {
        connection::optimize(self.connection)
    }

    /// Runs a statement and gives the number of rows it changed.
    fn execute(&mut self, sql: &str, parameters: impl rusqlite::Params) -> Result<usize> {
        self.prepare(sql)?.execute(parameters).map_err(fault)
    }

    /// Runs an INSERT and gives the row id.
    fn insert(&mut self, sql: &str, parameters: impl rusqlite::Params) -> Result<i64> {
        self.prepare(sql)?.insert(parameters).map_err(fault)
    }
}

/// SQLite's failures as ours. Faults of the disk are circumstances; everything else is a fault of this program.
fn fault(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Unavailable("the disk is full".to_owned()),
        Some(ErrorCode::ReadOnly) => Error::Unavailable("the database is read-only".to_owned()),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Error::Unavailable(format!("the database cannot be used: {error}"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy("the database"),
        _ => Error::Internal(format!("sqlite: {error}")),
    }
}

/// A count or a length, as SQL takes it.
fn sql_number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
