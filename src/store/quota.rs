//! What is used and held, and the reservations that hold.

use std::ops::RangeInclusive;

use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

use super::id::{self, Table};
use super::ledger::{code_of, entry_id, from_json, resource_of, to_json};
use super::{Reader, Writer, fault, sql_number};
use crate::domain::auth::UserKey;
use crate::domain::calendar::Day;
use crate::domain::ledger::{Entry, ResourceType, SeriesDay};
use crate::domain::quota::{Maker, Reservation, Resolution, Usage};
use crate::domain::unit::{ReservationId, Timestamp};
use crate::domain::{Error, Result};

/// Used and held in the days of a window, by the totals. Holds that have expired but are not booked out still count.
pub(crate) fn booked_usage(
    reader: &Reader<'_>,
    user: UserKey,
    resource: ResourceType,
    days: &RangeInclusive<Day>,
) -> Result<Usage> {
    let mut statement =
        reader.prepare("SELECT amount, reserved FROM buckets WHERE day = ?1 AND resource = ?2 AND user_id = ?3")?;
    let mut usage = Usage::default();
    // A point look-up a day: the rows of one day lie together, over all users.
    for day in days.start().0..=days.end().0 {
        let found = statement.query_row(params![day, code_of(resource), user.0], |row| {
            Ok(Usage { used: row.get(0)?, reserved: row.get(1)? })
        });
        if let Some(day) = found.optional().map_err(fault)? {
            usage.used = usage.used.saturating_add(day.used);
            usage.reserved = usage.reserved.saturating_add(day.reserved);
        }
    }
    Ok(usage)
}

/// What of the holds in `days` has expired without having been booked out.
pub(crate) fn expired_reserved(
    reader: &Reader<'_>,
    user: UserKey,
    resource: ResourceType,
    days: &RangeInclusive<Day>,
) -> Result<i64> {
    let mut statement = reader.prepare(
        "SELECT coalesce(sum(amount), 0) FROM reservations \
         WHERE user_id = ?1 AND resource = ?2 AND state = 0 AND expires_at <= ?3 AND day BETWEEN ?4 AND ?5",
    )?;
    let parameters = params![user.0, code_of(resource), reader.now().0, days.start().0, days.end().0];
    statement.query_row(parameters, |row| row.get(0)).map_err(fault)
}

/// Bytes of a user's memories whose time is over without their end having been booked.
pub(crate) fn expired_memory_bytes(reader: &Reader<'_>, user: UserKey) -> Result<i64> {
    let mut statement = reader.prepare(
        "SELECT coalesce(sum(size_bytes), 0) FROM memories WHERE user_id = ?1 AND expires_at <= ?2 \
         AND expires_at > coalesce((SELECT booked_until FROM memory_expiry WHERE user_id = ?1), 0)",
    )?;
    statement.query_row(params![user.0, reader.now().0], |row| row.get(0)).map_err(fault)
}

/// The days of a series, oldest first, one element for every day; amounts only.
pub(crate) fn series(
    reader: &Reader<'_>,
    user: UserKey,
    resource: ResourceType,
    days: &RangeInclusive<Day>,
) -> Result<Vec<SeriesDay>> {
    let mut statement =
        reader.prepare("SELECT amount FROM buckets WHERE day = ?1 AND resource = ?2 AND user_id = ?3")?;
    let mut series = Vec::new();
    for day in days.start().0..=days.end().0 {
        let found = statement.query_row(params![day, code_of(resource), user.0], |row| row.get(0)).optional();
        let amount: i64 = found.map_err(fault)?.unwrap_or(0);
        series.push(SeriesDay { day: Day(day), amount, total: None });
    }
    Ok(series)
}

/// Books out what has expired of a user's holds on `resource`, and tells how many that were.
pub(crate) fn free_expired_of(writer: &mut Writer<'_>, user: UserKey, resource: ResourceType) -> Result<usize> {
    let rows = expired_rows(
        writer,
        "SELECT id, user_id, resource, day, amount FROM reservations \
         WHERE user_id = ?1 AND resource = ?2 AND state = 0 AND expires_at <= ?3",
        params![user.0, code_of(resource), writer.now().0],
    )?;
    free(writer, &rows)
}

