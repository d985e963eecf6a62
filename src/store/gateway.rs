//! What has come of the calls to upstreams, by day.

use std::ops::RangeInclusive;

use rusqlite::{OptionalExtension, Row, params};

use super::{Reader, Writer, fault};
use crate::domain::Result;
use crate::domain::calendar::Day;
use crate::domain::gateway::figures::{Figures, Histogram};

/// Columns of figures, in the order that [`figures_of`] reads.
const COLUMNS: &str = "calls, busy, unreachable, timed_out, rate_limited, failed, broken, durations, first_tokens";

fn figures_of(row: &Row<'_>) -> rusqlite::Result<Figures> {
    let histogram = |column| row.get::<_, Vec<u8>>(column).map(|bytes| Histogram::from_bytes(&bytes));
    Ok(Figures {
        calls: row.get(0)?,
        faults: [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?],
        durations: histogram(7)?,
        first_tokens: histogram(8)?,
    })
}

/// Adds to the figures of a day.
pub(crate) fn add_figures(writer: &mut Writer<'_>, day: Day, upstream: &str, more: &Figures) -> Result<()> {
    let sql = format!("SELECT {COLUMNS} FROM upstream_days WHERE day = ?1 AND upstream = ?2");
    let known = writer.prepare(&sql)?.query_row(params![day.0, upstream], figures_of).optional().map_err(fault)?;
    let mut figures = known.unwrap_or_default();
    figures.add(more);
    let [busy, unreachable, timed_out, rate_limited, failed, broken] = figures.faults;
    writer.execute(
        &format!(
            "INSERT OR REPLACE INTO upstream_days (day, upstream, {COLUMNS}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        ),
        params![
            day.0,
            upstream,
            figures.calls,
            busy,
            unreachable,
            timed_out,
            rate_limited,
            failed,
            broken,
            figures.durations.to_bytes(),
            figures.first_tokens.to_bytes(),
        ],
    )?;
    Ok(())
}

/// The figures of those days: day, upstream, what came of the attempts.
pub(crate) fn list_figures(reader: &Reader<'_>, days: &RangeInclusive<Day>) -> Result<Vec<(Day, String, Figures)>> {
    let sql = format!("SELECT {COLUMNS}, day, upstream FROM upstream_days WHERE day BETWEEN ?1 AND ?2 ORDER BY day");
    let mut statement = reader.prepare(&sql)?;
    let rows = statement
        .query_map(params![days.start().0, days.end().0], |row| Ok((Day(row.get(9)?), row.get(10)?, figures_of(row)?)));
    rows.and_then(Iterator::collect).map_err(fault)
}

/// Forgets figures of days before `before`.
pub(crate) fn purge_figures(writer: &mut Writer<'_>, before: Day) -> Result<()> {
    writer.execute("DELETE FROM upstream_days WHERE day < ?1", [before.0]).map(drop)
}
