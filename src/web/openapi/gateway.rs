//! The gateway in OpenAI's dialect: what the server itself reads of a call. All else goes on to the upstream as it came.

use serde_json::{Value, json};

use super::operation::{Operation, get, post};
use super::schema::{Told, answer, body, count, flag, list, list_of, named, one_of, text, whole, words};
use crate::domain::gateway::request::{CHOICES_MAX, MODEL_CHARACTERS_MAX, OUTPUT_MAX};
use crate::domain::memory::SESSION_CHARACTERS_MAX;
use crate::web::gateway::recall::{BUDGET, BUDGET_MAX, LIMIT, LIMIT_MAX};

/// The heading.
pub(super) const GROUP: (&str, &str) = (
    "Gateway",
    "Models behind OpenAI's own dialect: any client of OpenAI works with this server's address and an API token. Each call \
     is held against the day's tokens before it is made and settled before its answer ends. A member that is not described \
     here goes on to the model's server as it came, and what that server refuses is answered as it says.",
);

const STATE: &str = "`malformed_json`; a member names state that the model's server would keep, which all its users would share; or the model's server refuses the call.";
const UNKNOWN_MODEL: &str = "`model_not_found`: the model is not served here.";
const QUOTA: &str =
    "`insufficient_quota`: what is left of the day does not bear the call. Or the model's server takes no more calls.";

fn with_failures(operation: Operation) -> Operation {
    operation
        .fails(400, STATE)
        .fails(404, UNKNOWN_MODEL)
        .fails(429, QUOTA)
        .fails(502, "`upstream_unreachable`, `upstream_untrusted`, `upstream_failed` or `upstream_broken`.")
        .fails(504, "`upstream_timeout`: the model's server was silent for too long.")
}

/// As [`with_failures`], of a call that can be given memories.
fn with_memory(operation: Operation) -> Operation {
    let about =
        "`recall` adds what the user's memories say to the question, `keep` keeps the exchange; with a comma, both.";
    let schema = json!({"type": "string", "pattern": "^(recall|keep|recall, ?keep|true|1|on|yes|false|0|off|no)?$"});
    with_failures(operation.header("X-Tallybox-Memory", about, schema))
}

/// A stream, of which a schema can say nothing.
fn events_of_a_stream() -> Value {
    json!({"description": "Events as OpenAI's clients read them."})
}

/// The calls.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = conversations();
    all.extend(others());
    all
}

fn conversations() -> Vec<Operation> {
    let usage = json!({"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19});
    let message = json!({"role": "assistant", "content": "Well, and you?"});
    let chat = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_762_722_000, "model": "gpt-4o",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage,
    });
    let response = json!({
        "id": "resp_1", "object": "response", "created_at": 1_762_722_000, "model": "gpt-4o", "status": "completed",
        "output": [{
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "Well, and you?", "annotations": []}],
        }],
        "usage": {"input_tokens": 12, "output_tokens": 7, "total_tokens": 19},
    });
    let events = "With `stream`: events, the last of which says `[DONE]`.";
    vec![
        with_memory(post("/v1/chat/completions", "createChatCompletion", "Chat"))
            .takes(
                "ChatRequest",
                json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 50}),
            )
            .answers(200, events, "ChatAnswer", chat)
            .answers_as(200, events, "text/event-stream", events_of_a_stream(), json!("data: [DONE]\n\n")),
        with_memory(post("/v1/responses", "createResponse", "Responses"))
            .about("`store` is sent on as false, unless `gateway.stateful` is set.")
            .takes("ResponseRequest", json!({"model": "gpt-4o", "input": "How are you?", "max_output_tokens": 50}))
            .answers(
                200,
                "With `stream`: events, the last of which is `response.completed`.",
                "ResponseAnswer",
                response,
            )
            .answers_as(
                200,
                "With `stream`: events, the last of which is `response.completed`.",
                "text/event-stream",
                events_of_a_stream(),
                json!("event: response.completed\ndata: {}\n\n"),
            ),
    ]
}

fn others() -> Vec<Operation> {
    let completion = json!({
        "id": "cmpl-1", "object": "text_completion", "created": 1_762_722_000, "model": "gpt-3.5-turbo-instruct",
        "choices": [{"index": 0, "text": " well", "finish_reason": "stop", "logprobs": null}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    });
    let embeddings = json!({
        "object": "list", "model": "all-minilm-l6-v2",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.12, -0.07]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    });
    let model = json!({"id": "all-minilm-l6-v2", "object": "model", "created": 0, "owned_by": "tallybox"});
    let events = "With `stream`: events, the last of which says `[DONE]`.";
    vec![
        with_failures(post("/v1/completions", "createCompletion", "Completions"))
            .takes("CompletionRequest", json!({"model": "gpt-3.5-turbo-instruct", "prompt": "All is", "max_tokens": 5}))
            .answers(200, events, "CompletionAnswer", completion)
            .answers_as(200, events, "text/event-stream", events_of_a_stream(), json!("data: [DONE]\n\n")),
        with_failures(post("/v1/embeddings", "createEmbeddings", "Embeddings"))
            .about("`all-minilm-l6-v2` is the model inside, which takes up to 2,048 texts and needs no upstream.")
            .takes("EmbeddingsRequest", json!({"model": "all-minilm-l6-v2", "input": "tea or coffee"}))
            .answers(200, "The embeddings.", "EmbeddingsAnswer", embeddings),
        get("/v1/models", "listModels", "Models")
            .about("Those that the configuration names, not those that its patterns may mean.")
            .answers(200, "The models.", "Models", json!({"object": "list", "data": [model]}))
            .never(422),
    ]
}

