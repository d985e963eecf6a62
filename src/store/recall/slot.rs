//! What is kept of one user: the rows, the words that were asked for, and the last changes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::rows::Rows;
use super::{Change, Changes, Postings, Version, WORD_COUNT_MAX, lock};

/// Different words kept for one user; one more, and all are forgotten.
const WORDS_MAX: usize = 16_384;
/// Changes that are remembered, so that what was read a moment ago can be brought to what holds now.
const LOG_CHANGES_MAX: usize = 1_024;
/// As many while something is being read.
const LOG_CHANGES_MAX_LOADING: usize = 65_536;
/// What a kept word costs beside its text and postings, in bytes.
const WORD_OVERHEAD_BYTES: usize = 128;

/// The share of the whole index that one user's kept words may take, and that the last changes may: one part in so
/// many.
const WORDS_PART: usize = 4;
const LOG_PART: usize = 16;

/// What holds at one version.
struct Loaded {
    version: Version,
    rows: Arc<Rows>,
    words: HashMap<Box<str>, Postings>,
    words_bytes: usize,
}

impl Loaded {
    fn size_bytes(&self) -> usize {
        self.rows.size_bytes() + self.words_bytes
    }

    /// Forgets the words where they are too many or take more than `bytes_max`.
    fn bound_words(&mut self, bytes_max: usize) {
        if self.words.len() > WORDS_MAX || self.words_bytes > bytes_max {
            self.words = HashMap::new();
            self.words_bytes = 0;
        }
    }

    fn apply(&mut self, commit: &Changes) {
        let rows = Arc::make_mut(&mut self.rows);
        for change in &commit.list {
            apply_to_rows(rows, change);
            let Change::Words { memory, terms, leaves } = change else { continue };
            for (term, count) in count_terms(terms) {
                let Some(postings) = self.words.get_mut(term) else { continue };
                let before = postings.size_bytes();
                change_posting(postings, *memory, count, *leaves);
                self.words_bytes = (self.words_bytes + postings.size_bytes()).saturating_sub(before);
            }
        }
        self.version = commit.version;
    }
}

fn apply_to_rows(rows: &mut Rows, change: &Change) {
    match change {
        Change::Put { row, codes } => rows.put(*row, codes.as_deref()),
        Change::Remove { key } => rows.remove(*key),
        Change::Words { .. } => {}
    }
}

/// Each term of a memory once, with how often it stands there.
fn count_terms(terms: &str) -> HashMap<&str, u64> {
    let mut counts = HashMap::new();
    for term in terms.split_ascii_whitespace() {
        *counts.entry(term).or_insert(0) += 1;
    }
    counts
}

fn change_posting(postings: &mut Postings, memory: i64, count: u64, leaves: bool) {
    if leaves {
        postings.remove_by(|posting| super::memory_of(*posting).cmp(&memory));
    } else {
        postings.insert(super::posting(memory, count.min(WORD_COUNT_MAX)));
    }
}

#[derive(Default)]
struct State {
    loaded: Option<Loaded>,
    log: VecDeque<Arc<Changes>>,
    log_changes: usize,
    log_bytes: usize,
    /// Reads under way whose result has to be brought up to date.
    loading: usize,
    /// How many memories the user had when they were found to be too many.
    refused: Option<usize>,
    /// Whether the slot has been taken out: nothing is put into it any more.
    is_gone: bool,
}

impl State {
    /// The changes from `version` on to `until`, where all are remembered.
    fn changes_since(&self, version: Version, until: Version) -> Option<Vec<Arc<Changes>>> {
        let wanted = || self.log.iter().filter(|commit| commit.version > version);
        let mut next = version;
        for commit in wanted().take_while(|commit| commit.version <= until) {
            next += 1;
            if commit.version != next {
                return None;
            }
        }
        (next == until).then(|| wanted().filter(|commit| commit.version <= until).cloned().collect())
    }

