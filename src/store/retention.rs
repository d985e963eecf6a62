//! The closing of days: the entries of a user, resource and day give way to one that stands for them all.
//!
//! Entries are read in the order of their rows, which is the order in which they were recorded, so that neighbours on the
//! disk leave together; `ledger_late` finds the few that were recorded long after the day they count in. Each slice is one
//! transaction after which everything holds: totals, chains, heads. Where one ends, the next begins, also after a crash.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::id::{self, Table};
use super::ledger::{CLOSING, code_of, find_account, resource_of};
use super::memory::{find_setting, set_setting};
use super::{Reader, Writer, fault, sql_number};
use crate::domain::auth::UserKey;
use crate::domain::calendar::{Calendar, Day};
use crate::domain::ledger::{CLOSED_ENTRIES, ResourceType};
use crate::domain::unit::{DAY_MS, EntryId};
use crate::domain::{Error, Result};

/// How long after its day an entry may have been recorded and still be looked for by its own id: the longest backdating,
/// the longest wait for a settlement, and the days of a month that an agent's run is booked in.
const LATE_DAYS_MAX: i32 = 70;
/// How far the entry that follows another is looked for at first, in rows.
const FOLLOWER_STEP: i64 = 64;
/// The row up to which all entries were looked at, and those of days that are over long enough are gone.
const CLOSED_UP_TO: &str = "ledger_closed_up_to";
/// How many rows below the newest one are gone.
const GONE: &str = "ledger_rows_gone";

/// Where a round of closing has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the beginning.
    Start,
    /// Entries in the order of their rows, after this one.
    Rows(i64),
    /// Entries that were recorded late, after this day and row.
    Late(i64, i64),
}

/// Which bucket: a day of a user's use of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BucketKey {
    user: i64,
    resource: i64,
    day: i64,
}

/// An entry that will be gone.
#[derive(Clone, Debug)]
struct Part {
    row: i64,
    bucket: BucketKey,
    amount: i64,
    recorded_at: i64,
    previous: Option<i64>,
    reverses: Option<i64>,
    /// How many entries it stands for.
    count: i64,
}

/// Columns of a part, in the order that [`part_of`] reads.
macro_rules! part_columns {
    () => {
        "ledger.id, ledger.user_id, ledger.resource, ledger.day, ledger.amount, ledger.recorded_at, ledger.previous, \
         ledger.reverses, ledger.source, CASE WHEN ledger.source = 4 THEN ledger.metadata END"
    };
}

impl Part {
    /// The entry that this one takes back, or itself.
    fn root(&self) -> i64 {
        self.reverses.unwrap_or(self.row)
    }
}

fn part_of(row: &Row<'_>) -> rusqlite::Result<(Part, bool)> {
    let is_closing = row.get::<_, i64>(8)? == CLOSING;
    let metadata: Option<String> = row.get(9)?;
    let count = metadata.and_then(|text| serde_json::from_str::<Value>(&text).ok()?.get(CLOSED_ENTRIES)?.as_i64());
    let bucket = BucketKey { user: row.get(1)?, resource: row.get(2)?, day: row.get(3)? };
    let part = Part {
        row: row.get(0)?,
        bucket,
        amount: row.get(4)?,
        recorded_at: row.get(5)?,
        previous: row.get(6)?,
        reverses: row.get(7)?,
        count: count.unwrap_or(1),
    };
    Ok((part, is_closing))
}

fn find_part(reader: &Reader<'_>, row: i64) -> Result<Option<Part>> {
    let sql = concat!("SELECT ", part_columns!(), " FROM ledger WHERE id = ?1");
    let found = reader.prepare(sql)?.query_row([row], |row| part_of(row).map(|(part, _)| part));
    found.optional().map_err(fault)
}

/// The entry that an entry follows.
fn find_previous(reader: &Reader<'_>, row: i64) -> Result<Option<i64>> {
    let mut statement = reader.prepare("SELECT previous FROM ledger WHERE id = ?1")?;
    Ok(statement.query_row([row], |row| row.get(0)).optional().map_err(fault)?.flatten())
}

