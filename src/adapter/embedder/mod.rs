//! Who makes embeddings.

mod builtin;
mod pool;
mod prepare;
mod remote;
mod tokenizer;
mod windows;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config;
use crate::domain::Error;
use crate::domain::memory::{Embedding, EmbeddingFault};

pub use builtin::Builtin;
pub use pool::EmbedderPool;
pub use prepare::Cut;
pub use remote::{Remote, RemoteConfig};

/// Makes embeddings of texts. Called from the pool's threads, which may wait.
pub trait Embedder: Send + Sync {
    /// Names the model: vectors of models with different names cannot be compared.
    fn model(&self) -> &str;

    /// Cuts a text into the overlapping windows that are embedded each; a text that fits has one, itself.
    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str>;

    /// How many tokens a text is, the two that enclose every text included. A model that does not say counts bytes.
    fn tokens(&self, text: &str) -> usize {
        text.len() + 2
    }

    /// Whether the model has a token for anything of a text. Where it has none, as for a lone emoji or in some scripts, the
    /// embedding is that of any other such text.
    fn knows(&self, _text: &str) -> bool {
        true
    }

    /// An embedding a text, in order.
    ///
    /// # Errors
    /// Where it cannot be made.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError>;

    /// How many texts one call takes well.
    fn texts_of_a_call(&self) -> usize {
        1
    }

    /// How many calls go on at once. Each of the model inside takes a core; one of an endpoint only waits.
    fn calls_at_once(&self) -> usize {
        2
    }
}

/// Why texts could not be embedded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// The endpoint is down, slow or overloaded, and trying later is worthwhile.
    #[error("the embedding endpoint is unavailable: {detail}")]
    Unavailable {
        /// What happened at the last try.
        detail: String,
    },
    /// The endpoint refuses the request, and would refuse it again.
    #[error("the embedding endpoint refuses the request: {detail}")]
    Refused {
        /// The status.
        detail: String,
    },
    /// The answer is not one vector of 384 finite numbers a text.
    #[error("the embedding endpoint gave no usable vector: {detail}")]
    BadVector {
        /// What is wrong with the answer.
        detail: String,
    },
    /// The settings of the embedder cannot work.
    #[error("the embedding settings cannot work: {detail}")]
    Settings {
        /// The setting and its fault.
        detail: String,
    },
    /// The model inside is damaged, which only a faulty build can cause.
    #[error("the built-in embedding model is damaged: {detail}")]
    Damaged {
        /// What is wrong.
        detail: String,
    },
}

impl From<EmbeddingFault> for EmbedError {
    fn from(fault: EmbeddingFault) -> Self {
        Self::BadVector { detail: fault.to_string() }
    }
}

impl From<EmbedError> for Error {
    fn from(error: EmbedError) -> Self {
        match error {
            EmbedError::Unavailable { .. } | EmbedError::Refused { .. } | EmbedError::BadVector { .. } => {
                // What a remote endpoint says is the operator's to read, not the user's.
                tracing::warn!(%error, "no embedding");
                Self::Unavailable("no embedding can be made at the moment".to_owned())
            }
            EmbedError::Settings { .. } | EmbedError::Damaged { .. } => Self::Internal(error.to_string()),
        }
    }
}

/// The embedder that the configuration names. Must be called within the runtime that a remote one shall use.
///
/// # Errors
/// `Settings` where the configuration cannot work, `Damaged` where the model inside is.
pub fn from_config(config: &config::Embedding) -> Result<Arc<dyn Embedder>, EmbedError> {
    match &config.provider {
        config::Provider::Builtin => builtin(),
        config::Provider::OpenAi { url, model, api_key, timeout_ms, retries } => {
            let mut remote = RemoteConfig::new(url.clone(), model.clone());
            remote.api_key = api_key.as_ref().map(|key| key.expose().to_owned());
            remote.timeout = Duration::from_millis(timeout_ms.unsigned_abs());
            remote.retries = *retries;
            Ok(Arc::new(Remote::new(remote, Handle::current())?))
        }
    }
}

/// The model inside, whose weights are read once a process.
fn builtin() -> Result<Arc<dyn Embedder>, EmbedError> {
    static LOADED: OnceLock<Result<Arc<Builtin>, EmbedError>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| Builtin::load().map(Arc::new)).clone();
    loaded.map(|model| -> Arc<dyn Embedder> { model })
}
