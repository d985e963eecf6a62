//! The schema: `schema.sql` for a new database, numbered migrations for an older one, a refusal for a newer one.

use rusqlite::{Connection, TransactionBehavior};

use super::fault;
use crate::domain::{Error, Result};

/// The schema of a new database.
const SCHEMA: &str = include_str!("../../schema.sql");
/// `PRAGMA application_id`: "tbox", so that another program's file is not taken for ours.
const APPLICATION_ID: i32 = 0x7462_6f78;
/// Migration `n` brings version `n + 1` to `n + 2`. Never edited once released, only added to.
pub(super) const MIGRATIONS: &[&str] = &[
    // Answers about another user go with that user's erasure; links that were made by a token with the raising to an admin.
    "ALTER TABLE idempotency ADD COLUMN subject INTEGER REFERENCES users (id);
     CREATE INDEX idempotency_subject ON idempotency (subject) WHERE subject IS NOT NULL;
     ALTER TABLE links ADD COLUMN by_token INTEGER NOT NULL DEFAULT 0;",
];
/// The version this program writes.
pub(crate) const VERSION: u32 = version_after(MIGRATIONS);

#[expect(clippy::cast_possible_truncation, reason = "a handful of migrations")]
pub(super) const fn version_after(migrations: &[&str]) -> u32 {
    migrations.len() as u32 + 1
}

/// Whether the database is one of ours that one of these migrations is about to change.
pub(super) fn is_outdated(connection: &Connection, migrations: &[&str]) -> Result<bool> {
    require_ours(connection)?;
    Ok((1..version_after(migrations)).contains(&version(connection)?))
}

