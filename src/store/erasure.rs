//! The erasure of a whole user.

use rusqlite::params;

use super::Writer;
use crate::domain::Result;
use crate::domain::auth::UserKey;

/// What belongs to a user beside memories, in an order that leaves no row naming a missing one.
const TABLES: [(&str, &str); 13] = [
    ("sessions", "DELETE FROM sessions WHERE user_id = ?1"),
    ("tokens", "DELETE FROM tokens WHERE user_id = ?1"),
    ("links", "DELETE FROM links WHERE user_id = ?1"),
    ("idempotency_answers", "DELETE FROM idempotency WHERE user_id = ?1"),
    ("refusals", "DELETE FROM refusals WHERE user_id = ?1"),
    ("run_holds", "DELETE FROM run_holds WHERE run_id IN (SELECT id FROM runs WHERE user_id = ?1)"),
    ("runs", "DELETE FROM runs WHERE user_id = ?1"),
    ("reservations", "DELETE FROM reservations WHERE user_id = ?1"),
    ("ledger_entries", "DELETE FROM ledger WHERE user_id = ?1 AND reverses IS NOT NULL"),
    ("ledger_entries", "DELETE FROM ledger WHERE user_id = ?1"),
    ("day_totals", "DELETE FROM buckets WHERE user_id = ?1"),
    ("model_totals", "DELETE FROM model_totals WHERE user_id = ?1"),
    ("accounts", "DELETE FROM accounts WHERE user_id = ?1"),
];

/// Takes away everything of a user but the bare id, and tells how many rows of what. The audit log keeps what was done and
/// loses who the person was.
pub(crate) fn erase_user(writer: &mut Writer<'_>, user: UserKey) -> Result<Vec<(&'static str, usize)>> {
    writer.touch_auth();
    writer.leave_no_trace();
    let mut counts: Vec<(&'static str, usize)> = Vec::new();
    writer.execute("INSERT INTO ledger_door (user_id, reason) VALUES (?1, 'erasure')", [user.0])?;
    for (name, sql) in TABLES {
        let count = writer.execute(sql, [user.0])?;
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += count,
            None => counts.push((name, count)),
        }
    }
    writer.execute("DELETE FROM ledger_door WHERE user_id = ?1", [user.0])?;
    // Holds that the user made for others stay theirs; only who made them is forgotten with the account's use.
    writer.execute("UPDATE audit SET actor_email = NULL, address = NULL WHERE actor_id = ?1", [user.0])?;
    // What the program did for somebody who was not known yet (setting the box up) came from that person's own address.
    writer.execute("UPDATE audit SET address = NULL WHERE subject_id = ?1 AND actor_kind = 'system'", [user.0])?;
    writer.execute(
        "UPDATE audit SET subject_email = NULL, before = NULL, after = NULL WHERE subject_id = ?1",
        [user.0],
    )?;
    let now = writer.now();
    writer.execute(
        "UPDATE users SET email = NULL, email_key = NULL, password_hash = NULL, role = 'user', \
         disabled_at = coalesce(disabled_at, ?2), erased_at = ?2 WHERE id = ?1",
        params![user.0, now.0],
    )?;
    Ok(counts)
}
