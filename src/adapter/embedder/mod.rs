//! Who makes embeddings.

mod pool;

use std::sync::Arc;

use crate::config;
use crate::domain::Error;
use crate::domain::memory::Embedding;

pub use pool::EmbedderPool;

/// Makes embeddings of texts. Called from the pool's threads, which may wait.
pub trait Embedder: Send + Sync {
    /// Names the model: vectors of models with different names cannot be compared.
    fn model(&self) -> &str;

    /// Cuts a text into the overlapping windows that are embedded each; a text that fits has one, itself.
    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str>;

    /// An embedding a text, in order.
    ///
    /// # Errors
    /// Where it cannot be made.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError>;

    /// How many texts one call takes well.
    fn texts_of_a_call(&self) -> usize {
        1
    }
}

/// Why there is no embedding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// Something outside the program does not work now.
    #[error("{0}")]
    Unavailable(String),
    /// What came back is no embedding.
    #[error("the embedding model gave a vector that is none: {0}")]
    BadVector(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl From<EmbedError> for Error {
    fn from(error: EmbedError) -> Self {
        match error {
            EmbedError::Unavailable(_) | EmbedError::BadVector(_) => Self::Unavailable(error.to_string()),
            EmbedError::Internal(why) => Self::Internal(why),
        }
    }
}

/// The embedder that the configuration names.
///
/// # Errors
/// `Unavailable` or `Internal` where it cannot be had.
pub fn from_config(config: &config::Embedding) -> Result<Arc<dyn Embedder>, EmbedError> {
    match &config.provider {
        config::Provider::Builtin | config::Provider::OpenAi { .. } => Ok(Arc::new(Missing)),
    }
}

/// Stands where a model would: memories can be stored with a given embedding, and found by words.
struct Missing;

impl Embedder for Missing {
    fn model(&self) -> &'static str {
        "none"
    }

    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
        vec![text]
    }

    fn embed(&self, _: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        Err(EmbedError::Unavailable("this build has no embedding model: give an embedding".to_owned()))
    }
}