/// Closes the days before `before` for a slice of up to `limit` entries, and tells where the next slice begins; none when
/// all of them are closed.
pub(crate) fn close_slice(
    writer: &mut Writer<'_>,
    calendar: Calendar,
    before: Day,
    place: Place,
    limit: usize,
) -> Result<Option<Place>> {
    let (parts, next) = match place {
        Place::Start => return Ok(Some(Place::Rows(number(writer, CLOSED_UP_TO)?))),
        Place::Rows(after) => scan(writer, before, after, limit)?,
        Place::Late(day, row) => scan_late(writer, before, (day, row), limit)?,
    };
    let mut gone = 0;
    for (bucket, mut parts) in grouped(writer, before, parts)? {
        // What one of them follows may have changed with the group before.
        for part in parts.values_mut() {
            part.previous = find_previous(writer, part.row)?;
        }
        gone += close(writer, calendar, bucket, &parts)?;
    }
    add_gone(writer, gone)?;
    Ok(next)
}

/// A slice of entries by their rows. Those of the last days are looked at again in the next round, since some of their
/// entries may count in a day that is not over long enough; so the place that is kept lies before them.
fn scan(writer: &mut Writer<'_>, before: Day, after: i64, limit: usize) -> Result<(Vec<Part>, Option<Place>)> {
    let sql = concat!(
        "SELECT ",
        part_columns!(),
        " FROM ledger WHERE id > ?1 AND NOT EXISTS (SELECT 1 FROM erasures \
         WHERE erasures.user_id = ledger.user_id AND finished_at IS NULL) ORDER BY id LIMIT ?2"
    );
    let first = i64::from(before.0);
    let (certain, end) = ((first - 1) * DAY_MS, young_from(before));
    let newest = newest_row(writer)?;
    let mut parts = Vec::new();
    // A clock that was wrong once must not end the round: only a slice that ends in later days does.
    let (mut last, mut kept, mut seen, mut is_over) = (after, after, 0, true);
    {
        let mut statement = writer.prepare(sql)?;
        let rows = statement.query_map(params![after, sql_number(limit)], part_of).map_err(fault)?;
        for found in rows {
            let (part, is_closing) = found.map_err(fault)?;
            seen += 1;
            last = part.row;
            is_over = part.recorded_at >= end;
            if part.recorded_at < certain && part.row < newest {
                kept = part.row;
            }
            if !is_closing && !is_over && part.bucket.day < first {
                parts.push(part);
            }
        }
    }
    if kept > number(writer, CLOSED_UP_TO)? {
        set_setting(writer, CLOSED_UP_TO, Some(&kept.to_string()))?;
    }
    let next = if seen == limit && !is_over { Place::Rows(last) } else { Place::Late(i64::MIN, 0) };
    Ok((parts, Some(next)))
}

/// A slice of the entries that were recorded long after the day they count in, and long ago all the same.
fn scan_late(
    reader: &Reader<'_>,
    before: Day,
    (day, row): (i64, i64),
    limit: usize,
) -> Result<(Vec<Part>, Option<Place>)> {
    let sql = concat!(
        "SELECT ",
        part_columns!(),
        " FROM ledger INDEXED BY ledger_late WHERE day < ?1 AND (day, id) > (?2, ?3) \
         AND recorded_at >= (day + 2) * 86400000 AND recorded_at < ?1 * 86400000 AND source <> 4 \
         AND NOT EXISTS (SELECT 1 FROM erasures \
         WHERE erasures.user_id = ledger.user_id AND finished_at IS NULL) ORDER BY day, id LIMIT ?4"
    );
    let mut statement = reader.prepare(sql)?;
    let rows = statement.query_map(params![before.0, day, row, sql_number(limit)], |row| Ok(part_of(row)?.0));
    let parts: Vec<Part> = rows.and_then(Iterator::collect).map_err(fault)?;
    let next = parts.last().filter(|_| parts.len() == limit).map(|last| Place::Late(last.bucket.day, last.row));
    Ok((parts, next))
}

/// What is recorded from this instant on stays as it is while the days before `before` are closed: a client that asks
/// now and then for what is new must see it, whichever day it counts in. A day later than the days that are closed,
/// since zones differ.
fn young_from(before: Day) -> i64 {
    (i64::from(before.0) + 1) * DAY_MS
}

/// The newest entry of all users; 0 without any. It stays: SQLite would give its row id to another entry, and clients
/// may still hold the old one's id.
pub(super) fn newest_row(reader: &Reader<'_>) -> Result<i64> {
    let sql = "SELECT coalesce(max(id), 0) FROM ledger";
    reader.prepare(sql)?.query_row([], |row| row.get(0)).map_err(fault)
}

