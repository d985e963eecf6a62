//! The erasure of a whole user, in steps: what cuts the user off at once, and then slice by slice what is left.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Reader, Writer, fault, ledger, memory, retention, sql_number};
use crate::domain::auth::UserKey;
use crate::domain::ledger::ResourceType;
use crate::domain::unit::UserId;
use crate::domain::{Error, Result};

/// Rows that one slice deletes, and ten times as many that it looks at.
const SLICE: i64 = 500;
/// Days that one slice looks at.
const DAYS: i64 = 500;
/// Memories that one slice deletes.
const MEMORIES: usize = 64;
/// About how much text it deletes, in bytes: each text goes with its vectors, which may be 25 times as long.
const TEXT_BYTES: usize = 1024 * 1024;
/// Pages of the full-text index that one slice writes.
const PAGES: i64 = 256;

/// The setting that is there for as long as the log holds what was erased: the user whose erasure ended last.
const LOG_TELLS: &str = "log_tells_of_erased";

/// What is counted, beside what the first step counts.
const COUNTED: [&str; 13] = [
    "memories",
    "sessions",
    "tokens",
    "links",
    "idempotency_answers",
    "refusals",
    "run_holds",
    "runs",
    "reservations",
    "ledger_entries",
    "day_totals",
    "model_totals",
    "accounts",
];