/// What they take and answer.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let mut all = requests();
    all.extend(answers());
    all
}

/// A request, further members of which go on as they are.
fn request(object: super::schema::Object) -> Value {
    let mut schema = object.done();
    schema["additionalProperties"] = json!(true);
    schema
}

fn model() -> Value {
    text(1..=MODEL_CHARACTERS_MAX)
}

fn output() -> Value {
    whole(0..=OUTPUT_MAX).about("Most tokens of an answer.")
}

fn choices() -> Value {
    whole(1..=CHOICES_MAX)
}

fn stream_options() -> Value {
    json!({"type": "object", "properties": {"include_usage": {"type": "boolean"}}, "additionalProperties": true})
}

/// What asks for memories, in the body.
fn memory() -> Value {
    let terms = body()
        .may("budget", whole(1..=BUDGET_MAX).default(BUDGET).about("Most tokens of memories."))
        .may("limit", whole(1..=LIMIT_MAX).default(LIMIT).about("Most memories."))
        .may("session", text(1..=SESSION_CHARACTERS_MAX).about("Of the exchange that is kept."))
        .may("recall", flag().default(true))
        .may("keep", flag().default(false));
    let memory = json!({"anyOf": [{"type": ["boolean", "null"]}, terms.done()]});
    let mut member = body();
    member = member.may("memory", Value::Null);
    let mut member = member.done();
    member["properties"]["memory"] = memory;
    member.about("Recalls memories, as X-Tallybox-Memory does, with terms.")
}

fn requests() -> Vec<(&'static str, Value)> {
    let message = json!({
        "type": "object",
        "required": ["role"],
        "properties": {"role": words(), "content": {"type": ["string", "array", "null"]}},
        "additionalProperties": true,
    });
    let texts = |most: Option<usize>| {
        let several = most.map_or_else(|| list(text(1..=8_192)), |most| list_of(text(1..=8_192), 1..=most));
        json!({"anyOf": [text(1..=8_192), several]})
    };
    vec![
        (
            "ChatRequest",
            request(
                body()
                    .has("model", model())
                    .has("messages", list_of(message.clone(), 1..=10_000))
                    .may("stream", flag().default(false))
                    .may("stream_options", stream_options())
                    .may("max_tokens", output())
                    .may("max_completion_tokens", output())
                    .may("n", choices())
                    .may("tallybox", memory()),
            ),
        ),
        (
            "CompletionRequest",
            request(
                body()
                    .has("model", model())
                    .has("prompt", json!({"anyOf": [{"type": "string"}, list(words())]}))
                    .may("stream", flag().default(false))
                    .may("stream_options", stream_options())
                    .may("max_tokens", output())
                    .may("n", choices())
                    .may("best_of", choices()),
            ),
        ),
        (
            "ResponseRequest",
            request(
                body()
                    .has("model", model())
                    .has("input", json!({"anyOf": [{"type": "string"}, list(message)]}))
                    .may("stream", flag().default(false))
                    .may("max_output_tokens", output())
                    .may("tallybox", memory()),
            ),
        ),
        (
            "EmbeddingsRequest",
            request(
                body()
                    .has("model", model())
                    .has("input", texts(Some(2_048)))
                    .may("encoding_format", one_of(["float", "base64"]).default("float"))
                    .may("dimensions", whole(1..=1_000_000)),
            ),
        ),
    ]
}

fn answers() -> Vec<(&'static str, Value)> {
    let open = |names: &[&'static str]| {
        let object = names.iter().fold(answer().has("object", words()), |object, name| object.has(name, json!({})));
        object.may("usage", json!({"type": ["object", "null"], "additionalProperties": true}))
    };
    let opened = |object: super::schema::Object| {
        let mut schema = object.done();
        schema["additionalProperties"] = json!(true);
        schema.about("As the model's server gives it.")
    };
    let vector = json!({"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]})
        .about("Numbers, or their 32-bit floats in base64.");
    let one = answer().has("object", words()).has("index", count()).has("embedding", vector);
    let model =
        answer().has("id", words()).has("object", one_of(["model"])).has("created", count()).has("owned_by", words());
    vec![
        ("ChatAnswer", opened(open(&["id", "model", "choices"]))),
        ("CompletionAnswer", opened(open(&["id", "model", "choices"]))),
        ("ResponseAnswer", opened(open(&["id", "model", "output"]))),
        ("EmbeddingsAnswer", opened(open(&["model"]).has("data", list(one.done())))),
        ("Model", model.done()),
        ("Models", answer().has("object", one_of(["list"])).has("data", list(named("Model"))).done()),
    ]
}
