//! What a prompt costs, as far as it can be told before it is sent.

use serde_json::{Map, Value};

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
    /// Bytes of names and labels that some templates write out: they are in the bound alone.
    pub names_bytes: i64,
}

/// A count of a prompt's tokens, and a bound that it does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The best guess.
    pub count: i64,
    /// What is held.
    pub bound: i64,
}

/// Members of messages and of their parts that are labels, in the count of a message, and up to how many bytes they are.
const LABELS: [(&str, usize); 5] = [("role", 9), ("type", 24), ("detail", 24), ("status", 24), ("id", 64)];
/// Longest name of a member of these that is known; no template writes them out.
const NAME_BYTES_MAX: usize = 24;
/// Members of a request that are no part of a prompt.
const OUTSIDE: [&str; 10] = [
    "model",
    "user",
    "metadata",
    "stop",
    "logit_bias",
    "stream_options",
    "include",
    "safety_identifier",
    "prompt_cache_key",
    "background",
];
/// Members that choose among a few words: no part of a prompt up to [`CHOICE_BYTES_MAX`] bytes.
const CHOICES: [&str; 10] = [
    "audio",
    "encoding_format",
    "modalities",
    "prompt_cache_retention",
    "reasoning",
    "reasoning_effort",
    "service_tier",
    "tool_choice",
    "truncation",
    "verbosity",
];
const CHOICE_BYTES_MAX: usize = 64;
/// Members that hold a picture or a recording, or where it is.
const MEDIA: [&str; 10] = [
    "image_url",
    "image",
    "image_embeds",
    "image_pil",
    "input_audio",
    "audio",
    "audio_url",
    "video",
    "video_url",
    "source",
];

/// What is no text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Medium {
    /// Images, films, and files, whose pages are seen as well as read.
    Seen,
    /// Recordings.
    Heard,
}

impl Medium {
    /// By the kind of a part, or the name of its member that holds it: servers that speak as OpenAI's does take parts without
    /// a kind, and kinds of their own (`audio_url`, `image_embeds`).
    fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let has = |word| name.contains(word);
        if has("audio") {
            Some(Self::Heard)
        } else if has("image") || has("video") || has("screenshot") || ["file", "input_file"].contains(&name.as_str()) {
            Some(Self::Seen)
        } else {
            None
        }
    }
}

/// Where in a conversation a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The conversation itself, or a message in it.
    Message,
    /// A part of what a message says.
    Part,
    /// Anywhere further in.
    Inside,
}

