//! Ledger entries, and the totals that are written with them.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

use super::id::{self, Table};
use super::{Reader, Writer, fault};
use crate::domain::auth::UserKey;
use crate::domain::calendar::Day;
use crate::domain::ledger::{Entry, ModelTotal, ModelUse, NewEntry, ResourceType, Source};
use crate::domain::unit::{EntryId, Timestamp};
use crate::domain::{Error, Result};

/// A resource as a number.
pub(super) const fn code_of(resource: ResourceType) -> i64 {
    match resource {
        ResourceType::LlmTokens => 0,
        ResourceType::MemoryStorage => 1,
        ResourceType::AgentMinutes => 2,
    }
}

/// The resource of a number.
pub(super) fn resource_of(code: i64) -> ResourceType {
    match code {
        0 => ResourceType::LlmTokens,
        1 => ResourceType::MemoryStorage,
        _ => ResourceType::AgentMinutes,
    }
}

const fn code_of_source(source: Source) -> i64 {
    match source {
        Source::Record => 0,
        Source::Settlement => 1,
        Source::Memory => 2,
        Source::Correction => 3,
        Source::Closing => 4,
        Source::Gateway => 5,
    }
}

const fn source_of(code: i64) -> Source {
    match code {
        0 => Source::Record,
        1 => Source::Settlement,
        2 => Source::Memory,
        3 => Source::Correction,
        4 => Source::Closing,
        _ => Source::Gateway,
    }
}

/// The code of closing entries.
pub(super) const CLOSING: i64 = code_of_source(Source::Closing);

/// The public id of an entry by its source, time and row.
pub(super) fn entry_id(source: i64, recorded_at: Timestamp, row: i64) -> EntryId {
    let table = if source == CLOSING { Table::Closings } else { Table::Ledger };
    EntryId(id::encode(table, recorded_at, row))
}

/// Metadata as it is stored: compact JSON, null when there is none.
pub(super) fn to_json(metadata: Option<&Value>) -> Option<String> {
    metadata.map(Value::to_string)
}

/// Stored JSON as a value. What we wrote parses; anything else would be a corrupt row, which `check` finds.
pub(super) fn from_json(text: Option<String>) -> Option<Value> {
    text.and_then(|text| serde_json::from_str(&text).ok())
}

/// Writes an entry with its totals: the account's, its day's, and the heads from which listings walk back.
///
/// # Errors
/// `Invalid` where the total would leave 64 bits.
pub(crate) fn append(writer: &mut Writer<'_>, new: &NewEntry, recorded_on: Day) -> Result<Entry> {
    let resource = code_of(new.resource);
    let account = find_account(writer, new.user, new.resource)?;
    let (total, head) = account.map_or((0, None), |account| (account.total, Some(account.head)));
    let total = total
        .checked_add(new.amount)
        .ok_or_else(|| Error::invalid("amount", "takes the total past what 64 bits can hold"))?;
    let now = writer.now();
    let reverses = new.reverses.map(|id| row_of(id).map(|row| row.row)).transpose()?;
    writer.effects.entries.add(new.resource);
    let row = writer.insert(
        "INSERT INTO ledger (user_id, resource, amount, timestamp, recorded_at, day, source, previous, reverses, metadata) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            new.user.0,
            resource,
            new.amount,
            new.timestamp.0,
            now.0,
            new.day.0,
            code_of_source(new.source),
            head,
            reverses,
            to_json(new.metadata.as_ref())
        ],
    )?;
    writer.execute(
        "INSERT INTO accounts (user_id, resource, total, head) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT DO UPDATE SET total = excluded.total, head = excluded.head",
        params![new.user.0, resource, total, row],
    )?;
    if new.day == recorded_on {
        writer.execute(
            "INSERT INTO buckets (day, resource, user_id, amount, head) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET amount = amount + excluded.amount, head = excluded.head",
            params![new.day.0, resource, new.user.0, new.amount, row],
        )?;
    } else {
        writer.execute(
            "INSERT INTO buckets (day, resource, user_id, amount) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            params![new.day.0, resource, new.user.0, new.amount],
        )?;
        writer.execute(
            "INSERT INTO buckets (day, resource, user_id, head) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET head = excluded.head",
            params![recorded_on.0, resource, new.user.0, row],
        )?;
    }
    if new.resource == ResourceType::LlmTokens {
        count_model(writer, new)?;
    }
    Ok(Entry {
        id: EntryId(id::encode(Table::Ledger, now, row)),
        resource: new.resource,
        amount: new.amount,
        timestamp: new.timestamp,
        recorded_at: now,
        day: new.day,
        source: new.source,
        reverses: new.reverses,
        metadata: new.metadata.clone(),
    })
}

/// Counts an entry of tokens by its model; a reversal by the model of the entry it takes back.
fn count_model(writer: &mut Writer<'_>, new: &NewEntry) -> Result<()> {
    let found = match new.reverses {
        None => ModelUse::of(new.metadata.as_ref(), new.amount),
        Some(reversed) => {
            let entry = find_entry(writer, new.user, reversed)?;
            entry.and_then(|entry| ModelUse::of(entry.metadata.as_ref(), 0))
        }
    };
    let Some(ModelUse { model, parts: (prompt, completion) }) = found else { return Ok(()) };
    // What is told of prompts and completions is not checked against anything, so its sums stop where 64 bits end.
    writer.execute(
        "INSERT INTO model_totals (day, user_id, model, calls, prompt, completion, tokens) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, tokens = tokens + excluded.tokens, \
         prompt = min(prompt, 9223372036854775807 - excluded.prompt) + excluded.prompt, \
         completion = min(completion, 9223372036854775807 - excluded.completion) + excluded.completion",
        params![new.day.0, new.user.0, model, i64::from(new.reverses.is_none()), prompt, completion, new.amount],
    )?;
    Ok(())
}

