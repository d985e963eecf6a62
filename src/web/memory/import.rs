//! `POST /memory/import`: batch by batch, each embedded outside of any transaction and then written in one.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Serialize;

use super::parse;
use crate::domain::memory::WINDOWS_MAX;
use crate::domain::memory::transfer::{Batch, Format, Item, Records as Input, Report, Terms};
use crate::domain::{Error, Result, json};
use crate::service::idempotency::Key;
use crate::service::memory::{self, Look};
use crate::web::answer::{created, first_answer, respond};
use crate::web::extract::{MaybeKey, Query, Records, absence, read_long_body, text_of};
use crate::web::problem::{Answer, Problem};
use crate::web::state::{AppState, Known};

/// After how long what is busy is asked again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// `POST /memory/import`
pub(in crate::web) async fn import(
    State(state): State<AppState>,
    known: Known,
    query: Query,
    key: MaybeKey,
    request: Request,
) -> Answer {
    let asked = parse::import(query);
    let written_as = Records::of(request.headers());
    if axum::body::HttpBody::is_end_stream(request.body()) {
        return Err(absence(request.headers(), |_| written_as.is_ok()).into());
    }
    let written_as = written_as?;
    let _place = state.imports.begin(known.caller().user.key)?;
    let text = text_of(read_long_body(request, &state.config).await?)?;
    let Opened { input, embeddings, key } = off_thread(move || open(asked, key, written_as, text)).await??;
    if let Some(first) = first_answer(&state, &known, key.as_ref()).await? {
        return Ok(respond(first));
    }
    let mut import = Import { state, known, embeddings, report: Report::default() };
    match import.run(input).await {
        Ok(None) => import.answer(key).await,
        Ok(Some((record, error))) => Ok(import.problem(error).with("record", record).into_response()),
        Err(error) => Ok(import.problem(error).into_response()),
    }
}

/// An import that may begin.
struct Opened {
    input: Input,
    embeddings: bool,
    key: Option<Key>,
}

fn open(asked: Result<(Format, bool)>, key: MaybeKey, written_as: Records, text: String) -> Result<Opened> {
    if asked.is_err() && written_as == Records::Json {
        json::require_well_formed(&text)?;
    }
    let (format, embeddings) = asked?;
    // The body may be too long to be compared as a JSON value.
    let key = key.with_texts(&[format.as_str(), if embeddings { "embeddings" } else { "" }, &text]);
    let input = match written_as {
        Records::Json => Input::of_document(format, text)?,
        Records::Lines if matches!(format, Format::Mem0 | Format::Chroma) => {
            let name = format.as_str();
            return Err(Error::UnsupportedMediaType(format!("a body of the format {name} must be application/json")));
        }
        Records::Lines => Input::of_lines(format, text, 1),
    };
    Ok(Opened { input, embeddings, key: key? })
}

/// Runs what takes the processor for a while, where it keeps no other request waiting.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Error::Internal(format!("an import could not be read: {panic}")))
}

struct Import {
    state: AppState,
    known: Known,
    embeddings: bool,
    report: Report,
}

impl Import {
    /// Imports all there is; gives the record that the quota refused, with which it ends, and the refusal.
    async fn run(&mut self, mut input: Input) -> Result<Option<(u64, Error)>> {
        let stop = self.state.calls.stopping();
        loop {
            if *stop.borrow() {
                let again = "the server is stopping: the same import goes on where this one ended";
                return Err(Error::Unavailable(again.to_owned()));
            }
            let terms = self.terms();
            let (rest, batch) = off_thread(move || {
                let batch = input.batch(&terms);
                (input, batch)
            })
            .await?;
            input = rest;
            let Some(Batch { items, skipped }) = batch else { return Ok(None) };
            self.report.skip_all(skipped);
            if let Some(refused) = self.take(items).await? {
                return Ok(Some(refused));
            }
        }
    }

    fn terms(&self) -> Terms {
        Terms {
            now: self.state.now(),
            text_bytes_max: self.state.config.memory.text_bytes_max,
            embeddings: self.embeddings,
            model: self.state.embedder.model().to_owned(),
        }
    }

