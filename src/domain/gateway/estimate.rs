//! What a prompt costs, as far as it can be told before it is sent.

use serde_json::Value;

use super::Endpoint;
use super::body::Object;
use crate::domain::Result;

/// Which tokenizer a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `o200k_base`: GPT-4o and what came after it.
    O200k,
    /// `cl100k_base`: GPT-4, GPT-3.5 and the embeddings.
    Cl100k,
    /// Another one.
    Unknown,
}

/// The name of a model without its maker, or the mark of a fine-tuned one.
pub(super) fn bare(model: &str) -> &str {
    let model = model.strip_prefix("openai/").unwrap_or(model);
    model.strip_prefix("ft:").unwrap_or(model)
}

impl Family {
    /// By the model's name.
    pub fn of(model: &str) -> Self {
        const O200K: [&str; 9] = ["gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "gpt-oss", "chatgpt-4o", "o1", "o3", "o4"];
        const CL100K: [&str; 3] = ["gpt-4", "gpt-3.5", "text-embedding-"];
        let model = bare(model);
        // A name goes on with a mark or ends: `o1`, `o1-mini`, and not `o1000`.
        let is_of = |prefix: &&str| {
            model.strip_prefix(*prefix).is_some_and(|rest| {
                prefix.ends_with('-') || rest.chars().next().is_none_or(|next| !next.is_ascii_alphanumeric())
            })
        };
        if O200K.iter().any(&is_of) {
            Self::O200k
        } else if CL100K.iter().any(is_of) {
            Self::Cl100k
        } else {
            Self::Unknown
        }
    }
}

/// Tokens that parts which are no text count at most.
#[derive(Clone, Copy, Debug)]
pub struct PartBounds {
    /// `gateway.image_tokens_max`
    pub image: i64,
    /// `gateway.audio_tokens_max`
    pub audio: i64,
}

/// What a prompt is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Everything that is text, one after the other.
    pub texts: Vec<String>,
    /// Tokens that came as numbers.
    pub tokens: i64,
    /// Messages, items or inputs.
    pub messages: i64,
    /// Descriptions of tools and of the answer's form.
    pub schemas: i64,
    /// Images and files.
    pub images: i64,
    /// Recordings.
    pub audio: i64,
}

/// A count of a prompt's tokens, and a bound that it does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The best guess.
    pub count: i64,
    /// What is held.
    pub bound: i64,
}

/// Members that are labels: they are in the count of a message.
const LABELS: [&str; 5] = ["type", "role", "detail", "id", "status"];

impl Prompt {
    /// Reads the prompt of a request.
    ///
    /// # Errors
    /// As [`Object::value`].
    pub fn read(endpoint: Endpoint, object: &Object) -> Result<Self> {
        let mut prompt = Self::default();
        let (conversations, schemas): (&[&str], &[&str]) = match endpoint {
            Endpoint::Chat => (&["messages", "prediction"], &["tools", "functions", "response_format"]),
            Endpoint::Completions => (&["prompt", "suffix"], &[]),
            Endpoint::Responses => (&["input", "instructions"], &["tools", "text"]),
            Endpoint::Embeddings => (&["input"], &[]),
        };
        for name in conversations {
            prompt.add_conversation(&object.value(name)?);
        }
        for raw in schemas.iter().filter_map(|name| object.raw(name)).filter(|raw| *raw != "null") {
            prompt.schemas = prompt.schemas.saturating_add(1);
            prompt.texts.push(raw.to_owned());
        }
        Ok(prompt)
    }

    fn add_conversation(&mut self, value: &Value) {
        match value {
            Value::Null => return,
            // A list of tokens is one input.
            Value::Array(items) if items.first().is_none_or(|item| !item.is_number()) => {
                self.messages = self.messages.saturating_add(i64::try_from(items.len()).unwrap_or(i64::MAX));
            }
            _ => self.messages = self.messages.saturating_add(1),
        }
        self.add(value);
    }

