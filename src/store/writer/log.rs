//! The write-ahead log as the writer keeps it: emptied after an erasure, and never long for good.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::domain::Result;
use crate::store::connection::LogPages;
use crate::store::{Reader, connection, erasure};

/// How soon emptying the log is tried again after an erasure. Writes wait meanwhile, so each failure doubles this time:
/// a program that never stops reading, such as one that replicates the database, must not slow every write.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(64);
/// How long the emptying of the log waits for readers, after an erasure.
const EMPTY_PATIENCE: Duration = Duration::from_millis(200);
/// How long it waits for them where the log is only too long.
const RESTART_PATIENCE: Duration = Duration::from_millis(50);
/// How often the length of the log is looked up. Not after each commit: once a file's times have been read, Linux (6.13
/// and later) updates them at the next write, and the next sync has to write that too, which takes it a third longer.
const LOOK: Duration = Duration::from_millis(100);

/// What came of a try to have the log begun anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    /// The next commit may begin it anew.
    Free,
    /// A reader needs it that has read for some time: it may not be done soon, and was not waited for.
    Held,
    /// Readers were waited for in vain.
    Busy,
}

/// The log of the writer's connection.
pub(super) struct Log {
    database: PathBuf,
    /// What its file is cut down to in the end.
    bytes_kept: u64,
    /// How long it may get.
    bytes_max: u64,
    /// Where its file is cut when it is next begun anew.
    cut_at: u64,
    /// When it is next looked how long it is.
    look_at: Instant,
    /// When it is next begun anew by force where it is too long, and how long after a failed try it is tried again.
    restart_at: Instant,
    restart_pause: Duration,
    /// How many pages were in it when it was last tried, since it has been too long.
    pages_seen: Option<u64>,
    /// Whether it still holds what has been erased.
    tells: bool,
    /// When it was last tried to empty it, and how long after that it is tried again.
    emptied_at: Option<Instant>,
    empty_pause: Duration,
}

impl Log {
    pub(super) fn of(connection: &Connection, checkpoint_pages: u32) -> Self {
        Self {
            database: PathBuf::from(connection.path().unwrap_or_default()),
            bytes_kept: connection::log_bytes_kept(checkpoint_pages),
            bytes_max: connection::log_bytes_max(checkpoint_pages),
            cut_at: 0,
            look_at: Instant::now(),
            restart_at: Instant::now(),
            restart_pause: RETRY,
            pages_seen: None,
            tells: false,
            emptied_at: None,
            empty_pause: RETRY,
        }
    }

    /// What is due between two commits.
    pub(super) fn keep(&mut self, reader: &Reader<'_>) {
        if self.tells && self.emptied_at.is_none_or(|at| at.elapsed() >= self.empty_pause) {
            self.empty_pause = (self.empty_pause * 2).min(RETRY_MOST);
            self.empty(reader);
        }
        self.shorten(reader);
    }

    /// Another process may have erased somebody without being able to empty the log.
    pub(super) fn look_for_mark(&mut self, reader: &Reader<'_>) -> Result<()> {
        self.tells |= erasure::find_log_mark(reader)?.is_some();
        Ok(())
    }

    /// After an erasure the log is emptied, before anyone is told that it is done. Where a reader still needs it, a later
    /// commit tries again, once its writes are answered.
    pub(super) fn forget_erased(&mut self, reader: &Reader<'_>) {
        self.tells = true;
        self.empty_pause = RETRY;
        self.empty(reader);
    }