/// What a user used by model in `days`, most tokens first.
pub(crate) fn model_totals(reader: &Reader<'_>, user: UserKey, days: &RangeInclusive<Day>) -> Result<Vec<ModelTotal>> {
    let mut statement = reader
        .prepare("SELECT model, calls, prompt, completion, tokens FROM model_totals WHERE day = ?1 AND user_id = ?2")?;
    let mut totals: HashMap<String, ModelTotal> = HashMap::new();
    // A look a day: the rows of one day lie together, over all users.
    for day in days.start().0..=days.end().0 {
        let rows = statement.query_map(params![day, user.0], |row| {
            let [calls, prompt, completion, tokens] = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
            Ok(ModelTotal { model: row.get(0)?, calls, prompt, completion, tokens })
        });
        for row in rows.map_err(fault)? {
            let row = row.map_err(fault)?;
            match totals.get_mut(&row.model) {
                Some(total) => {
                    total.calls = total.calls.saturating_add(row.calls);
                    total.prompt = total.prompt.saturating_add(row.prompt);
                    total.completion = total.completion.saturating_add(row.completion);
                    total.tokens = total.tokens.saturating_add(row.tokens);
                }
                None => drop(totals.insert(row.model.clone(), row)),
            }
        }
    }
    let mut totals: Vec<ModelTotal> = totals.into_values().collect();
    totals.sort_unstable_by(|one, other| other.tokens.cmp(&one.tokens).then_with(|| one.model.cmp(&other.model)));
    Ok(totals)
}

fn row_of(id: EntryId) -> Result<id::Row> {
    id::decode(Table::Ledger, id.0).ok_or(Error::NotFound("the entry"))
}

pub(super) struct Account {
    total: i64,
    pub(super) head: i64,
}

pub(super) fn find_account(reader: &Reader<'_>, user: UserKey, resource: ResourceType) -> Result<Option<Account>> {
    let mut statement = reader.prepare("SELECT total, head FROM accounts WHERE user_id = ?1 AND resource = ?2")?;
    let found = statement
        .query_row(params![user.0, code_of(resource)], |row| Ok(Account { total: row.get(0)?, head: row.get(1)? }));
    found.optional().map_err(fault)
}

/// Sum of everything ever booked: for a level, the level.
pub(crate) fn total(reader: &Reader<'_>, user: UserKey, resource: ResourceType) -> Result<i64> {
    Ok(find_account(reader, user, resource)?.map_or(0, |account| account.total))
}

/// Columns of an entry, in the order that [`entry_of`] reads.
macro_rules! entry_columns {
    () => {
        "ledger.id, ledger.resource, ledger.amount, ledger.timestamp, ledger.recorded_at, ledger.day, ledger.source, \
         ledger.metadata, ledger.reverses, reversed.recorded_at"
    };
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let recorded_at = Timestamp(row.get(4)?);
    let reverses = match (row.get::<_, Option<i64>>(8)?, row.get::<_, Option<i64>>(9)?) {
        (Some(reversed), Some(at)) => Some(EntryId(id::encode(Table::Ledger, Timestamp(at), reversed))),
        _ => None,
    };
    Ok(Entry {
        id: entry_id(row.get(6)?, recorded_at, row.get(0)?),
        resource: resource_of(row.get(1)?),
        amount: row.get(2)?,
        timestamp: Timestamp(row.get(3)?),
        recorded_at,
        day: Day(row.get(5)?),
        source: source_of(row.get(6)?),
        metadata: from_json(row.get(7)?),
        reverses,
    })
}

/// The entry of `user` with that id.
pub(crate) fn find_entry(reader: &Reader<'_>, user: UserKey, id: EntryId) -> Result<Option<Entry>> {
    let wanted = id::decode(Table::Ledger, id.0).or_else(|| id::decode(Table::Closings, id.0));
    let Some(wanted) = wanted else { return Ok(None) };
    let entry = find_by_row(reader, user, wanted.row)?;
    Ok(entry.filter(|entry| entry.id == id))
}

pub(super) fn find_by_row(reader: &Reader<'_>, user: UserKey, row: i64) -> Result<Option<Entry>> {
    let sql = concat!(
        "SELECT ",
        entry_columns!(),
        " FROM ledger LEFT JOIN ledger AS reversed ON reversed.id = ledger.reverses \
         WHERE ledger.id = ?1 AND ledger.user_id = ?2"
    );
    reader.prepare(sql)?.query_row(params![row, user.0], entry_of).optional().map_err(fault)
}

/// Sum of the reversals of an entry: 0 or negative.
pub(crate) fn reversed_amount(reader: &Reader<'_>, entry: EntryId) -> Result<i64> {
    let row = row_of(entry)?.row;
    let mut statement = reader.prepare("SELECT coalesce(sum(amount), 0) FROM ledger WHERE reverses = ?1")?;
    statement.query_row([row], |row| row.get(0)).map_err(fault)
}
