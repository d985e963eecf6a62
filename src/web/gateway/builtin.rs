//! Embeddings by the model inside, in OpenAI's dialect.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use crate::config::Provider;
use crate::domain::gateway::body::Object;
use crate::domain::gateway::estimate::Estimate;
use crate::domain::gateway::usage::Usage;
use crate::domain::memory::{EMBEDDING_DIMENSIONS, Embedding};
use crate::domain::{Error, Fault, Result};
use crate::web::state::{AppState, Known};

/// Its name here.
pub(super) const MODEL: &str = "all-minilm-l6-v2";
/// Most texts of one call.
const TEXTS_MAX: usize = 2_048;

/// Whether it is there.
pub(super) fn is_offered(state: &AppState) -> bool {
    matches!(state.config.embedding.provider, Provider::Builtin)
}

/// What a call asks of it.
pub(super) struct Wanted {
    texts: Vec<String>,
    as_base64: bool,
}

impl Wanted {
    /// Reads a request.
    ///
    /// # Errors
    /// `Invalid` that names every member the model cannot heed.
    pub(super) fn read(object: &Object) -> Result<Self> {
        let mut faults = Vec::new();
        let texts: Option<Vec<String>> = match object.value("input")? {
            Value::String(text) => Some(vec![text]),
            Value::Array(items) => items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        let is_good =
            |texts: &Vec<String>| (1..=TEXTS_MAX).contains(&texts.len()) && texts.iter().all(|text| !text.is_empty());
        let texts = texts.filter(is_good).unwrap_or_else(|| {
            faults.push(Fault::new("input", format!("must be a text or 1 to {TEXTS_MAX} texts, none of them empty")));
            Vec::new()
        });
        let dimensions = object.value("dimensions")?;
        if !dimensions.is_null() && dimensions != EMBEDDING_DIMENSIONS {
            faults.push(Fault::new("dimensions", format!("must be {EMBEDDING_DIMENSIONS}")));
        }
        let format = object.value("encoding_format")?;
        let as_base64 = format == "base64";
        if !format.is_null() && !as_base64 && format != "float" {
            faults.push(Fault::new("encoding_format", "must be float or base64"));
        }
        if faults.is_empty() { Ok(Self { texts, as_base64 }) } else { Err(Error::Invalid(faults)) }
    }

    /// Its tokens by the model's own tokenizer: exact.
    pub(super) async fn estimate(&self, state: &AppState) -> Result<Estimate> {
        let count = state.embedder.tokens(self.texts.clone()).await?;
        Ok(Estimate { count, bound: count })
    }

    /// What it costs.
    pub(super) const fn usage(tokens: i64) -> Usage {
        Usage { prompt: tokens, completion: 0, total: tokens, cached: None, reasoning: None }
    }

    /// The answer. A text longer than the model's window has the mean of its windows.
    pub(super) async fn embed(&self, state: &AppState, known: &Known, tokens: i64) -> Result<String> {
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let windows = state.embedder.windows_of(&texts).await?;
        let counts: Vec<usize> = windows.iter().map(Vec::len).collect();
        let windows = windows.into_iter().flatten().collect();
        let mut embeddings = state.embedder.embed(known.caller().user.key, windows).await?.into_iter();
        let mut data = Vec::with_capacity(counts.len());
        for (index, count) in counts.into_iter().enumerate() {
            let of_text: Vec<Embedding> = embeddings.by_ref().take(count).collect();
            let vector = mean(&of_text)?;
            let embedding = if self.as_base64 {
                Vector::Base64(STANDARD.encode(vector.to_bytes()))
            } else {
                Vector::Floats(vector.as_slice().to_vec())
            };
            data.push(Item { object: "embedding", index, embedding });
        }
        let usage = Cost { prompt_tokens: tokens, total_tokens: tokens };
        let answer = Answer { object: "list", data, model: MODEL, usage };
        serde_json::to_string(&answer).map_err(|error| Error::Internal(error.to_string()))
    }
}

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    data: Vec<Item>,
    model: &'static str,
    usage: Cost,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Cost {
    prompt_tokens: i64,
    total_tokens: i64,
}

/// The mean direction of a text's windows.
fn mean(windows: &[Embedding]) -> Result<Embedding> {
    if let [only] = windows {
        return Ok(only.clone());
    }
    let mut sum = vec![0.0_f32; EMBEDDING_DIMENSIONS];
    for window in windows {
        for (sum, number) in sum.iter_mut().zip(window.as_slice()) {
            *sum += number;
        }
    }
    Embedding::normalised(&sum).map_err(|fault| Error::Internal(format!("the mean of a text's windows: {fault}")))
}
