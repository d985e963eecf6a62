//! A single memory: read, changed, deleted.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::super::form::Form;
use super::super::{Visitor, page, see, who};
use super::{BACK_CHARACTERS, back_to, with_done};
use crate::domain::memory::{Hit, Memory, Patch};
use crate::domain::quota::Refusal;
use crate::domain::unit::{MemoryId, Timestamp};
use crate::domain::{Error, Fault, Result};
use crate::service::memory;
use crate::view::layout::{Frame, Who};
use crate::view::memory::one::{self as view, DeletePage, OnePage, Typed};
use crate::view::memory::path_of;
use crate::web::extract::{Path, Query};
use crate::web::input::{self, Fields};
use crate::web::memory::{change, parse};
use crate::web::problem::{Answer, Failure, Problem};
use crate::web::state::{AppState, Known};

/// Similar memories that a page shows.
const SIMILAR: usize = 5;

/// What a page of a memory is made of.
struct Shown {
    visitor: Who,
    now: Timestamp,
    memory: Memory,
    similar: Vec<Hit>,
}

async fn load(state: &AppState, known: &Known, id: MemoryId) -> Result<Shown> {
    let read = state.search(known, move |reader, caller| {
        let memory = memory::get(reader, caller, id)?;
        let similar = memory::similar(reader, caller, id, SIMILAR)?;
        Ok(Shown { visitor: who(caller), now: reader.now(), memory, similar })
    });
    read.await
}

impl Shown {
    fn frame<'a>(&'a self, state: &'a AppState) -> Frame<'a> {
        Frame { who: &self.visitor, now: self.now, zone: state.quota.calendar.zone_name() }
    }
}

fn back_of(fields: &mut Fields) -> String {
    back_to(fields.optional("back", input::text(BACK_CHARACTERS)).as_deref()).to_owned()
}

/// `GET /memories/{id}`
pub(in crate::web) async fn one(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Path(id): Path<String>,
    query: Query,
) -> Answer {
    let id = parse::id(&id)?;
    let mut fields = query.0;
    let back = back_of(&mut fields);
    let done = match fields.peek("done").as_str() {
        "saved" => Some("The changes are saved."),
        _ => None,
    };
    let _ = fields.optional("done", input::text(0..=64));
    fields.finish(|| Some(()))?;
    let shown = load(&state, &known, id).await?;
    let typed = Typed::of(&shown.memory);
    let markup = view::one(&OnePage {
        frame: shown.frame(&state),
        calendar: state.quota.calendar,
        memory: &shown.memory,
        similar: &shown.similar,
        typed: &typed,
        faults: &[],
        problem: None,
        back: &back,
        done,
    });
    Ok(page(StatusCode::OK, markup))
}

/// `POST /memories/{id}`
pub(in crate::web) async fn edit(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Path(id): Path<String>,
    Form(mut fields): Form,
) -> Answer {
    let id = parse::id(&id)?;
    let back = back_of(&mut fields);
    let typed = Typed {
        text: fields.peek("input_context"),
        kind: fields.peek("type"),
        tags: fields.peek("tags"),
        tier: fields.peek("tier"),
        session: fields.peek("session"),
    };
    let before = state.read(&known, move |reader, caller| memory::get(reader, caller, id)).await?;
    let changed = match patch(fields, &before, state.config.memory.text_bytes_max) {
        Ok(patch) => change(&state, &known, id, patch).await.map(drop),
        Err(error) => Err(error),
    };
    match changed {
        Ok(()) => Ok(see(&with_done(&path_of(&id, "", &back), "saved"))),
        Err(error) => shown_again(&state, &known, id, &typed, &back, error).await,
    }
}

