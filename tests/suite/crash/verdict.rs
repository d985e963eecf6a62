//! What is there after a kill, held against what was asked and what was acknowledged.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::client::{Act, What};
use super::copy::Copied;
use super::server::Caller;

/// Opens a database to look, past the program.
#[expect(clippy::disallowed_methods, reason = "a look from outside")]
pub(super) fn open(directory: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(directory.join("tallybox.db"), flags).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    database
}

fn counts(database: &Connection, sql: &str) -> HashMap<Value, i64> {
    let mut statement = database.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        let what = match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => Value::from(number),
            _ => Value::from(row.get::<_, String>(0)?),
        };
        Ok((what, row.get(1)?))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// How many entries of tokens there are of each amount.
pub(super) fn entries(database: &Connection) -> HashMap<u64, i64> {
    let counts = counts(database, "SELECT amount, count(*) FROM ledger WHERE resource = 0 GROUP BY amount");
    counts.into_iter().map(|(amount, count)| (amount.as_u64().unwrap(), count)).collect()
}

/// All that can be counted.
struct Found {
    entries: HashMap<u64, i64>,
    holds: HashMap<Value, i64>,
    memories: HashMap<Value, i64>,
    runs: HashMap<Value, i64>,
    running: HashMap<Value, i64>,
}

impl Found {
    fn of(directory: &Path) -> Self {
        let database = open(directory);
        Self {
            entries: entries(&database),
            holds: counts(&database, "SELECT amount, count(*) FROM reservations WHERE maker = 0 GROUP BY amount"),
            memories: counts(&database, "SELECT text, count(*) FROM memories GROUP BY text"),
            runs: counts(&database, "SELECT name, count(*) FROM runs GROUP BY name"),
            running: counts(&database, "SELECT name, count(*) FROM runs WHERE due_at IS NOT NULL GROUP BY name"),
        }
    }

    /// How often the act has been done, by the rows that it leaves behind; none for what leaves none to count.
    fn times(&self, act: &Act) -> Option<Vec<i64>> {
        let of = |counts: &HashMap<Value, i64>, what: Value| vec![counts.get(&what).copied().unwrap_or(0)];
        let entry = |mark: u64| self.entries.get(&mark).copied().unwrap_or(0);
        match act.what {
            What::Record | What::Settle { .. } => Some(vec![entry(act.mark)]),
            What::Batch => Some((act.mark..act.mark + 3).map(entry).collect()),
            What::Hold => Some(of(&self.holds, act.mark.into())),
            What::Store => Some(of(&self.memories, act.text().into())),
            What::Run => Some(of(&self.runs, act.text().into())),
            What::Delete { .. } | What::Stop { .. } | What::Login => None,
        }
    }

    /// Whether what was acknowledged is there exactly once, and what was not wholly or not at all.
    fn judge(&self, act: &Act, is_deleted: bool) {
        let Some(times) = self.times(act) else {
            return;
        };
        if is_deleted {
            assert_eq!(times, [0], "a deleted memory is there: {act:?}");
        } else if act.is_acknowledged() {
            assert!(times.iter().all(|times| *times == 1), "there {times:?} times: {act:?}");
        } else {
            let is_whole = times.iter().all(|there| *there == 1) || times.iter().all(|there| *there == 0);
            assert!(is_whole, "half-done, there {times:?} times: {act:?}");
        }
    }
}

/// Numbers under which something was asked that ends what was made under them: of which it is known, and of which not.
fn ended(acts: &[Act], is_end: fn(&What) -> bool) -> (Vec<u64>, Vec<u64>) {
    let (known, unknown): (Vec<&Act>, Vec<&Act>) =
        acts.iter().filter(|act| is_end(&act.what)).partition(|act| act.is_acknowledged());
    let marks = |acts: Vec<&Act>| acts.into_iter().map(|act| act.mark).collect();
    (marks(known), marks(unknown))
}

