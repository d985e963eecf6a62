//! An index in memory of what searches read most: codes of vectors, lengths, ends, the order of sessions, and the postings
//! of words that were asked for. It is derived from the database, which alone counts, and bounded: users who have not
//! searched for long leave it, and come back with their next search.
//!
//! The database counts the commits that changed a user's memories (`memory_versions`), and each entry here carries the
//! count that it was built for. A search accepts an entry that is as new as its snapshot or newer; it loads its hits
//! from the snapshot, so a newer entry can only name memories that are missing there. An older entry was outdated by
//! another process, and is read anew. The writer hands its changes over after the commit and before any answer; a
//! search whose snapshot is newer than what is kept waits for that.

mod rows;
mod slot;
mod sorted;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use slot::Slot;
use tokio::sync::OwnedMutexGuard;

use crate::domain::Result;
use crate::domain::auth::UserKey;
use crate::domain::memory::Code;
use crate::lock::lock;
pub(crate) use rows::{Row, Rows, SessionHash};
pub(crate) use sorted::Sorted;

/// How many commits changed a user's memories.
pub(crate) type Version = i64;

/// The memories that hold a word, each with how often: [`posting`]s in order.
pub(crate) type Postings = Sorted<u64>;

/// Bits of a posting that say how often a memory holds the word.
const COUNT_BITS: u32 = 16;
/// Beyond this, more of a word counts for no more.
pub(crate) const WORD_COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// How long a search waits for changes that are being handed over; then it reads for itself.
const PUBLICATION_TIMEOUT: Duration = Duration::from_secs(2);
/// What an empty place of a user costs, in bytes.
const SLOT_BYTES: usize = 512;

/// A posting: whose, and how often.
pub(crate) const fn posting(memory: i64, count: u64) -> u64 {
    (memory.cast_unsigned() << COUNT_BITS) | count
}

/// Whose posting it is.
pub(crate) const fn memory_of(posting: u64) -> i64 {
    (posting >> COUNT_BITS).cast_signed()
}

/// How often it says.
pub(crate) const fn count_of(posting: u64) -> u64 {
    posting & WORD_COUNT_MAX
}

/// What happened to a memory.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// It is new, or has changed. Without codes it keeps those it has.
    Put { row: Row, codes: Option<Vec<Code>> },
    /// It is gone.
    Remove { key: i64 },
    /// It holds these terms from now on, or (where it `leaves`) no longer.
    Words { memory: i64, terms: String, leaves: bool },
}

/// What a commit did to the memories of one user.
#[derive(Debug)]
pub(crate) enum Publication {
    /// It changed some.
    Changes(Changes),
    /// The user was erased.
    Erasure(UserKey),
}

impl Publication {
    /// Whose memories, and which version of them is there with the commit.
    const fn announced(&self) -> (UserKey, Version) {
        match self {
            Self::Changes(changes) => (changes.user, changes.version),
            Self::Erasure(user) => (*user, Version::MAX),
        }
    }
}

/// The changes of a commit that made `version` of a user's memories.
#[derive(Debug)]
pub(crate) struct Changes {
    user: UserKey,
    version: Version,
    list: Vec<Change>,
    size_bytes: usize,
}

impl Changes {
    pub(crate) fn new(user: UserKey, version: Version, list: Vec<Change>) -> Self {
        let of = |change: &Change| {
            size_of::<Change>()
                + match change {
                    Change::Put { codes, .. } => codes.as_ref().map_or(0, |codes| size_of_val(codes.as_slice())),
                    Change::Remove { .. } => 0,
                    Change::Words { terms, .. } => terms.len(),
                }
        };
        let size_bytes = list.iter().map(of).sum();
        Self { user, version, list, size_bytes }
    }
}

/// The index.
pub(crate) struct Recall {
    bytes_max: usize,
    users: Mutex<Users>,
    /// Versions that are being committed, until their changes are handed over.
    coming: Mutex<HashMap<UserKey, Version>>,
    arrived: Condvar,
}

#[derive(Default)]
struct Users {
    kept: HashMap<UserKey, Kept>,
    erased: HashSet<UserKey>,
    size_bytes: usize,
    time: u64,
}

struct Kept {
    slot: Arc<Slot>,
    size_bytes: usize,
}

/// What keeping rows came to.
pub(crate) enum Read {
    /// They are there.
    Rows(Rows),
    /// There are so many memories that their rows do not fit.
    TooMany {
        /// How many.
        memories: usize,
    },
}