/// By user, resource and day, with all that takes one of them back or is taken back by one, and with what stands for the
/// day already. Where one of an entry and those that take it back must stay, all of them do, until it comes up itself.
fn grouped(reader: &Reader<'_>, before: Day, parts: Vec<Part>) -> Result<BTreeMap<BucketKey, BTreeMap<i64, Part>>> {
    let mut groups: BTreeMap<BucketKey, BTreeMap<i64, Part>> = BTreeMap::new();
    for part in parts {
        groups.entry(part.bucket).or_default().insert(part.row, part);
    }
    let (newest, young_from) = (newest_row(reader)?, young_from(before));
    let mut reversals = reader.prepare("SELECT id FROM ledger WHERE reverses = ?1")?;
    let mut closing =
        reader.prepare("SELECT closing FROM buckets WHERE day = ?1 AND resource = ?2 AND user_id = ?3")?;
    for (bucket, group) in &mut groups {
        let mut wanted: Vec<i64> = group.values().filter_map(|part| part.reverses).collect();
        wanted.retain(|row| !group.contains_key(row));
        for row in wanted {
            group.extend(find_part(reader, row)?.map(|part| (row, part)));
        }
        let reversed: Vec<i64> =
            group.values().filter(|part| part.amount > 0 && part.reverses.is_none()).map(|part| part.row).collect();
        for row in reversed {
            let rows = reversals.query_map([row], |row| row.get::<_, i64>(0)).map_err(fault)?;
            for row in rows {
                let row = row.map_err(fault)?;
                if !group.contains_key(&row) {
                    group.extend(find_part(reader, row)?.map(|part| (row, part)));
                }
            }
        }
        let stays = |part: &&Part| part.recorded_at >= young_from || part.row == newest;
        let staying: BTreeSet<i64> = group.values().filter(stays).map(Part::root).collect();
        group.retain(|_, part| !staying.contains(&part.root()));
        if group.is_empty() {
            continue;
        }
        let found =
            closing.query_row(params![bucket.day, bucket.resource, bucket.user], |row| row.get::<_, Option<i64>>(0));
        if let Some(row) = found.optional().map_err(fault)?.flatten() {
            group.extend(find_part(reader, row)?.map(|part| (row, part)));
        }
    }
    groups.retain(|_, group| !group.is_empty());
    Ok(groups)
}

/// Puts one entry in the place of `parts`, and tells how many rows fewer there are.
///
/// It takes the row and the time of the oldest of them: a listing that has come to any of them from above then still meets
/// it below, and shows nothing less than what there was.
fn close(writer: &mut Writer<'_>, calendar: Calendar, bucket: BucketKey, parts: &BTreeMap<i64, Part>) -> Result<i64> {
    // What no 64 bits can hold together stays as it is.
    let sum = parts.values().try_fold(0_i64, |sum, part| sum.checked_add(part.amount));
    let (Some(kept), Some(sum)) = (parts.values().next(), sum) else { return Ok(0) };
    let followers = followers(writer, bucket, parts, kept.row)?;
    writer.execute("INSERT INTO ledger_door (user_id, reason) VALUES (?1, 'retention')", [bucket.user])?;
    for (follower, previous) in followers {
        writer.execute("UPDATE ledger SET previous = ?2 WHERE id = ?1", params![follower, previous])?;
    }
    move_heads(writer, bucket, parts, kept.row)?;
    // Newest first: what takes an entry back is newer than it.
    for row in parts.keys().rev() {
        writer.execute("DELETE FROM ledger WHERE id = ?1", [row])?;
    }
    let count = parts.values().fold(0_i64, |sum, part| sum.saturating_add(part.count));
    let day = Day(i32::try_from(bucket.day).map_err(|_| Error::Internal("a day beyond all calendars".to_owned()))?);
    writer.execute(
        "INSERT INTO ledger (id, user_id, resource, amount, timestamp, recorded_at, day, source, previous, metadata) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            kept.row,
            bucket.user,
            bucket.resource,
            sum,
            calendar.end_of(day).plus_millis(-1).0,
            kept.recorded_at,
            bucket.day,
            CLOSING,
            kept.previous,
            json!({ CLOSED_ENTRIES: count }).to_string()
        ],
    )?;
    writer.execute(
        "UPDATE buckets SET closing = ?4 WHERE day = ?1 AND resource = ?2 AND user_id = ?3",
        params![bucket.day, bucket.resource, bucket.user, kept.row],
    )?;
    writer.execute("DELETE FROM ledger_door WHERE user_id = ?1", [bucket.user])?;
    Ok(sql_number(parts.len()) - 1)
}

