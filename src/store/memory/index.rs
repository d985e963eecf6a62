//! What memories are found by: vectors, words, and the model the vectors were made with.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::{Code, Content, Embedding, Memory, MemoryKey};
use crate::domain::words::date_words;
use crate::store::recall::{Change, Changes, Publication, Row, SessionHash, Version};
use crate::store::{Reader, Writer, fault, sql_number};

/// A memory's windows are one range of vector ids: its own id, shifted by this many bits, and the window.
const WINDOW_BITS: u32 = 12;

/// First and last id of a memory's vectors.
pub(super) const fn vector_ids(memory: i64) -> (i64, i64) {
    let first = memory << WINDOW_BITS;
    (first, first | ((1 << WINDOW_BITS) - 1))
}

/// The memory of a vector.
pub(super) const fn memory_of_vector(id: i64) -> i64 {
    id >> WINDOW_BITS
}

pub(super) fn insert_vectors(writer: &mut Writer<'_>, memory: MemoryKey, embeddings: &[Embedding]) -> Result<()> {
    let (first, last) = vector_ids(memory.0);
    for (id, embedding) in (first..=last).zip(embeddings) {
        writer.insert("INSERT INTO vectors (id, embedding) VALUES (?1, ?2)", params![id, embedding.to_bytes()])?;
    }
    Ok(())
}

pub(super) fn delete_vectors(writer: &mut Writer<'_>, memory: MemoryKey) -> Result<()> {
    let (first, last) = vector_ids(memory.0);
    writer.execute("DELETE FROM vectors WHERE id BETWEEN ?1 AND ?2", [first, last])?;
    Ok(())
}

