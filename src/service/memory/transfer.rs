//! Moving memories in and out: a page of an export, a batch of an import. Who calls goes from one to the next, outside of
//! any transaction.

use std::time::Duration;

use super::reembed::MODEL;
use super::{Policy, count_fitting, store};
use crate::domain::auth::{Caller, User, UserKey};
use crate::domain::memory::transfer::{Item, OVER, Report, Skipped, Source, line};
use crate::domain::memory::{Content, Embedding, Filter, Memory, NewMemory, OnDuplicate, WINDOWS_MAX, stored_bytes};
use crate::domain::quota::Refusal;
use crate::domain::unit::MemoryId;
use crate::domain::{Error, Result};
use crate::store::memory as store_of;
use crate::store::{Reader, Writer};

/// Memories of a page: few enough that their texts are no burden.
const PAGE: usize = 32;

/// A page of an export.
#[derive(Clone, Debug)]
pub struct Page {
    /// Memories as lines, each with its end.
    pub lines: String,
    /// How many.
    pub memories: usize,
    /// The last of them, after which the next page begins; none where this was the last page.
    pub next: Option<MemoryId>,
}

/// The memories of `user` that pass `filter` and were stored after `after`, oldest first. With `embeddings`, those that were
/// not cut into windows bring theirs.
///
/// # Errors
/// Where the store cannot be read.
pub fn page(
    reader: &Reader<'_>,
    user: &User,
    filter: &Filter,
    after: Option<MemoryId>,
    embeddings: bool,
) -> Result<Page> {
    let memories = store_of::list_after(reader, user.key, filter, after, PAGE)?;
    let model = if embeddings { store_of::find_setting(reader, MODEL)? } else { None };
    let name = user.email.clone().unwrap_or_else(|| user.id.to_string());
    let mut lines = String::new();
    for memory in &memories {
        let own = if model.is_some() { store_of::load_embeddings(reader, memory.key)? } else { Vec::new() };
        let embedding = match (own.as_slice(), &model) {
            ([embedding], Some(model)) => Some((embedding, model.as_str())),
            _ => None,
        };
        let written = line(&name, memory, embedding);
        lines.push_str(&written.map_err(|error| Error::Internal(format!("a memory as JSON: {error}")))?);
        lines.push('\n');
    }
    let next = memories.last().filter(|_| memories.len() == PAGE).map(|memory| memory.id);
    Ok(Page { lines, memories: memories.len(), next })
}

/// A memory of an import that is ready to be written.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The number of its record.
    pub record: u64,
    /// The id it has where it was exported.
    pub origin: Option<MemoryId>,
    /// The memory.
    pub new: NewMemory,
}

impl Ready {
    /// `new`, which `item` of record `record` was made into.
    fn of(record: u64, item: &Item, mut new: NewMemory) -> Self {
        new.source = Some(item.source);
        new.expires_at = item.expires_at;
        Self { record, origin: item.origin, new }
    }
}

/// What items say of their memories: what is remembered, and the embedding where it is given.
pub fn described(items: &[(u64, Item)]) -> Vec<(Content, Option<Embedding>)> {
    items.iter().map(|(_, item)| (item.content.clone(), item.embedding.clone())).collect()
}

/// Puts items with what was made of them, in order; what became nothing has too many windows, which `report` is told.
pub fn ready(items: Vec<(u64, Item)>, made: Vec<Option<NewMemory>>, report: &mut Report) -> Vec<Ready> {
    let mut batch = Vec::with_capacity(items.len());
    for ((record, item), new) in items.into_iter().zip(made) {
        match new {
            Some(new) => batch.push(Ready::of(record, &item, new)),
            None => report.skip(Skipped {
                record,
                reason: format!("input_context: must give at most {WINDOWS_MAX} windows of the model"),
            }),
        }
    }
    batch
}

/// Does `attempt`, and again where something is busy: up to a hundred times more, after `pause` each time.
///
/// # Errors
/// As the attempt fails at last.
pub async fn patiently<T, F: Future<Output = Result<T>>>(pause: Duration, mut attempt: impl FnMut() -> F) -> Result<T> {
    const TRIES: u32 = 100;
    let mut tries = 0..TRIES;
    loop {
        match attempt().await {
            Err(Error::Busy(_)) if tries.next().is_some() => tokio::time::sleep(pause).await,
            done => return done,
        }
    }
}

/// Those of `items` that the caller's user does not have yet.
///
/// # Errors
/// Where the store cannot be read.
pub fn missing(reader: &Reader<'_>, caller: &Caller, items: Vec<(u64, Item)>) -> Result<Vec<(u64, Item)>> {
    let mut missing = Vec::with_capacity(items.len());
    for (record, item) in items {
        if !is_there(reader, caller.user.key, Some(item.source), item.origin, &item.content.text)? {
            missing.push((record, item));
        }
    }
    Ok(missing)
}

