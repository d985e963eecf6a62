//! Browsing and searching memories.

use axum::extract::State;
use chrono::NaiveDate;
use http::{StatusCode, Uri};
use serde_json::Value;

use super::super::{Address, Visitor, page, who};
use crate::domain::calendar::{Calendar, Day};
use crate::domain::memory::{Filter, MemoryTier, QUERY_BYTES_MAX, SESSION_CHARACTERS_MAX, TAG_CHARACTERS_MAX};
use crate::domain::unit::MemoryId;
use crate::domain::{Error, Fault, Result};
use crate::service::memory::{self, Search};
use crate::view::layout::Frame;
use crate::view::memory::{self as view, Find, Found, ListPage, Part, Shelf, TierSum};
use crate::web::input::{self, Fields, Why};
use crate::web::memory::{find, parse};
use crate::web::problem::Answer;
use crate::web::state::{AppState, Known};

/// Rows of a page.
const ROWS: usize = 20;
/// Most hits of a search: as many as the JSON API gives.
const HITS_MAX: usize = 100;
/// Most types that are offered to choose from.
const KINDS_MAX: usize = 50;

/// A question that was understood.
struct Asked {
    filter: Filter,
    place: Place,
}

/// Which part of what is found.
enum Place {
    First,
    Older(MemoryId),
    Newer(MemoryId),
    /// Of a search, from 1 on.
    Page(usize),
}

/// `GET /memories`
pub(in crate::web) async fn list(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Address(address): Address,
    uri: Uri,
) -> Answer {
    let mut fields = Fields::of_query_with(uri.query(), &["tier"])?;
    let done = match fields.peek("done").as_str() {
        "deleted" => Some("The memory is deleted."),
        _ => None,
    };
    let _ = fields.optional("done", input::text(0..=64));
    let (asked, typed) = ask(fields, state.quota.calendar);
    let looked = match asked {
        Ok(asked) => look(&state, &known, asked, &typed).await,
        Err(error) => Err(error),
    };
    let (found, part, faults) = match looked {
        Ok((found, part)) => (found, part, Vec::new()),
        Err(Error::Invalid(faults)) => (Found::Unasked, Part::First, faults),
        Err(other) => return Err(other.into()),
    };
    let policy = state.memory.clone();
    let read = state.read(&known, move |reader, caller| {
        let usage = memory::usage(reader, &policy, caller)?;
        Ok((who(caller), usage, memory::recent_kinds(reader, caller, KINDS_MAX)?))
    });
    let (visitor, usage, kinds) = read.await?;
    let tiers =
        usage.tiers.map(|tier| TierSum { tier: tier.tier, memories: tier.memories, size_bytes: tier.size_bytes });
    let markup = view::list(&ListPage {
        frame: Frame { who: &visitor, now: usage.now, zone: state.quota.calendar.zone_name() },
        calendar: state.quota.calendar,
        shelf: &Shelf { standing: usage.standing, tiers },
        kinds: &kinds,
        find: &typed,
        part: &part,
        faults: &faults,
        found: &found,
        rows_max: ROWS,
        hits_max: HITS_MAX,
        address: &address,
        done,
    });
    Ok(page(if faults.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY }, markup))
}