    fn remember(&mut self, commit: &Arc<Changes>, bytes_max: usize) {
        // A gap, where another process wrote in between, or a commit that came to nothing.
        if self.log.back().is_some_and(|last| last.version + 1 != commit.version) {
            self.log.clear();
            (self.log_changes, self.log_bytes) = (0, 0);
        }
        self.log_changes += commit.list.len();
        self.log_bytes += commit.size_bytes;
        self.log.push_back(Arc::clone(commit));
        let most = if self.loading > 0 { LOG_CHANGES_MAX_LOADING } else { LOG_CHANGES_MAX };
        while self.log_changes > most || self.log_bytes > bytes_max {
            let Some(oldest) = self.log.pop_front() else { break };
            self.log_changes -= oldest.list.len();
            self.log_bytes -= oldest.size_bytes;
        }
    }
}

/// The place of one user.
pub(super) struct Slot {
    /// Of the whole index.
    bytes_max: usize,
    state: Mutex<State>,
    /// Held while rows or words of this user are read from the database, so that many searches that need the same read
    /// it once.
    pub(super) reading: Mutex<()>,
    /// Held by the search that loads the user's memories, so that others wait before they take a reader connection.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// When it was asked last, by the index's own count.
    used: AtomicU64,
}

impl Slot {
    /// An empty one in an index of at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            state: Mutex::default(),
            reading: Mutex::default(),
            turn: Arc::default(),
            used: AtomicU64::default(),
        }
    }

    /// Whether anything is kept, or known to be too much.
    pub(super) fn is_known(&self) -> bool {
        let state = lock(&self.state);
        state.loaded.is_some() || state.refused.is_some()
    }

    /// The rows, if they stand for `version` or a later one.
    pub(super) fn rows(&self, version: Version) -> Option<Arc<Rows>> {
        let state = lock(&self.state);
        state.loaded.as_ref().filter(|loaded| loaded.version >= version).map(|loaded| Arc::clone(&loaded.rows))
    }

    /// The postings of a term, if they stand for `version` or a later one.
    pub(super) fn postings(&self, version: Version, term: &str) -> Option<Postings> {
        let state = lock(&self.state);
        state.loaded.as_ref().filter(|loaded| loaded.version >= version)?.words.get(term).cloned()
    }

    /// Whether `memories` were found to be too many, as far as is known.
    pub(super) fn refuses(&self, memories: impl FnOnce() -> usize) -> bool {
        let refused = lock(&self.state).refused;
        // Half of them may fit; to read them all to find out is not worth it for a few fewer.
        refused.is_some_and(|refused| memories() > refused / 2)
    }

    pub(super) fn refuse(&self, memories: usize) {
        let mut state = lock(&self.state);
        state.loaded = None;
        state.refused = Some(memories);
    }

    /// To be called before something is read that is to be kept, and [`Slot::end_loading`] after it.
    pub(super) fn begin_loading(&self) {
        lock(&self.state).loading += 1;
    }

    pub(super) fn end_loading(&self) {
        let mut state = lock(&self.state);
        state.loading = state.loading.saturating_sub(1);
    }

    /// Keeps rows that were read at `version`, with the changes since, where those are remembered. Gives what is to be read.
    pub(super) fn keep_rows(&self, version: Version, rows: Rows) -> Arc<Rows> {
        let rows = Arc::new(rows);
        let mut state = lock(&self.state);
        if state.is_gone || state.loaded.as_ref().is_some_and(|loaded| loaded.version >= version) {
            return rows;
        }
        let mut loaded = Loaded { version, rows: Arc::clone(&rows), words: HashMap::new(), words_bytes: 0 };
        let newest = state.log.back().map_or(version, |last| last.version.max(version));
        // What cannot be brought up to date is too old for the next search, and read again by it.
        for commit in state.changes_since(version, newest).unwrap_or_default() {
            loaded.apply(&commit);
        }
        state.refused = None;
        state.loaded = Some(loaded);
        rows
    }

    /// Keeps the postings of a term that were read at `version`, with the changes since, where those are remembered.
    pub(super) fn keep_postings(&self, version: Version, term: &str, postings: &Postings) {
        let mut state = lock(&self.state);
        let Some(until) = state.loaded.as_ref().map(|loaded| loaded.version) else { return };
        let Some(since) = state.changes_since(version, until) else { return };
        let mut postings = postings.clone();
        for change in since.iter().flat_map(|commit| &commit.list) {
            let Change::Words { memory, terms, leaves } = change else { continue };
            let count = terms.split_ascii_whitespace().filter(|other| *other == term).count();
            if let Ok(count @ 1..) = u64::try_from(count) {
                change_posting(&mut postings, *memory, count, *leaves);
            }
        }
        let Some(loaded) = &mut state.loaded else { return };
        loaded.words_bytes += postings.size_bytes() + term.len() + WORD_OVERHEAD_BYTES;
        loaded.words.insert(term.into(), postings);
        loaded.bound_words(self.bytes_max / WORDS_PART);
    }

    /// Brings what is kept to the version of `commit`; what is too old for that is dropped.
    pub(super) fn apply(&self, commit: &Arc<Changes>) {
        let mut state = lock(&self.state);
        if state.loaded.is_some() || state.loading > 0 {
            state.remember(commit, self.bytes_max / LOG_PART);
        }
        let Some(loaded) = &mut state.loaded else { return };
        if loaded.version + 1 == commit.version {
            loaded.apply(commit);
            loaded.bound_words(self.bytes_max / WORDS_PART);
        } else if loaded.version < commit.version {
            state.loaded = None;
        }
    }

    /// The slot has been taken out.
    pub(super) fn leave(&self) {
        let mut state = lock(&self.state);
        *state = State { is_gone: true, loading: state.loading, ..State::default() };
    }

    pub(super) fn size_bytes(&self) -> usize {
        let state = lock(&self.state);
        state.loaded.as_ref().map_or(0, Loaded::size_bytes) + state.log_bytes
    }

    /// When it was asked last.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that it is asked.
    pub(super) fn touch(&self, time: u64) {
        self.used.store(time, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{Row, SessionHash, memory_of, posting};
    use super::*;
    use crate::domain::auth::UserKey;
    use crate::domain::memory::{Code, Embedding};
    use crate::domain::unit::Timestamp;

    /// What the database holds: of each memory its length, which is also how often it holds the one word.
    type Table = BTreeMap<i64, u32>;

    #[derive(Clone, Debug)]
    enum Step {
        /// The writer changes a memory (0: takes it away) and hands it over.
        Write { key: i64, length: u32 },
        /// Another process does.
        WriteElsewhere { key: i64, length: u32 },
        /// A search reads rows and postings of a version so far back.
        Read { back: usize },
        /// Such a read begins, and ends only after the next writes.
        Begin { back: usize },
        /// It ends.
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        let change = || (0..40_i64, 0..4_u32);
        prop_oneof![
            6 => change().prop_map(|(key, length)| Step::Write { key, length }),
            1 => change().prop_map(|(key, length)| Step::WriteElsewhere { key, length }),
            3 => (0..3_usize).prop_map(|back| Step::Read { back }),
            2 => (0..3_usize).prop_map(|back| Step::Begin { back }),
            2 => Just(Step::End),
        ]
    }

    fn row(key: i64, text_bytes: u32) -> Row {
        Row { key, text_bytes, expires_at: None, session: SessionHash::of(None), timestamp: Timestamp(key % 7) }
    }

    fn code() -> Code {
        Code::of(&Embedding::normalised(&[1.0; 384]).unwrap())
    }

    fn rows_of(table: &Table) -> Rows {
        let mut rows = Rows::default();
        for (key, length) in table {
            rows.put(row(*key, *length), Some(&[code()]));
        }
        rows
    }

    fn postings_of(table: &Table) -> Postings {
        let postings: Vec<u64> = table.iter().map(|(key, length)| posting(*key, u64::from(*length))).collect();
        Postings::from_ordered(&postings)
    }

    fn terms(count: u32) -> String {
        "word ".repeat(count as usize)
    }

    fn change(table: &mut Table, key: i64, length: u32) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(before) = table.remove(&key) {
            changes.push(Change::Words { memory: key, terms: terms(before), leaves: true });
            if length == 0 {
                changes.push(Change::Remove { key });
            }
        }
        if length > 0 {
            table.insert(key, length);
            changes.push(Change::Words { memory: key, terms: terms(length), leaves: false });
            changes.push(Change::Put { row: row(key, length), codes: Some(vec![code()]) });
        }
        changes
    }

    /// Whatever is given for the newest version is what the database holds.
    fn holds(slot: &Slot, version: Version, table: &Table) {
        if let Some(rows) = slot.rows(version) {
            let mut found = Table::new();
            rows.each_living(Timestamp(0), |row| found.extend([(row.key, row.text_bytes)]));
            assert_eq!(&found, table);
        }
        if let Some(postings) = slot.postings(version, "word") {
            let found: Table = postings
                .iter()
                .map(|posting| (memory_of(*posting), u32::try_from(super::super::count_of(*posting)).unwrap()))
                .collect();
            assert_eq!(&found, table);
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_the_database_holds(steps in prop::collection::vec(step(), 1..200)) {
            let slot = Slot::new(1 << 30);
            let mut versions: Vec<Table> = vec![Table::new()];
            let mut begun: Vec<(Version, Table)> = Vec::new();
            let end = |(version, table): (Version, Table)| {
                slot.keep_rows(version, rows_of(&table));
                slot.keep_postings(version, "word", &postings_of(&table));
                slot.end_loading();
            };
            for step in steps {
                let mut table = versions.last().unwrap().clone();
                let back = |back: usize| {
                    let version = versions.len().saturating_sub(back + 1);
                    (Version::try_from(version).unwrap(), versions[version].clone())
                };
                match step {
                    Step::Write { key, length } => {
                        let changes = change(&mut table, key, length);
                        let version = Version::try_from(versions.len()).unwrap();
                        slot.apply(&Arc::new(Changes::new(UserKey(1), version, changes)));
                        versions.push(table);
                    }
                    Step::WriteElsewhere { key, length } => {
                        change(&mut table, key, length);
                        versions.push(table);
                    }
                    Step::Read { back: number } => {
                        slot.begin_loading();
                        end(back(number));
                    }
                    Step::Begin { back: number } => {
                        slot.begin_loading();
                        begun.push(back(number));
                    }
                    Step::End => begun.pop().into_iter().for_each(&end),
                }
                let newest = Version::try_from(versions.len() - 1).unwrap();
                holds(&slot, newest, versions.last().unwrap());
            }
            // A read of the newest is kept, whatever was before.
            let newest = (Version::try_from(versions.len() - 1).unwrap(), versions.last().unwrap().clone());
            slot.begin_loading();
            end(newest.clone());
            prop_assert!(slot.rows(newest.0).is_some());
            prop_assert!(slot.postings(newest.0, "word").is_some());
        }
    }

    #[test]
    fn one_users_words_and_changes_take_a_part_of_the_room() {
        const BYTES_MAX: usize = 1 << 16;
        let slot = Slot::new(BYTES_MAX);
        let table: Table = (0..100).map(|key| (key, 1)).collect();
        slot.begin_loading();
        slot.keep_rows(0, rows_of(&table));
        let rows_bytes = slot.size_bytes();
        let mut forgotten = 0;
        for number in 0..1_000 {
            slot.keep_postings(0, &format!("word{number}"), &postings_of(&table));
            forgotten += usize::from(slot.postings(0, &format!("word{number}")).is_none());
            assert!(slot.size_bytes() <= rows_bytes + BYTES_MAX / WORDS_PART, "{number}");
        }
        assert!((1..100).contains(&forgotten), "they come and go");
        for version in 1..1_000 {
            let changes = change(&mut table.clone(), version % 100, 3);
            slot.apply(&Arc::new(Changes::new(UserKey(1), version, changes)));
            assert!(lock(&slot.state).log_bytes <= BYTES_MAX / LOG_PART, "{version}");
        }
        assert!(lock(&slot.state).log_changes > 0);
        slot.end_loading();
    }
}