/// Rewrites the vectors between two memories, of all users, so that they lie close together: SQLite frees a page only
/// when less than a third of it is used, which never happens where every other memory was deleted. Leaves them alone
/// where there are many: then each page is used well enough.
pub(crate) fn pack_vectors(writer: &mut Writer<'_>, first: MemoryKey, last: MemoryKey) -> Result<()> {
    /// Vectors that are written anew at most, 1.5 MiB.
    const VECTORS_MAX: usize = 1_024;
    let (low, high) = (vector_ids(first.0).0, vector_ids(last.0).1);
    let mut vectors: Vec<(i64, Vec<u8>)> = Vec::new();
    {
        let mut statement =
            writer.prepare("SELECT id, embedding FROM vectors WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3")?;
        for vector in statement
            .query_map([low, high, sql_number(VECTORS_MAX + 1)], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(fault)?
        {
            vectors.push(vector.map_err(fault)?);
        }
    }
    if vectors.len() > VECTORS_MAX {
        return Ok(());
    }
    writer.execute("DELETE FROM vectors WHERE id BETWEEN ?1 AND ?2", [low, high])?;
    for vector in vectors {
        writer.insert("INSERT INTO vectors (id, embedding) VALUES (?1, ?2)", vector)?;
    }
    Ok(())
}

/// Puts `embeddings` in the place of a memory's vectors.
pub(crate) fn replace_vectors(writer: &mut Writer<'_>, memory: MemoryKey, embeddings: &[Embedding]) -> Result<()> {
    delete_vectors(writer, memory)?;
    insert_vectors(writer, memory, embeddings)
}

/// A memory's embeddings, in the order of its windows.
pub(crate) fn load_embeddings(reader: &Reader<'_>, memory: MemoryKey) -> Result<Vec<Embedding>> {
    let (first, last) = vector_ids(memory.0);
    let mut statement = reader.prepare("SELECT embedding FROM vectors WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
    let mut rows = statement.query([first, last]).map_err(fault)?;
    let mut embeddings = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        let bytes = row.get_ref(0).and_then(|value| Ok(value.as_blob()?)).map_err(fault)?;
        embeddings.extend(Embedding::from_bytes(bytes));
    }
    Ok(embeddings)
}

/// What separates a user's number from a word of a text, and from a word of its day. The tokenizer takes both for letters.
const IN_TEXT: char = '\u{b7}';
const IN_DATE: char = '\u{a4}';

/// The term under which `word` of a text of `user` is found.
pub(super) fn text_term(user: UserKey, word: &str) -> String {
    format!("{}{IN_TEXT}{word}", user.0)
}

/// The term under which `word` of the day of a memory of `user` is found.
pub(super) fn date_term(user: UserKey, word: &str) -> String {
    format!("{}{IN_DATE}{word}", user.0)
}

/// All terms of a memory, as the full-text index takes them: the same for the same text and time at every time.
fn terms(user: UserKey, words: &[String], content: &Content) -> String {
    let mut body = String::new();
    let words = words.iter().map(|word| text_term(user, word));
    for term in words.chain(date_words(content.timestamp).into_iter().map(|word| date_term(user, &word))) {
        body.push_str(&term);
        body.push(' ');
    }
    body
}

pub(super) fn insert_words(
    writer: &mut Writer<'_>,
    user: UserKey,
    memory: MemoryKey,
    words: &[String],
    content: &Content,
) {
    let change = Change::Words { memory: memory.0, terms: terms(user, words, content), leaves: false };
    writer.effects.memories.push((user, change));
}

pub(super) fn delete_words(
    writer: &mut Writer<'_>,
    user: UserKey,
    memory: MemoryKey,
    words: &[String],
    content: &Content,
) {
    let terms = terms(user, words, content);
    writer.effects.memories.push((user, Change::Words { memory: memory.0, terms, leaves: true }));
}

/// Notes that a memory is there in this form, with the codes of its embeddings where it has new ones.
pub(super) fn note_put(writer: &mut Writer<'_>, user: UserKey, memory: &Memory, embeddings: Option<&[Embedding]>) {
    let content = &memory.content;
    let row = Row {
        key: memory.key.0,
        text_bytes: u32::try_from(content.text.len()).unwrap_or(u32::MAX),
        expires_at: memory.expires_at,
        session: SessionHash::of(content.session.as_deref()),
        timestamp: content.timestamp,
    };
    let codes = embeddings.map(|embeddings| embeddings.iter().map(Code::of).collect());
    writer.effects.memories.push((user, Change::Put { row, codes }));
}

/// Writes the words of the changes from `first` on: those of all jobs of a commit at once, since FTS5 otherwise makes a piece
/// of index at every savepoint, one a job, and then merges them.
pub(crate) fn write_words(writer: &Writer<'_>, first: usize) -> Result<()> {
    write_words_of(writer, writer.effects.memories.get(first..).unwrap_or_default())
}

/// Writes the words of some changes.
pub(super) fn write_words_of(writer: &Writer<'_>, changes: &[(UserKey, Change)]) -> Result<()> {
    for (_, change) in changes {
        let Change::Words { memory, terms, leaves } = change else { continue };
        let sql = if *leaves {
            "INSERT INTO words (words, rowid, body) VALUES ('delete', ?1, ?2)"
        } else {
            "INSERT INTO words (rowid, body) VALUES (?1, ?2)"
        };
        writer.prepare(sql)?.insert(params![memory, terms]).map_err(fault)?;
    }
    Ok(())
}

/// Counts this commit for each user whose memories it changes, and returns the changes by user.
pub(crate) fn count_commit(writer: &mut Writer<'_>) -> Result<Vec<Publication>> {
    let mut of_users: BTreeMap<UserKey, Vec<Change>> = BTreeMap::new();
    for (user, change) in std::mem::take(&mut writer.effects.memories) {
        of_users.entry(user).or_default().push(change);
    }
    let mut publications: Vec<Publication> =
        writer.effects.users_erased.iter().map(|user| Publication::Erasure(*user)).collect();
    for (user, changes) in of_users {
        if writer.effects.users_erased.contains(&user) {
            continue;
        }
        let mut statement = writer.prepare(
            "INSERT INTO memory_versions (user_id, version) VALUES (?1, 1) \
             ON CONFLICT DO UPDATE SET version = version + 1 RETURNING version",
        )?;
        let version = statement.query_row([user.0], |row| row.get(0)).map_err(fault)?;
        drop(statement);
        publications.push(Publication::Changes(Changes::new(user, version, changes)));
    }
    Ok(publications)
}

/// How many commits changed a user's memories.
pub(super) fn version(reader: &Reader<'_>, user: UserKey) -> Result<Version> {
    let mut statement = reader.prepare("SELECT version FROM memory_versions WHERE user_id = ?1")?;
    Ok(statement.query_row([user.0], |row| row.get(0)).optional().map_err(fault)?.unwrap_or(0))
}

/// Writes about `pages` pages of the merge of all pieces that the full-text index had when it began, and tells whether there
/// was nothing left to do: the words of what was deleted stand in those pieces until they are merged. FTS5's own
/// secure-delete is no way here: on a contentless table without sizes it leaves a damaged index behind (SQLite 3.53).
pub(crate) fn merge_words(writer: &mut Writer<'_>, pages: i64, begins: bool) -> Result<bool> {
    let changes = |reader: &Reader<'_>| {
        reader.prepare("SELECT total_changes()")?.query_row([], |row| row.get::<_, i64>(0)).map_err(fault)
    };
    let before = changes(writer)?;
    // A negative number begins with all pieces, a positive one goes on. FTS5 tells by the count of changed rows what it did:
    // one is its own of the command.
    let pages = if begins { -pages } else { pages };
    writer.execute("INSERT INTO words (words, rank) VALUES ('merge', ?1)", [pages])?;
    Ok(changes(writer)? - before < 2)
}

/// Whether there is any vector.
pub(crate) fn has_vectors(reader: &Reader<'_>) -> Result<bool> {
    let mut statement = reader.prepare("SELECT EXISTS (SELECT 1 FROM vectors)")?;
    statement.query_row([], |row| row.get(0)).map_err(fault)
}

/// A fact about this database.
pub(crate) fn find_setting(reader: &Reader<'_>, name: &str) -> Result<Option<String>> {
    let mut statement = reader.prepare("SELECT value FROM settings WHERE name = ?1")?;
    statement.query_row([name], |row| row.get(0)).optional().map_err(fault)
}

/// Writes down a fact about this database, or forgets it.
pub(crate) fn set_setting(writer: &mut Writer<'_>, name: &str, value: Option<&str>) -> Result<()> {
    match value {
        Some(value) => writer.execute(
            "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
            [name, value],
        )?,
        None => writer.execute("DELETE FROM settings WHERE name = ?1", [name])?,
    };
    Ok(())
}
