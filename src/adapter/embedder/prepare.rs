//! Memories made ready to be written, in two steps: once their texts are cut it is known what they would count with, and only
//! then does making their embeddings begin.

use super::EmbedderPool;
use crate::domain::auth::UserKey;
use crate::domain::memory::{Content, Embedding, Groundwork, NewMemory, Patch, WINDOWS_MAX, Worded};
use crate::domain::{Error, Result};

/// Texts of up to this many bytes together are cut into words where they are; more would keep other requests waiting.
const INLINE_BYTES_MAX: usize = 8 * 1_024;

/// Memories whose texts are cut into windows.
#[derive(Clone, Debug)]
pub struct Cut(Vec<One>);

#[derive(Clone, Debug)]
struct One {
    content: Content,
    given: Option<Embedding>,
    /// None where the embedding is given.
    windows: Vec<String>,
}

impl One {
    const fn fits(&self) -> bool {
        self.windows.len() <= WINDOWS_MAX
    }
}

impl Cut {
    /// Whether every text has few enough windows.
    pub fn fits(&self) -> bool {
        self.0.iter().all(One::fits)
    }

    /// Whether an embedding is still to be made.
    pub fn lacks_embeddings(&self) -> bool {
        self.0.iter().any(|one| one.given.is_none())
    }

    /// Each memory with how many embeddings it will have, in order.
    pub fn counts(&self) -> impl Iterator<Item = (&Content, usize)> {
        self.0.iter().map(|one| (&one.content, one.windows.len().max(1)))
    }
}

impl EmbedderPool {
    /// Cuts the texts of memories for which no embedding is given.
    ///
    /// # Errors
    /// As [`EmbedderPool::windows_of`].
    pub async fn cut(&self, described: Vec<(Content, Option<Embedding>)>) -> Result<Cut> {
        let wanted = described.iter().filter(|(_, given)| given.is_none()).map(|(content, _)| content.text.as_str());
        let mut windows = self.windows_of(&wanted.collect::<Vec<_>>()).await?.into_iter();
        let mut cut = Vec::with_capacity(described.len());
        for (content, given) in described {
            let windows = if given.is_some() { Vec::new() } else { windows.next().unwrap_or_default() };
            cut.push(One { content, given, windows });
        }
        Ok(Cut(cut))
    }

    /// The memories with their embeddings and words, in order; none for a text of too many windows.
    ///
    /// # Errors
    /// As [`EmbedderPool::embed`].
    pub async fn complete(&self, user: UserKey, cut: Cut) -> Result<Vec<Option<NewMemory>>> {
        let (mut texts, mut left) = (Vec::new(), Vec::with_capacity(cut.0.len()));
        for one in cut.0 {
            let fits = one.fits();
            left.push(fits.then_some((one.content, one.given, one.windows.len())));
            texts.extend(one.windows.into_iter().filter(|_| fits));
        }
        let mut made = self.embed(user, texts).await?.into_iter();
        let mut whole = Vec::with_capacity(left.len());
        for one in left {
            whole.push(one.map(|(content, given, count)| {
                let embeddings = given.map_or_else(|| made.by_ref().take(count).collect(), |given| vec![given]);
                (content, embeddings)
            }));
        }
        let bytes = whole.iter().flatten().map(|(content, _)| content.text.len()).sum();
        let ready = |(content, embeddings)| NewMemory::new(content, embeddings);
        cut_into_words(bytes, move || whole.into_iter().map(|one| one.map(ready)).collect()).await
    }

    /// What a change of a memory needs of the text it has and of the one it gets; none where that has too many windows.
    ///
    /// # Errors
    /// As [`EmbedderPool::embed`].
    pub async fn prepare_change(&self, user: UserKey, before: Content, patch: &Patch) -> Result<Option<Groundwork>> {
        let mut made = Groundwork::default();
        if !patch.changes_words(&before) {
            return Ok(Some(made));
        }
        let other = patch.other_text(&before.text).map(str::to_owned);
        if let Some(text) = &other {
            let windows = self.windows(text).await?;
            if windows.len() > WINDOWS_MAX {
                return Ok(None);
            }
            made.embeddings = Some(self.embed(user, windows).await?);
        }
        let texts: Vec<String> = other.into_iter().chain([before.text]).collect();
        let bytes = texts.iter().map(String::len).sum();
        made.worded = cut_into_words(bytes, move || texts.into_iter().map(Worded::new).collect()).await?;
        Ok(Some(made))
    }
}

/// Does what cuts texts of so many bytes into words, where it keeps no other request waiting.
async fn cut_into_words<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Error::Internal(format!("the words of a text: {panic}")))
}
