//! The events of streamed answers: what of them counts, what is hidden, and how an answer ends that is cut.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::meter::Meter;
use crate::domain::gateway::Endpoint;
use crate::domain::gateway::usage::{Usage, written, written_in_other};

/// What is to be done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes to the caller as it came.
    Pass,
    /// It answers what we asked, not the caller.
    Hide,
    /// It goes to the caller and nothing comes after it.
    Last,
}

/// A streamed answer as far as it has been seen.
pub(super) struct Dialect {
    endpoint: Endpoint,
    wants_usage: bool,
    /// Members of the first event that an event of ours repeats.
    head: Value,
    /// Choices that have begun, and those that have ended.
    begun: BTreeSet<u64>,
    ended: BTreeSet<u64>,
    /// The number of the event that was read last, where events have one.
    number: Option<u64>,
    /// What the first choice says, where it is kept.
    said: Option<String>,
    /// Whether the event said something a model wrote.
    pub(super) has_said: bool,
}

impl Dialect {
    pub(super) fn new(endpoint: Endpoint, wants_usage: bool) -> Self {
        Self {
            endpoint,
            wants_usage,
            head: Value::Null,
            begun: BTreeSet::new(),
            ended: BTreeSet::new(),
            number: None,
            said: None,
            has_said: false,
        }
    }

    /// Whether what the first choice says is wanted as a whole.
    pub(super) fn keeping(mut self, keeps: bool) -> Self {
        self.said = keeps.then(String::new);
        self
    }

    /// What the first choice said.
    pub(super) fn into_said(self) -> Option<String> {
        self.said
    }

    /// Reads an event's data into the meter. What is not of the dialect is the caller's to make sense of, and counts as text.
    pub(super) fn read(&mut self, data: &str, meter: &mut Meter) -> Verdict {
        if is_done(data) {
            return Verdict::Last;
        }
        match (serde_json::from_str::<Value>(data), self.endpoint) {
            (Err(_), _) => {
                self.say(0, data, meter);
                Verdict::Pass
            }
            (Ok(event), Endpoint::Responses) => self.read_response(event, meter),
            (Ok(event), _) => self.read_chunk(event, meter),
        }
    }

    /// Takes a text that was delivered.
    pub(super) fn say(&mut self, choice: u64, text: &str, meter: &mut Meter) {
        if !text.is_empty() {
            self.has_said = true;
            meter.write(choice, text);
        }
    }

    fn read_chunk(&mut self, chunk: Value, meter: &mut Meter) -> Verdict {
        meter.usage = Usage::parse(&chunk["usage"], true).or(meter.usage);
        let Some(choices) = chunk["choices"].as_array() else {
            written_in_other(&chunk, &mut |text| self.say(0, text, meter));
            return self.verdict(&chunk);
        };
        for choice in choices {
            let index = choice["index"].as_u64().unwrap_or(0);
            self.begun.insert(index);
            if !choice["finish_reason"].is_null() {
                self.ended.insert(index);
            }
            if let (Some(whole), 0, Some(text)) = (&mut self.said, index, choice["delta"]["content"].as_str()) {
                whole.push_str(text);
            }
            for said in [&choice["delta"], &choice["text"], &choice["message"]] {
                written(said, &mut |text| self.say(index, text, meter));
            }
        }
        let verdict = self.verdict(&chunk);
        if self.head.is_null() {
            self.head = chunk;
        }
        verdict
    }

    /// A chunk that tells the cost alone, whatever we think of its numbers, answers what we asked.
    fn verdict(&self, chunk: &Value) -> Verdict {
        let says_more = chunk["choices"].as_array().is_some_and(|choices| !choices.is_empty());
        if chunk["usage"].is_null() || says_more || self.wants_usage { Verdict::Pass } else { Verdict::Hide }
    }

