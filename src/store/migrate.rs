//! The schema: `schema.sql` for a new database, numbered migrations for an older one, a refusal for a newer one.

use rusqlite::{Connection, TransactionBehavior};

use super::fault;
use crate::domain::{Error, Result};

/// The schema of a new database.
const SCHEMA: &str = include_str!("../../schema.sql");
/// `PRAGMA application_id`: "tbox", so that another program's file is not taken for ours.
const APPLICATION_ID: i32 = 0x7462_6f78;
/// Migration `n` brings version `n + 1` to `n + 2`. Never edited once released, only added to.
const MIGRATIONS: &[&str] = &[];
/// The version this program writes.
pub(crate) const VERSION: u32 = version_after(MIGRATIONS);

#[expect(clippy::cast_possible_truncation, reason = "a handful of migrations")]
const fn version_after(migrations: &[&str]) -> u32 {
    migrations.len() as u32 + 1
}

/// Brings the database to [`VERSION`] in one transaction.
///
/// # Errors
/// `Unavailable` for a newer schema or a file of another program; `Internal` where SQLite refuses.
pub(super) fn migrate(connection: &mut Connection) -> Result<()> {
    migrate_by(connection, MIGRATIONS)
}

/// Whether the database is one of ours that a migration is about to change.
pub(super) fn is_outdated(connection: &Connection) -> Result<bool> {
    require_ours(connection)?;
    Ok((1..VERSION).contains(&version(connection)?))
}

fn migrate_by(connection: &mut Connection, migrations: &[&str]) -> Result<()> {
    let wanted = version_after(migrations);
    require_ours(connection)?;
    if version(connection)? == wanted {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
    // Another process may have been quicker while this one waited for the lock.
    match version(&transaction)? {
        same if same == wanted => {}
        0 => {
            require_empty(&transaction)?;
            transaction.execute_batch(SCHEMA).map_err(fault)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(fault)?;
        }
        newer if newer > wanted => return Err(newer_schema(newer)),
        older => {
            for migration in migrations.iter().skip(older as usize - 1) {
                transaction.execute_batch(migration).map_err(fault)?;
            }
        }
    }
    transaction.pragma_update(None, "user_version", wanted).map_err(fault)?;
    transaction.commit().map_err(fault)
}

/// Refuses what is no database of ours, is empty, or has a newer schema.
///
/// # Errors
/// `Unavailable` that says which.
pub(super) fn require_known(connection: &Connection) -> Result<()> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(fault)?;
    match version(connection)? {
        newer if newer > VERSION => Err(newer_schema(newer)),
        version if version > 0 && id == APPLICATION_ID => Ok(()),
        _ => Err(Error::Unavailable("the file is not a database of tallybox".to_owned())),
    }
}

fn newer_schema(newer: u32) -> Error {
    Error::Unavailable(format!(
        "the database has schema version {newer}, which is newer than version {VERSION} of this program: \
         start the newer tallybox that wrote it"
    ))
}

/// The version the file has: 0 when new.
pub(super) fn version(connection: &Connection) -> Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fault)
}

/// A file with a version must say that it is ours.
fn require_ours(connection: &Connection) -> Result<()> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(fault)?;
    if version(connection)? == 0 || id == APPLICATION_ID {
        return Ok(());
    }
    Err(Error::Unavailable("tallybox.db is not a database of tallybox".to_owned()))
}

fn require_empty(connection: &Connection) -> Result<()> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fault)?;
    if tables == 0 {
        Ok(())
    } else {
        Err(Error::Unavailable("tallybox.db is not empty and not a database of tallybox".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 looked like when it was released; later versions add a migration, never touch this file.
    const VERSION_1: &str = include_str!("../../tests/data/schema-1.sql");

    fn memory() -> Connection {
        super::super::extension::register();
        Connection::open_in_memory().unwrap()
    }

    fn shape(connection: &Connection) -> Vec<(String, String)> {
        let mut statement =
            connection.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name").unwrap();
        let rows = statement
            .query_map([], |row| {
                let sql: String = row.get(1)?;
                let words: Vec<&str> = sql.split_whitespace().collect();
                Ok((row.get(0)?, words.join(" ")))
            })
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn an_upgraded_schema_equals_the_fresh_one() {
        let mut fresh = memory();
        migrate(&mut fresh).unwrap();
        let mut upgraded = memory();
        upgraded.execute_batch(VERSION_1).unwrap();
        upgraded.pragma_update(None, "user_version", 1).unwrap();
        upgraded.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        migrate(&mut upgraded).unwrap();
        assert_eq!(shape(&upgraded), shape(&fresh));
        assert_eq!(version(&upgraded).unwrap(), VERSION);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_older_schema_as_it_was() {
        let mut connection = memory();
        migrate(&mut connection).unwrap();
        let before = shape(&connection);
        let migrations = [MIGRATIONS, &["CREATE TABLE later (x)", "CREATE TABLE later (x)"]].concat();
        assert!(migrate_by(&mut connection, &migrations).is_err());
        assert_eq!((shape(&connection), version(&connection).unwrap()), (before, VERSION));
        migrate_by(&mut connection, &migrations[..=MIGRATIONS.len()]).unwrap();
        assert_eq!(version(&connection).unwrap(), VERSION + 1);
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let mut connection = memory();
        migrate(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
        let refusal = migrate(&mut connection).unwrap_err().to_string();
        assert!(refusal.contains("newer"), "{refusal}");
        assert_eq!(version(&connection).unwrap(), VERSION + 1);
    }

    #[test]
    fn a_file_of_another_program_is_refused() {
        let mut connection = memory();
        connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(migrate(&mut connection).unwrap_err().to_string().contains("not a database of tallybox"));
    }
}
