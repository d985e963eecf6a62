//! The metered gateway in OpenAI's dialect: hold, ask an upstream, settle.

mod builtin;
mod call;
pub(super) mod calls;
mod dialect;
mod held;
mod limits;
mod meter;
pub(super) mod recall;
mod stream;
mod watch;

use std::collections::BTreeSet;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::edge::RequestId;
use super::extract::RawBody;
use super::problem::{Answer, Failure, Problem};
use super::state::{AppState, Known};
use crate::adapter::tokenizer::{self, INLINE_BYTES_MAX};
use crate::domain::gateway::Endpoint;
use crate::domain::gateway::body::Object;
use crate::domain::gateway::estimate::{Family, Prompt};
use crate::domain::gateway::request::Request;
use crate::domain::{Error, Result};
use call::{Call, Target};
use held::Facts;
use recall::{Recall, Recalled};

/// Headers of a request that an upstream may see. None of them says who asks.
const PASSED_ON: [&str; 2] = ["accept", "openai-beta"];

/// Where an answer, or the failure in its place, is handed to the one who waits for it.
type Reply = oneshot::Sender<Answer>;

/// What each of the calls takes from its request.
type Asked = (State<AppState>, Known, Extension<RequestId>, HeaderMap, RawBody);

/// `POST /v1/chat/completions`
pub(super) async fn chat(asked: Asked) -> Answer {
    answer(Endpoint::Chat, asked).await
}

/// `POST /v1/completions`
pub(super) async fn completions(asked: Asked) -> Answer {
    answer(Endpoint::Completions, asked).await
}

/// `POST /v1/responses`
pub(super) async fn responses(asked: Asked) -> Answer {
    answer(Endpoint::Responses, asked).await
}

/// `POST /v1/embeddings`
pub(super) async fn embeddings(asked: Asked) -> Answer {
    answer(Endpoint::Embeddings, asked).await
}

/// `GET /v1/models`: those that the configuration names, not those that its patterns may mean.
pub(super) async fn models(State(state): State<AppState>) -> Json<Value> {
    let config = &state.config.gateway;
    let mut names = BTreeSet::new();
    for (upstream, globs) in config.upstreams.iter().zip(&config.routes.upstreams) {
        names.extend(globs.iter().filter_map(|glob| Some((glob.literal()?, upstream.name.as_str()))));
    }
    names.extend(config.routes.aliases.keys().map(|alias| (alias.as_str(), "tallybox")));
    if builtin::is_offered(&state) {
        names.insert((builtin::MODEL, "tallybox"));
    }
    let mut seen = BTreeSet::new();
    let list = names.into_iter().filter(|(name, _)| seen.insert(*name));
    let list = list.map(|(name, owner)| json!({"id": name, "object": "model", "created": 0, "owned_by": owner}));
    Json(json!({"object": "list", "data": list.collect::<Vec<Value>>()}))
}

/// Reads a call, and waits for what becomes of it. The call itself is a task that outlives whoever waits.
async fn answer(endpoint: Endpoint, asked: Asked) -> Answer {
    let (State(state), known, Extension(RequestId(id)), headers, RawBody(text)) = asked;
    let call = match prepare(endpoint, &state, &known, id, &headers, text).await? {
        Ok(call) => call,
        Err(problem) => return Ok(problem.into_response()),
    };
    let (reply, answer) = oneshot::channel();
    state.calls.start(call.run(reply));
    let answer = answer.await.map_err(|_| Failure(Error::Internal("a call of the gateway was lost".to_owned())))?;
    match answer {
        Err(Failure(Error::QuotaExceeded(refusal))) => {
            let now = state.now();
            let mut response = Failure(Error::QuotaExceeded(refusal.clone())).into_response();
            limits::tell_refusal(response.headers_mut(), &refusal, now);
            Ok(response)
        }
        answer => answer,
    }
}

/// What a body says of its call, without waiting for anything.
struct Read {
    request: Request,
    object: Object,
    recall: Option<Recall>,
    /// What the model is called where it is served.
    model: String,
    target: Target,
    /// Empty for the model inside, which counts its own texts.
    prompt: Prompt,
}

