//! Many memories made ready to be written, for who has no request to answer one by one.

use super::EmbedderPool;
use crate::domain::auth::UserKey;
use crate::domain::memory::{Content, Embedding, NewMemory, WINDOWS_MAX};
use crate::domain::{Error, Result};

impl EmbedderPool {
    /// The embeddings (where none is given) and the words of memories, in order; none for a text of too many windows.
    ///
    /// # Errors
    /// As [`EmbedderPool::embed`].
    pub async fn prepare(
        &self,
        user: UserKey,
        described: Vec<(Content, Option<Embedding>)>,
    ) -> Result<Vec<Option<NewMemory>>> {
        let (mut texts, mut counts) = (Vec::new(), Vec::with_capacity(described.len()));
        let wanted = described.iter().filter(|(_, given)| given.is_none()).map(|(content, _)| content.text.as_str());
        let mut cut = self.windows_of(&wanted.collect::<Vec<_>>()).await?.into_iter();
        for (_, given) in &described {
            let windows = if given.is_some() { Vec::new() } else { cut.next().unwrap_or_default() };
            let fits = windows.len() <= WINDOWS_MAX;
            counts.push(fits.then_some(windows.len()));
            texts.extend(windows.into_iter().filter(|_| fits));
        }
        let mut made = self.embed(user, texts).await?.into_iter();
        let mut embedded = Vec::with_capacity(described.len());
        for ((content, given), count) in described.into_iter().zip(counts) {
            let own = made.by_ref().take(count.unwrap_or_default());
            let embeddings = given.map_or_else(|| own.collect(), |given| vec![given]);
            embedded.push(count.map(|_| (content, embeddings)));
        }
        let words = move || {
            let ready = |(content, embeddings)| NewMemory::new(content, embeddings);
            embedded.into_iter().map(|memory| memory.map(ready)).collect()
        };
        let ready = tokio::task::spawn_blocking(words).await;
        ready.map_err(|panic| Error::Internal(format!("the words of a text: {panic}")))
    }
}
