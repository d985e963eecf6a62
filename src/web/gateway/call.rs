//! One call, from its hold to its end.

use std::collections::VecDeque;
use std::sync::Arc;
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
use crate::adapter::upstream::{Asked, Fault, Opened};
use crate::domain::gateway::body::Object;
use crate::domain::gateway::request::Request;
use crate::domain::gateway::usage::{Usage, written_in_answer};
use crate::domain::gateway::{Endpoint, Wish};
use crate::domain::{Error, Result};
use crate::service::gateway::{self, Owner};
use crate::store::Writer;
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
    /// The call without the memories that were added to it.
    pub(super) plain: Option<(Object, Facts)>,
    pub(super) headers: HeaderMap,
    pub(super) started: Instant,
}

impl Call {
    /// Holds, asks, answers, settles.
    pub(super) async fn run(mut self, mut reply: Reply) {
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
                    Err(outcome) => self.give_up(&mut held, outcome, Some("builtin".into())).await,
                };
                drop(reply.send(answer.map_err(Failure)));
            }
            Target::Upstream { .. } => self.ask(&mut held, &mut watch, reply).await,
        }
    }

    /// Holds what the call may cost. Where that does not fit any more with the memories that were added, without them.
    async fn hold(&mut self) -> Result<Held> {
        let (policy, bounds) = (self.state.quota.clone(), self.state.config.gateway.output);
        let asked = |facts: &Facts| {
            let (output, choices) = (self.request.output, self.request.choices);
            let wish = Wish { prompt: facts.estimate.bound, output, choices };
            (wish, facts.estimate.count, Value::Object(facts.to_metadata()))
        };
        let (whole, plain) = (asked(&self.facts), self.plain.as_ref().map(|(_, facts)| asked(facts)));
        let opened = self.state.write_ahead(&self.known, move |writer, caller| {
            let owner = Owner { user: caller.user.key, tier: caller.tier().to_owned() };
            let open = |writer: &mut Writer<'_>, (wish, count, facts): &(Wish, i64, Value)| {
                gateway::open(writer, &policy, caller.holder(), (*wish, bounds), *count, facts)
            };
            match (open(writer, &whole), &plain) {
                (Err(Error::QuotaExceeded(_)), Some(plain)) => Ok((owner, open(writer, plain)?, true)),
                (opened, _) => Ok((owner, opened?, false)),
            }
        });
        // The upstream is asked while the hold is being written: what it says is passed on only once that is done.
        let ((owner, opened, is_plain), commit) = opened.await?;
        if let Some((object, facts)) = self.plain.take().filter(|_| is_plain) {
            (self.object, self.facts) = (object, facts);
        }
        Ok(Held::new(self.state.clone(), (owner, opened), commit, self.facts.clone(), self.started))
    }

    async fn ask(mut self, held: &mut Held, watch: &mut Watch, mut reply: Reply) {
        let sent_to = Asked::default();
        let asked = match self.adapted(held) {
            Ok((candidates, body)) => {
                let path = self.request.endpoint.path();
                let work = self.state.upstreams.ask(&candidates, path, (&body, &self.headers), &sent_to);
                watch.over(reply.closed(), work).await
            }
            Err(error) => {
                let _ = held.give_back().await;
                return drop(reply.send(Err(Failure(error))));
            }
        };
        let answer = match asked {
            Err(outcome) => self.give_up(held, outcome, sent_to.upstream()).await,
            Ok(Err(fault)) => self.give_fault(held, &fault).await,
            Ok(Ok(opened)) => {
                held.upstream = Some(opened.upstream.clone());
                if opened.is_stream(self.request.is_stream) && opened.status().is_success() {
                    return self.pass_on(held, watch, reply, opened).await;
                }
                held.first_token = Some(held.elapsed());
                let (status, headers, mask) = (opened.status(), passed_back(&opened), opened.mask.clone());
                let limit = self.state.config.gateway.answer_bytes_max;
                let upstream = Some(opened.upstream.clone());
                match watch.over(reply.closed(), read_all(opened, limit)).await {
                    Err(outcome) => self.give_up(held, outcome, upstream).await,
                    Ok(Err(fault)) => self.give_fault(held, &fault).await,
                    Ok(Ok(bytes)) if status.is_success() => self.give_whole(held, status, headers, bytes).await,
                    Ok(Ok(bytes)) => self.give_refusal(held, status, headers, mask.apply(bytes)).await,
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
    async fn give_up(&self, held: &mut Held, outcome: Outcome, sent_to: Option<Arc<str>>) -> Result<Response> {
        let (status, error) = match outcome {
            Outcome::CredentialEnded => (401, Error::Unauthenticated),
            Outcome::ClientGone => (499, Error::Timeout),
            _ => (503, stopping()),
        };
        if sent_to.is_some() {
            held.upstream = sent_to;
            held.settle(&mut self.meter(), status, outcome).await?;
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
        let mut meter = self.meter();
        meter.usage = Some(Wanted::usage(self.facts.estimate.count));
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        held.upstream = Some("builtin".into());
        held.settle(&mut meter, 200, Outcome::Complete).await?;
        Ok(self.respond(held, StatusCode::OK, headers, Body::from(answer)))
    }

    /// A whole answer, as it came.
    async fn give_whole(
        &self,
        held: &mut Held,
        status: StatusCode,
        headers: HeaderMap,
        bytes: Bytes,
    ) -> Result<Response> {
        let count = {
            let (meter, has_output) = (self.meter(), self.request.endpoint != Endpoint::Embeddings);
            let (bytes, allowance) = (bytes.clone(), held.allowance());
            move || metered(meter, has_output, allowance, &bytes)
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
        Ok(self.respond(held, status, headers, Body::from(bytes)))
    }

    /// What was refused costs nothing.
    async fn give_refusal(
        &self,
        held: &mut Held,
        status: StatusCode,
        headers: HeaderMap,
        bytes: Bytes,
    ) -> Result<Response> {
        held.give_back().await?;
        Ok(self.respond(held, status, headers, Body::from(bytes)))
    }

    /// An answer in pieces.
    async fn pass_on(&self, held: &mut Held, watch: &mut Watch, reply: Reply, opened: Opened) {
        if let Err(error) = held.kept().await {
            return drop(reply.send(Err(Failure(error))));
        }
        let (caller, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let mut headers = passed_back(&opened);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        let response = self.respond(held, opened.status(), headers, Body::new(Pieces(pieces)));
        let keeps = self.recall.as_ref().is_some_and(|recall| recall.keeps);
        // A caller that is gone by now has dropped the pieces, which the stream sees.
        let _ = reply.send(Ok(response));
        let stream = Stream {
            held,
            meter: self.meter(),
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

    fn meter(&self) -> Meter {
        Meter::new(self.facts.family, self.facts.echoed)
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

fn passed_back(opened: &Opened) -> HeaderMap {
    let names = PASSED_BACK.iter().map(|name| HeaderName::from_static(name));
    let has_key = |value: &HeaderValue| opened.mask.apply(Bytes::copy_from_slice(value.as_bytes())) != value.as_bytes();
    let values = names.filter_map(|name| Some((name.clone(), opened.headers().get(name)?.clone())));
    values.filter(|(_, value)| !has_key(value)).collect()
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

/// What a whole answer says that it cost, or else what it says; what cannot be read is no more than was held for it.
fn metered(mut meter: Meter, has_output: bool, allowance: i64, bytes: &[u8]) -> Meter {
    #[derive(serde::Deserialize)]
    struct Counted {
        #[serde(default)]
        usage: Value,
    }
    let counted = serde_json::from_slice::<Counted>(bytes).ok();
    meter.usage = counted.and_then(|counted| Usage::parse(&counted.usage, has_output));
    if meter.usage.is_none() && has_output {
        match serde_json::from_slice(bytes) {
            Ok(answer) => written_in_answer(&answer, &mut |text| meter.write(0, text)),
            Err(_) => meter.write_at_most(allowance, &String::from_utf8_lossy(bytes)),
        }
        meter.count();
    }
    meter
}