    fn empty(&mut self, reader: &Reader<'_>) {
        self.emptied_at = Some(Instant::now());
        match empty_and_unmark(reader) {
            Ok(true) => (self.tells, self.empty_pause) = (false, RETRY),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(?error, "the log could not be emptied after an erasure; a later commit tries again");
            }
        }
    }

    /// Readers that overlap without a gap keep the log from ever being begun anew, and it would grow for as long as
    /// they come. So where it is too long, new readers are for a moment let in only behind what is copied. A reader
    /// that stays, such as a backup, is not waited for; where others were in vain, that doubles the time to the next
    /// try, as after an erasure.
    fn shorten(&mut self, reader: &Reader<'_>) {
        let now = Instant::now();
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK;
        let bytes = connection::log_bytes(&self.database);
        self.cut_slowly(reader, bytes);
        if bytes <= self.bytes_max {
            (self.restart_at, self.restart_pause, self.pages_seen) = (now, RETRY, None);
            return;
        }
        if now < self.restart_at {
            return;
        }
        match self.restart(reader.connection) {
            // The next commit cuts a piece off, and another may be due.
            Ok(Restart::Free) => return self.restart_pause = RETRY,
            // To ask costs little.
            Ok(Restart::Held) => return,
            Ok(Restart::Busy) => {}
            Err(error) => tracing::warn!(?error, "the log could not be begun anew; a later commit tries again"),
        }
        self.restart_at = now + self.restart_pause;
        self.restart_pause = (self.restart_pause * 2).min(RETRY_MOST);
    }

    /// Has the next commit begin the log anew, where that can be. Readers are waited for only where what is in the log is
    /// too long as well, or not copied.
    fn restart(&mut self, connection: &Connection) -> Result<Restart> {
        let pages @ LogPages { written, copied } = connection::copy_log(connection)?;
        let seen = self.pages_seen.replace(written);
        // Who is in the way of pages that were there at the last try has read since then. The first try is only to see.
        if copied < written && seen.is_none_or(|seen| copied < seen && seen <= written) {
            return Ok(Restart::Held);
        }
        if copied == written && pages.bytes() <= self.bytes_max {
            return Ok(Restart::Free);
        }
        if !connection::restart_log(connection, RESTART_PATIENCE)? {
            return Ok(Restart::Busy);
        }
        // What comes next are other pages.
        self.pages_seen = Some(0);
        Ok(Restart::Free)
    }

    /// Has a log of so many bytes lose one piece the next time that it is begun anew, and not all that is too much.
    fn cut_slowly(&mut self, reader: &Reader<'_>, bytes: u64) {
        let cut_at = connection::cut_of(bytes, self.bytes_kept);
        if cut_at == self.cut_at {
            return;
        }
        match connection::cut_log_at(reader.connection, cut_at) {
            Ok(()) => self.cut_at = cut_at,
            Err(error) => tracing::warn!(?error, "the log is cut as a whole"),
        }
    }
}