/// Books out up to `limit` expired holds of all users, and tells how many that were.
pub(crate) fn free_expired(writer: &mut Writer<'_>, limit: usize) -> Result<usize> {
    let rows = expired_rows(
        writer,
        "SELECT id, user_id, resource, day, amount FROM reservations \
         WHERE state = 0 AND expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2",
        params![writer.now().0, sql_number(limit)],
    )?;
    free(writer, &rows)
}

struct Held {
    row: i64,
    user: i64,
    resource: i64,
    day: i64,
    amount: i64,
}

fn expired_rows(reader: &Reader<'_>, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<Held>> {
    let mut statement = reader.prepare(sql)?;
    let rows = statement.query_map(parameters, |row| {
        Ok(Held { row: row.get(0)?, user: row.get(1)?, resource: row.get(2)?, day: row.get(3)?, amount: row.get(4)? })
    });
    rows.and_then(Iterator::collect).map_err(fault)
}

fn free(writer: &mut Writer<'_>, rows: &[Held]) -> Result<usize> {
    for held in rows {
        writer.execute("UPDATE reservations SET state = 1 WHERE id = ?1", [held.row])?;
        unreserve(writer, held)?;
    }
    Ok(rows.len())
}

fn unreserve(writer: &mut Writer<'_>, held: &Held) -> Result<()> {
    let changed = writer.execute(
        "UPDATE buckets SET reserved = reserved - ?4 WHERE day = ?1 AND resource = ?2 AND user_id = ?3",
        params![held.day, held.resource, held.user, held.amount],
    )?;
    assert!(changed == 1, "a hold counts in a bucket");
    Ok(())
}

const fn code_of_maker(maker: Maker) -> (i64, Option<i64>) {
    match maker {
        Maker::User => (0, None),
        Maker::Acting(user) => (1, Some(user.0)),
        Maker::Proxy => (2, None),
        Maker::Gateway => (3, None),
        Maker::Agent => (4, None),
    }
}

fn maker_of(code: i64, id: Option<i64>) -> Maker {
    match (code, id) {
        (1, Some(id)) => Maker::Acting(UserKey(id)),
        (2, _) => Maker::Proxy,
        (3, _) => Maker::Gateway,
        (4, _) => Maker::Agent,
        _ => Maker::User,
    }
}

/// A hold that is not written yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewReservation {
    pub(crate) user: UserKey,
    pub(crate) resource: ResourceType,
    pub(crate) amount: i64,
    pub(crate) day: Day,
    pub(crate) maker: Maker,
    pub(crate) expires_at: Option<Timestamp>,
}

/// An open hold of the gateway.
#[derive(Clone, Debug)]
pub(crate) struct GatewayHold {
    pub(crate) reservation: Reservation,
    /// What had been delivered by the last checkpoint, the prompt included.
    pub(crate) delivered: i64,
    pub(crate) metadata: Option<Value>,
}

/// Writes a hold and counts it as reserved. Whether it fits has been decided before, in the same transaction.
///
/// # Errors
/// `Invalid` where the reserved sum would leave 64 bits.
pub(crate) fn insert_reservation(writer: &mut Writer<'_>, new: NewReservation) -> Result<Reservation> {
    let held = booked_usage(writer, new.user, new.resource, &(new.day..=new.day))?.reserved;
    if held.checked_add(new.amount).is_none() {
        return Err(Error::invalid("amount", "takes what is reserved past what 64 bits can hold"));
    }
    let now = writer.now();
    let (maker, maker_id) = code_of_maker(new.maker);
    let row = writer.insert(
        "INSERT INTO reservations (user_id, resource, amount, day, maker, maker_id, made_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            new.user.0,
            code_of(new.resource),
            new.amount,
            new.day.0,
            maker,
            maker_id,
            now.0,
            new.expires_at.map(|at| at.0)
        ],
    )?;
    writer.execute(
        "INSERT INTO buckets (day, resource, user_id, reserved) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT DO UPDATE SET reserved = reserved + excluded.reserved",
        params![new.day.0, code_of(new.resource), new.user.0, new.amount],
    )?;
    Ok(Reservation {
        id: ReservationId(id::encode(Table::Reservations, now, row)),
        user: new.user,
        resource: new.resource,
        amount: new.amount,
        day: new.day,
        maker: new.maker,
        made_at: now,
        expires_at: new.expires_at,
        resolution: Resolution::Open { freed: false },
    })
}

