//! One call, from its hold to its end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;

use super::builtin::Wanted;
use super::dialect::Dialect;
use super::held::{Facts, Held, Outcome};
use super::meter::Meter;
use super::recall::Recall;
use super::stream::{Pieces, Stream};
use super::watch::Watch;
use super::{Reply, limits, problem_of};
use crate::adapter::sse::Parser;
use crate::adapter::tokenizer::INLINE_BYTES_MAX;
use crate::adapter::upstream::{Fault, Opened};
use crate::domain::gateway::Wish;
use crate::domain::gateway::body::Object;
use crate::domain::gateway::request::Request;
use crate::domain::gateway::usage::{Usage, written_in_answer};
use crate::domain::{Error, Result};
use crate::service::gateway::{self, Owner};
use crate::web::problem::Failure;
use crate::web::state::{AppState, Known};

/// Pieces of a stream on their way to a caller.
const PIECES_WAITING_MAX: usize = 16;
/// Headers of an answer that a caller sees: none of them says whose key it was.
const PASSED_BACK: [&str; 3] = ["content-type", "openai-processing-ms", "openai-version"];

/// Headers that tell what was recalled.
const RECALLED_MEMORIES: &str = "x-tallybox-recalled-memories";
const RECALLED_TOKENS: &str = "x-tallybox-recalled-tokens";

/// Who answers.
pub(super) enum Target {
    /// One of these upstreams, which know the model by this name.
    Upstream {
        /// The name.
        model: String,
        /// In the order in which they are asked.
        candidates: Vec<usize>,
    },
    /// The embedding model inside.
    Builtin(Wanted),
}

/// A call that has been read and not yet begun.
pub(super) struct Call {
    pub(super) state: AppState,
    pub(super) known: Known,
    pub(super) request: Request,
    pub(super) object: Object,
    pub(super) target: Target,
    pub(super) recall: Option<Recall>,
    pub(super) facts: Facts,
    pub(super) headers: HeaderMap,
    pub(super) started: Instant,
}

impl Call {
    /// Holds, asks, answers, settles.
    pub(super) async fn run(self, mut reply: Reply) {
        if *self.state.calls.stopping().borrow() {
            return drop(reply.send(Err(Failure(stopping()))));
        }
        let mut held = match self.hold().await {
            Ok(held) => held,
            Err(error) => return drop(reply.send(Err(Failure(error)))),
        };
        let mut watch = Watch::new(&self.state, &self.known);
        match &self.target {
            Target::Builtin(wanted) => {
                let work = wanted.embed(&self.state, &self.known, self.facts.estimate.count);
                let embedded = watch.over(reply.closed(), work).await;
                let answer = match embedded {
                    Ok(embedded) => self.give_embedded(&mut held, embedded).await,
                    Err(outcome) => self.give_up(&mut held, outcome, true).await,
                };
                drop(reply.send(answer.map_err(Failure)));
            }
            Target::Upstream { .. } => self.ask(&mut held, &mut watch, reply).await,
        }
    }

    async fn hold(&self) -> Result<Held> {
        let (policy, bounds) = (self.state.quota.clone(), self.state.config.gateway.output);
        let estimate = self.facts.estimate;
        let wish = Wish { prompt: estimate.bound, output: self.request.output, choices: self.request.choices };
        let facts = Value::Object(self.facts.to_metadata());
        let opened = self.state.write_ahead(&self.known, move |writer, caller| {
            let owner = Owner { user: caller.user.key, tier: caller.tier().to_owned() };
            let opened = gateway::open(writer, &policy, caller.holder(), (wish, bounds), estimate.count, &facts)?;
            Ok((owner, opened))
        });
        // The upstream is asked while the hold is being written: what it says is passed on only once that is done.
        let (opened, commit) = opened.await?;
        Ok(Held::new(self.state.clone(), opened, commit, self.facts.clone(), self.started))
    }

