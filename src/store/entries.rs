//! Pages of a user's entries, walked along their chains.

use rusqlite::{OptionalExtension, params};

use super::ledger::{code_of, find_account, find_by_row, resource_of};
use super::{Reader, fault};
use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::calendar::Day;
use crate::domain::ledger::{Entry, ResourceType};
use crate::domain::unit::{DAY_MS, Timestamp};

/// Which entries a listing wants.
#[derive(Clone, Debug)]
pub(crate) struct EntryFilter {
    /// Of these resources.
    pub(crate) resources: Vec<ResourceType>,
    /// Recorded at this instant or later.
    pub(crate) from: Option<Timestamp>,
    /// Recorded before this instant, which lies in this day.
    pub(crate) to: Option<(Timestamp, Day)>,
    /// Where the page before this one ended.
    pub(crate) cursor: Option<EntryCursor>,
    /// Most entries of a page.
    pub(crate) limit: usize,
}

/// The next entry of each chain that a listing has not finished. Entries never change, so it stays right for ever; where
/// retention has taken one away since, the listing goes on with the next one that is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryCursor(Vec<i64>);

impl EntryCursor {
    /// As callers see it: row ids in hexadecimal.
    pub(crate) fn to_text(&self) -> String {
        self.0.iter().map(|row| format!("{row:x}")).collect::<Vec<_>>().join("-")
    }

    /// From what [`EntryCursor::to_text`] gave.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_ours = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let rows: Option<Vec<i64>> = text.split('-').map(|part| i64::from_str_radix(part, 16).ok()).collect();
        rows.filter(|rows| is_ours && rows.len() <= ResourceType::ALL.len()).map(Self)
    }
}

/// A page of a user's entries, newest first, and where the next one begins.
///
/// Each resource has a chain of its own, from its newest entry back; the page is the merge of the chains.
pub(crate) fn list_entries(
    reader: &Reader<'_>,
    user: UserKey,
    filter: &EntryFilter,
) -> Result<(Vec<Entry>, Option<EntryCursor>)> {
    let mut links = first_links(reader, user, filter)?;
    let mut entries = Vec::new();
    while entries.len() < filter.limit {
        let Some(newest) = (0..links.len()).max_by_key(|index| links[*index].row) else { break };
        let link = links.swap_remove(newest);
        entries.extend(find_by_row(reader, user, link.row)?);
        if let Some(next) = link.previous {
            links.extend(find_link(reader, user, next)?.filter(|link| link.is_from(filter.from)));
        }
    }
    let rest: Vec<i64> = links.iter().map(|link| link.row).collect();
    Ok((entries, Some(EntryCursor(rest)).filter(|cursor| !cursor.0.is_empty())))
}

#[derive(Clone, Copy)]
struct Link {
    row: i64,
    resource: ResourceType,
    recorded_at: Timestamp,
    previous: Option<i64>,
}

impl Link {
    fn is_from(&self, from: Option<Timestamp>) -> bool {
        from.is_none_or(|from| self.recorded_at >= from)
    }
}

fn find_link(reader: &Reader<'_>, user: UserKey, row: i64) -> Result<Option<Link>> {
    let mut statement =
        reader.prepare("SELECT id, resource, recorded_at, previous FROM ledger WHERE id = ?1 AND user_id = ?2")?;
    let found = statement.query_row(params![row, user.0], |row| {
        Ok(Link {
            row: row.get(0)?,
            resource: resource_of(row.get(1)?),
            recorded_at: Timestamp(row.get(2)?),
            previous: row.get(3)?,
        })
    });
    found.optional().map_err(fault)
}