/// The next entry back from `row`, `row` included, that stays.
fn before_parts(parts: &BTreeMap<i64, Part>, kept: i64, mut row: Option<i64>) -> Option<i64> {
    while let Some(part) = row.filter(|row| *row != kept).and_then(|row| parts.get(&row)) {
        row = part.previous;
    }
    row
}

/// The entries that stay and follow one that goes, each with the entry that it follows from now on.
fn followers(
    reader: &Reader<'_>,
    bucket: BucketKey,
    parts: &BTreeMap<i64, Part>,
    kept: i64,
) -> Result<Vec<(i64, Option<i64>)>> {
    let mut followers = Vec::new();
    let mut above = parts.values().skip(1);
    for part in parts.values() {
        let next = above.next();
        if part.row == kept || next.is_some_and(|next| next.previous == Some(part.row)) {
            continue;
        }
        if let Some(follower) = find_follower(reader, bucket, part, next.map(|next| next.row))? {
            followers.push((follower, before_parts(parts, kept, Some(part.row))));
        }
    }
    Ok(followers)
}

/// The entry that follows `part` in its chain: found by walking back from `above`, or from the newest entry of the day on
/// which the part was recorded, whichever is nearer.
///
/// It may be the very next row, while the newest entry of the day is far; or it may be the day's only one, with the
/// rows of many others between. So it is looked for both ways in turn, each time twice as far as before.
fn find_follower(reader: &Reader<'_>, bucket: BucketKey, part: &Part, above: Option<i64>) -> Result<Option<i64>> {
    let mut start = above;
    let recorded_on = part.recorded_at.div_euclid(DAY_MS);
    let mut heads = reader
        .prepare("SELECT head FROM buckets WHERE day = ?1 AND resource = ?2 AND user_id = ?3 AND head IS NOT NULL")?;
    for day in recorded_on - 1..=recorded_on + 1 {
        let head = heads.query_row(params![day, bucket.resource, bucket.user], |row| row.get::<_, i64>(0));
        if let Some(head) = head.optional().map_err(fault)?.filter(|head| *head > part.row) {
            start = Some(start.map_or(head, |start| start.min(head)));
            break;
        }
    }
    if start.is_none() {
        let head =
            find_account(reader, UserKey(bucket.user), resource_of(bucket.resource))?.map(|account| account.head);
        start = head.filter(|head| *head > part.row);
    }
    let Some(mut at) = start else { return Ok(None) };
    let mut next = reader.prepare("SELECT id FROM ledger WHERE id > ?1 AND id <= ?2 AND previous = ?3 LIMIT 1")?;
    let (mut seen, mut step) = (part.row, FOLLOWER_STEP);
    loop {
        let end = seen.saturating_add(step);
        let found = next.query_row([seen, end, part.row], |row| row.get::<_, i64>(0)).optional().map_err(fault)?;
        if found.is_some() {
            return Ok(found);
        }
        seen = end;
        for _ in 0..step {
            match find_previous(reader, at)? {
                Some(before) if before == part.row => return Ok(Some(at)),
                Some(before) if before > part.row => at = before,
                _ => return Err(Error::Internal(format!("entry {} is not on its chain", part.row))),
            }
        }
        step *= 2;
    }
}