    async fn ask(mut self, held: &mut Held, watch: &mut Watch, mut reply: Reply) {
        let sent = AtomicBool::new(false);
        let asked = match self.adapted(held) {
            Ok((candidates, body)) => {
                let path = self.request.endpoint.path();
                let work = self.state.upstreams.ask(&candidates, path, (&body, &self.headers), &sent);
                watch.over(reply.closed(), work).await
            }
            Err(error) => {
                let _ = held.give_back().await;
                return drop(reply.send(Err(Failure(error))));
            }
        };
        let answer = match asked {
            Err(outcome) => self.give_up(held, outcome, sent.load(Ordering::Relaxed)).await,
            Ok(Err(fault)) => self.give_fault(held, &fault).await,
            Ok(Ok(opened)) => {
                held.upstream = Some(opened.upstream.clone());
                if opened.is_stream() && opened.status().is_success() {
                    return self.pass_on(held, watch, reply, opened).await;
                }
                let status = opened.status();
                let headers = passed_back(opened.headers());
                let limit = self.state.config.gateway.answer_bytes_max;
                match watch.over(reply.closed(), read_all(opened, limit)).await {
                    Err(outcome) => self.give_up(held, outcome, true).await,
                    Ok(Err(fault)) => self.give_fault(held, &fault).await,
                    Ok(Ok(bytes)) => self.give_whole(held, status, headers, bytes).await,
                }
            }
        };
        drop(reply.send(answer.map_err(Failure)));
    }

    /// The request as the upstream gets it, and who may get it.
    fn adapted(&mut self, held: &Held) -> Result<(Vec<usize>, Bytes)> {
        let Target::Upstream { model, candidates } = &self.target else {
            return Err(Error::Internal("no upstream for the model inside".to_owned()));
        };
        let is_stateful = self.state.config.gateway.stateful;
        self.request.adapt(&mut self.object, model, held.grant.output_max, is_stateful)?;
        Ok((candidates.clone(), Bytes::from(self.object.to_text())))
    }

    /// A call that ended from outside before its answer began. What it costs is its prompt, where an upstream had it by then.
    async fn give_up(&self, held: &mut Held, outcome: Outcome, was_sent: bool) -> Result<Response> {
        let (status, error) = match outcome {
            Outcome::CredentialEnded => (401, Error::Unauthenticated),
            Outcome::ClientGone => (499, Error::Timeout),
            _ => (503, stopping()),
        };
        if was_sent {
            held.settle(&mut Meter::new(self.facts.family), status, outcome).await?;
        } else {
            held.give_back().await?;
        }
        Err(error)
    }

    /// A call of which nothing came costs nothing.
    async fn give_fault(&self, held: &mut Held, fault: &Fault) -> Result<Response> {
        held.give_back().await?;
        let mut response = problem_of(fault);
        limits::tell(response.headers_mut(), &held.standing, self.state.now());
        Ok(response)
    }

    async fn give_embedded(&self, held: &mut Held, embedded: Result<String>) -> Result<Response> {
        let answer = match embedded {
            Ok(answer) => answer,
            Err(error) => {
                held.give_back().await?;
                return Err(error);
            }
        };
        let mut meter = Meter::new(self.facts.family);
        meter.usage = Some(Wanted::usage(self.facts.estimate.count));
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        held.upstream = Some("builtin".into());
        held.settle(&mut meter, 200, Outcome::Complete).await?;
        Ok(self.respond(held, StatusCode::OK, headers, Body::from(answer)))
    }

    /// A whole answer, as it came. What was refused costs nothing.
    async fn give_whole(
        &self,
        held: &mut Held,
        status: StatusCode,
        headers: HeaderMap,
        bytes: Bytes,
    ) -> Result<Response> {
        if status.is_success() {
            let family = self.facts.family;
            let count = {
                let bytes = bytes.clone();
                move || meter_of(family, &bytes)
            };
            // Another thread costs more than a short answer, whose family's ranks the prompt has unpacked.
            let mut meter = if bytes.len() <= INLINE_BYTES_MAX {
                count()
            } else {
                let counted = tokio::task::spawn_blocking(count).await;
                counted.map_err(|panic| Error::Internal(format!("an answer: {panic}")))?
            };
            held.settle(&mut meter, status.as_u16(), Outcome::Complete).await?;
            if self.recall.as_ref().is_some_and(|recall| recall.keeps) {
                self.keep(said_in(&bytes));
            }
        } else {
            held.give_back().await?;
        }
        Ok(self.respond(held, status, headers, Body::from(bytes)))
    }