fn is_label(name: &str, text: &str) -> bool {
    LABELS.iter().any(|(label, bytes_max)| *label == name && text.len() <= *bytes_max)
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

impl Prompt {
    /// Reads the prompt of a request.
    ///
    /// # Errors
    /// As [`Object::value`].
    pub fn read(endpoint: Endpoint, object: &Object) -> Result<Self> {
        let mut prompt = Self::default();
        let conversations: &[&str] = match endpoint {
            Endpoint::Chat => &["messages", "prediction"],
            Endpoint::Completions => &["prompt", "suffix"],
            Endpoint::Responses => &["input", "instructions"],
            Endpoint::Embeddings => &["input"],
        };
        for name in conversations {
            prompt.add_conversation(&object.value(name)?);
        }
        // Tools, the form of the answer, documents, a template: whatever is not known to stay outside may be read by the model.
        for (name, raw) in object.members() {
            let is_outside = OUTSIDE.contains(&name) || (CHOICES.contains(&name) && raw.len() <= CHOICE_BYTES_MAX);
            if raw.starts_with(['"', '[', '{']) && !conversations.contains(&name) && !is_outside {
                prompt.schemas = prompt.schemas.saturating_add(1);
                prompt.texts.push(raw.to_owned());
            }
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
        self.add(value, Place::Message);
    }

    fn add(&mut self, value: &Value, place: Place) {
        match value {
            Value::String(text) => self.texts.push(text.clone()),
            // One of a list of tokens.
            Value::Number(_) if place == Place::Message => self.tokens = self.tokens.saturating_add(1),
            Value::Number(number) => self.texts.push(number.to_string()),
            Value::Bool(_) => self.tokens = self.tokens.saturating_add(1),
            Value::Array(items) => items.iter().for_each(|item| self.add(item, place)),
            Value::Object(members) => self.add_members(members, place),
            Value::Null => {}
        }
    }

    fn add_members(&mut self, members: &Map<String, Value>, place: Place) {
        let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
        if place != Place::Inside {
            self.add_media(kind, members);
        }
        // A part without a kind may be one too; of a text's own kind nothing is let pass.
        let is_media = match place {
            Place::Message => Medium::of(kind).is_some(),
            Place::Part => kind.is_empty() || Medium::of(kind).is_some(),
            Place::Inside => false,
        };
        if place == Place::Part {
            // What joins it to the part before.
            self.names_bytes = self.names_bytes.saturating_add(1);
        }
        for (name, value) in members {
            if place == Place::Inside || name.len() > NAME_BYTES_MAX {
                self.names_bytes = self.names_bytes.saturating_add(length(name));
            }
            let label = value.as_str().filter(|text| is_label(name, text));
            match (label, name.as_str(), value) {
                (Some(label), ..) if place == Place::Inside => {
                    self.names_bytes = self.names_bytes.saturating_add(length(label));
                }
                (Some(_), ..) => {}
                (None, name, value) if is_media && MEDIA.contains(&name) => self.add_beside_media(value),
                // What a model said before is a reference to what it was.
                (None, "audio", Value::Object(_)) if place == Place::Message => self.add_beside_media(value),
                (None, "content", Value::Array(_) | Value::Object(_)) | (None, "output", Value::Array(_))
                    if place != Place::Inside =>
                {
                    self.add(value, Place::Part);
                }
                // A picture of a screen is all that the output of its call is.
                (None, "output", Value::Object(output)) if place == Place::Message => {
                    let is_screen = output.get("type").is_some_and(|kind| kind == "computer_screenshot");
                    self.add(value, if is_screen { Place::Part } else { Place::Inside });
                }
                _ => self.add(value, Place::Inside),
            }
        }
    }

    /// Counts what is seen or heard of a message or a part: each member that holds something of it, or else what the kind says.
    fn add_media(&mut self, kind: &str, members: &Map<String, Value>) {
        let named = members.iter().filter(|(_, value)| !value.is_null());
        let mut media: Vec<(Medium, usize)> =
            named.filter_map(|(name, value)| Some((Medium::of(name)?, value.as_array().map_or(1, Vec::len)))).collect();
        if media.is_empty() {
            media.extend(Medium::of(kind).map(|medium| (medium, 1)));
        }
        for (medium, count) in media {
            let counter = match medium {
                Medium::Seen => &mut self.images,
                Medium::Heard => &mut self.audio,
            };
            *counter = counter.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// What stands beside the bytes or the address of a picture or a recording.
    fn add_beside_media(&mut self, media: &Value) {
        match media {
            Value::Object(members) => {
                let is_media = |name: &str| ["url", "data", "file_id", "id"].contains(&name);
                for (_, value) in members.iter().filter(|(name, value)| !(is_media(name) && value.is_string())) {
                    match value.as_str() {
                        Some(label) if label.len() <= NAME_BYTES_MAX => {
                            self.names_bytes = self.names_bytes.saturating_add(length(label));
                        }
                        _ => self.add(value, Place::Inside),
                    }
                }
            }
            Value::String(_) => {}
            other => self.add(other, Place::Inside),
        }
    }

    /// Bytes of all texts.
    pub fn text_bytes(&self) -> i64 {
        self.texts.iter().fold(0, |sum, text| sum.saturating_add(length(text)))
    }

    /// The estimate, where the texts have `text_bytes`, and `text_tokens` by the tokenizer of `family`, or by another
    /// one where it is unknown.
    ///
    /// A message costs 3 tokens and the answer's beginning 3, as OpenAI documents it. The bound adds to that a margin of 8
    /// a message, 16 a description, 16 in all and a 32nd of the text, for what renders differently from how it is written.
    /// In an unknown family the bound is a token a byte of text (no byte-level tokenizer makes more) and 16 a message. In both,
    /// names of members that a template may write out are a token a byte.
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
        let bound = bound.saturating_add(self.names_bytes);
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
    fn pictures_and_recordings_count_however_they_are_written() {
        let bound = |endpoint, text: &str| {
            let found = prompt(endpoint, text);
            found.estimate(Family::O200k, 1, found.text_bytes(), PARTS).bound
        };
        for part in [
            r#"{"type":"image_url","image_url":{"url":"data:,"}}"#,
            r#"{"image_url":{"url":"data:,"}}"#,
            r#"{"type":null,"image_url":"data:,"}"#,
            r#"{"type":"IMAGE_URL","image_url":"data:,"}"#,
            r#"{"type":"image_embeds","image_embeds":"AAAA"}"#,
            r#"{"type":"image_pil","image_pil":"AAAA"}"#,
            r#"{"type":"video_url","video_url":{"url":"http://x/a"}}"#,
            r#"{"type":"text","text":"x","image_url":"data:,"}"#,
        ] {
            for content in [format!("[{part}]"), part.to_owned()] {
                let text = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":{content}}}]}}");
                assert!((1_000..1_100).contains(&bound(Endpoint::Chat, &text)), "{text}");
            }
            assert!((1_000..1_100).contains(&bound(Endpoint::Responses, &format!("{{\"input\":[{part}]}}"))), "{part}");
        }
        for part in [
            r#"{"type":"audio_url","audio_url":{"url":"http://x/a.wav"}}"#,
            r#"{"input_audio":{"data":"","format":"wav"}}"#,
            r#"{"type":"input_audio","input_audio":{"data":"AAAA"}}"#,
        ] {
            let text = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":[{part}]}}]}}");
            assert!((500..600).contains(&bound(Endpoint::Chat, &text)), "{text}");
        }
        let two = r#"{"messages":[{"role":"user","content":[{"image":["a","b"]}]}]}"#;
        assert_eq!(prompt(Endpoint::Chat, two).images, 2);
        assert_eq!(
            prompt(Endpoint::Chat, r#"{"messages":[{"role":"assistant","content":"x","audio":null}]}"#).audio,
            0
        );
    }

    #[test]
    fn nothing_that_is_text_is_taken_for_something_else() {
        let long = "x".repeat(20_000);
        let bound = |endpoint, text: &str| {
            let found = prompt(endpoint, &text.replace("LONG", &long));
            found.estimate(Family::Unknown, 1, found.text_bytes(), PARTS).bound
        };
        for message in [
            r#"{"role":"user","type":"image_url","content":"LONG"}"#,
            r#"{"role":"tool","type":"audio","content":"LONG"}"#,
            r#"{"role":"userLONG","content":"x"}"#,
            r#"{"role":"user","content":"x","status":"LONG"}"#,
            r#"{"role":"user","content":{"type":"image_url","text":"LONG"}}"#,
            r#"{"role":"user","content":{"LONG":1}}"#,
            r#"{"role":"user","content":[{"type":"text","text":"x","detail":"LONG"}]}"#,
            r#"{"role":"user","content":[{"type":"text","text":"x","image":"LONG"}]}"#,
            r#"{"role":"user","content":[{"image_note":"LONG"}]}"#,
            r#"{"role":"user","content":"x","image":"LONG"}"#,
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"},"text":"LONG"}]}"#,
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"x","detail":"LONG"}}]}"#,
            r#"{"role":"assistant","tool_calls":[{"id":"LONG","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
            r#"{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"LONG":1}}}]}"#,
        ] {
            let text = format!("{{\"messages\":[{message}]}}");
            assert!((20_000..20_700 + PARTS.image).contains(&bound(Endpoint::Chat, &text)), "{message}");
        }
        for member in ["chat_template", "documents", "chat_template_kwargs", "functions", "unknown", "reasoning_effort"]
        {
            for value in [r#""LONG""#, r#"["LONG"]"#, r#"{"a":{"b":"LONG"}}"#] {
                let text = format!("{{\"messages\":[],\"{member}\":{value}}}");
                assert!(bound(Endpoint::Chat, &text) > 20_000, "{member} {value}");
            }
        }
        let outside =
            r#"{"messages":[],"user":"LONG","metadata":{"a":"LONG"},"stop":["LONG"],"reasoning_effort":"low"}"#;
        assert_eq!(bound(Endpoint::Chat, outside), 16);
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
        assert_eq!(image.estimate(Family::Unknown, 0, 0, PARTS).bound, 1_017);
    }
}