/// A look at a batch before anything of it is embedded.
#[derive(Clone, Debug)]
pub struct Look {
    /// Those that the user does not have yet, in order.
    pub missing: Vec<(u64, Item)>,
    /// How many of them, from the first, there may be room for; the write decides.
    pub fitting: usize,
}

/// Looks which of `items` are missing, and how many of those may fit: each counts with the least that it can come to.
///
/// # Errors
/// Where the store cannot be read.
pub fn look(reader: &Reader<'_>, policy: &Policy, caller: &Caller, items: Vec<(u64, Item)>) -> Result<Look> {
    let missing = missing(reader, caller, items)?;
    // What repeats another memory may be united with it, and then takes no room.
    if policy.on_duplicate != OnDuplicate::Store {
        return Ok(Look { fitting: missing.len(), missing });
    }
    let least = missing.iter().map(|(_, item)| (item.content.tier, stored_bytes(&item.content, 1)));
    let fitting = count_fitting(reader, policy, caller, least)?;
    Ok(Look { missing, fitting })
}

/// Whether it was imported before, or is the very memory that was exported.
fn is_there(
    reader: &Reader<'_>,
    user: UserKey,
    source: Option<Source>,
    origin: Option<MemoryId>,
    text: &str,
) -> Result<bool> {
    if let Some(source) = source
        && store_of::has_source(reader, user, source)?
    {
        return Ok(true);
    }
    let Some(origin) = origin else { return Ok(false) };
    match store_of::load(reader, user, origin) {
        // Another box may have given the same id to something else.
        Ok(memory) => Ok(memory.content.text == text),
        Err(Error::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Memories stored.
    pub imported: u64,
    /// Memories that were there already, or were merged with what was.
    pub already_there: u64,
    /// Records that could not be stored.
    pub skipped: Vec<Skipped>,
    /// The first record that the quota refused, with which the import ends.
    pub refused: Option<(u64, Box<Refusal>)>,
}

impl Written {
    /// Adds it to what is reported of the whole import; gives the record with which that ends.
    pub fn tell(self, report: &mut Report) -> Option<(u64, Box<Refusal>)> {
        report.imported = report.imported.saturating_add(self.imported);
        report.already_there = report.already_there.saturating_add(self.already_there);
        report.skip_all(self.skipped);
        self.refused
    }
}

/// Writes a batch up to its end or to the first memory that the quota refuses.
///
/// # Errors
/// Where the store cannot be written; then nothing of the batch is kept.
pub fn keep(writer: &mut Writer<'_>, policy: &Policy, caller: &Caller, batch: &[Ready]) -> Result<Written> {
    let mut written = Written::default();
    for Ready { record, origin, new } in batch {
        let record = *record;
        if is_there(writer, caller.user.key, new.source, *origin, &new.content.text)? {
            written.already_there += 1;
            continue;
        }
        if new.expires_at.is_some_and(|end| end <= writer.now()) {
            written.skipped.push(Skipped { record, reason: format!("expires_at: {OVER}") });
            continue;
        }
        if let Some(source) = new.source {
            store_of::release_source(writer, caller.user.key, source)?;
        }
        match store(writer, policy, caller, new.clone()) {
            Ok(stored) if stored.merged => {
                note_source(writer, &stored.memory, new.source)?;
                written.already_there += 1;
            }
            Ok(_) => written.imported += 1,
            Err(Error::QuotaExceeded(refusal)) => {
                written.refused = Some((record, refusal));
                break;
            }
            Err(error) => {
                let reason = reason_to_skip(policy, error)?;
                written.skipped.push(Skipped { record, reason });
            }
        }
    }
    Ok(written)
}

fn note_source(writer: &mut Writer<'_>, memory: &Memory, source: Option<Source>) -> Result<()> {
    source.map_or(Ok(()), |source| store_of::note_source(writer, memory.key, source))
}

/// What repeats another memory and is refused for it, or cannot be united with it, costs itself alone. Both are found out
/// before anything is written.
fn reason_to_skip(policy: &Policy, error: Error) -> Result<String> {
    match (policy.on_duplicate, error) {
        (OnDuplicate::Refuse, Error::Conflict { code: "duplicate", .. }) => {
            Ok("input_context: is that of a memory that is there (memory.on_duplicate is refuse)".to_owned())
        }
        (OnDuplicate::Merge, Error::Invalid(faults)) if faults.iter().all(|fault| fault.field != "amount") => {
            let said: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect();
            Ok(said.join("; "))
        }
        (_, error) => Err(error),
    }
}