/// Columns of a reservation, in the order that [`reservation_of`] reads.
macro_rules! reservation_columns {
    () => {
        "reservations.id, reservations.user_id, reservations.resource, reservations.amount, reservations.day, \
         reservations.maker, reservations.maker_id, reservations.made_at, reservations.expires_at, reservations.state, \
         reservations.settled, reservations.metadata, reservations.late, coalesce(ledger.id, closings.id), \
         coalesce(ledger.recorded_at, closings.recorded_at), coalesce(ledger.source, closings.source)"
    };
}

/// Where a reservation's columns come from. Once retention has taken the entry of a settled one away, the entry that stands
/// for the day's is in its place.
macro_rules! reservation_tables {
    () => {
        " FROM reservations LEFT JOIN ledger ON ledger.id = reservations.entry_id \
         LEFT JOIN buckets AS closed ON reservations.entry_id IS NOT NULL AND ledger.id IS NULL \
         AND closed.day = reservations.day AND closed.resource = reservations.resource \
         AND closed.user_id = reservations.user_id \
         LEFT JOIN ledger AS closings ON closings.id = closed.closing "
    };
}

fn reservation_of(row: &Row<'_>) -> rusqlite::Result<Reservation> {
    let made_at = Timestamp(row.get(7)?);
    let resolution = match row.get::<_, i64>(9)? {
        0 => Resolution::Open { freed: false },
        1 => Resolution::Open { freed: true },
        2 => {
            let entry = row.get::<_, Option<i64>>(13)?.zip(row.get::<_, Option<i64>>(14)?);
            let source: Option<i64> = row.get(15)?;
            Resolution::Settled {
                entry: entry.zip(source).map(|((entry, at), source)| entry_id(source, Timestamp(at), entry)),
                amount: row.get(10)?,
                metadata: from_json(row.get(11)?),
                late: row.get(12)?,
            }
        }
        _ => Resolution::Released,
    };
    Ok(Reservation {
        id: ReservationId(id::encode(Table::Reservations, made_at, row.get(0)?)),
        user: UserKey(row.get(1)?),
        resource: resource_of(row.get(2)?),
        amount: row.get(3)?,
        day: Day(row.get(4)?),
        maker: maker_of(row.get(5)?, row.get(6)?),
        made_at,
        expires_at: row.get::<_, Option<i64>>(8)?.map(Timestamp),
        resolution,
    })
}

/// The hold of `user` with that id.
///
/// # Errors
/// `NotFound` where there is none, or it is another user's.
pub(crate) fn load_reservation(reader: &Reader<'_>, user: UserKey, id: ReservationId) -> Result<Reservation> {
    const MISSING: Error = Error::NotFound("the reservation");
    let wanted = id::decode(Table::Reservations, id.0).ok_or(MISSING)?;
    let sql = concat!(
        "SELECT ",
        reservation_columns!(),
        reservation_tables!(),
        "WHERE reservations.id = ?1 AND reservations.user_id = ?2"
    );
    let found = reader.prepare(sql)?.query_row(params![wanted.row, user.0], reservation_of).optional();
    found.map_err(fault)?.filter(|reservation| wanted.is_of(reservation.made_at)).ok_or(MISSING)
}

/// The hold in that row.
pub(super) fn load_reservation_row(reader: &Reader<'_>, row: i64) -> Result<Reservation> {
    let sql = concat!("SELECT ", reservation_columns!(), reservation_tables!(), "WHERE reservations.id = ?1");
    reader.prepare(sql)?.query_row([row], reservation_of).map_err(fault)
}

