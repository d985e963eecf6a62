//! Passwords: argon2id on a pool of two, so that a flood of logins takes neither all cores nor all memory.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

use crate::domain::{Error, Result};

/// Memory of a hash, in KiB: 19 MiB.
const MEMORY_KIB: u32 = 19 * 1_024;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
/// Hashes that are computed at once.
const PLACES: usize = 2;
/// What the password of an unknown address is compared with, so that its refusal takes the same work.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IG5vYm9keSE$aQSQnp4fcrEtyGwcJVvYwjNUcY3FvtoMYd9Wjv0tYz0";

/// The pool.
#[derive(Debug)]
pub struct Passwords {
    places: Arc<Semaphore>,
    admitted: Semaphore,
}

impl Passwords {
    /// `queue`: checks that may wait for a place; one more is `Busy`.
    pub fn new(queue: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), admitted: Semaphore::new(queue.saturating_add(PLACES)) }
    }

    /// Whether `password` is the one that was hashed; without a hash the work is the same and the answer no. `still` is
    /// asked when a place is free, since much may have happened in the queue.
    ///
    /// # Errors
    /// `Busy` when too many wait; whatever `still` fails with.
    pub async fn verify(
        &self,
        password: String,
        hash: Option<String>,
        still: impl FnOnce() -> Result<()> + Send,
    ) -> Result<bool> {
        let work = move || {
            let matches = matches(&password, hash.as_deref().unwrap_or(NOBODY))?;
            Ok(matches && hash.is_some())
        };
        self.run(still, work).await
    }

    /// The hash to store.
    ///
    /// # Errors
    /// `Busy` when too many wait.
    pub async fn hash(&self, password: String) -> Result<String> {
        self.run(|| Ok(()), move || hash(&password)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        still: impl FnOnce() -> Result<()> + Send,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _admitted = self.admitted.try_acquire().map_err(|_| Error::Busy("the password queue"))?;
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|error| Error::Internal(format!("the password pool is closed: {error}")))?;
        still()?;
        // The place goes along, so that it stays taken even where nobody waits for the answer any more.
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        done.await.map_err(|panic| Error::Internal(format!("a password check panicked: {panic}")))?
    }
}

/// The hash to store, computed here: for the command line.
///
/// # Errors
/// `Internal` where the machine cannot.
pub fn hash(password: &str) -> Result<String> {
    argon2()?.hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(failed)
}

fn matches(password: &str, hash: &str) -> Result<bool> {
    let hash = PasswordHash::new(hash).map_err(|error| Error::Internal(format!("a stored hash: {error}")))?;
    match argon2()?.verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn argon2() -> Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None);
    let params = params.map_err(|error| Error::Internal(format!("argon2: {error}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn failed(error: argon2::password_hash::Error) -> Error {
    Error::Internal(format!("argon2: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_the_parameters_that_nobodys_has_and_matches_its_password_alone() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(NOBODY.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(matches("correct horse", &stored).unwrap());
        assert!(!matches("correct horsf", &stored).unwrap());
        assert!(!matches("correct horse", NOBODY).unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_and_an_unknown_hash_never_matches() {
        let passwords = Passwords::new(0);
        let verify = || passwords.verify("some password".to_owned(), None, || Ok(()));
        let (first, second, third) = tokio::join!(verify(), verify(), verify());
        assert!(!first.unwrap() && !second.unwrap());
        assert!(matches!(third, Err(Error::Busy(_))));
    }
}