/// The newest entry of each chain that the filter lets through. A cursor may have been given for another filter: it says
/// where to begin, never what to show.
fn first_links(reader: &Reader<'_>, user: UserKey, filter: &EntryFilter) -> Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    for row in first_rows(reader, user, filter)? {
        let Some(link) = find_link_before(reader, user, row, filter)? else { continue };
        if filter.resources.contains(&link.resource) && links.iter().all(|known| known.resource != link.resource) {
            links.push(link);
        }
    }
    if let Some(cursor) = filter.cursor.as_ref().filter(|cursor| cursor.0.len() > links.len()) {
        let newest = cursor.0.iter().copied().max().unwrap_or(0);
        for resource in &filter.resources {
            if links.iter().all(|link| link.resource != *resource) {
                links.extend(find_link_from(reader, user, *resource, newest, filter)?);
            }
        }
    }
    links.retain(|link| link.is_from(filter.from));
    Ok(links)
}

/// The newest entry of a chain whose row is `newest` or less. What was listed already lies above it in every chain.
fn find_link_from(
    reader: &Reader<'_>,
    user: UserKey,
    resource: ResourceType,
    newest: i64,
    filter: &EntryFilter,
) -> Result<Option<Link>> {
    let Some(account) = find_account(reader, user, resource)? else { return Ok(None) };
    // The next row that is left, whosever it is, tells about when it was.
    let mut statement = reader.prepare("SELECT recorded_at FROM ledger WHERE id >= ?1 ORDER BY id LIMIT 1")?;
    let at = statement.query_row([newest], |row| row.get::<_, i64>(0)).optional().map_err(fault)?;
    let mut next = match at.map(|at| i32::try_from(at.div_euclid(DAY_MS))) {
        Some(Ok(day)) => head_by(reader, user, resource, Day(day))?,
        _ => Some(account.head),
    };
    while let Some(row) = next {
        let Some(link) = find_link(reader, user, row)? else { break };
        if link.row <= newest && filter.to.is_none_or(|(to, _)| link.recorded_at < to) {
            return Ok(Some(link));
        }
        next = link.previous;
    }
    Ok(None)
}

/// Where the walk back begins in each chain.
fn first_rows(reader: &Reader<'_>, user: UserKey, filter: &EntryFilter) -> Result<Vec<i64>> {
    if let Some(cursor) = &filter.cursor {
        return Ok(cursor.0.clone());
    }
    let mut rows = Vec::new();
    for resource in &filter.resources {
        let Some(account) = find_account(reader, user, *resource)? else { continue };
        rows.extend(match filter.to {
            Some((_, day)) => head_by(reader, user, *resource, day)?,
            None => Some(account.head),
        });
    }
    Ok(rows)
}

/// The entry `row`, or the next one back on its chain that was recorded before the filter's end.
fn find_link_before(reader: &Reader<'_>, user: UserKey, row: i64, filter: &EntryFilter) -> Result<Option<Link>> {
    let mut next = Some(row);
    while let Some(row) = next {
        let Some(link) = find_link(reader, user, row)? else { break };
        if filter.to.is_none_or(|(to, _)| link.recorded_at < to) {
            return Ok(Some(link));
        }
        next = link.previous;
    }
    Ok(None)
}

/// The newest entry recorded on `day` or before it; a day more, since the zone may have changed. None: there is none.
fn head_by(reader: &Reader<'_>, user: UserKey, resource: ResourceType, day: Day) -> Result<Option<i64>> {
    let mut bounds = reader.prepare("SELECT (SELECT min(day) FROM buckets), (SELECT max(day) FROM buckets)")?;
    let bounds = bounds.query_row([], |row| Ok((row.get::<_, Option<i32>>(0)?, row.get::<_, Option<i32>>(1)?)));
    let (Some(first), Some(last)) = bounds.map_err(fault)? else { return Ok(None) };
    let mut statement = reader
        .prepare("SELECT head FROM buckets WHERE day = ?1 AND resource = ?2 AND user_id = ?3 AND head IS NOT NULL")?;
    for day in (first..=last.min(day.0.saturating_add(1))).rev() {
        let found = statement.query_row(params![day, code_of(resource), user.0], |row| row.get(0));
        if let Some(head) = found.optional().map_err(fault)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}
