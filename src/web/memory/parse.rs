//! What requests about memories may say, and its bounds.
#![expect(clippy::needless_pass_by_value, reason = "a field's parser takes the value, whatever becomes of it")]

use serde_json::Value;

use crate::config;
use crate::domain::memory::field::{embedding, happened, metadata};
pub(in crate::web) use crate::domain::memory::field::{kind, session, tags, tier};
use crate::domain::memory::transfer::Format;
use crate::domain::memory::{
    BATCH_MAX, CONTEXT_MAX, Content, Embedding, Filter, MemoryTier, Mode, Patch, QUERY_BYTES_MAX, TAG_CHARACTERS_MAX,
};
use crate::domain::unit::{MemoryId, Timestamp};
use crate::domain::{Error, Result};
use crate::service::memory::Search;
use crate::web::answer::page_limit;
use crate::web::extract::{Body, Query};
use crate::web::input::{self, Fields, Why};

/// Longest list of a filter.
pub(in crate::web) const FILTER_VALUES_MAX: usize = 32;

/// A memory as a request describes it.
pub(super) struct Described {
    pub(super) content: Content,
    /// The embedding that was given with it.
    pub(super) embedding: Option<Embedding>,
}

fn share(value: Value) -> Result<f64, Why> {
    value.as_f64().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

/// A list of values that are parsed one by one.
fn each<T>(most: usize, parse: impl Fn(Value) -> Result<T, Why>) -> impl Fn(Value) -> Result<Vec<T>, Why> {
    move |value| {
        let items = input::list(0..=most)(value)?;
        let numbered = items.into_iter().enumerate();
        numbered.map(|(index, item)| parse(item).map_err(|why| format!("element {index} {why}"))).collect()
    }
}

/// The fields that describe a memory to store.
fn describe(fields: &mut Fields, config: &config::Memory, now: Timestamp) -> Option<Described> {
    let kind = fields.required("type", kind);
    let text = fields.required("input_context", input::text_of_bytes(1..=config.text_bytes_max));
    let tier = fields.optional("tier", tier).unwrap_or(MemoryTier::Long);
    let tags = fields.optional("tags", tags).unwrap_or_default();
    let metadata = fields.optional("metadata", metadata).unwrap_or_default();
    let session = fields.optional("session", session);
    let timestamp = fields.optional("timestamp", happened(now)).unwrap_or(now);
    let embedding = fields.optional("embedding", embedding);
    let content = Content { tier, kind: kind?, text: text?, tags, metadata, session, timestamp };
    Some(Described { content, embedding })
}

/// The body of a store, and whether similar memories shall be named.
pub(super) fn store(body: Body, config: &config::Memory, now: Timestamp) -> Result<(Described, bool)> {
    let mut fields = body.fields()?;
    let described = describe(&mut fields, config, now);
    let report_similar = fields.optional("report_similar", input::flag).unwrap_or(false);
    fields.finish(|| Some((described?, report_similar)))
}

/// The body of a batch.
pub(super) fn store_batch(body: Body, config: &config::Memory, now: Timestamp) -> Result<Vec<Described>> {
    let mut fields = body.fields()?;
    let items = fields.required("memories", input::list(1..=BATCH_MAX)).unwrap_or_default();
    let mut batch = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let parsed = Fields::of_value(item, &format!("memories[{index}]")).and_then(|mut element| {
            let described = describe(&mut element, config, now);
            element.finish(|| described)
        });
        batch.extend(fields.absorb(parsed)?);
    }
    fields.finish(|| Some(batch))
}

/// The body of a change. Null takes tags, metadata and session away.
pub(super) fn patch(body: Body, config: &config::Memory, now: Timestamp) -> Result<Patch> {
    let mut fields = body.fields()?;
    let patch = Patch {
        text: fields.optional("input_context", input::text_of_bytes(1..=config.text_bytes_max)),
        kind: fields.optional("type", kind),
        tags: fields.nullable("tags", tags).map(Option::unwrap_or_default),
        metadata: fields.nullable("metadata", metadata).map(Option::unwrap_or_default),
        tier: fields.optional("tier", tier),
        session: fields.nullable("session", session),
        timestamp: fields.optional("timestamp", happened(now)),
    };
    fields.finish(|| Some(patch))
}