/// A step that is done in slices; true once nothing of it is left.
type Stage = fn(&mut Writer<'_>, UserKey, &mut Progress) -> Result<bool>;

/// The steps after the first, in an order that leaves no row naming a missing one. Their places are written down: a
/// running erasure goes on by them.
const STAGES: [Stage; 10] = [
    |writer, user, progress| {
        let sql = "DELETE FROM idempotency WHERE (user_id, key) IN \
                   (SELECT user_id, key FROM idempotency WHERE user_id = ?1 LIMIT ?2)";
        delete_some(writer, user, progress, "idempotency_answers", sql)
    },
    |writer, user, progress| {
        let sql = "DELETE FROM refusals WHERE (hour, user_id, resource) IN \
                   (SELECT hour, user_id, resource FROM refusals WHERE user_id = ?1 LIMIT ?2)";
        delete_some(writer, user, progress, "refusals", sql)
    },
    |writer, user, progress| {
        let sql = "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE user_id = ?1 LIMIT ?2)";
        delete_some(writer, user, progress, "runs", sql)
    },
    delete_reservations,
    delete_entries,
    |writer, user, progress| {
        let sql = "DELETE FROM buckets WHERE day = ?1 AND resource IN (0, 1, 2) AND user_id = ?2";
        delete_days(writer, user, progress, ("day_totals", "buckets", sql))
    },
    |writer, user, progress| {
        let sql = "DELETE FROM model_totals WHERE day = ?1 AND user_id = ?2";
        delete_days(writer, user, progress, ("model_totals", "model_totals", sql))
    },
    delete_memories,
    forget_in_audit,
    forget_words,
];

/// How far an erasure has come.
struct Progress {
    stage: i64,
    position: i64,
    counts: BTreeMap<String, i64>,
}

impl Progress {
    fn add(&mut self, what: &str, count: usize) {
        let sum = self.counts.entry(what.to_owned()).or_default();
        *sum = sum.saturating_add(sql_number(count));
    }
}

/// Cuts a user off, with all that lets somebody in or is under way, and leaves a bare id. From here on the erasure goes on
/// by [`slice`] until it is done.
pub(crate) fn begin(writer: &mut Writer<'_>, user: UserKey) -> Result<()> {
    const FIRST: [(&str, &str); 9] = [
        ("sessions", "DELETE FROM sessions WHERE user_id = ?1"),
        ("tokens", "DELETE FROM tokens WHERE user_id = ?1"),
        ("links", "DELETE FROM links WHERE user_id = ?1"),
        // Of an admin's corrections; there are few in a day. The user's own go slice by slice.
        ("idempotency_answers", "DELETE FROM idempotency WHERE subject = ?1"),
        // What is under way settles nothing any more: it finds its hold gone.
        ("run_holds", "DELETE FROM run_holds WHERE run_id IN (SELECT id FROM runs WHERE user_id = ?1)"),
        ("runs", "DELETE FROM runs WHERE user_id = ?1 AND due_at IS NOT NULL"),
        ("reservations", "DELETE FROM reservations WHERE user_id = ?1 AND state = 0"),
        // Of memories that end from now on nothing is booked.
        ("memory_expiry", "DELETE FROM memory_expiry WHERE user_id = ?1"),
        ("memory_versions", "DELETE FROM memory_versions WHERE user_id = ?1"),
    ];
    writer.touch_auth();
    let counts = COUNTED.iter().map(|what| ((*what).to_owned(), 0)).collect();
    let mut progress = Progress { stage: 0, position: 0, counts };
    for (what, sql) in FIRST {
        let count = writer.execute(sql, [user.0])?;
        if COUNTED.contains(&what) {
            progress.add(what, count);
        }
    }
    let now = writer.now();
    writer.execute(
        "UPDATE users SET email = NULL, email_key = NULL, password_hash = NULL, role = 'user', \
         disabled_at = coalesce(disabled_at, ?2), erased_at = ?2 WHERE id = ?1",
        params![user.0, now.0],
    )?;
    writer.effects.users_erased.push(user);
    writer.execute(
        "INSERT INTO erasures (user_id, stage, position, counts, begun_at) VALUES (?1, 0, 0, ?2, ?3)",
        params![user.0, text_of(&progress.counts)?, now.0],
    )?;
    Ok(())
}

/// Does one slice of an erasure that has begun. Once it is done, tells how many rows of what it took.
///
/// # Errors
/// `NotFound` where none has begun.
pub(crate) fn slice(writer: &mut Writer<'_>, user: UserKey) -> Result<Option<BTreeMap<String, i64>>> {
    let (mut progress, is_done) = load(writer, user)?;
    if is_done {
        return Ok(Some(progress.counts));
    }
    let Some(stage) = usize::try_from(progress.stage).ok().and_then(|stage| STAGES.get(stage)) else {
        writer.leave_no_trace();
        memory::set_setting(writer, LOG_TELLS, Some(&user.0.to_string()))?;
        let now = writer.now();
        writer.execute("UPDATE erasures SET finished_at = ?2 WHERE user_id = ?1", params![user.0, now.0])?;
        return Ok(Some(progress.counts));
    };
    if stage(writer, user, &mut progress)? {
        progress.stage += 1;
        progress.position = 0;
    }
    writer.execute(
        "UPDATE erasures SET stage = ?2, position = ?3, counts = ?4 WHERE user_id = ?1",
        params![user.0, progress.stage, progress.position, text_of(&progress.counts)?],
    )?;
    Ok(None)
}

fn load(reader: &Reader<'_>, user: UserKey) -> Result<(Progress, bool)> {
    let sql = "SELECT stage, position, counts, finished_at IS NOT NULL FROM erasures WHERE user_id = ?1";
    let found = reader.prepare(sql)?.query_row([user.0], |row| {
        let counts = serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default();
        Ok((Progress { stage: row.get(0)?, position: row.get(1)?, counts }, row.get(3)?))
    });
    found.optional().map_err(fault)?.ok_or(Error::NotFound("the erasure"))
}

fn text_of(counts: &BTreeMap<String, i64>) -> Result<String> {
    serde_json::to_string(counts).map_err(|error| Error::Internal(format!("counts cannot be written: {error}")))
}

/// The user with that id, where it is being erased.
pub(crate) fn find_begun(reader: &Reader<'_>, id: UserId) -> Result<Option<UserKey>> {
    let sql = "SELECT users.id FROM users JOIN erasures ON erasures.user_id = users.id \
               WHERE users.uuid = ?1 AND erasures.finished_at IS NULL";
    reader.prepare(sql)?.query_row([id.0], |row| row.get(0).map(UserKey)).optional().map_err(fault)
}

/// Whether the erasure of a user has begun.
pub(crate) fn is_begun(reader: &Reader<'_>, user: UserKey) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM erasures WHERE user_id = ?1)";
    reader.prepare(sql)?.query_row([user.0], |row| row.get(0)).map_err(fault)
}

/// What says that the log still holds what was erased, by whichever process.
pub(crate) fn find_log_mark(reader: &Reader<'_>) -> Result<Option<String>> {
    memory::find_setting(reader, LOG_TELLS)
}

/// Notes that the log was emptied, unless another erasure has ended since `mark` was read.
pub(super) fn forget_log_mark(connection: &Connection, mark: &str) -> Result<()> {
    let forgotten = connection.execute("DELETE FROM settings WHERE name = ?1 AND value = ?2", [LOG_TELLS, mark]);
    forgotten.map(drop).map_err(fault)
}

/// Users whose erasure has begun and is not done.
pub(crate) fn list_begun(reader: &Reader<'_>) -> Result<Vec<UserKey>> {
    let mut statement = reader.prepare("SELECT user_id FROM erasures WHERE finished_at IS NULL")?;
    let rows = statement.query_map([], |row| row.get(0).map(UserKey)).map_err(fault)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fault)
}

/// Deletes some rows by `sql`, which an index leads to the user's.
fn delete_some(writer: &mut Writer<'_>, user: UserKey, progress: &mut Progress, what: &str, sql: &str) -> Result<bool> {
    let count = writer.execute(sql, [user.0, SLICE])?;
    progress.add(what, count);
    Ok(count == 0)
}

/// The next rows of a table by their ids, after `position`: the last of up to so many; none at the end.
fn range_end(reader: &Reader<'_>, sql: &str, position: i64) -> Result<Option<i64>> {
    reader.prepare(sql)?.query_row([position, SLICE * 10], |row| row.get(0)).map_err(fault)
}

