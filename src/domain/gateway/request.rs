//! What a request asks for, as far as it matters to what it may cost and to whom it may go.

use serde_json::Value;

use super::Endpoint;
use super::body::Object;
use crate::domain::field::whole;
use crate::domain::{Error, Fault, Result};

/// Longest name of a model, in characters.
pub const MODEL_CHARACTERS_MAX: usize = 256;
/// Most answers of one request.
pub const CHOICES_MAX: i64 = 128;
/// Most tokens that a request may name for an answer: past any model there is.
pub const OUTPUT_MAX: i64 = 1 << 32;

/// A request, read.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which call it is.
    pub endpoint: Endpoint,
    /// The model, as it was named.
    pub model: String,
    /// Whether the answer shall come in pieces.
    pub is_stream: bool,
    /// Whether the caller wants the stream to end with what it cost.
    pub wants_usage: bool,
    /// Most tokens of an answer, where they are named.
    pub output: Option<i64>,
    /// Answers that are generated: 0 where the call has none.
    pub choices: i64,
    /// How often each prompt comes back before its answers: `echo`, for each of `n`.
    pub echoes: i64,
}

/// Members that bound an answer, by what they are called in the call.
const fn output_names(endpoint: Endpoint) -> &'static [&'static str] {
    match endpoint {
        Endpoint::Chat => &["max_completion_tokens", "max_tokens"],
        Endpoint::Completions => &["max_tokens"],
        Endpoint::Responses => &["max_output_tokens"],
        Endpoint::Embeddings => &[],
    }
}

/// Members that count answers.
const fn choice_names(endpoint: Endpoint) -> &'static [&'static str] {
    match endpoint {
        // OpenAI's own chat knows no `best_of`; servers that speak as it does may.
        Endpoint::Chat | Endpoint::Completions => &["n", "best_of"],
        Endpoint::Responses | Endpoint::Embeddings => &[],
    }
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// `Invalid` that names every member of a wrong kind.
    pub fn read(endpoint: Endpoint, object: &Object) -> Result<Self> {
        let mut faults = Vec::new();
        let model = match object.value("model")? {
            Value::String(model) if (1..=MODEL_CHARACTERS_MAX).contains(&model.chars().count()) => model,
            _ => {
                faults.push(Fault::new("model", format!("must be a text of 1 to {MODEL_CHARACTERS_MAX} characters")));
                String::new()
            }
        };
        let flag = |name: &str, faults: &mut Vec<Fault>| match object.value(name) {
            Ok(Value::Bool(flag)) => flag,
            Ok(Value::Null) => false,
            _ => {
                faults.push(Fault::new(name, "must be true or false"));
                false
            }
        };
        let is_stream = endpoint.has_output() && flag("stream", &mut faults);
        let wants_usage = match object.value("stream_options")? {
            Value::Null => false,
            Value::Object(options) => options.get("include_usage").and_then(Value::as_bool).unwrap_or(false),
            _ => {
                faults.push(Fault::new("stream_options", "must be an object"));
                false
            }
        };
        let mut number = |name: &str, least: i64, most: i64| match object.value(name) {
            Ok(Value::Null) => None,
            Ok(value) if whole(&value).is_some_and(|number| (least..=most).contains(&number)) => whole(&value),
            _ => {
                faults.push(Fault::new(name, format!("must be a whole number from {least} to {most}")));
                None
            }
        };
        let output = output_names(endpoint).iter().filter_map(|name| number(name, 0, OUTPUT_MAX)).max();
        let answers = choice_names(endpoint).iter().filter_map(|name| number(name, 1, CHOICES_MAX)).max().unwrap_or(1);
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let prompts = if endpoint == Endpoint::Completions { prompts(&object.value("prompt")?) } else { 1 };
        let choices = if endpoint.has_output() { answers.saturating_mul(prompts) } else { 0 };
        let is_echoed = endpoint == Endpoint::Completions && object.value("echo")? == true;
        let echoes = if is_echoed { whole(&object.value("n")?).unwrap_or(1) } else { 0 };
        Ok(Self { endpoint, model, is_stream, wants_usage, output, choices, echoes })
    }

    /// Refuses what names state that the upstream keeps, and which all who share its key would share.
    ///
    /// # Errors
    /// `Refused` that names the member.
    pub fn refuse_state(endpoint: Endpoint, object: &Object) -> Result<()> {
        let names: &[&str] = match endpoint {
            Endpoint::Responses => &["previous_response_id", "conversation", "background", "prompt"],
            Endpoint::Chat => &["web_search_options"],
            Endpoint::Completions | Endpoint::Embeddings => &[],
        };
        for name in names {
            if !matches!(object.value(name)?, Value::Null | Value::Bool(false)) {
                return Err(refused(name));
            }
        }
        for name in ["input", "messages"] {
            if names_file(&object.value(name)?) {
                return Err(refused(name));
            }
        }
        let is_hosted = match object.value("tools")? {
            Value::Null => false,
            Value::Array(tools) => tools.iter().any(|tool| !tool.is_object() || is_hosted(tool)),
            _ => true,
        };
        if is_hosted {
            return Err(refused("tools"));
        }
        if names_hosted(&object.value("tool_choice")?) {
            return Err(refused("tool_choice"));
        }
        Ok(())
    }

    /// Changes of the request what must change on its way: the model where it has an alias, the bound of an answer where
    /// one was set, and that a stream ends with what it cost.
    ///
    /// # Errors
    /// As [`Object::value`].
    pub fn adapt(&self, object: &mut Object, model: &str, output_max: Option<i64>, is_stateful: bool) -> Result<()> {
        if model != self.model {
            object.set("model", Value::from(model).to_string());
        }
        if let Some(output_max) = output_max {
            self.bound(object, model, output_max);
        }
        if self.endpoint == Endpoint::Responses && !is_stateful {
            object.set("store", "false".to_owned());
        }
        if self.is_stream && self.endpoint != Endpoint::Responses && !self.wants_usage {
            let options = match object.raw("stream_options") {
                Some(raw) if raw != "null" => {
                    let mut options = Object::parse(raw.to_owned())?;
                    options.set("include_usage", "true".to_owned());
                    options.to_text()
                }
                _ => "{\"include_usage\":true}".to_owned(),
            };
            object.set("stream_options", options);
        }
        Ok(())
    }

    fn bound(&self, object: &mut Object, model: &str, output_max: i64) {
        let names = output_names(self.endpoint);
        let is_named = |name: &&&str| object.raw(name).is_some_and(|raw| raw != "null");
        let mut named: Vec<&'static str> = names.iter().filter(is_named).copied().collect();
        if named.is_empty() {
            // Models that think take the newer name alone; many others know the older one alone.
            let thinks =
                ["o1", "o3", "o4", "gpt-5"].iter().any(|family| super::estimate::bare(model).starts_with(family));
            named.extend(if thinks { names.first() } else { names.last() });
        }
        for name in named {
            // Of two names, one may bound the answer further.
            let own = object.value(name).ok().as_ref().and_then(whole).unwrap_or(i64::MAX);
            if own > output_max {
                object.set(name, output_max.to_string());
            }
        }
    }
}

