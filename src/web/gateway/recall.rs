//! Recall, for calls that ask for it: what the user's memories say to the question goes with it, and the exchange can be kept.

use http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::adapter::tokenizer;
use crate::domain::auth::Scope;
use crate::domain::gateway::body::Object;
use crate::domain::gateway::estimate::{Estimate, Family};
use crate::domain::gateway::usage::written;
use crate::domain::gateway::{Endpoint, OutputBounds};
use crate::domain::memory::{Content, MemoryTier, QUERY_BYTES_MAX, SESSION_CHARACTERS_MAX};
use crate::domain::{Error, Result};
use crate::service::gateway;
use crate::service::memory::{self, Search};
use crate::web::input::{self, Fields};
use crate::web::memory::keep_exchange;
use crate::web::state::{AppState, Known};

/// The member of a body that asks for it.
const MEMBER: &str = "tallybox";
/// The header that asks for it, with `recall` (or a yes), `keep` or both.
const HEADER: &str = "x-tallybox-memory";
/// Tokens of memories that are added at most, where nothing is said, and what may be said.
pub(in crate::web) const BUDGET: i64 = 500;
pub(in crate::web) const BUDGET_MAX: i64 = 32_768;
/// As many memories.
pub(in crate::web) const LIMIT: i64 = 5;
pub(in crate::web) const LIMIT_MAX: i64 = 50;
/// What stands before them.
const HEAD: &str = "What is remembered of this user and may help:";

/// What a call asks for.
#[derive(Clone, Debug)]
pub(super) struct Recall {
    budget: i64,
    limit: usize,
    session: Option<String>,
    recalls: bool,
    pub(super) keeps: bool,
    /// The member of the body that holds the conversation.
    conversation: &'static str,
    /// What the user asks.
    question: String,
}

/// What was added to a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recalled {
    pub(super) memories: usize,
    pub(super) tokens: i64,
}

impl Recall {
    /// Requires of the caller what a call asks for, and that it is a conversation, before any fault of it is named.
    ///
    /// # Errors
    /// `ScopeRequired` for what the caller may not do; `Refused` for a call that is no conversation.
    pub(super) fn require(endpoint: Endpoint, object: &Object, headers: &HeaderMap, known: &Known) -> Result<()> {
        let (recalls, keeps) = match &object.value(MEMBER)?["memory"] {
            Value::Bool(true) => (true, false),
            Value::Object(memory) => {
                let is = |name: &str, flag: bool| memory.get(name).is_some_and(|value| *value == flag);
                (!is("recall", false), is("keep", true))
            }
            _ => of_headers(headers).unwrap_or_default(),
        };
        if recalls {
            known.caller().require(Scope::MemoryRead)?;
        }
        if keeps {
            known.caller().require(Scope::MemoryWrite)?;
        }
        if (recalls || keeps) && conversation(endpoint).is_none() {
            return Err(Error::Refused {
                code: "memory_not_offered",
                field: MEMBER.to_owned(),
                detail: "memories are recalled for chat completions and responses alone".to_owned(),
            });
        }
        Ok(())
    }

    /// Reads what a call asks for that may ask for it, and takes it out of what goes to the upstream.
    ///
    /// # Errors
    /// `Invalid` that names every fault.
    pub(super) fn read(endpoint: Endpoint, object: &mut Object, headers: &HeaderMap) -> Result<Option<Self>> {
        let (recalls, keeps) = of_headers(headers)?;
        let asked = Self::of_body(object.value(MEMBER)?)?;
        object.remove(MEMBER);
        let recall = asked.or_else(|| (recalls || keeps).then(|| Self { recalls, keeps, ..Self::plain() }));
        let (Some(mut recall), Some(conversation)) = (recall, conversation(endpoint)) else { return Ok(None) };
        recall.conversation = conversation;
        recall.question = question(&object.value(conversation)?);
        Ok(Some(recall))
    }

    fn plain() -> Self {
        let limit = usize::try_from(LIMIT).unwrap_or_default();
        Self {
            budget: BUDGET,
            limit,
            session: None,
            recalls: true,
            keeps: false,
            conversation: "",
            question: String::new(),
        }
    }

    /// `{"memory": true}` or `{"memory": {"budget", "limit", "session", "recall", "keep"}}`.
    fn of_body(member: Value) -> Result<Option<Self>> {
        if member.is_null() {
            return Ok(None);
        }
        let mut fields = Fields::of_value(member, MEMBER)?;
        let memory = fields.optional("memory", Ok);
        let memory = match fields.finish(|| Some(memory))? {
            None | Some(Value::Bool(false)) => return Ok(None),
            Some(Value::Bool(true)) => return Ok(Some(Self::plain())),
            Some(memory) => memory,
        };
        let mut fields = Fields::of_value(memory, "tallybox.memory")?;
        let budget = fields.optional("budget", input::integer(1..=BUDGET_MAX)).unwrap_or(BUDGET);
        let limit = fields.optional("limit", input::integer(1..=LIMIT_MAX)).unwrap_or(LIMIT);
        let session = fields.optional("session", input::text(1..=SESSION_CHARACTERS_MAX));
        let recalls = fields.optional("recall", input::flag).unwrap_or(true);
        let keeps = fields.optional("keep", input::flag).unwrap_or(false);
        let limit = usize::try_from(limit).unwrap_or_default();
        fields.finish(|| Some(Some(Self { budget, limit, session, recalls, keeps, ..Self::plain() })))
    }