    /// Takes in a batch: as much of it at a time as there seems to be room for, so that nothing is embedded in vain.
    async fn take(&mut self, mut items: Vec<(u64, Item)>) -> Result<Option<(u64, Error)>> {
        while !items.is_empty() {
            let (before, policy) = (items.len() as u64, self.state.memory.clone());
            let look = self
                .state
                .read(&self.known, move |reader, caller| memory::look(reader, &policy, caller, items))
                .await?;
            let Look { mut missing, fitting } = look;
            self.report.already_there += before - missing.len() as u64;
            let Some(first) = missing.first() else { break };
            if fitting == 0
                && let Some(refused) = self.decide(first).await?
            {
                return Ok(Some(refused));
            }
            items = missing.split_off(fitting.max(1));
            if let Some(refused) = self.keep(missing).await? {
                return Ok(Some(refused));
            }
        }
        Ok(None)
    }

    /// The refusal of a memory for which there is no room, also after what has ended is booked out; none for one that has too
    /// many windows, which is skipped in any case.
    async fn decide(&self, (record, item): &(u64, Item)) -> Result<Option<(u64, Error)>> {
        let windows = match item.embedding {
            Some(_) => 1,
            None => self.state.embedder.windows(&item.content.text).await?.len(),
        };
        if windows > WINDOWS_MAX {
            return Ok(None);
        }
        let sizes = memory::sizes([(&item.content, windows)]);
        let policy = self.state.memory.clone();
        let decided = self.state.write(&self.known, move |writer, caller| {
            memory::require_room(writer, &policy, caller, &sizes).map_err(Error::without_index)
        });
        match decided.await {
            Ok(()) => Ok(None),
            Err(refusal @ Error::QuotaExceeded(_)) => Ok(Some((*record, refusal))),
            Err(error) => Err(error),
        }
    }

    /// Embeds and writes memories.
    async fn keep(&mut self, missing: Vec<(u64, Item)>) -> Result<Option<(u64, Error)>> {
        let Self { state, known, report, .. } = self;
        let (state, known) = (&*state, &*known);
        let cut = state.embedder.cut(memory::described(&missing)).await?;
        let user = known.caller().user.key;
        let made = memory::patiently(TRY_AGAIN, || state.embedder.complete(user, cut.clone())).await?;
        let batch = Arc::new(memory::ready(missing, made, report));
        let written = memory::patiently(TRY_AGAIN, || {
            let (policy, batch) = (state.memory.clone(), Arc::clone(&batch));
            state.write(known, move |writer, caller| memory::keep(writer, &policy, caller, &batch))
        });
        let refused = written.await?.tell(report);
        Ok(refused.map(|(record, refusal)| {
            state.note_refusal(known, &refusal);
            (record, Error::QuotaExceeded(refusal))
        }))
    }

    /// The report, kept where there is a key.
    async fn answer(self, key: Option<Key>) -> Answer {
        let report = ReportAnswer::of(&self.report);
        let Some(key) = key else { return Ok(Json(report).into_response()) };
        let report = serde_json::value::to_raw_value(&report).map_err(|error| Error::Internal(error.to_string()))?;
        created(&self.state, &self.known, Some(key), move |_, _| Ok((StatusCode::OK, report))).await
    }

    /// A failure, with what was imported before it.
    fn problem(&self, error: Error) -> Problem {
        Problem::of(error)
            .with("imported", self.report.imported)
            .with("already_there", self.report.already_there)
            .with("skipped_count", self.report.skipped_count)
    }
}

/// Answer of an import.
#[derive(Serialize)]
struct ReportAnswer<'a> {
    imported: u64,
    already_there: u64,
    skipped: Vec<SkippedAnswer<'a>>,
    skipped_count: u64,
    /// Of those that are not shown, how many for which reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    more_skipped: Vec<ReasonAnswer<'a>>,
}

#[derive(Serialize)]
struct SkippedAnswer<'a> {
    record: u64,
    reason: &'a str,
}

#[derive(Serialize)]
struct ReasonAnswer<'a> {
    reason: &'a str,
    count: u64,
}

impl<'a> ReportAnswer<'a> {
    fn of(report: &'a Report) -> Self {
        let shown = report.skipped.iter();
        Self {
            imported: report.imported,
            already_there: report.already_there,
            skipped: shown.map(|one| SkippedAnswer { record: one.record, reason: &one.reason }).collect(),
            skipped_count: report.skipped_count,
            more_skipped: report.more_skipped().map(|(reason, count)| ReasonAnswer { reason, count }).collect(),
        }
    }
}