/// Whether a tool is one that the upstream runs itself.
fn is_hosted(tool: &Value) -> bool {
    let own = |kind: &Value| ["function", "custom", "local_shell", "apply_patch"].iter().any(|own| kind == own);
    tool.get("type").is_some_and(|kind| !own(kind))
}

/// Whether a choice of tools names such a tool, by itself or in a list.
fn names_hosted(choice: &Value) -> bool {
    const WORDS: [&str; 6] = ["allowed_tools", "auto", "any", "none", "required", "tool"];
    match choice {
        Value::Object(members) => {
            let is_word = members.get("type").is_some_and(|kind| WORDS.iter().any(|word| kind == word));
            (!is_word && is_hosted(choice))
                || ["tools", "allowed_tools"].iter().filter_map(|name| members.get(*name)).any(names_hosted)
        }
        Value::Array(choices) => choices.iter().any(names_hosted),
        _ => false,
    }
}

fn refused(name: &str) -> Error {
    Error::Refused {
        code: "stateful",
        field: name.to_owned(),
        detail: format!("{name}: what an upstream keeps or runs itself is not offered here (gateway.stateful)"),
    }
}

/// How many prompts a `prompt` is: a list of texts or of lists of tokens is several.
fn prompts(prompt: &Value) -> i64 {
    match prompt.as_array() {
        Some(items) if items.first().is_some_and(|item| !item.is_number()) => {
            i64::try_from(items.len()).unwrap_or(i64::MAX).max(1)
        }
        _ => 1,
    }
}