/// Holds `amount` more by an open hold. Whether it fits has been decided before, in the same transaction.
pub(crate) fn grow_reservation(writer: &mut Writer<'_>, reservation: &Reservation, amount: i64) -> Result<()> {
    let row = id::decode(Table::Reservations, reservation.id.0).ok_or(Error::NotFound("the reservation"))?.row;
    writer.execute("UPDATE reservations SET amount = amount + ?2 WHERE id = ?1", params![row, amount])?;
    writer.execute(
        "UPDATE buckets SET reserved = reserved + ?4 WHERE day = ?1 AND resource = ?2 AND user_id = ?3",
        params![reservation.day.0, code_of(reservation.resource), reservation.user.0, amount],
    )?;
    Ok(())
}

/// A page of a user's open holds that have not expired, newest first, from after the hold `before`.
///
/// # Errors
/// `Invalid` where `before` is the id of no hold.
pub(crate) fn list_open_reservations(
    reader: &Reader<'_>,
    user: UserKey,
    before: Option<ReservationId>,
    limit: usize,
) -> Result<Vec<Reservation>> {
    let row_of = |id: ReservationId| {
        let row = id::decode(Table::Reservations, id.0).map(|row| row.row);
        row.ok_or_else(|| Error::invalid("cursor", "is not one of ours"))
    };
    let before = before.map_or(Ok(i64::MAX), row_of)?;
    let sql = concat!(
        "SELECT ",
        reservation_columns!(),
        reservation_tables!(),
        "WHERE reservations.user_id = ?1 AND state = 0 AND (expires_at IS NULL OR expires_at > ?2) \
         AND reservations.id < ?3 AND NOT EXISTS (SELECT 1 FROM run_holds JOIN runs ON runs.id = run_id \
         WHERE reservation_id = reservations.id AND due_at <= ?2) ORDER BY reservations.id DESC LIMIT ?4"
    );
    let mut statement = reader.prepare(sql)?;
    let limit = sql_number(limit);
    let rows = statement.query_map(params![user.0, reader.now().0, before, limit], reservation_of);
    rows.and_then(Iterator::collect).map_err(fault)
}

/// Notes what an open hold of the gateway would be settled with if nothing more were heard of its call.
pub(crate) fn checkpoint(
    writer: &mut Writer<'_>,
    hold: ReservationId,
    amount: i64,
    metadata: Option<&Value>,
) -> Result<()> {
    let hold = id::decode(Table::Reservations, hold.0).ok_or(Error::NotFound("the reservation"))?;
    // Where its user was erased meanwhile, the row may be another's by now.
    writer.execute(
        "UPDATE reservations SET settled = ?2, metadata = coalesce(?3, metadata) \
         WHERE id = ?1 AND made_at = ?4 AND state = 0",
        params![hold.row, amount, to_json(metadata), hold.at().0],
    )?;
    Ok(())
}

/// Up to `limit` holds of gateway calls that are open, each with its last checkpoint.
pub(crate) fn list_gateway_holds(reader: &Reader<'_>, limit: usize) -> Result<Vec<GatewayHold>> {
    let sql = concat!(
        "SELECT ",
        reservation_columns!(),
        reservation_tables!(),
        "WHERE reservations.id IN \
         (SELECT id FROM reservations INDEXED BY reservations_holding WHERE state = 0 AND maker = 3 LIMIT ?1)"
    );
    let mut statement = reader.prepare(sql)?;
    let rows = statement.query_map([sql_number(limit)], |row| {
        let delivered = row.get::<_, Option<i64>>(10)?.unwrap_or(0);
        Ok(GatewayHold { reservation: reservation_of(row)?, delivered, metadata: from_json(row.get(11)?) })
    });
    rows.and_then(Iterator::collect).map_err(fault)
}