/// Where the newest entry of a chain or of a day goes, the next one back takes its place; of a day, if it may be of the same
/// day: listings that end on that day begin there. A day differs from that of UTC by one at most, whatever the zone was.
fn move_heads(writer: &mut Writer<'_>, bucket: BucketKey, parts: &BTreeMap<i64, Part>, kept: i64) -> Result<()> {
    let (user, resource) = (UserKey(bucket.user), resource_of(bucket.resource));
    let head = find_account(writer, user, resource)?.map(|account| account.head);
    if let Some(head) = head.filter(|head| *head != kept && parts.contains_key(head)) {
        writer.execute(
            "UPDATE accounts SET head = ?3 WHERE user_id = ?1 AND resource = ?2",
            params![bucket.user, bucket.resource, before_parts(parts, kept, Some(head))],
        )?;
    }
    let near = |at: i64| at.div_euclid(DAY_MS) - 1..=at.div_euclid(DAY_MS) + 1;
    let days: BTreeSet<i64> = parts.values().flat_map(|part| near(part.recorded_at)).collect();
    for day in days {
        let head = {
            let mut statement =
                writer.prepare("SELECT head FROM buckets WHERE day = ?1 AND resource = ?2 AND user_id = ?3")?;
            statement
                .query_row(params![day, bucket.resource, bucket.user], |row| row.get::<_, Option<i64>>(0))
                .optional()
                .map_err(fault)?
                .flatten()
        };
        let Some(head) = head.filter(|head| *head != kept && parts.contains_key(head)) else { continue };
        let before = before_parts(parts, kept, Some(head)).map(|row| find_part(writer, row)).transpose()?.flatten();
        let before = before.filter(|part| near(part.recorded_at).contains(&day)).map(|part| part.row);
        writer.execute(
            "UPDATE buckets SET head = ?4 WHERE day = ?1 AND resource = ?2 AND user_id = ?3",
            params![day, bucket.resource, bucket.user, before],
        )?;
    }
    Ok(())
}

/// Whether retention has closed a day of a user's use of `resource`.
pub(crate) fn is_closed(reader: &Reader<'_>, user: UserKey, resource: ResourceType, day: Day) -> Result<bool> {
    let mut statement = reader.prepare(
        "SELECT EXISTS (SELECT 1 FROM buckets WHERE day = ?1 AND resource = ?2 AND user_id = ?3 AND closing IS NOT NULL)",
    )?;
    statement.query_row(params![day.0, code_of(resource), user.0], |row| row.get(0)).map_err(fault)
}

/// Whether an entry with that id, which is not there, may have been one of a day of the user that has been closed since.
pub(crate) fn may_have_had(reader: &Reader<'_>, user: UserKey, resource: ResourceType, id: EntryId) -> Result<bool> {
    let Some(wanted) = id::decode(Table::Ledger, id.0) else { return Ok(false) };
    let there = reader
        .prepare("SELECT EXISTS (SELECT 1 FROM ledger WHERE id = ?1 AND source <> 4)")?
        .query_row([wanted.row], |row| row.get::<_, bool>(0));
    if there.map_err(fault)? {
        return Ok(false);
    }
    let Ok(day) = i32::try_from(wanted.at().0.div_euclid(DAY_MS)) else { return Ok(false) };
    for back in -1..=LATE_DAYS_MAX {
        if is_closed(reader, user, resource, Day(day).plus(-back))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many rows below the newest one are gone.
pub(crate) fn gone(reader: &Reader<'_>) -> Result<i64> {
    number(reader, GONE)
}

/// Counts rows that are gone from below the newest one.
pub(super) fn add_gone(writer: &mut Writer<'_>, count: i64) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let sum = number(writer, GONE)?.saturating_add(count);
    set_setting(writer, GONE, Some(&sum.to_string()))
}

/// After the newest entries of all have been erased: SQLite gives their rows again, to entries that are not closed.
pub(super) fn reopen_rows(writer: &mut Writer<'_>) -> Result<()> {
    let newest = newest_row(writer)?;
    if newest < number(writer, CLOSED_UP_TO)? {
        set_setting(writer, CLOSED_UP_TO, Some(&newest.to_string()))?;
    }
    Ok(())
}

fn number(reader: &Reader<'_>, name: &str) -> Result<i64> {
    Ok(find_setting(reader, name)?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_before_a_run_of_parts_is_found() {
        let bucket = BucketKey { user: 1, resource: 0, day: 0 };
        let part =
            |row, previous| (row, Part { row, bucket, amount: 1, recorded_at: 0, previous, reverses: None, count: 1 });
        let parts: BTreeMap<i64, Part> = [part(3, Some(2)), part(5, Some(3)), part(9, Some(7))].into();
        assert_eq!(before_parts(&parts, 9, Some(5)), Some(2));
        assert_eq!(before_parts(&parts, 5, Some(9)), Some(7));
        assert_eq!(before_parts(&parts, 5, Some(5)), Some(5));
        assert_eq!(before_parts(&[part(3, None)].into(), 9, Some(3)), None);
    }
}
