//! Counting tokens as the models do that the box knows; for the others as one that is much like them.

use std::sync::OnceLock;

use tiktoken::{CoreBpe, encoding};

use crate::domain::gateway::estimate::Family;
use crate::domain::{Error, Result};

/// Texts up to this size are counted where they are; longer ones on a thread that may take its time.
pub const INLINE_BYTES_MAX: usize = 16 * 1024;

static O200K: OnceLock<CoreBpe> = OnceLock::new();
static CL100K: OnceLock<CoreBpe> = OnceLock::new();

/// The ranks of a family, unpacked at its first use, which takes a moment. An unknown family is counted by the newest.
fn tokenizer(family: Family) -> &'static CoreBpe {
    match family {
        Family::Cl100k => CL100K.get_or_init(encoding::cl100k_base),
        Family::O200k | Family::Unknown => O200K.get_or_init(encoding::o200k_base),
    }
}

/// Unpacks the ranks of the newest family, so that no call waits for it. The other one waits for a call that needs it: its
/// ranks take memory.
pub fn warm() {
    tokenizer(Family::O200k);
}

fn is_ready(family: Family) -> bool {
    match family {
        Family::Cl100k => CL100K.get().is_some(),
        Family::O200k | Family::Unknown => O200K.get().is_some(),
    }
}

/// Tokens of a text, here.
pub fn count_here(family: Family, text: &str) -> i64 {
    i64::try_from(tokenizer(family).count(text)).unwrap_or(i64::MAX)
}

/// Tokens of all texts together, without holding up a thread that serves others.
///
/// # Errors
/// `Internal` where the tokenizer panics.
pub async fn count(family: Family, texts: Vec<String>) -> Result<i64> {
    let bytes = texts.iter().map(String::len).sum::<usize>();
    let all = move || texts.iter().fold(0_i64, |sum, text| sum.saturating_add(count_here(family, text)));
    if bytes <= INLINE_BYTES_MAX && is_ready(family) {
        return Ok(all());
    }
    tokio::task::spawn_blocking(all).await.map_err(|panic| Error::Internal(format!("the tokenizer: {panic}")))
}