/// Empties the log, and takes away the mark that tells every process that the log still holds erased data.
fn empty_and_unmark(reader: &Reader<'_>) -> Result<bool> {
    let mark = erasure::find_log_mark(reader)?;
    let emptied = connection::empty_log(reader.connection, EMPTY_PATIENCE)?;
    if let Some(mark) = mark.filter(|_| emptied) {
        erasure::forget_log_mark(reader.connection, &mark)?;
    }
    Ok(emptied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::connection::{LOG_PIECE_BYTES, create_files, database_path, open_writer};

    /// A database of a table of blobs with a log of `pages` or more, and who has read it since then.
    fn held(directory: &std::path::Path, pages: i64) -> (Connection, Connection) {
        create_files(directory).unwrap();
        let path = database_path(directory);
        let [writer, reader] = [1_000_000; 2].map(|pages| open_writer(&path, pages).unwrap());
        writer.execute_batch("CREATE TABLE blobs (blob); BEGIN").unwrap();
        for _ in 0..pages {
            writer.execute("INSERT INTO blobs VALUES (zeroblob(8000))", []).unwrap();
        }
        writer.execute_batch("COMMIT").unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM blobs").unwrap();
        writer.execute("INSERT INTO blobs VALUES (zeroblob(8000))", []).unwrap();
        (writer, reader)
    }

    #[test]
    fn who_waits_for_readers_in_vain_waits_ever_more_seldom() {
        let directory = tempfile::tempdir().unwrap();
        let (connection, other) = held(directory.path(), 50);
        let reader = Reader { connection: &connection, now: Clock::system().now(), recall: None };
        let mut log = Log { bytes_max: 10 * 8_192, ..Log::of(&connection, 5_000) };
        let look = |log: &mut Log| {
            let begun = Instant::now();
            // The reader has come since the last try.
            (log.look_at, log.restart_at, log.pages_seen) = (begun, begun, Some(0));
            log.shorten(&reader);
            log.restart_at.duration_since(begun).as_secs()
        };
        let pauses: Vec<u64> = (0..8).map(|_| look(&mut log)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64]);
        // Before its time it does not even look, and then only at the length.
        let next = Instant::now() + Duration::from_mins(1);
        log.look_at = next;
        log.shorten(&reader);
        assert_eq!(log.look_at, next);
        (log.look_at, log.restart_at) = (Instant::now(), next);
        log.shorten(&reader);
        assert_eq!(log.restart_at, next);
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!((look(&mut log), log.restart_pause), (0, RETRY), "what was in vain is forgotten");
    }

    #[test]
    fn a_long_log_loses_a_piece_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let (connection, other) = held(directory.path(), 2_600);
        let reader = Reader { connection: &connection, now: Clock::system().now(), recall: None };
        let mut log = Log { bytes_kept: 50 * 8_192, bytes_max: 100 * 8_192, ..Log::of(&connection, 5_000) };
        let mut commit = || {
            (log.look_at, log.restart_at) = (Instant::now(), Instant::now());
            log.shorten(&reader);
            connection.execute("INSERT INTO blobs VALUES (zeroblob(8000))", []).unwrap();
            connection::log_bytes(&log.database)
        };
        let held_back = commit();
        assert!(held_back > 20 << 20, "{held_back}");
        other.execute_batch("ROLLBACK").unwrap();
        let mut lengths = vec![held_back];
        lengths.extend((0..4).map(|_| commit()));
        let cut: Vec<u64> = lengths.windows(2).map(|pair| pair[0].saturating_sub(pair[1])).collect();
        assert!(cut[0] > 0 && cut.iter().all(|cut| *cut <= LOG_PIECE_BYTES + (1 << 16)), "{lengths:?}");
        assert_eq!(lengths[3..], [50 * 8_192; 2]);
    }

    #[test]
    fn who_has_read_for_some_time_is_not_waited_for_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let (writer, other) = held(directory.path(), 1);
        let mut log = Log { bytes_max: 0, ..Log::of(&writer, 100) };
        assert_eq!(log.restart(&writer).unwrap(), Restart::Held, "at first it is not known since when it reads");
        for _ in 0..500 {
            writer.execute("INSERT INTO blobs VALUES (zeroblob(8000))", []).unwrap();
            assert_eq!(log.restart(&writer).unwrap(), Restart::Held);
        }
        // So the log is begun anew as soon as that reader ends.
        let reader = Reader { connection: &writer, now: Clock::system().now(), recall: None };
        let begun = Instant::now();
        for _ in 0..3 {
            (log.look_at, log.restart_at) = (begun, begun);
            log.shorten(&reader);
            assert_eq!((log.restart_at, log.restart_pause), (begun, RETRY));
        }
        // Another has begun to read meanwhile, however much has been written since.
        other.execute_batch("ROLLBACK; BEGIN; SELECT count(*) FROM blobs").unwrap();
        for _ in 0..500 {
            writer.execute("INSERT INTO blobs VALUES (zeroblob(8000))", []).unwrap();
        }
        assert_eq!(log.restart(&writer).unwrap(), Restart::Busy);
        assert_eq!(log.restart(&writer).unwrap(), Restart::Held);
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(log.restart(&writer).unwrap(), Restart::Free);
    }
}
