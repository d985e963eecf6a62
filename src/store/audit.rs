//! The record of administrative acts.

use rusqlite::{Row, params};
use serde_json::Value;

use super::{Reader, Writer, fault};
use crate::domain::Result;
use crate::domain::audit::{Act, ActFilter, Actor, NewAct};
use crate::domain::auth::email_key;
use crate::domain::page::{Page, Paging};
use crate::domain::unit::{Timestamp, UserId};

/// Writes an act down, with the e-mail addresses as they are now.
pub(crate) fn insert_act(writer: &mut Writer<'_>, act: &NewAct) -> Result<()> {
    let (kind, actor) = match act.actor {
        Actor::User(key) => ("user", Some(key.0)),
        Actor::CommandLine => ("command_line", None),
        Actor::System => ("system", None),
    };
    let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    let now = writer.now();
    writer
        .insert(
            "INSERT INTO audit (at, actor_kind, actor_id, actor_email, action, subject_id, subject_email, before, after, \
             address) VALUES (?1, ?2, ?3, (SELECT email FROM users WHERE id = ?3), ?4, ?5, \
             (SELECT email FROM users WHERE id = ?5), ?6, ?7, ?8)",
            params![
                now.0,
                kind,
                actor,
                act.action,
                act.subject.map(|subject| subject.0),
                text(&act.before),
                text(&act.after),
                act.address
            ],
        )
        .map(drop)
}

/// Deletes those of the `limit` oldest acts that are of `until` or before, and tells how many they were.
pub(crate) fn purge_acts(writer: &mut Writer<'_>, until: Timestamp, limit: i64) -> Result<usize> {
    let sql = "DELETE FROM audit WHERE id IN \
               (SELECT id FROM (SELECT id, at FROM audit ORDER BY id LIMIT ?2) WHERE at <= ?1)";
    writer.execute(sql, params![until.0, limit])
}

/// Acts that pass the filter, newest first.
pub(crate) fn list_acts(reader: &Reader<'_>, filter: &ActFilter, paging: Paging) -> Result<Page<Act>> {
    let mut statement = reader.prepare(
        "SELECT audit.id, at, actor_kind, actors.uuid, actor_email, action, subjects.uuid, subject_email, before, after, \
         address FROM audit LEFT JOIN users AS actors ON actors.id = actor_id \
         LEFT JOIN users AS subjects ON subjects.id = subject_id \
         WHERE audit.id < ?1 AND (?3 IS NULL OR action = ?3) \
         AND (?4 IS NULL OR instr(lower(coalesce(actor_email, '')), ?4) > 0 \
         OR instr(lower(coalesce(subject_email, '')), ?4) > 0 \
         OR length(?4) >= 8 AND (instr(lower(hex(actors.uuid)), replace(?4, '-', '')) > 0 \
         OR instr(lower(hex(subjects.uuid)), replace(?4, '-', '')) > 0)) ORDER BY audit.id DESC LIMIT ?2",
    )?;
    let parameters = params![paging.before(), paging.rows(), filter.action, filter.text.as_deref().map(email_key)];
    let rows = statement.query_map(parameters, act_of).map_err(fault)?;
    let acts = rows.collect::<rusqlite::Result<Vec<Act>>>().map_err(fault)?;
    Ok(paging.page(acts, |act| act.id))
}

fn act_of(row: &Row<'_>) -> rusqlite::Result<Act> {
    let person = |id: usize| -> rusqlite::Result<Option<(UserId, Option<String>)>> {
        let email = row.get(id + 1)?;
        Ok(row.get::<_, Option<uuid::Uuid>>(id)?.map(|uuid| (UserId(uuid), email)))
    };
    let value = |column: usize| -> rusqlite::Result<Option<Value>> {
        Ok(row.get::<_, Option<String>>(column)?.and_then(|text| serde_json::from_str(&text).ok()))
    };
    let kind: String = row.get(2)?;
    Ok(Act {
        id: row.get(0)?,
        at: Timestamp(row.get(1)?),
        actor_kind: ["user", "command_line"].into_iter().find(|known| *known == kind).unwrap_or("system"),
        actor: person(3)?,
        action: row.get(5)?,
        subject: person(6)?,
        before: value(8)?,
        after: value(9)?,
        address: row.get(10)?,
    })
}
