//! Agent runs and what they hold.

use rusqlite::{OptionalExtension, Row, params};

use super::id::{self, Table};
use super::ledger::{from_json, to_json};
use super::quota::load_reservation_row;
use super::{Reader, Writer, fault, sql_number};
use crate::domain::agent::{EndReason, Run};
use crate::domain::auth::UserKey;
use crate::domain::page::{Page, Paging};
use crate::domain::quota::Reservation;
use crate::domain::unit::{ReservationId, RunId, Timestamp};
use crate::domain::{Error, Result};

/// Columns of a run, in the order that [`run_of`] reads.
const COLUMNS: &str =
    "id, user_id, name, metadata, tier, max_minutes, started_at, seen_at, held, due_at, ended_at, end_reason";

fn run_of(row: &Row<'_>) -> rusqlite::Result<Run> {
    let started_at = Timestamp(row.get(6)?);
    let instant = |column| row.get::<_, Option<i64>>(column).map(|at| at.map(Timestamp));
    let reason = row.get::<_, Option<u8>>(11)?.and_then(|code| EndReason::ALL.get(usize::from(code)).copied());
    Ok(Run {
        id: RunId(id::encode(Table::Runs, started_at, row.get(0)?)),
        user: UserKey(row.get(1)?),
        name: row.get(2)?,
        metadata: from_json(row.get(3)?),
        tier: row.get(4)?,
        max_minutes: row.get(5)?,
        started_at,
        seen_at: Timestamp(row.get(7)?),
        held: row.get(8)?,
        due_at: instant(9)?,
        end: instant(10)?.zip(reason),
    })
}

fn code_of(reason: EndReason) -> i64 {
    EndReason::ALL.iter().zip(0..).find(|(known, _)| **known == reason).map_or(0, |(_, code)| code)
}

fn row_of(id: RunId) -> Result<id::Row> {
    id::decode(Table::Runs, id.0).ok_or(Error::NotFound("the run"))
}

/// Writes a run that begins now, and gives it its id.
pub(crate) fn insert_run(writer: &mut Writer<'_>, run: &Run) -> Result<RunId> {
    let row = writer.insert(
        "INSERT INTO runs (user_id, name, metadata, tier, max_minutes, started_at, seen_at, held, due_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            run.user.0,
            run.name,
            to_json(run.metadata.as_ref()),
            run.tier,
            run.max_minutes,
            run.started_at.0,
            run.seen_at.0,
            run.held,
            run.due_at.map(|at| at.0),
        ],
    )?;
    Ok(RunId(id::encode(Table::Runs, run.started_at, row)))
}

/// Writes what changes of a run: its last sign of life, what it holds, when it is due, how it ended.
pub(crate) fn update_run(writer: &mut Writer<'_>, run: &Run) -> Result<()> {
    let row = row_of(run.id)?.row;
    let (ended_at, reason) = run.end.unzip();
    writer.execute(
        "UPDATE runs SET seen_at = ?2, held = ?3, due_at = ?4, ended_at = ?5, end_reason = ?6 WHERE id = ?1",
        params![row, run.seen_at.0, run.held, run.due_at.map(|at| at.0), ended_at.map(|at| at.0), reason.map(code_of)],
    )?;
    Ok(())
}

/// The run of `user` with that id.
///
/// # Errors
/// `NotFound` where there is none, or it is another user's.
pub(crate) fn load_run(reader: &Reader<'_>, user: UserKey, id: RunId) -> Result<Run> {
    let wanted = row_of(id)?;
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE id = ?1 AND user_id = ?2");
    let found = reader.prepare(&sql)?.query_row(params![wanted.row, user.0], run_of).optional();
    found.map_err(fault)?.filter(|run| wanted.is_of(run.started_at)).ok_or(Error::NotFound("the run"))
}

/// A page of a user's runs, newest first.
pub(crate) fn list_runs(reader: &Reader<'_>, user: UserKey, paging: Paging) -> Result<Page<Run>> {
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE user_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3");
    let mut statement = reader.prepare(&sql)?;
    let rows = statement
        .query_map(params![user.0, paging.before(), paging.rows()], |row| Ok((row.get::<_, i64>(0)?, run_of(row)?)));
    let rows = rows.map_err(fault)?.collect::<rusqlite::Result<Vec<_>>>().map_err(fault)?;
    Ok(paging.page(rows, |(row, _)| *row).map(|(_, run)| run))
}

/// How many runs a user has had.
pub(crate) fn count_runs(reader: &Reader<'_>, user: UserKey) -> Result<i64> {
    let sql = "SELECT count(*) FROM runs WHERE user_id = ?1";
    reader.prepare(sql)?.query_row([user.0], |row| row.get(0)).map_err(fault)
}

/// Up to `limit` runs (of `user`, where one is named) that are over without their minutes being booked.
pub(crate) fn due_runs(reader: &Reader<'_>, user: Option<UserKey>, limit: usize) -> Result<Vec<Run>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM runs WHERE due_at IS NOT NULL AND due_at <= ?1 AND (?2 IS NULL OR user_id = ?2) \
         ORDER BY due_at LIMIT ?3"
    );
    let mut statement = reader.prepare(&sql)?;
    let limit = sql_number(limit);
    let rows = statement.query_map(params![reader.now().0, user.map(|user| user.0), limit], run_of);
    rows.and_then(Iterator::collect).map_err(fault)
}

/// Ends all runs of a user now. Their minutes are booked when they are found due, which they are from now on.
pub(crate) fn end_runs(writer: &mut Writer<'_>, user: UserKey, reason: EndReason) -> Result<()> {
    let now = writer.now();
    writer.execute(
        "UPDATE runs SET ended_at = ?2, end_reason = ?3, due_at = ?2 \
         WHERE user_id = ?1 AND due_at > ?2 AND ended_at IS NULL",
        params![user.0, now.0, code_of(reason)],
    )?;
    Ok(())
}

/// The holds of a run that are not settled yet, oldest first.
pub(crate) fn holds_of(reader: &Reader<'_>, run: RunId) -> Result<Vec<Reservation>> {
    let row = row_of(run)?.row;
    let mut statement =
        reader.prepare("SELECT reservation_id FROM run_holds WHERE run_id = ?1 ORDER BY reservation_id")?;
    let rows = statement.query_map([row], |row| row.get::<_, i64>(0)).map_err(fault)?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>().map_err(fault)?;
    rows.into_iter().map(|hold| load_reservation_row(reader, hold)).collect()
}

/// Ties a hold to a run.
pub(crate) fn add_hold(writer: &mut Writer<'_>, run: RunId, hold: ReservationId) -> Result<()> {
    let (run, hold) = (row_of(run)?.row, id::decode(Table::Reservations, hold.0).map(|row| row.row));
    writer.execute("INSERT INTO run_holds (run_id, reservation_id) VALUES (?1, ?2)", params![run, hold]).map(drop)
}

/// Forgets that a hold belongs to a run: it is settled or released.
pub(crate) fn drop_hold(writer: &mut Writer<'_>, run: RunId, hold: ReservationId) -> Result<()> {
    let (run, hold) = (row_of(run)?.row, id::decode(Table::Reservations, hold.0).map(|row| row.row));
    writer.execute("DELETE FROM run_holds WHERE run_id = ?1 AND reservation_id = ?2", params![run, hold]).map(drop)
}