/// The body of a search. The embedding of its query is made later.
pub(super) fn search(body: Body) -> Result<Search> {
    let mut fields = body.fields()?;
    let mode = fields.optional("mode", |value| {
        value.as_str().and_then(Mode::parse).ok_or_else(|| "must be one of hybrid, semantic, keyword".to_owned())
    });
    let size = |bounds: std::ops::RangeInclusive<usize>| {
        input::integer(i64::try_from(*bounds.start()).unwrap_or(0)..=i64::try_from(*bounds.end()).unwrap_or(i64::MAX))
    };
    let limit = fields.optional("limit", size(1..=100)).unwrap_or(10);
    let context = fields.optional("context", size(0..=CONTEXT_MAX)).unwrap_or(0);
    let has_query = fields.has("query");
    let has_embedding = fields.has("embedding");
    let search = Search {
        query: fields.optional("query", input::text_of_bytes(1..=QUERY_BYTES_MAX)),
        embedding: fields.optional("embedding", embedding),
        lacks_meaning: false,
        mode: mode.unwrap_or_default(),
        limit: usize::try_from(limit).unwrap_or_default(),
        min_score: fields.optional("min_score", share),
        context: usize::try_from(context).unwrap_or_default(),
        filter: Filter {
            tiers: fields.optional("tiers", each(FILTER_VALUES_MAX, tier)).unwrap_or_default(),
            kinds: fields.optional("types", each(FILTER_VALUES_MAX, kind)).unwrap_or_default(),
            tags: fields.optional("tags", tags).unwrap_or_default(),
            metadata: fields.optional("metadata", metadata).unwrap_or_default(),
            session: fields.optional("session", session),
            created_after: fields.optional("created_after", input::instant),
            created_before: fields.optional("created_before", input::instant),
            after: fields.optional("after", input::instant),
            before: fields.optional("before", input::instant),
        },
    };
    match search.mode {
        Mode::Keyword if !has_query => fields.fault("query", "is required where the mode is keyword"),
        Mode::Hybrid | Mode::Semantic if !has_query && !has_embedding => {
            fields.fault("query", "is required where no embedding is given");
        }
        _ => {}
    }
    fields.finish(|| Some(search))
}

fn filter(fields: &mut Fields) -> Filter {
    Filter {
        tiers: fields.optional("tier", tier).into_iter().collect(),
        kinds: fields.optional("type", kind).into_iter().collect(),
        tags: fields.optional("tag", input::text(1..=TAG_CHARACTERS_MAX)).into_iter().collect(),
        session: fields.optional("session", session),
        ..Filter::default()
    }
}

/// What a listing asks for.
pub(super) struct Listing {
    pub(super) filter: Filter,
    pub(super) before: Option<MemoryId>,
    pub(super) limit: usize,
}

/// The query of a listing.
pub(super) fn list(query: Query) -> Result<Listing> {
    let mut fields = query.0;
    let filter = filter(&mut fields);
    let before = fields.optional("cursor", |value| {
        value.as_str().and_then(MemoryId::parse).ok_or_else(|| "is not one of ours".to_owned())
    });
    let limit = page_limit(&mut fields);
    fields.finish(|| Some(Listing { filter, before, limit }))
}

/// The query of an export, and whether embeddings are wanted.
pub(super) fn export(query: Query) -> Result<(Filter, bool)> {
    let mut fields = query.0;
    let filter = filter(&mut fields);
    let embeddings = fields.optional("embeddings", input::flag_text).unwrap_or(false);
    fields.finish(|| Some((filter, embeddings)))
}

/// The query of an import: the format, and whether embeddings are said to be by our model.
pub(super) fn import(query: Query) -> Result<(Format, bool)> {
    let mut fields = query.0;
    let format = fields.optional("format", |value| {
        let names = Format::ALL.map(Format::as_str);
        value.as_str().and_then(Format::parse).ok_or_else(|| format!("must be one of {}", names.join(", ")))
    });
    let embeddings = fields.optional("embeddings", input::flag_text).unwrap_or(false);
    fields.finish(|| Some((format.unwrap_or(Format::Tallybox), embeddings)))
}

/// The query of a bulk deletion.
pub(super) fn delete_many(query: Query) -> Result<Filter> {
    let mut fields = query.0;
    let filter = filter(&mut fields);
    if fields.optional("confirm", input::flag_text) == Some(true) {
        return fields.finish(|| Some(filter));
    }
    fields.fault("confirm", "must be true: this deletes every memory that the filters let through");
    fields.finish(|| Some(filter))
}

/// The query of a search for what is like a memory.
pub(super) fn similar(query: Query) -> Result<usize> {
    let mut fields = query.0;
    let limit = fields.optional("limit", input::integer_text(1..=100)).unwrap_or(10);
    fields.finish(|| usize::try_from(limit).ok())
}

/// The id in a path; another form than ours is that of no memory.
pub(in crate::web) fn id(text: &str) -> Result<MemoryId> {
    MemoryId::parse(text).ok_or(Error::NotFound("the memory"))
}