/// Reservations have no index by user but for those that hold.
fn delete_reservations(writer: &mut Writer<'_>, user: UserKey, progress: &mut Progress) -> Result<bool> {
    let sql = "SELECT max(id) FROM (SELECT id FROM reservations WHERE id > ?1 ORDER BY id LIMIT ?2)";
    let Some(last) = range_end(writer, sql, progress.position)? else { return Ok(true) };
    let sql = "DELETE FROM reservations WHERE +user_id = ?1 AND id > ?2 AND id <= ?3";
    let count = writer.execute(sql, [user.0, progress.position, last])?;
    progress.add("reservations", count);
    progress.position = last;
    Ok(false)
}

/// Entries, newest first along their chains: so what takes an entry back goes before it, and what is left is a chain.
fn delete_entries(writer: &mut Writer<'_>, user: UserKey, progress: &mut Progress) -> Result<bool> {
    let before = retention::newest_row(writer)?;
    for resource in ResourceType::ALL {
        let Some(account) = ledger::find_account(writer, user, resource)? else { continue };
        let mut next = Some(account.head);
        let mut count = 0;
        writer.execute("INSERT INTO ledger_door (user_id, reason) VALUES (?1, 'erasure')", [user.0])?;
        while let Some(row) = next.filter(|_| count < SLICE) {
            let previous = {
                let mut statement = writer.prepare("SELECT previous FROM ledger WHERE id = ?1 AND user_id = ?2")?;
                statement.query_row([row, user.0], |row| row.get::<_, Option<i64>>(0)).optional().map_err(fault)?
            };
            progress.add(
                "ledger_entries",
                writer.execute("DELETE FROM ledger WHERE id = ?1 AND user_id = ?2", [row, user.0])?,
            );
            next = previous.flatten();
            count += 1;
        }
        writer.execute("DELETE FROM ledger_door WHERE user_id = ?1", [user.0])?;
        let of = params![user.0, ledger::code_of(resource), next];
        if next.is_some() {
            writer.execute("UPDATE accounts SET head = ?3 WHERE user_id = ?1 AND resource = ?2", of)?;
        } else {
            let gone =
                writer.execute("DELETE FROM accounts WHERE user_id = ?1 AND resource = ?2 AND ?3 IS NULL", of)?;
            progress.add("accounts", gone);
        }
        retention::add_gone(writer, count - (before - retention::newest_row(writer)?))?;
        retention::reopen_rows(writer)?;
        return Ok(false);
    }
    Ok(true)
}

/// Totals by day, which have no index by user: a look at each day there is.
fn delete_days(
    writer: &mut Writer<'_>,
    user: UserKey,
    progress: &mut Progress,
    (what, table, sql): (&str, &str, &str),
) -> Result<bool> {
    let bound = |edge: &str| {
        let sql = format!("SELECT {edge}(day) FROM {table}");
        writer.prepare(&sql)?.query_row([], |row| row.get::<_, Option<i64>>(0)).map_err(fault)
    };
    let (Some(first), Some(last)) = (bound("min")?, bound("max")?) else { return Ok(true) };
    let first = if progress.position == 0 { first } else { first.max(progress.position) };
    let end = last.min(first.saturating_add(DAYS));
    for day in first..=end {
        progress.add(what, writer.execute(sql, [day, user.0])?);
    }
    progress.position = end + 1;
    Ok(end == last)
}

fn delete_memories(writer: &mut Writer<'_>, user: UserKey, progress: &mut Progress) -> Result<bool> {
    let count = memory::erase_some(writer, user, MEMORIES, TEXT_BYTES)?;
    progress.add("memories", count);
    Ok(count == 0)
}

/// The audit log keeps what was done and loses who the person was.
fn forget_in_audit(writer: &mut Writer<'_>, user: UserKey, progress: &mut Progress) -> Result<bool> {
    let sql = "SELECT max(id) FROM (SELECT id FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2)";
    let Some(last) = range_end(writer, sql, progress.position)? else { return Ok(true) };
    let range = [user.0, progress.position, last];
    writer.execute(
        "UPDATE audit SET actor_email = NULL, address = NULL WHERE actor_id = ?1 AND id > ?2 AND id <= ?3",
        range,
    )?;
    // What the program did for somebody who was not known yet (setting the box up) came from that person's own address.
    writer.execute(
        "UPDATE audit SET address = NULL WHERE subject_id = ?1 AND actor_kind = 'system' AND id > ?2 AND id <= ?3",
        range,
    )?;
    writer.execute(
        "UPDATE audit SET subject_email = NULL, before = NULL, after = NULL \
         WHERE subject_id = ?1 AND id > ?2 AND id <= ?3",
        range,
    )?;
    progress.position = last;
    Ok(false)
}

/// The words of what was deleted stand in the full-text index until its pieces are merged.
fn forget_words(writer: &mut Writer<'_>, _: UserKey, progress: &mut Progress) -> Result<bool> {
    let is_merged = memory::merge_words(writer, PAGES, progress.position == 0)?;
    let is_done = is_merged && progress.position > 0;
    progress.position += 1;
    Ok(is_done)
}