/// Reads a body, which is looked through several times.
fn read(
    endpoint: Endpoint,
    state: &AppState,
    known: &Known,
    headers: &HeaderMap,
    text: String,
) -> Result<Result<Read, Problem>> {
    let config = &state.config.gateway;
    let mut object = Object::parse(text)?;
    Recall::require(endpoint, &object, headers, known)?;
    if !config.stateful {
        Request::refuse_state(endpoint, &object)?;
    }
    let request = Request::read(endpoint, &object)?;
    let recall = Recall::read(endpoint, &mut object, headers)?;
    let model = config.routes.resolve(&request.model).to_owned();
    if endpoint == Endpoint::Embeddings && model == builtin::MODEL && builtin::is_offered(state) {
        let target = Target::Builtin(builtin::Wanted::read(&object)?);
        return Ok(Ok(Read { request, object, recall, model, target, prompt: Prompt::default() }));
    }
    let candidates = config.routes.candidates(&model);
    if candidates.is_empty() {
        let detail = format!("the model {:?} is not served here", request.model);
        return Ok(Err(Problem::new(StatusCode::NOT_FOUND, "model_not_found", detail)));
    }
    let target = Target::Upstream { model: model.clone(), candidates };
    let prompt = Prompt::read(endpoint, &object)?;
    Ok(Ok(Read { request, object, recall, model, target, prompt }))
}

/// Everything that can be said of a call before anything is held for it.
async fn prepare(
    endpoint: Endpoint,
    state: &AppState,
    known: &Known,
    request_id: String,
    headers: &HeaderMap,
    text: String,
) -> Result<Result<Call, Problem>> {
    let started = Instant::now();
    // Another thread costs more than to read a short body; a long one would keep all other requests waiting.
    let read = if text.len() <= INLINE_BYTES_MAX {
        read(endpoint, state, known, headers, text)
    } else {
        let (state, known, headers) = (state.clone(), known.clone(), headers.clone());
        let read = tokio::task::spawn_blocking(move || read(endpoint, &state, &known, &headers, text));
        read.await.map_err(|panic| Error::Internal(format!("a request: {panic}")))?
    };
    let Read { request, mut object, recall, model, target, mut prompt } = match read? {
        Ok(read) => read,
        Err(problem) => return Ok(Err(problem)),
    };
    let (family, estimate, texts_tokens) = match &target {
        Target::Builtin(wanted) => (Family::Unknown, wanted.estimate(state).await?, 0),
        Target::Upstream { .. } => {
            let family = Family::of(&model);
            let bytes = prompt.text_bytes();
            let tokens = tokenizer::count(family, std::mem::take(&mut prompt.texts)).await?;
            let estimate = prompt.estimate(family, tokens, bytes, state.config.gateway.parts);
            (family, estimate, tokens.saturating_add(prompt.tokens))
        }
    };
    let mut facts = Facts {
        endpoint: endpoint.path(),
        model: request.model.clone(),
        request_id,
        is_stream: request.is_stream,
        family,
        estimate,
        echoed: texts_tokens.saturating_mul(request.echoes),
        recalled: None,
    };
    let mut plain = None;
    if let Some(recall) = &recall {
        facts.recalled = Some(Recalled::default());
        let before = (object.clone(), facts.clone());
        let estimate = &mut facts.estimate;
        let recalled = recall.add((state, known), &mut object, family, estimate, request.choices).await?;
        plain = (recalled.memories > 0).then_some(before);
        facts.recalled = Some(recalled);
    }
    let passed_on = PASSED_ON.iter().map(|name| HeaderName::from_static(name));
    let headers = passed_on.filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect();
    let (state, known) = (state.clone(), known.clone());
    Ok(Ok(Call { state, known, request, object, target, recall, facts, plain, headers, started }))
}

/// What an upstream's fault is to the caller. What it says itself is the operator's to read.
fn problem_of(fault: &crate::adapter::upstream::Fault) -> Response {
    use crate::adapter::upstream::Fault;
    let (status, code, detail, retry_after) = match fault {
        Fault::Busy => {
            (StatusCode::SERVICE_UNAVAILABLE, "busy", "the model's server has as many calls as it takes", Some(1))
        }
        Fault::Unreachable => {
            (StatusCode::BAD_GATEWAY, "upstream_unreachable", "the model's server cannot be reached", None)
        }
        Fault::Untrusted => {
            let detail = "the certificate of the model's server is not trusted";
            (StatusCode::BAD_GATEWAY, "upstream_untrusted", detail, None)
        }
        Fault::Timeout => {
            (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "the model's server was silent for too long", None)
        }
        Fault::RateLimited(after) => {
            let detail = "the model's server takes no more calls at the moment";
            (StatusCode::TOO_MANY_REQUESTS, "upstream_rate_limited", detail, *after)
        }
        Fault::Failed(_) => (StatusCode::BAD_GATEWAY, "upstream_failed", "the model's server failed", None),
        Fault::Broken => (StatusCode::BAD_GATEWAY, "upstream_broken", "the model's server broke off", None),
    };
    let problem = Problem::new(status, code, detail);
    match retry_after {
        Some(seconds) => problem.with("retryAfter", seconds).into_response(),
        None => problem.into_response(),
    }
}