    /// Adds the most relevant memories as a first system message: within the budget, and never more than leaves room for the
    /// least answer.
    ///
    /// # Errors
    /// Where the memories cannot be searched.
    pub(super) async fn add(
        &self,
        (state, known): (&AppState, &Known),
        object: &mut Object,
        family: Family,
        estimate: &mut Estimate,
        choices: i64,
    ) -> Result<Recalled> {
        let none = Recalled::default();
        if !self.recalls || self.question.is_empty() {
            return Ok(none);
        }
        let room = self.room(state, known, *estimate, choices).await?;
        let query = self.question.clone();
        let embedding = state.embedder.embed(known.caller().user.key, vec![query.clone()]).await?.pop();
        let search = Search {
            lacks_meaning: !state.embedder.knows(&query),
            query: Some(query),
            embedding,
            limit: self.limit,
            ..Search::default()
        };
        let hits = state
            .search(known, move |reader, caller| {
                caller.require(Scope::MemoryRead)?;
                memory::search(reader, caller, &search)
            })
            .await?;
        let (mut text, mut cost, mut memories) = (HEAD.to_owned(), Cost::default(), 0);
        for hit in hits {
            let longer = format!("{text}\n- {}", hit.memory.content.text);
            let tokens = tokenizer::count(family, vec![longer.clone()]).await?;
            let found = Cost::of(family, &longer, tokens);
            if found.count <= self.budget && room.is_none_or(|room| found.bound <= room) {
                (text, cost, memories) = (longer, found, memories + 1);
            }
        }
        if memories == 0 {
            return Ok(none);
        }
        let message = json!({"role": "system", "content": text});
        // A question was found in it, so it is a text, or a list that is not empty.
        let raw = object.raw(self.conversation).unwrap_or_default();
        let raw = match raw.trim_start().strip_prefix('[') {
            Some(items) => format!("[{message},{items}"),
            None => format!("[{message},{{\"role\":\"user\",\"content\":{raw}}}]"),
        };
        object.set(self.conversation, raw);
        estimate.count = estimate.count.saturating_add(cost.count);
        estimate.bound = estimate.bound.saturating_add(cost.bound);
        Ok(Recalled { memories, tokens: cost.count })
    }

    /// What is left of the day beside the prompt and the least answer; none where there is no limit.
    async fn room(&self, state: &AppState, known: &Known, estimate: Estimate, choices: i64) -> Result<Option<i64>> {
        let policy = state.quota.clone();
        let standing = state.read(known, move |reader, caller| gateway::standing(reader, &policy, caller.holder()));
        let OutputBounds { min, .. } = state.config.gateway.output;
        let taken = estimate.bound.saturating_add(min.saturating_mul(choices));
        Ok(standing.await?.remaining().map(|remaining| remaining.saturating_sub(taken)))
    }

    /// Keeps the exchange as a short-term memory. That the call itself went well does not depend on it.
    pub(super) async fn keep(&self, state: &AppState, known: &Known, said: &str) {
        if self.question.is_empty() || said.is_empty() {
            return;
        }
        let text = format!("User: {}\nAssistant: {said}", self.question).replace('\0', "");
        let content = Content {
            tier: MemoryTier::Short,
            kind: "exchange".to_owned(),
            text: cut(&text, state.config.memory.text_bytes_max).to_owned(),
            tags: Vec::new(),
            metadata: Map::new(),
            session: self.session.clone(),
            timestamp: state.now(),
        };
        if let Err(error) = keep_exchange(state, known, content).await {
            tracing::warn!(?error, "an exchange could not be kept");
        }
    }
}

/// The member of a call that holds its conversation, where it is one.
const fn conversation(endpoint: Endpoint) -> Option<&'static str> {
    match endpoint {
        Endpoint::Chat => Some("messages"),
        Endpoint::Responses => Some("input"),
        Endpoint::Completions | Endpoint::Embeddings => None,
    }
}

/// Whether the header asks for memories, and whether for keeping the exchange.
fn of_headers(headers: &HeaderMap) -> Result<(bool, bool)> {
    let (mut recalls, mut keeps) = (false, false);
    for value in headers.get_all(HEADER) {
        let words = String::from_utf8_lossy(value.as_bytes()).to_lowercase();
        for word in words.split(',').map(str::trim) {
            match word {
                "recall" | "true" | "1" | "on" | "yes" => recalls = true,
                "keep" => keeps = true,
                "" | "false" | "0" | "off" | "no" => {}
                _ => return Err(Error::invalid(HEADER, "must be recall, keep, or both with a comma between them")),
            }
        }
    }
    Ok((recalls, keeps))
}

#[derive(Clone, Copy, Default)]
struct Cost {
    count: i64,
    bound: i64,
}

impl Cost {
    /// Of a message of its own, by the rules of [`crate::domain::gateway::estimate::Prompt::estimate`].
    fn of(family: Family, text: &str, tokens: i64) -> Self {
        let count = tokens.saturating_add(3);
        let bound = match family {
            Family::O200k | Family::Cl100k => count.saturating_add(8 + 1 + tokens / 32),
            Family::Unknown => i64::try_from(text.len()).unwrap_or(i64::MAX).saturating_add(16),
        };
        Self { count, bound }
    }
}

/// The text of the last message that a user wrote, or of the only one.
fn question(messages: &Value) -> String {
    if let Value::String(text) = messages {
        return cut(text, QUERY_BYTES_MAX).to_owned();
    }
    let messages = messages.as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.iter().rev().find(|message| message["role"] == "user");
    let mut text = String::new();
    match last.map(|message| &message["content"]) {
        Some(Value::String(content)) => text.clone_from(content),
        Some(Value::Array(parts)) => {
            for part in parts {
                written(&part["text"], &mut |said| text.push_str(said));
            }
        }
        _ => {}
    }
    cut(&text, QUERY_BYTES_MAX).to_owned()
}

/// The beginning of a text that has at most so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
