//! Figures over all users, for whoever runs the box.

use std::ops::RangeInclusive;

use rusqlite::params;

use super::ledger::{code_of, resource_of};
use super::{Reader, fault};
use crate::domain::Result;
use crate::domain::calendar::Day;
use crate::domain::ledger::ResourceType;
use crate::domain::overview::{RefusalCount, Sizes, UserTotal};
use crate::domain::unit::{Timestamp, UserId};

/// A page of totals: a row a user and resource that had entries in `days`, by user; from after the position `after`.
pub(crate) fn totals_by_user(
    reader: &Reader<'_>,
    days: &RangeInclusive<Day>,
    after: Option<(i64, i64)>,
    limit: i64,
) -> Result<Vec<((i64, i64), UserTotal)>> {
    let mut statement = reader.prepare(
        "SELECT buckets.user_id, resource, uuid, email, tier, sum(amount) FROM buckets JOIN users ON users.id = buckets.user_id \
         WHERE day BETWEEN ?1 AND ?2 AND (buckets.user_id, resource) > (?3, ?4) \
         GROUP BY buckets.user_id, resource HAVING sum(amount) <> 0 ORDER BY buckets.user_id, resource LIMIT ?5",
    )?;
    let (user, resource) = after.unwrap_or((0, 0));
    let rows = statement.query_map(params![days.start().0, days.end().0, user, resource, limit], |row| {
        let total = UserTotal {
            user: UserId(row.get(2)?),
            email: row.get(3)?,
            tier: row.get(4)?,
            resource: resource_of(row.get(1)?),
            amount: row.get(5)?,
        };
        Ok(((row.get(0)?, row.get(1)?), total))
    });
    rows.and_then(Iterator::collect).map_err(fault)
}

/// Sum over all users of the entries of `resource` in `days`; past 64 bits the most or least they hold.
pub(crate) fn total(reader: &Reader<'_>, resource: ResourceType, days: &RangeInclusive<Day>) -> Result<i64> {
    // In halves of 32 bits, since the sum over all users may pass what SQLite's own sum can hold.
    let mut statement = reader.prepare(
        "SELECT coalesce(sum(amount >> 32), 0), coalesce(sum(amount & 0xffffffff), 0) FROM buckets \
         WHERE day BETWEEN ?1 AND ?2 AND resource = ?3",
    )?;
    let (high, low): (i64, i64) = statement
        .query_row(params![days.start().0, days.end().0, code_of(resource)], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(fault)?;
    let sum = (i128::from(high) << 32) + i128::from(low);
    Ok(i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX }))
}

/// Bytes of memories held by all users, by the ledger.
pub(crate) fn storage_level(reader: &Reader<'_>) -> Result<i64> {
    let sql = "SELECT coalesce(sum(total), 0) FROM accounts WHERE resource = 1";
    reader.prepare(sql)?.query_row([], |row| row.get(0)).map_err(fault)
}

/// The users with the most of `resource` in `days`.
pub(crate) fn top_users(
    reader: &Reader<'_>,
    resource: ResourceType,
    days: &RangeInclusive<Day>,
    limit: i64,
) -> Result<Vec<UserTotal>> {
    let mut statement = reader.prepare(
        "SELECT uuid, email, tier, sum(amount) FROM buckets JOIN users ON users.id = buckets.user_id \
         WHERE day BETWEEN ?1 AND ?2 AND resource = ?3 GROUP BY user_id HAVING sum(amount) > 0 \
         ORDER BY sum(amount) DESC, user_id LIMIT ?4",
    )?;
    let rows = statement.query_map(params![days.start().0, days.end().0, code_of(resource), limit], |row| {
        Ok(UserTotal {
            user: UserId(row.get(0)?),
            email: row.get(1)?,
            tier: row.get(2)?,
            resource,
            amount: row.get(3)?,
        })
    });
    rows.and_then(Iterator::collect).map_err(fault)
}

/// Refusals since `since`, newest hour first.
pub(crate) fn recent_refusals(reader: &Reader<'_>, since: Timestamp, limit: i64) -> Result<Vec<RefusalCount>> {
    let mut statement = reader.prepare(
        "SELECT uuid, email, resource, hour, count FROM refusals JOIN users ON users.id = user_id \
         WHERE hour >= ?1 ORDER BY hour DESC, count DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![since.0, limit], |row| {
        Ok(RefusalCount {
            user: UserId(row.get(0)?),
            email: row.get(1)?,
            resource: resource_of(row.get(2)?),
            hour: Timestamp(row.get(3)?),
            count: row.get(4)?,
        })
    });
    rows.and_then(Iterator::collect).map_err(fault)
}

/// How often writes were refused since `since`, and of how many users.
pub(crate) fn count_refusals(reader: &Reader<'_>, since: Timestamp) -> Result<(i64, i64)> {
    let sql = "SELECT coalesce(sum(count), 0), count(DISTINCT user_id) FROM refusals WHERE hour >= ?1";
    reader.prepare(sql)?.query_row([since.0], |row| Ok((row.get(0)?, row.get(1)?))).map_err(fault)
}

/// How large the database is, and what it holds.
pub(crate) fn sizes(reader: &Reader<'_>) -> Result<Sizes> {
    let number = |sql: &str| reader.prepare(sql)?.query_row([], |row| row.get::<_, i64>(0)).map_err(fault);
    Ok(Sizes {
        database_bytes: number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?,
        // The newest row id, less the rows that retention and erasures have taken from below it.
        ledger_entries: super::retention::newest_row(reader)? - super::retention::gone(reader)?,
        memories: number("SELECT coalesce(sum(memories), 0) FROM memory_totals")?,
    })
}