/// Marks an open hold as settled, and stops counting it as reserved.
pub(crate) fn settle(
    writer: &mut Writer<'_>,
    reservation: &Reservation,
    amount: i64,
    metadata: Option<&Value>,
    entry: Option<&Entry>,
    late: bool,
) -> Result<()> {
    let entry_row = entry.and_then(|entry| id::decode(Table::Ledger, entry.id.0)).map(|row| row.row);
    let row = release_hold(writer, reservation)?;
    let now = writer.now();
    writer.execute(
        "UPDATE reservations SET state = 2, resolved_at = ?2, entry_id = ?3, settled = ?4, metadata = ?5, late = ?6 \
         WHERE id = ?1",
        params![row, now.0, entry_row, amount, to_json(metadata), late],
    )?;
    Ok(())
}

/// Marks an open hold as released, and stops counting it as reserved.
pub(crate) fn release(writer: &mut Writer<'_>, reservation: &Reservation) -> Result<()> {
    let row = release_hold(writer, reservation)?;
    let now = writer.now();
    writer.execute("UPDATE reservations SET state = 3, resolved_at = ?2 WHERE id = ?1", params![row, now.0])?;
    Ok(())
}

fn release_hold(writer: &mut Writer<'_>, reservation: &Reservation) -> Result<i64> {
    let row = id::decode(Table::Reservations, reservation.id.0).ok_or(Error::NotFound("the reservation"))?.row;
    if reservation.resolution == (Resolution::Open { freed: false }) {
        let held = Held {
            row,
            user: reservation.user.0,
            resource: code_of(reservation.resource),
            day: i64::from(reservation.day.0),
            amount: reservation.amount,
        };
        unreserve(writer, &held)?;
    }
    Ok(row)
}

/// Forgets those of the `limit` oldest holds that were made before `made_before` and no longer hold anything.
pub(crate) fn purge_reservations(writer: &mut Writer<'_>, made_before: Timestamp, limit: usize) -> Result<usize> {
    writer.execute(
        "DELETE FROM reservations WHERE id IN \
         (SELECT id FROM (SELECT id, state, made_at FROM reservations ORDER BY id LIMIT ?2) \
          WHERE state <> 0 AND made_at < ?1)",
        params![made_before.0, sql_number(limit)],
    )
}

/// Counts refusals of an hour (its first instant). Those of users who were erased in the meantime are dropped.
pub(crate) fn add_refusals(
    writer: &mut Writer<'_>,
    refusals: &[((UserKey, ResourceType, Timestamp), i64)],
) -> Result<()> {
    for ((user, resource, hour), count) in refusals {
        writer.execute(
            "INSERT INTO refusals (hour, user_id, resource, count) \
             SELECT ?1, id, ?3, ?4 FROM users WHERE id = ?2 AND erased_at IS NULL \
             ON CONFLICT DO UPDATE SET count = count + excluded.count",
            params![hour.0, user.0, code_of(*resource), count],
        )?;
    }
    Ok(())
}

/// How often a user was refused what in the hours from `since` on: resource, first instant of the hour, count.
pub(crate) fn refusals_of(
    reader: &Reader<'_>,
    user: UserKey,
    since: Timestamp,
) -> Result<Vec<(ResourceType, Timestamp, i64)>> {
    let mut statement =
        reader.prepare("SELECT resource, hour, count FROM refusals WHERE user_id = ?1 AND hour >= ?2 ORDER BY hour")?;
    let rows = statement
        .query_map(params![user.0, since.0], |row| Ok((resource_of(row.get(0)?), Timestamp(row.get(1)?), row.get(2)?)));
    rows.and_then(Iterator::collect).map_err(fault)
}

/// Forgets up to `limit` counters of hours before `before`.
pub(crate) fn purge_refusals(writer: &mut Writer<'_>, before: Timestamp, limit: usize) -> Result<usize> {
    writer.execute(
        "DELETE FROM refusals WHERE (hour, user_id, resource) IN \
         (SELECT hour, user_id, resource FROM refusals WHERE hour < ?1 ORDER BY hour LIMIT ?2)",
        params![before.0, sql_number(limit)],
    )
}

/// How many holds are open, of all users.
pub(crate) fn count_open(reader: &Reader<'_>) -> Result<i64> {
    let mut statement =
        reader.prepare("SELECT count(*) FROM reservations INDEXED BY reservations_holding WHERE state = 0")?;
    statement.query_row([], |row| row.get(0)).map_err(fault)
}