/// What was asked, understood and as it was typed. What a form leaves empty counts as absent.
fn ask(mut fields: Fields, calendar: Calendar) -> (Result<Asked>, Find) {
    let tiers: Vec<MemoryTier> = fields.optional("tier", tiers).unwrap_or_default();
    let find = Find {
        query: fields.peek("q").trim().to_owned(),
        tiers: if tiers.len() == MemoryTier::ALL.len() { Vec::new() } else { tiers },
        kind: fields.peek("type"),
        tag: fields.peek("tag").trim().to_owned(),
        session: fields.peek("session"),
        from: fields.peek("from").trim().to_owned(),
        to: fields.peek("to").trim().to_owned(),
    };
    let _: Option<()> = fields.optional("q", |_| within(&find.query, input::text_of_bytes(0..=QUERY_BYTES_MAX)));
    let kind = fields.optional("type", unless_empty(parse::kind)).flatten();
    let _: Option<()> = fields.optional("tag", |_| within(&find.tag, input::text(0..=TAG_CHARACTERS_MAX)));
    let _: Option<()> = fields.optional("session", |_| within(&find.session, input::text(0..=SESSION_CHARACTERS_MAX)));
    let from = fields.optional("from", unless_empty(day)).flatten();
    let to = fields.optional("to", unless_empty(day)).flatten();
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        fields.fault("to", "must not lie before the first day");
    }
    let id =
        |value: Value| value.as_str().and_then(MemoryId::parse).ok_or_else(|| "is not a place of a list".to_owned());
    let (older, newer) = (fields.optional("cursor", id), fields.optional("newer", id));
    let number = fields.optional("page", input::integer_text(1..=i64::try_from(HITS_MAX).unwrap_or(100)));
    let place = match (older, newer) {
        _ if !find.query.is_empty() => Place::Page(number.and_then(|number| usize::try_from(number).ok()).unwrap_or(1)),
        (Some(id), _) => Place::Older(id),
        (None, Some(id)) => Place::Newer(id),
        (None, None) => Place::First,
    };
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let filter = Filter {
        tiers: find.tiers.clone(),
        kinds: kind.into_iter().collect(),
        tags: some(&find.tag).into_iter().collect(),
        session: some(&find.session),
        after: from.map(|day| calendar.start_of(day).plus_millis(-1)),
        before: to.map(|day| calendar.end_of(day)),
        ..Filter::default()
    };
    (fields.finish(|| Some(Asked { filter, place })), find)
}

fn tiers(value: Value) -> Result<Vec<MemoryTier>, Why> {
    let given = input::list(0..=16)(value)?.into_iter().map(parse::tier).collect::<Result<Vec<_>, Why>>()?;
    Ok(MemoryTier::ALL.into_iter().filter(|tier| given.contains(tier)).collect())
}

/// Whether a text that was peeked at already keeps a bound.
fn within(text: &str, parse: impl Fn(Value) -> Result<String, Why>) -> Result<(), Why> {
    parse(Value::String(text.to_owned())).map(drop)
}

fn unless_empty<T>(parse: impl Fn(Value) -> Result<T, Why>) -> impl Fn(Value) -> Result<Option<T>, Why> {
    move |value| if value.as_str() == Some("") { Ok(None) } else { parse(value).map(Some) }
}

fn day(value: Value) -> Result<Day, Why> {
    let text = value.as_str().unwrap_or_default().trim();
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| text.len() == 10);
    date.map(Day::from_date).ok_or_else(|| "must be a date such as 2025-11-24".to_owned())
}

/// Looks for it. What is asked of a place that lies outside is answered by the nearest that does not.
async fn look(state: &AppState, known: &Known, asked: Asked, typed: &Find) -> Result<(Found, Part)> {
    let filter = asked.filter;
    if let Place::Page(number) = asked.place {
        let search = Search { query: Some(typed.query.clone()), filter, limit: HITS_MAX, ..Search::default() };
        let hits = find(state, known, search).await?;
        let total = hits.len();
        let number = number.clamp(1, total.div_ceil(ROWS).max(1));
        let skipped = (number - 1) * ROWS;
        let hits = hits.into_iter().skip(skipped).take(ROWS).collect();
        return Ok((Found::Hits { hits, skipped, total }, if number == 1 { Part::First } else { Part::Page(number) }));
    }
    let place = asked.place;
    let listed = state.read(known, move |reader, caller| {
        if let Place::Newer(id) = place {
            let memories = memory::list_newer(reader, caller, &filter, id, ROWS)?;
            if memories.len() == ROWS {
                // The memory that it is counted from may be gone, with all that is older.
                let last = memories.last().map(|memory| memory.id);
                let has_older = !memory::list(reader, caller, &filter, last, 1)?.is_empty();
                return Ok((Found::Listed { memories, has_older }, Part::Newer(id.to_string())));
            }
        }
        let (before, part) = match place {
            Place::Older(id) => (Some(id), Part::Older(id.to_string())),
            Place::First | Place::Newer(_) | Place::Page(_) => (None, Part::First),
        };
        let mut memories = memory::list(reader, caller, &filter, before, ROWS + 1)?;
        let has_older = memories.len() > ROWS;
        memories.truncate(ROWS);
        Ok((Found::Listed { memories, has_older }, part))
    });
    match listed.await {
        Err(Error::Invalid(faults)) => Err(Error::Invalid(
            faults.into_iter().map(|fault| Fault::new(fault.field, "is not a place of a list")).collect(),
        )),
        other => other,
    }
}