    /// An answer in pieces.
    async fn pass_on(&self, held: &mut Held, watch: &mut Watch, reply: Reply, opened: Opened) {
        if let Err(error) = held.kept().await {
            return drop(reply.send(Err(Failure(error))));
        }
        let (caller, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let mut headers = passed_back(opened.headers());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        let response = self.respond(held, opened.status(), headers, Body::new(Pieces(pieces)));
        let keeps = self.recall.as_ref().is_some_and(|recall| recall.keeps);
        // A caller that is gone by now has dropped the pieces, which the stream sees.
        let _ = reply.send(Ok(response));
        let stream = Stream {
            held,
            meter: Meter::new(self.facts.family),
            dialect: Dialect::new(self.request.endpoint, self.request.wants_usage).keeping(keeps),
            endpoint: self.request.endpoint,
            parser: Parser::new(self.state.config.gateway.answer_bytes_max),
            caller,
            waiting: VecDeque::new(),
        };
        if let Some(said) = stream.run(opened, watch).await {
            self.keep(said);
        }
    }

    fn respond(&self, held: &Held, status: StatusCode, headers: HeaderMap, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        limits::tell(response.headers_mut(), &held.standing, self.state.now());
        if let Some(recalled) = self.facts.recalled {
            let memories = i64::try_from(recalled.memories).unwrap_or(i64::MAX);
            for (name, number) in [(RECALLED_MEMORIES, memories), (RECALLED_TOKENS, recalled.tokens)] {
                response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(number));
            }
        }
        response
    }

    /// Keeps an exchange that ended as it should, where that was asked for; nobody waits for it.
    fn keep(&self, said: String) {
        if let Some(recall) = self.recall.clone().filter(|recall| recall.keeps) {
            let (state, known) = (self.state.clone(), self.known.clone());
            self.state.calls.start(async move { recall.keep(&state, &known, &said).await });
        }
    }
}

fn stopping() -> Error {
    Error::Unavailable("the server is stopping; ask again in a moment".to_owned())
}

fn passed_back(headers: &HeaderMap) -> HeaderMap {
    let names = PASSED_BACK.iter().map(|name| HeaderName::from_static(name));
    names.filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

async fn read_all(mut opened: Opened, limit: usize) -> Result<Bytes, Fault> {
    let mut bytes = Vec::new();
    while let Some(chunk) = opened.chunk().await? {
        if bytes.len().saturating_add(chunk.len()) > limit {
            opened.note_broken(&Fault::Broken);
            return Err(Fault::Broken);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// What a whole answer says to its user: the first choice of a chat, or the texts of a response.
fn said_in(bytes: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if let Some(text) = answer["choices"][0]["message"]["content"].as_str() {
        return text.to_owned();
    }
    let items = answer["output"].as_array().into_iter().flatten().filter(|item| item["type"] == "message");
    let parts = items.flat_map(|item| item["content"].as_array().into_iter().flatten());
    parts.filter(|part| part["type"] == "output_text").filter_map(|part| part["text"].as_str()).collect()
}

/// What a whole answer says that it cost, or else what it says.
fn meter_of(family: crate::domain::gateway::estimate::Family, bytes: &[u8]) -> Meter {
    #[derive(serde::Deserialize)]
    struct Counted {
        #[serde(default)]
        usage: Value,
    }
    let mut meter = Meter::new(family);
    meter.usage = serde_json::from_slice::<Counted>(bytes).ok().and_then(|counted| Usage::parse(&counted.usage));
    if meter.usage.is_none() {
        let answer = serde_json::from_slice(bytes).unwrap_or_default();
        written_in_answer(&answer, &mut |text| meter.write(0, text));
        meter.count();
    }
    meter
}