    fn read_response(&mut self, mut event: Value, meter: &mut Meter) -> Verdict {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let index = event["output_index"].as_u64().unwrap_or(0);
        let is_last = ["response.completed", "response.incomplete", "response.failed"].contains(&kind.as_str());
        match kind.rsplit('.').next() {
            Some("delta") => {
                if let Some(text) = event["delta"].as_str() {
                    self.say(index, text, meter);
                    if let Some(whole) = self.said.as_mut().filter(|_| kind == "response.output_text.delta") {
                        whole.push_str(text);
                    }
                }
            }
            Some("") => written_in_other(&event, &mut |text| self.say(index, text, meter)),
            // What is whole has come in pieces before, or has not.
            Some("done") => self.say_rest(index, &event, meter),
            _ if is_last => {
                let items = event["response"]["output"].as_array().map(Vec::as_slice).unwrap_or_default();
                (0..).zip(items).for_each(|(index, item)| self.say_rest(index, item, meter));
            }
            _ => {}
        }
        meter.usage = Usage::parse(&event["response"]["usage"], true).or(meter.usage);
        if kind == "response.created" {
            self.head = event["response"].take();
        }
        self.number = event["sequence_number"].as_u64().or(self.number);
        if is_last { Verdict::Last } else { Verdict::Pass }
    }

    fn say_rest(&mut self, index: u64, whole: &Value, meter: &mut Meter) {
        let mut text = String::new();
        written(whole, &mut |said| text.push_str(said));
        self.has_said |= meter.write_rest(index, &text);
    }

    /// The events that end an answer which has used up what was held for it, as a model ends one that is too long. They stand in
    /// the place of the one that was read last.
    pub(super) fn cut(&self, prompt: i64, said: i64) -> String {
        if self.endpoint == Endpoint::Responses {
            return self.cut_response(prompt, said);
        }
        let chunk = |choices: Value| {
            let mut chunk = json!({});
            for name in ["id", "object", "created", "model", "system_fingerprint"] {
                if let Some(value) = self.head.get(name) {
                    chunk[name] = value.clone();
                }
            }
            chunk["choices"] = choices;
            chunk
        };
        let first = BTreeSet::from([0]);
        let begun = if self.begun.is_empty() { &first } else { &self.begun };
        let choices = begun.difference(&self.ended).map(|index| match self.endpoint {
            Endpoint::Completions => json!({"index": index, "text": "", "finish_reason": "length", "logprobs": null}),
            _ => json!({"index": index, "delta": {}, "finish_reason": "length", "logprobs": null}),
        });
        let mut events = format!("data: {}\n\n", chunk(choices.collect()));
        if self.wants_usage {
            let mut usage = chunk(json!([]));
            usage["usage"] = json!({
                "prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt.saturating_add(said),
            });
            events.extend(["data: ", &usage.to_string(), "\n\n"]);
        }
        events.push_str("data: [DONE]\n\n");
        events
    }

    fn cut_response(&self, prompt: i64, said: i64) -> String {
        let mut response = if self.head.is_object() { self.head.clone() } else { json!({"object": "response"}) };
        response["status"] = json!("incomplete");
        response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        response["usage"] = json!({
            "input_tokens": prompt, "output_tokens": said, "total_tokens": prompt.saturating_add(said),
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        });
        let number = self.number.unwrap_or(0);
        let event = json!({"type": "response.incomplete", "sequence_number": number, "response": response});
        format!("event: response.incomplete\ndata: {event}\n\n")
    }

    /// The event that tells why an answer ends before its end.
    pub(super) fn failure(&self, code: &str, message: &str) -> String {
        match self.endpoint {
            Endpoint::Responses => {
                let number = self.number.map_or(0, |number| number.saturating_add(1));
                let event = json!({
                    "type": "error", "sequence_number": number, "code": code, "message": message, "param": null,
                });
                format!("event: error\ndata: {event}\n\n")
            }
            Endpoint::Chat | Endpoint::Completions | Endpoint::Embeddings => {
                let error = json!({"error": {"message": message, "type": "server_error", "param": null, "code": code}});
                format!("data: {error}\n\n")
            }
        }
    }
}

/// Whether an event's data are the mark of an end.
pub(super) fn is_done(data: &str) -> bool {
    data.trim() == "[DONE]"
}