impl Recall {
    /// Of at most about `bytes_max`; 0 keeps nothing.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, users: Mutex::default(), coming: Mutex::default(), arrived: Condvar::new() }
    }

    /// Most bytes it may take.
    pub(crate) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// About how many bytes it takes.
    pub(crate) fn size_bytes(&self) -> usize {
        lock(&self.users).size_bytes
    }

    /// The place of a user, made where there is none; none where nothing of this user is to be kept.
    fn slot(&self, user: UserKey) -> Option<Arc<Slot>> {
        if self.bytes_max == 0 {
            return None;
        }
        let mut users = lock(&self.users);
        if users.erased.contains(&user) {
            return None;
        }
        users.time += 1;
        let time = users.time;
        let place =
            users.kept.entry(user).or_insert_with(|| Kept { slot: Arc::new(Slot::new(self.bytes_max)), size_bytes: 0 });
        place.slot.touch(time);
        Some(Arc::clone(&place.slot))
    }

    /// Notes what a user's place takes now, and makes room where that is too much.
    fn settle(&self, user: UserKey) {
        let mut users = lock(&self.users);
        let Some(place) = users.kept.get_mut(&user) else { return };
        let size_bytes = place.slot.size_bytes() + SLOT_BYTES;
        let before = std::mem::replace(&mut place.size_bytes, size_bytes);
        users.size_bytes = (users.size_bytes + size_bytes).saturating_sub(before);
        if users.size_bytes <= self.bytes_max {
            return;
        }
        let mut by_age: Vec<(u64, UserKey)> =
            users.kept.iter().map(|(user, place)| (place.slot.used(), *user)).collect();
        by_age.sort_unstable_by_key(|(used, _)| *used);
        // A little more than needed, so that not every search has to look for who leaves next.
        let goal = self.bytes_max - self.bytes_max / 16;
        for (_, user) in by_age {
            if users.size_bytes <= goal {
                break;
            }
            users.take_out(user);
        }
    }

    /// The rows of `user` as of `version` or later. `read` reads them from the snapshot of that version where they are not
    /// kept, `count` counts the memories. None where they do not fit.
    pub(crate) fn rows(
        &self,
        user: UserKey,
        version: Version,
        count: impl Fn() -> Result<usize>,
        read: impl FnOnce() -> Result<Read>,
    ) -> Result<Option<Arc<Rows>>> {
        let Some(slot) = self.slot(user) else { return Ok(None) };
        if let Some(rows) = slot.rows(version) {
            return Ok(Some(rows));
        }
        self.wait_for(user, version);
        if let Some(rows) = slot.rows(version) {
            return Ok(Some(rows));
        }
        let _alone = lock(&slot.reading);
        if let Some(rows) = slot.rows(version) {
            return Ok(Some(rows));
        }
        if slot.refuses(|| count().unwrap_or(usize::MAX)) {
            return Ok(None);
        }
        let loading = Loading::begin(&slot);
        let kept = match read()? {
            Read::Rows(rows) => Some(slot.keep_rows(version, rows)),
            Read::TooMany { memories } => {
                slot.refuse(memories);
                None
            }
        };
        drop(loading);
        self.settle(user);
        Ok(kept)
    }

    /// The postings of each term as of `version` or later; `read` reads those of a term that are not kept.
    pub(crate) fn postings(
        &self,
        user: UserKey,
        version: Version,
        term: &str,
        read: impl FnOnce() -> Result<Postings>,
    ) -> Result<Postings> {
        let Some(slot) = self.slot(user) else { return read() };
        if let Some(postings) = slot.postings(version, term) {
            return Ok(postings);
        }
        let _alone = lock(&slot.reading);
        if let Some(postings) = slot.postings(version, term) {
            return Ok(postings);
        }
        let loading = Loading::begin(&slot);
        let postings = read()?;
        slot.keep_postings(version, term, &postings);
        drop(loading);
        self.settle(user);
        Ok(postings)
    }

    /// Waits while `version` of `user` is committed and not handed over.
    fn wait_for(&self, user: UserKey, version: Version) {
        let coming = lock(&self.coming);
        let is_coming = |coming: &mut HashMap<UserKey, Version>| coming.get(&user).is_some_and(|next| *next >= version);
        // Whichever way it ends: what is kept then is looked at again.
        drop(self.arrived.wait_timeout_while(coming, PUBLICATION_TIMEOUT, is_coming));
    }

    /// To be called before a commit: what it will change.
    pub(super) fn announce(&self, publications: &[Publication]) {
        if self.bytes_max > 0 && !publications.is_empty() {
            let mut coming = lock(&self.coming);
            coming.extend(publications.iter().map(Publication::announced));
        }
    }

    /// To be called after a commit with what it changed, and with nothing after a commit that failed.
    pub(super) fn publish(&self, publications: Vec<Publication>) {
        for publication in publications {
            match publication {
                Publication::Changes(changes) => self.apply(changes),
                Publication::Erasure(user) => {
                    let mut users = lock(&self.users);
                    users.erased.insert(user);
                    users.take_out(user);
                }
            }
        }
        lock(&self.coming).clear();
        self.arrived.notify_all();
    }

    fn apply(&self, changes: Changes) {
        let user = changes.user;
        // Where nobody has searched, nothing is kept.
        let slot = lock(&self.users).kept.get(&user).map(|kept| Arc::clone(&kept.slot));
        if let Some(slot) = slot {
            slot.apply(&Arc::new(changes));
            self.settle(user);
        }
    }

    /// Forgets all that is kept: the next searches read it anew.
    pub(super) fn clear(&self) {
        let mut users = lock(&self.users);
        let kept: Vec<UserKey> = users.kept.keys().copied().collect();
        for user in kept {
            users.take_out(user);
        }
        drop(users);
        lock(&self.coming).clear();
        self.arrived.notify_all();
    }

    /// A search for a user whose memories are still being loaded waits here, before it takes one of the few reader
    /// connections: otherwise all of them could end up waiting for the loader. Hold the result during the search; none
    /// where nothing is being loaded.
    pub(super) async fn turn(&self, user: UserKey) -> Option<OwnedMutexGuard<()>> {
        let slot = self.slot(user).filter(|slot| !slot.is_known())?;
        let turn = Arc::clone(&slot.turn).lock_owned().await;
        (!slot.is_known()).then_some(turn)
    }
}