    fn add(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.texts.push(text.clone()),
            Value::Number(_) | Value::Bool(_) => self.tokens = self.tokens.saturating_add(1),
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => {
                let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
                match kind {
                    "image_url" | "input_image" | "image" | "computer_screenshot" => {
                        self.images = self.images.saturating_add(1);
                        return;
                    }
                    "input_audio" | "audio" => {
                        self.audio = self.audio.saturating_add(1);
                        return;
                    }
                    // The pages of a file are seen as well as read.
                    "file" | "input_file" => self.images = self.images.saturating_add(1),
                    _ => {}
                }
                for (_, value) in members.iter().filter(|(name, _)| !LABELS.contains(&name.as_str())) {
                    self.add(value);
                }
            }
            Value::Null => {}
        }
    }

    /// Bytes of all texts.
    pub fn text_bytes(&self) -> i64 {
        let bytes = self.texts.iter().fold(0_usize, |sum, text| sum.saturating_add(text.len()));
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    /// The estimate, where the texts have `text_bytes`, and `text_tokens` by the tokenizer of `family`, or by another
    /// one where it is unknown.
    ///
    /// A message costs 3 tokens and the answer's beginning 3, as OpenAI documents it. The bound adds to that a margin of 8
    /// a message, 16 a description, 16 in all and a 32nd of the text, for what renders differently from how it is written.
    /// In an unknown family the bound is a token a byte of text (no byte-level tokenizer makes more) and 16 a message.
    pub fn estimate(&self, family: Family, text_tokens: i64, text_bytes: i64, parts: PartBounds) -> Estimate {
        let fixed = self
            .tokens
            .saturating_add(self.images.saturating_mul(parts.image))
            .saturating_add(self.audio.saturating_mul(parts.audio));
        let frame = self.messages.saturating_mul(3).saturating_add(3);
        let count = fixed.saturating_add(text_tokens).saturating_add(frame);
        let bound = match family {
            Family::O200k | Family::Cl100k => count
                .saturating_add(self.messages.saturating_mul(8))
                .saturating_add(self.schemas.saturating_mul(16))
                .saturating_add(text_tokens.checked_div(32).unwrap_or(0))
                .saturating_add(16),
            Family::Unknown => {
                let pieces = self.messages.saturating_add(self.schemas).max(1);
                fixed.saturating_add(text_bytes).saturating_add(pieces.saturating_mul(16))
            }
        };
        Estimate { count: count.min(bound), bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: PartBounds = PartBounds { image: 1_000, audio: 500 };

    fn prompt(endpoint: Endpoint, text: &str) -> Prompt {
        Prompt::read(endpoint, &Object::parse(text.to_owned()).unwrap()).unwrap()
    }

    #[test]
    fn families_are_told_by_name() {
        for (model, family) in [
            ("gpt-4o-mini", Family::O200k),
            ("gpt-4o", Family::O200k),
            ("gpt-5.1-chat", Family::O200k),
            ("o3", Family::O200k),
            ("openai/gpt-oss-20b", Family::O200k),
            ("ft:gpt-4o:org::id", Family::O200k),
            ("gpt-4-turbo", Family::Cl100k),
            ("gpt-3.5-turbo", Family::Cl100k),
            ("text-embedding-3-small", Family::Cl100k),
            ("llama-3", Family::Unknown),
            ("o1000", Family::Unknown),
            ("gpt-4x", Family::Unknown),
        ] {
            assert_eq!(Family::of(model), family, "{model}");
        }
    }

    #[test]
    fn everything_in_a_conversation_counts() {
        let text = r#"{"messages":[{"role":"system","content":"a"},{"role":"user","name":"b","content":[
            {"type":"text","text":"c"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},
            {"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]},
            {"role":"assistant","tool_calls":[{"id":"x","type":"function","function":{"name":"d","arguments":"{}"}}]}],
            "tools":[{"type":"function"}],"functions":null}"#;
        let mut found = prompt(Endpoint::Chat, text);
        found.texts.sort();
        assert_eq!(found.texts, ["[{\"type\":\"function\"}]", "a", "b", "c", "d", "{}"]);
        assert_eq!((found.messages, found.schemas, found.images, found.audio), (3, 1, 1, 1));
    }

    #[test]
    fn tokens_may_come_as_numbers() {
        let found = prompt(Endpoint::Embeddings, "{\"input\":[[1,2,3],[4]]}");
        assert_eq!((found.tokens, found.messages), (4, 2));
        let found = prompt(Endpoint::Completions, "{\"prompt\":[1,2,3]}");
        assert_eq!((found.tokens, found.messages), (3, 1));
    }

    #[test]
    fn the_margin_of_a_one_line_prompt_is_small_and_an_unknown_family_counts_bytes() {
        let found = prompt(Endpoint::Chat, "{\"messages\":[{\"role\":\"user\",\"content\":\"How are you today?\"}]}");
        let known = found.estimate(Family::O200k, 5, 18, PARTS);
        assert_eq!((known.count, known.bound), (11, 35));
        let unknown = found.estimate(Family::Unknown, 5, 18, PARTS);
        assert_eq!((unknown.count, unknown.bound), (11, 18 + 16));
        let image = prompt(Endpoint::Responses, "{\"input\":[{\"content\":[{\"type\":\"input_image\"}]}]}");
        assert_eq!(image.estimate(Family::Unknown, 0, 0, PARTS).bound, 1_016);
    }
}