/// Holds what is there after a kill against what was seen; then asks again whatever had no answer, and counts once more.
#[expect(clippy::print_stdout, reason = "shown where the test fails, or is asked to show it")]
pub(super) fn settle(caller: &Caller<'_>, directory: &Path, acts: &[Act], round: u64) {
    println!("round {round}: {} acts, {} without an answer", acts.len(), open_ends(acts).count());
    let found = Found::of(directory);
    let (deleted, perhaps_deleted) = ended(acts, |what| matches!(what, What::Delete { .. }));
    let (stopped, _) = ended(acts, |what| matches!(what, What::Stop { .. }));
    for act in acts {
        if !(matches!(act.what, What::Store) && perhaps_deleted.contains(&act.mark)) {
            found.judge(act, matches!(act.what, What::Store) && deleted.contains(&act.mark));
        }
        if matches!(act.what, What::Run) && stopped.contains(&act.mark) {
            assert!(!found.running.contains_key(&Value::from(act.text())), "a stopped run goes on: {act:?}");
        }
        if let (What::Login, Some(answer)) = (&act.what, &act.answer) {
            let session = Caller { token: answer["token"].as_str().unwrap(), ..*caller };
            let me = session.call("GET", "/auth/me", None, None);
            assert_eq!(me.map(|(status, _)| status), Some(200), "a session is gone: {act:?}");
        }
    }
    // Whoever had no answer asks again, with the same key.
    for act in open_ends(acts) {
        let (status, answer) = act.send(caller).unwrap();
        let is_gone = status == 404 && matches!(act.what, What::Delete { .. });
        assert!((200..300).contains(&status) || is_gone, "{act:?}: {status} {answer}");
    }
    let found = Found::of(directory);
    for act in open_ends(acts) {
        let is_once = found.times(act).is_none_or(|times| times.iter().all(|times| *times == 1));
        assert!(is_once, "not there once after it was asked again: {act:?}");
    }
    for mark in &perhaps_deleted {
        let act = acts.iter().find(|act| act.mark == *mark && matches!(act.what, What::Store)).unwrap();
        found.judge(act, true);
    }
}

fn open_ends(acts: &[Act]) -> impl Iterator<Item = &Act> {
    acts.iter().filter(|act| !act.is_acknowledged())
}

/// Holds everything there is against everything that was asked: each act has been done exactly once by now.
pub(super) fn all_is_there(directory: &Path, acts: &[Act]) {
    let found = Found::of(directory);
    let (mut deleted, perhaps_deleted) = ended(acts, |what| matches!(what, What::Delete { .. }));
    deleted.extend(perhaps_deleted);
    let deleted: std::collections::HashSet<u64> = deleted.into_iter().collect();
    let mut entries = 0;
    for act in acts {
        let is_deleted = matches!(act.what, What::Store) && deleted.contains(&act.mark);
        let times = found.times(act).unwrap_or_default();
        let expected = i64::from(!is_deleted);
        assert!(times.iter().all(|times| *times == expected), "there {times:?} times at the end: {act:?}");
        if matches!(act.what, What::Record | What::Settle { .. } | What::Batch) {
            entries += times.len();
        }
    }
    assert_eq!(found.entries.len(), entries, "there are entries that nobody asked for");
}

/// A run that never tries something proves nothing of it.
#[expect(clippy::print_stdout, reason = "shown where the test fails, or is asked to show it")]
pub(super) fn all_was_tried(acts: &[Act], copied: &Copied, rounds: u64) {
    let acknowledged = |is: fn(&What) -> bool| acts.iter().filter(|act| is(&act.what) && act.is_acknowledged()).count();
    let tried = [
        acknowledged(|what| matches!(what, What::Record)),
        acknowledged(|what| matches!(what, What::Batch)),
        acknowledged(|what| matches!(what, What::Hold)),
        acknowledged(|what| matches!(what, What::Settle { .. })),
        acknowledged(|what| matches!(what, What::Store)),
        acknowledged(|what| matches!(what, What::Delete { .. })),
        acknowledged(|what| matches!(what, What::Login)),
        acknowledged(|what| matches!(what, What::Run)),
        acknowledged(|what| matches!(what, What::Stop { .. })),
    ];
    println!("acknowledged: {tried:?}; without an answer: {}; backups: {copied:?}", open_ends(acts).count());
    // A few rounds may miss what is rare.
    if rounds >= 20 {
        assert!(tried.iter().all(|tried| *tried > 0), "{tried:?}");
        assert!(open_ends(acts).count() > 0, "no kill ever met anything under way");
        assert!(copied.whole > 0 && copied.whole + copied.cut >= rounds / 4, "{copied:?}");
    }
}