/// What differs from the memory. A browser sends line breaks as CR LF and takes them out of a single line, so that alone
/// is no difference.
fn patch(mut fields: Fields, before: &Memory, text_bytes_max: usize) -> Result<Patch> {
    let held = Typed::of(before);
    let is_held = |value: &Value, held: &str| {
        let same = |fold: fn(&str) -> String| value.as_str().map(fold) == Some(fold(held));
        same(with_plain_breaks) || same(without_breaks)
    };
    let text = fields.required("input_context", |value| {
        if is_held(&value, &held.text) {
            return Ok(None);
        }
        let text = Value::from(with_plain_breaks(value.as_str().unwrap_or_default()));
        input::text_of_bytes(1..=text_bytes_max)(text).map(Some)
    });
    let kind = fields
        .required("type", |value| if is_held(&value, &held.kind) { Ok(None) } else { parse::kind(value).map(Some) });
    let tags = fields.optional("tags", |value| {
        if is_held(&value, &held.tags) {
            return Ok(None);
        }
        let tags = value.as_str().unwrap_or_default().split(',').map(str::trim).filter(|tag| !tag.is_empty());
        parse::tags(tags.collect()).map(Some)
    });
    let tier = fields.required("tier", parse::tier);
    let session = fields.optional("session", |value| match value.as_str() {
        _ if is_held(&value, &held.session) => Ok(None),
        Some("") => Ok(Some(None)),
        _ => parse::session(value).map(|session| Some(Some(session))),
    });
    fields.finish(|| {
        Some(Patch {
            text: text?,
            kind: kind?,
            tags: tags.flatten(),
            tier: Some(tier?),
            session: session.flatten(),
            ..Patch::default()
        })
    })
}

fn with_plain_breaks(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn without_breaks(text: &str) -> String {
    text.replace(['\r', '\n'], "")
}

/// The page again, with what was typed and why nothing was changed. What is no fault of the one who filled it in gets a
/// page of its own.
async fn shown_again(
    state: &AppState,
    known: &Known,
    id: MemoryId,
    typed: &Typed,
    back: &str,
    error: Error,
) -> Answer<Response> {
    let (faults, text): (Vec<Fault>, String) = match &error {
        Error::Invalid(faults) => (faults.clone(), wrong_fields(faults)),
        Error::QuotaExceeded(refusal) => (Vec::new(), refused(refusal, typed)),
        Error::Busy(_) => (Vec::new(), "Too much is going on at once. Try again in a moment.".to_owned()),
        _ => return Err(Failure(error)),
    };
    let problem = Problem::of(error);
    let shown = load(state, known, id).await?;
    let markup = view::one(&OnePage {
        frame: shown.frame(state),
        calendar: state.quota.calendar,
        memory: &shown.memory,
        similar: &shown.similar,
        typed,
        faults: &faults,
        problem: Some(&text),
        back,
        done: None,
    });
    let mut response = page(problem.status, markup);
    problem.set_headers(response.headers_mut());
    Ok(response)
}

/// Faults of the form's own fields stand beside them; any others are said here.
fn wrong_fields(faults: &[Fault]) -> String {
    const FIELDS: [&str; 5] = ["input_context", "type", "tags", "tier", "session"];
    let others = faults.iter().filter(|fault| !FIELDS.contains(&fault.field.as_str()));
    let others: Vec<String> = others.map(|fault| format!("{} {}.", fault.field, fault.message)).collect();
    if others.is_empty() { "Nothing was changed: see the form.".to_owned() } else { others.join(" ") }
}

fn refused(refusal: &Refusal, typed: &Typed) -> String {
    let human = |bytes| refusal.resource.human(bytes);
    let of_what = if typed.tier == "stm" { "short-term memories" } else { "memories" };
    format!(
        "Nothing was changed: it needs {} more, and {} of the {} that your {of_what} may take are used. Delete something, or \
         shorten the text below, and save again.",
        human(refusal.requested),
        human(refusal.used),
        human(refusal.limit),
    )
}

/// `GET /memories/{id}/delete`
pub(in crate::web) async fn delete_form(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Path(id): Path<String>,
    query: Query,
) -> Answer {
    let id = parse::id(&id)?;
    let mut fields = query.0;
    let back = back_of(&mut fields);
    fields.finish(|| Some(()))?;
    let read =
        state.read(&known, move |reader, caller| Ok((who(caller), reader.now(), memory::get(reader, caller, id)?)));
    let (visitor, now, memory) = read.await?;
    let frame = Frame { who: &visitor, now, zone: state.quota.calendar.zone_name() };
    Ok(page(StatusCode::OK, view::delete(&DeletePage { frame, memory: &memory, back: &back })))
}

/// `POST /memories/{id}/delete`
pub(in crate::web) async fn delete(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Path(id): Path<String>,
    Form(mut fields): Form,
) -> Answer {
    let id = parse::id(&id)?;
    let back = back_of(&mut fields);
    fields.finish(|| Some(()))?;
    let policy = state.memory.clone();
    state.write(&known, move |writer, caller| memory::delete(writer, &policy, caller, id)).await?;
    Ok(see(&with_done(&back, "deleted")))
}