/// Whether a part of a conversation names a file or an item that the upstream keeps.
fn names_file(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(names_file),
        Value::Object(members) => {
            let is_reference = members.get("type").is_some_and(|kind| kind == "item_reference");
            let named = |name: &str| members.get(name).is_some_and(|value| !value.is_null());
            is_reference
                || ["file_id", "file_ids", "vector_store_id", "vector_store_ids"].iter().any(|name| named(name))
                || members.values().any(names_file)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.to_owned()).unwrap()
    }

    fn read(endpoint: Endpoint, text: &str) -> Request {
        Request::read(endpoint, &object(text)).unwrap()
    }

    #[test]
    fn answers_multiply_by_n_by_best_of_and_by_prompts() {
        assert_eq!(read(Endpoint::Chat, "{\"model\":\"m\",\"n\":3}").choices, 3);
        let text = "{\"model\":\"m\",\"n\":2,\"best_of\":5,\"prompt\":[\"a\",\"b\"]}";
        assert_eq!(read(Endpoint::Completions, text).choices, 10);
        assert_eq!(read(Endpoint::Completions, "{\"model\":\"m\",\"prompt\":[1,2,3]}").choices, 1);
        assert_eq!(read(Endpoint::Embeddings, "{\"model\":\"m\",\"input\":\"a\"}").choices, 0);
    }

    #[test]
    fn every_member_of_a_wrong_kind_is_named() {
        let bad = object("{\"model\":5,\"n\":0,\"stream\":\"yes\",\"max_tokens\":-1,\"max_completion_tokens\":1.5}");
        let Err(Error::Invalid(faults)) = Request::read(Endpoint::Chat, &bad) else { panic!() };
        let names: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(names, ["model", "stream", "max_completion_tokens", "max_tokens", "n"]);
    }

    #[test]
    fn a_bound_is_written_where_the_request_has_it_or_where_its_model_looks() {
        let adapted = |endpoint, text: &str, model: &str| {
            let mut object = object(text);
            read(endpoint, text).adapt(&mut object, model, Some(9), false).unwrap();
            object.to_text()
        };
        assert_eq!(adapted(Endpoint::Chat, "{\"model\":\"m\"}", "m"), "{\"max_tokens\":9,\"model\":\"m\"}");
        assert_eq!(
            adapted(Endpoint::Chat, "{\"model\":\"o3\"}", "o3"),
            "{\"max_completion_tokens\":9,\"model\":\"o3\"}"
        );
        assert_eq!(
            adapted(Endpoint::Chat, "{\"max_completion_tokens\":99,\"model\":\"m\"}", "real"),
            "{\"max_completion_tokens\":9,\"model\":\"real\"}"
        );
        assert_eq!(
            adapted(Endpoint::Chat, "{\"max_tokens\":2,\"max_completion_tokens\":99,\"model\":\"m\"}", "m"),
            "{\"max_tokens\":2,\"max_completion_tokens\":9,\"model\":\"m\"}"
        );
        let text = "{\"model\":\"m\",\"store\":true}";
        assert_eq!(
            adapted(Endpoint::Responses, text, "m"),
            "{\"max_output_tokens\":9,\"model\":\"m\",\"store\":false}"
        );
        let text =
            "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"x\":1,\"include_usage\":false},\"max_tokens\":9}";
        assert_eq!(adapted(Endpoint::Chat, text, "m"), text.replace("false", "true"));
    }

    #[test]
    fn state_of_the_upstream_is_refused() {
        let refuses = |endpoint, text: &str| Request::refuse_state(endpoint, &object(text)).is_err();
        for text in [
            "{\"model\":\"m\",\"previous_response_id\":\"resp_1\"}",
            "{\"model\":\"m\",\"conversation\":{\"id\":\"c\"}}",
            "{\"model\":\"m\",\"background\":true}",
            "{\"model\":\"m\",\"prompt\":{\"id\":\"p\"}}",
            "{\"model\":\"m\",\"tools\":[{\"type\":\"file_search\",\"vector_store_ids\":[\"v\"]}]}",
            "{\"model\":\"m\",\"tools\":[{\"type\":\"web_search\"}]}",
            "{\"model\":\"m\",\"tools\":{\"type\":\"web_search\"}}",
            "{\"model\":\"m\",\"tools\":[[{\"type\":\"web_search\"}]]}",
            "{\"model\":\"m\",\"tool_choice\":{\"type\":\"web_search_preview\"}}",
            "{\"model\":\"m\",\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"auto\",\"tools\":[{\"type\":\"mcp\"}]}}",
            "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_file\",\"file_id\":\"f\"}]}]}",
            "{\"model\":\"m\",\"input\":[{\"type\":\"item_reference\",\"id\":\"i\"}]}",
        ] {
            assert!(refuses(Endpoint::Responses, text), "{text}");
        }
        for text in [
            "{\"model\":\"m\",\"previous_response_id\":null,\"background\":false,\"input\":\"file_id\"}",
            "{\"model\":\"m\",\"tools\":null,\"tool_choice\":\"auto\"}",
            "{\"model\":\"m\",\"tools\":[],\"tool_choice\":{\"type\":\"function\",\"name\":\"f\"}}",
            "{\"model\":\"m\",\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"auto\",\"tools\":[{\"type\":\"function\"}]}}",
            "{\"model\":\"m\",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{\"properties\":{\"file_id\":{}}}}]}",
        ] {
            assert!(!refuses(Endpoint::Responses, text), "{text}");
        }
        let text = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_id\":\"f\"}}]}]}";
        assert!(refuses(Endpoint::Chat, text));
    }
}