impl Users {
    fn take_out(&mut self, user: UserKey) {
        if let Some(place) = self.kept.remove(&user) {
            place.slot.leave();
            self.size_bytes = self.size_bytes.saturating_sub(place.size_bytes);
        }
    }
}

/// A read under way, ended however it ends.
struct Loading<'s>(&'s Slot);

impl<'s> Loading<'s> {
    fn begin(slot: &'s Slot) -> Self {
        slot.begin_loading();
        Self(slot)
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.end_loading();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::unit::Timestamp;

    fn rows() -> Rows {
        let (timestamp, session) = (Timestamp(0), SessionHash::of(None));
        let mut rows = Rows::default();
        rows.put(Row { key: 1, text_bytes: 1, expires_at: None, session, timestamp }, Some(&[]));
        rows
    }

    fn is_kept(recall: &Recall, user: UserKey) -> bool {
        let mut reads = 0;
        let read = || {
            reads += 1;
            Ok(Read::Rows(rows()))
        };
        assert!(recall.rows(user, 1, || Ok(1), read).unwrap().is_some());
        reads == 0
    }

    #[test]
    fn what_is_forgotten_is_read_anew() {
        let recall = Recall::new(1 << 20);
        assert!(!is_kept(&recall, UserKey(1)));
        assert!(is_kept(&recall, UserKey(1)));
        recall.clear();
        assert_eq!(recall.size_bytes(), 0);
        assert!(!is_kept(&recall, UserKey(1)));
        assert!(is_kept(&recall, UserKey(1)));
    }

    #[tokio::test]
    async fn who_searches_what_is_being_read_waits_for_its_turn_and_nobody_else_does() {
        let recall = Recall::new(1 << 20);
        let turn = recall.turn(UserKey(1)).await;
        assert!(turn.is_some());
        let second = recall.turn(UserKey(1));
        tokio::pin!(second);
        let waits = tokio::time::timeout(Duration::from_millis(20), &mut second).await;
        assert!(waits.is_err());
        assert!(recall.turn(UserKey(2)).await.is_some());
        is_kept(&recall, UserKey(1));
        drop(turn);
        assert!(second.await.is_none());
        assert!(recall.turn(UserKey(1)).await.is_none());
        assert!(Recall::new(0).turn(UserKey(1)).await.is_none());
    }
}