/// Brings the database to the version after these migrations in one transaction.
///
/// # Errors
/// `Unavailable` for a newer schema or a file of another program; `Internal` where SQLite refuses.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<()> {
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
    use std::path::Path;

    use super::super::{DirectoryLock, Reader, Store, StoreOptions, Writer, backup, check};
    use super::*;
    use crate::clock::Clock;

    /// What version 1 looked like when it was released; later versions add a migration, never touch this file.
    const VERSION_1: &str = include_str!("../../tests/data/schema-1.sql");

    fn memory() -> Connection {
        super::super::foreign::register();
        Connection::open_in_memory().unwrap()
    }

    fn shape(connection: &Connection) -> Vec<(String, String)> {
        let mut statement =
            connection.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name").unwrap();
        let rows = statement
            .query_map([], |row| {
                let sql: String = row.get(1)?;
                // An added column stands where the list ended, with the spaces that were there.
                let words: Vec<&str> = sql.split_whitespace().collect();
                Ok((row.get(0)?, words.join(" ").replace(" ,", ",").replace(" )", ")")))
            })
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn an_upgraded_schema_equals_the_fresh_one() {
        let mut fresh = memory();
        migrate(&mut fresh, MIGRATIONS).unwrap();
        let mut upgraded = memory();
        upgraded.execute_batch(VERSION_1).unwrap();
        upgraded.pragma_update(None, "user_version", 1).unwrap();
        upgraded.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        migrate(&mut upgraded, MIGRATIONS).unwrap();
        assert_eq!(shape(&upgraded), shape(&fresh));
        assert_eq!(version(&upgraded).unwrap(), VERSION);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_older_schema_as_it_was() {
        let mut connection = memory();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let before = shape(&connection);
        let migrations = [MIGRATIONS, &["CREATE TABLE later (x)", "CREATE TABLE later (x)"]].concat();
        assert!(migrate(&mut connection, &migrations).is_err());
        assert_eq!((shape(&connection), version(&connection).unwrap()), (before, VERSION));
        migrate(&mut connection, &migrations[..=MIGRATIONS.len()]).unwrap();
        assert_eq!(version(&connection).unwrap(), VERSION + 1);
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let mut connection = memory();
        migrate(&mut connection, MIGRATIONS).unwrap();
        connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
        let refusal = migrate(&mut connection, MIGRATIONS).unwrap_err().to_string();
        assert!(refusal.contains("newer"), "{refusal}");
        assert_eq!(version(&connection).unwrap(), VERSION + 1);
    }

    #[test]
    fn a_file_of_another_program_is_refused() {
        let mut connection = memory();
        connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(migrate(&mut connection, MIGRATIONS).unwrap_err().to_string().contains("not a database of tallybox"));
    }

    /// A directory with a database that holds a user who has used 7 tokens.
    fn lived_in() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Clock::system(), &StoreOptions::default()).unwrap();
        let write = |writer: &mut Writer<'_>| {
            writer.execute(
                "INSERT INTO users VALUES (1, zeroblob(16), 'a@b', 'a@b', 'user', 'pro', NULL, NULL, NULL, 0)",
                [],
            )?;
            writer.execute("INSERT INTO accounts VALUES (1, 0, 7, 1)", [])?;
            writer.execute("INSERT INTO buckets (day, resource, user_id, amount) VALUES (3, 0, 1, 7)", [])?;
            writer.execute("INSERT INTO ledger VALUES (1, 1, 0, 7, 0, 0, 3, 0, NULL, NULL, NULL)", [])
        };
        store.write_blocking(write).unwrap();
        store.close();
        directory
    }

    /// Opens the database as a program with these migrations does.
    fn open(directory: &Path, migrations: &[&str]) -> Result<Store> {
        Store::open_by(directory, Clock::system(), &StoreOptions::default(), migrations)
    }

    /// Its version, once the user is seen to have used 7 tokens and every invariant to hold.
    fn version_of(store: &Store) -> u32 {
        let read = |reader: &Reader<'_>| {
            let sql = "SELECT total FROM accounts JOIN users ON users.id = user_id WHERE email = 'a@b'";
            let total = reader.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(fault)?;
            assert_eq!((total, check::run(reader, 1)), (7, Vec::new()));
            version(reader.connection)
        };
        let version = store.read_blocking(read).unwrap();
        store.close();
        version
    }

    #[test]
    fn before_a_migration_a_proven_copy_is_kept_that_the_older_program_opens() {
        let directory = lived_in();
        let kept = directory.path().join(format!("tallybox.db.before-version-{}", VERSION + 1));
        version_of(&open(directory.path(), MIGRATIONS).unwrap());
        assert!(!kept.exists(), "nothing was about to change");
        let newer = [MIGRATIONS, &["CREATE TABLE later (x)"]].concat();
        assert_eq!(version_of(&open(directory.path(), &newer).unwrap()), VERSION + 1);
        let refusal = open(directory.path(), MIGRATIONS).err().unwrap().to_string();
        assert!(refusal.contains("newer"), "{refusal}");
        let other = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::try_take(other.path()).unwrap().unwrap();
        backup::restore(&lock, other.path(), &Clock::system(), &kept).unwrap();
        assert_eq!(version_of(&open(other.path(), MIGRATIONS).unwrap()), VERSION);
    }

    #[test]
    fn a_migration_that_fails_leaves_what_the_older_program_goes_on_with() {
        let directory = lived_in();
        for broken in ["CREATE TABLE later (x); UPDATE users SET role = 'king'", "DELETE FROM ledger", "no SQL at all"]
        {
            let migrations = [MIGRATIONS, &[broken]].concat();
            assert!(open(directory.path(), &migrations).is_err(), "{broken}");
            assert_eq!(version_of(&open(directory.path(), MIGRATIONS).unwrap()), VERSION, "{broken}");
        }
    }

    #[test]
    fn where_no_copy_can_be_kept_nothing_is_migrated() {
        let directory = lived_in();
        std::fs::create_dir(directory.path().join(format!("tallybox.db.before-version-{}", VERSION + 1))).unwrap();
        let newer = [MIGRATIONS, &["CREATE TABLE later (x)"]].concat();
        assert!(open(directory.path(), &newer).is_err());
        assert_eq!(version_of(&open(directory.path(), MIGRATIONS).unwrap()), VERSION);
    }
}
