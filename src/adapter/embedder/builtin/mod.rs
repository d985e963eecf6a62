//! The model inside the binary: all-MiniLM-L6-v2 with 8-bit weights.

mod network;
mod vector_math;
mod weights;

use crate::adapter::embedder::tokenizer::{TOKENS_MAX, Tokenizer};
use crate::adapter::embedder::{EmbedError, Embedder, windows};
use crate::domain::memory::Embedding;

use network::Network;

/// Weights, made by `make model`.
const WEIGHTS: &[u8] = include_bytes!("../../../../assets/model/minilm.bin");

/// Name of the model; the number after `@` is raised with every change that moves its vectors.
const MODEL: &str = "all-MiniLM-L6-v2@1";

/// Rows, tokens of all its texts, that one run of the network takes: more texts share a run up
/// to this, which bounds the memory of a run.
const RUN_ROWS_MAX: usize = 256;

/// The model inside the binary. A call computes on the calling thread alone, and several threads
/// may call at once.
pub struct Builtin {
    tokenizer: Tokenizer,
    network: Network,
}

impl Builtin {
    /// Reads the model from the binary.
    ///
    /// The products' library shares its work out over the process's rayon pool, which suits one
    /// large call but not a server whose requests are the parallel part. So this makes that pool
    /// one thread, with which the library stays on the calling thread, unless something else has
    /// made the pool before.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Damaged`] when the model's bytes are not as expected.
    pub fn load() -> Result<Self, EmbedError> {
        // An error tells that the pool is there already, which a second load finds too.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
        let network = Network::load(WEIGHTS)?;
        let tokenizer = Tokenizer::load()?;
        if tokenizer.entries() != network.vocabulary() || TOKENS_MAX > network.positions() {
            return Err(EmbedError::Damaged {
                detail: "the weights and the vocabulary are of different models".to_owned(),
            });
        }
        Ok(Self { tokenizer, network })
    }

    /// Token ids of `text` as the network gets them, 256 at most: the special token that begins
    /// every text, the text's own, and the one that ends it.
    #[must_use]
    pub fn token_ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text)
    }
}

impl Embedder for Builtin {
    fn model(&self) -> &str {
        MODEL
    }

    fn tokens(&self, text: &str) -> usize {
        self.tokenizer.count(text)
    }

    fn knows(&self, text: &str) -> bool {
        self.tokenizer.knows(text)
    }

    fn windows<'t>(&self, text: &'t str) -> Vec<&'t str> {
        windows::split(&self.tokenizer, text)
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| self.token_ids(text)).collect();
        let mut embeddings = Vec::with_capacity(texts.len());
        let mut rest = ids.as_slice();
        while !rest.is_empty() {
            let mut rows = 0;
            let count = rest
                .iter()
                .take_while(|text| {
                    rows += text.len();
                    rows <= RUN_ROWS_MAX
                })
                .count()
                .max(1);
            let (run, later) = rest.split_at(count);
            for mean in self.network.run(run)? {
                embeddings.push(Embedding::normalised(&mean)?);
            }
            rest = later;
        }
        Ok(embeddings)
    }
}
