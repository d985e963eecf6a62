//! Backups and their restoring: the real binary, beside a server that is written to.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tallybox::backup::Backups;
use tallybox::store::DirectoryLock;
use tokio::task::JoinSet;

use super::calls::tokens;
use super::cli::{fails, run, run_with};
use super::support::{TestApp, TestUser};

async fn used(app: &TestApp, user: &TestUser) -> i64 {
    app.tokens(user).await.0
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_whole_and_comes_back() {
    let app = Arc::new(TestApp::new());
    let user = app.user("a@example.org", "pro").await;
    let memory = json!({"type": "note", "input_context": "The boiler is serviced in May."});
    app.tell(&user.token, "/memory/store", memory).await.expect(201);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let (app, token, stop) = (Arc::clone(&app), user.token.clone(), Arc::clone(&stop));
        writers.spawn(async move {
            let (mut acknowledged, mut longest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                app.tell(&token, "/usage/record", tokens(1)).await.expect(201);
                longest = longest.max(begun.elapsed());
                acknowledged += 1;
            }
            (acknowledged, longest)
        });
    }
    while used(&app, &user).await < 20 {
        tokio::task::yield_now().await;
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("box.db");
    let before = used(&app, &user).await;
    let there = app.directory.path().to_owned();
    let target = backup.clone();
    let said = tokio::task::spawn_blocking(move || run(&there, &["backup", path_text(&target)])).await.unwrap();
    let after = used(&app, &user).await;
    stop.store(true, Ordering::Relaxed);
    let (acknowledged, waited): (Vec<i64>, Vec<Duration>) = writers.join_all().await.into_iter().unzip();
    let acknowledged: i64 = acknowledged.into_iter().sum();
    // Who writes does not wait for the copy: commits go on throughout, each at most as long as a busy machine takes.
    assert!(after - before >= 8, "{} acknowledged while it was made", after - before);
    assert!(waited.iter().all(|longest| longest.as_secs() < 2), "{waited:?}");
    assert!(said.contains("proven"), "{said}");
    assert_eq!(names_in(elsewhere.path()), ["box.db"], "one file, nothing beside it");
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(used(&app, &user).await, acknowledged);
    // It comes back into another directory, with everything that was acknowledged before it began.
    let other = tempfile::tempdir().unwrap();
    run(other.path(), &["restore", path_text(&backup)]);
    assert!(run(other.path(), &["check"]).starts_with("ok"));
    let restored = TestApp::at(other);
    let there = used(&restored, &user).await;
    assert!((before..=after).contains(&there), "{before} <= {there} <= {after}");
    let query = json!({"query": "when is the boiler serviced?"});
    let found = restored.tell(&user.token, "/memory/search", query).await.expect(200).json;
    assert_eq!(found["results"][0]["input_context"], "The boiler is serviced in May.");
}

#[tokio::test]
async fn a_restore_keeps_what_it_replaces_with_its_log() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 5).await;
    let backup = app.directory.path().join("early.db");
    run(app.directory.path(), &["backup", path_text(&backup)]);
    app.used_up(&user, 7).await;
    let directory = app.stop();
    run(directory.path(), &["restore", path_text(&backup)]);
    let kept = directory.path().join("tallybox.db.before-restore");
    assert!(kept.is_file() && backup.is_file());
    let app = TestApp::at(directory);
    assert_eq!(used(&app, &user).await, 5);
    app.used_up(&user, 1).await;
    // What was replaced is itself a database that comes back, whole.
    let directory = app.stop();
    run(directory.path(), &["restore", path_text(&kept)]);
    let app = TestApp::at(directory);
    assert_eq!(used(&app, &user).await, 12);
}

#[tokio::test]
async fn what_cannot_be_restored_changes_nothing() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 5).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = |name: &str| elsewhere.path().join(name);
    run(app.directory.path(), &["backup", path_text(&file("good.db"))]);
    let lock = DirectoryLock::try_take(app.directory.path()).unwrap().unwrap();
    let good = file("good.db");
    let said = fails(&run_with(app.directory.path(), &["restore", path_text(&good)], ""));
    assert!(said.contains("a server runs"), "{said}");
    drop(lock);
    let directory = app.stop();
    let bytes = fs::read(&good).unwrap();
    fs::write(file("text.db"), "not a database, but long enough to be looked at as if it were one").unwrap();
    fs::write(file("short.db"), &bytes[..bytes.len() / 2]).unwrap();
    let mut newer = bytes.clone();
    newer[63] = 99;
    fs::write(file("newer.db"), newer).unwrap();
    let mut foreign = bytes.clone();
    foreign[68..72].fill(1);
    fs::write(file("foreign.db"), foreign).unwrap();
    // Pages in the middle that are not what they were.
    let mut damaged = bytes;
    let (from, to) = (damaged.len() / 4, damaged.len() * 3 / 4);
    damaged[from..to].fill(0xa5);
    fs::write(file("damaged.db"), damaged).unwrap();
    let before = names_in(directory.path());
    for (name, why) in [
        ("text.db", "not a database"),
        ("short.db", ""),
        ("newer.db", "newer"),
        ("foreign.db", "not a database of tallybox"),
        ("damaged.db", ""),
        ("missing.db", "no file"),
        (".", ""),
    ] {
        let said = fails(&run_with(directory.path(), &["restore", path_text(&file(name))], ""));
        assert!(said.contains("nothing was restored") && said.contains(why), "{name}: {said}");
        assert_eq!(names_in(directory.path()), before, "{name}");
    }
    let itself = directory.path().join("tallybox.db");
    assert!(fails(&run_with(directory.path(), &["restore", path_text(&itself)], "")).contains("the database itself"));
    assert!(fails(&run_with(directory.path(), &["backup", path_text(&itself)], "")).contains("the database itself"));
    let nowhere = file("no/such/place.db");
    assert!(fails(&run_with(directory.path(), &["backup", path_text(&nowhere)], "")).contains("there is no directory"));
    let app = TestApp::at(directory);
    assert_eq!(used(&app, &user).await, 5);
    app.proves();
}

#[tokio::test]
async fn a_backup_takes_a_links_place_and_never_follows_it() {
    let app = TestApp::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let (precious, link) = (elsewhere.path().join("precious"), elsewhere.path().join("link.db"));
    fs::write(&precious, "kept").unwrap();
    std::os::unix::fs::symlink(&precious, &link).unwrap();
    run(app.directory.path(), &["backup", path_text(&link)]);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
}

#[tokio::test]
async fn the_newest_backups_of_a_schedule_are_kept_and_nothing_else_is_touched() {
    let app = TestApp::with_config("[backup]\nevery = \"1h\"\nkeep = 2\n");
    let into = app.directory.path().join("backups");
    let make = |backups: &Backups| backups.make(app.clock.now()).unwrap();
    let backups = app.app.backups().unwrap();
    let mut made: Vec<PathBuf> = vec![make(&backups)];
    // The copies that others are about to make are theirs, whatever their names.
    let others = ["tallybox-mine.db", "notes.txt", "tallybox-20200101T000000Z.db.partial-1"];
    for name in others {
        fs::write(into.join(name), "x").unwrap();
    }
    for _ in 0..3 {
        app.clock.advance_millis(3_600_000);
        made.push(make(&backups));
    }
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut expected: Vec<String> = others.map(str::to_owned).to_vec();
    expected.extend(made[2..].iter().map(name));
    expected.sort();
    assert_eq!(names_in(&into), expected);
    assert!(TestApp::new().app.backups().is_none(), "none by default");
    let other = tempfile::tempdir().unwrap();
    run(other.path(), &["restore", path_text(&made[3])]);
    assert!(run(other.path(), &["check"]).starts_with("ok"));
}

#[tokio::test]
async fn what_a_killed_schedule_had_begun_makes_room_and_links_in_its_place_are_not_followed() {
    let app = TestApp::with_config("[backup]\nevery = \"1h\"\nkeep = 2\n");
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 5).await;
    let into = app.directory.path().join("backups");
    let backups = app.app.backups().unwrap();
    let first = backups.make(app.clock.now()).unwrap();
    let data = fs::metadata(app.directory.path()).unwrap();
    let unfinished = into.join(format!("tallybox-unfinished-{:x}-{:x}.partial", data.dev(), data.ino()));
    let journal = into.join(format!("{}-journal", unfinished.file_name().unwrap().to_str().unwrap()));
    let precious = app.directory.path().join("precious");
    fs::write(&precious, "kept").unwrap();
    let leave: [&dyn Fn(); 2] = [
        &|| {
            fs::write(&unfinished, "half of a copy").unwrap();
            fs::write(&journal, "a journal of it").unwrap();
        },
        &|| std::os::unix::fs::symlink(&precious, &unfinished).unwrap(),
    ];
    let mut made = vec![first];
    for leave in leave {
        leave();
        app.clock.advance_millis(3_600_000);
        made.push(backups.make(app.clock.now()).unwrap());
        assert!(!unfinished.exists() && !journal.exists());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
        let other = tempfile::tempdir().unwrap();
        run(other.path(), &["restore", path_text(made.last().unwrap())]);
        assert!(run(other.path(), &["check"]).starts_with("ok"));
    }
    // A link in the place of a backup is replaced as well.
    app.clock.advance_millis(3_600_000);
    let next = made[0].with_file_name(format!("tallybox-{}.db", app.clock.now().to_utc().format("%Y%m%dT%H%M%SZ")));
    std::os::unix::fs::symlink(&precious, &next).unwrap();
    assert_eq!(backups.make(app.clock.now()).unwrap(), next);
    assert!(fs::symlink_metadata(&next).unwrap().is_file());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
}

#[tokio::test]
async fn a_backup_from_the_future_neither_stops_the_schedule_nor_takes_a_place() {
    let app = TestApp::with_config("[backup]\nevery = \"1h\"\nkeep = 2\n");
    let into = app.directory.path().join("backups");
    fs::create_dir(&into).unwrap();
    for year in [2098, 2099] {
        fs::write(into.join(format!("tallybox-{year}0101T000000Z.db")), "of a clock that was wrong").unwrap();
    }
    let backups = app.app.backups().unwrap();
    let first = backups.make(app.clock.now()).unwrap();
    app.clock.advance_millis(3_600_000);
    let second = backups.make(app.clock.now()).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(names_in(&into), [name(&first), name(&second)]);
    // By itself, it makes the next one although one from the future lies there.
    fs::write(into.join("tallybox-20990101T000000Z.db"), "of a clock that was wrong").unwrap();
    app.clock.advance_millis(3_600_000);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut running = JoinSet::new();
    running.spawn(backups.run(stopped));
    let due = format!("tallybox-{}.db", app.clock.now().to_utc().format("%Y%m%dT%H%M%SZ"));
    while names_in(&into) != [name(&second), due.clone()] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.send(true).unwrap();
    running.join_all().await;
}

#[tokio::test]
async fn what_belongs_to_the_database_is_no_place_for_a_backup() {
    let app = TestApp::new();
    let directory = app.stop();
    let there = directory.path();
    let roundabout = there.join("sub").join("..");
    fs::create_dir(there.join("sub")).unwrap();
    let before = names_in(there);
    for name in ["tallybox.db", "tallybox.db-wal", "tallybox.db-shm", "tallybox.db-journal", "tallybox.lock"] {
        for target in [there.join(name), roundabout.join(name)] {
            let said = fails(&run_with(there, &["backup", path_text(&target)], ""));
            assert!(said.contains("belongs to it"), "{name}: {said}");
        }
    }
    assert_eq!(names_in(there), before);
}

#[tokio::test]
async fn a_log_that_lost_its_database_is_not_played_over_what_is_restored() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 5).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("early.db");
    run(app.directory.path(), &["backup", path_text(&backup)]);
    app.used_up(&user, 7).await;
    let log = fs::read(app.directory.path().join("tallybox.db-wal")).unwrap();
    assert!(!log.is_empty());
    let directory = app.stop();
    fs::remove_file(directory.path().join("tallybox.db")).unwrap();
    fs::write(directory.path().join("tallybox.db-wal"), &log).unwrap();
    run(directory.path(), &["restore", path_text(&backup)]);
    let kept = fs::read(directory.path().join("tallybox.db-wal.before-restore")).unwrap();
    assert_eq!(kept, log, "the log is lost");
    assert!(run(directory.path(), &["check"]).starts_with("ok"));
    let app = TestApp::at(directory);
    assert_eq!(used(&app, &user).await, 5);
}

#[tokio::test]
async fn a_database_that_another_process_has_open_is_not_replaced() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 5).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("early.db");
    run(app.directory.path(), &["backup", path_text(&backup)]);
    app.used_up(&user, 7).await;
    // A process without the lock, as a backup tool is: this one.
    let said = fails(&run_with(app.directory.path(), &["restore", path_text(&backup)], ""));
    assert!(said.contains("another process has the database open"), "{said}");
    assert!(!app.directory.path().join("tallybox.db.restoring").exists());
    app.used_up(&user, 1).await;
    assert_eq!(used(&app, &user).await, 13);
    app.proves();
    let directory = app.stop();
    run(directory.path(), &["restore", path_text(&backup)]);
    assert_eq!(used(&TestApp::at(directory), &user).await, 5);
}

#[tokio::test]
async fn a_running_box_makes_its_backups_by_itself() {
    let schedule = "[server]\nlisten = \"127.0.0.1:0\"\n[backup]\nevery = \"1h\"\nkeep = 2\n";
    let TestApp { app, clock, directory } = TestApp::with_config(schedule);
    let into = directory.path().join("backups");
    let listener = app.bind().await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let watch = async {
        let mut made: Vec<String> = Vec::new();
        for _ in 0..3 {
            made.push(format!("tallybox-{}.db", clock.now().to_utc().format("%Y%m%dT%H%M%SZ")));
            let expected = &made[made.len().saturating_sub(2)..];
            let begun = Instant::now();
            while !into.exists() || names_in(&into) != expected {
                assert!(begun.elapsed() < Duration::from_secs(30), "{expected:?} is not there");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            clock.advance_millis(3_600_000);
        }
        stop.send(true).unwrap();
    };
    let (served, ()) = tokio::join!(app.serve(listener, stopped), watch);
    served.unwrap();
}

/// The files that have been made in a directory since it is watched.
fn made_since(watched: &rustix::fd::OwnedFd) -> Vec<String> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4_096];
    let mut events = rustix::fs::inotify::Reader::new(watched, &mut buffer);
    let mut names = Vec::new();
    while let Ok(event) = events.next() {
        names.extend(event.file_name().map(|name| name.to_str().unwrap().to_owned()));
    }
    names
}

#[test]
#[expect(clippy::disallowed_methods, reason = "past the program")]
fn what_a_backup_sorts_lies_beside_the_database_since_a_box_may_have_no_other_place() {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(directory.path(), &["user", "add", "a@example.org"]);
    let connection = rusqlite::Connection::open(directory.path().join("tallybox.db")).unwrap();
    let entries = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
        INSERT INTO ledger SELECT i, users.id, 0, 1, 0, 0, 20000, 0, nullif(i - 1, 0), NULL, NULL FROM n, users;
        INSERT INTO accounts SELECT id, 0, 200000, 200000 FROM users;
        INSERT INTO buckets SELECT 20000, 0, id, 200000, 0, 200000, NULL FROM users;";
    connection.execute_batch(entries).unwrap();
    drop(connection);
    let watched = init(CreateFlags::NONBLOCK).unwrap();
    add_watch(&watched, directory.path(), WatchFlags::CREATE).unwrap();
    run(directory.path(), &["backup", path_text(&elsewhere.path().join("box.db"))]);
    let made = made_since(&watched);
    assert!(made.iter().any(|name| name.starts_with("etilqs_")), "{made:?}");
    assert!(names_in(directory.path()).iter().all(|name| !name.starts_with("etilqs_")));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "as an accident would")]
async fn a_copy_that_is_not_whole_gets_no_name_and_takes_no_ones_place() {
    let app = TestApp::with_config("[backup]\nevery = \"1h\"\nkeep = 1\n");
    let user = app.user("a@example.org", "pro").await;
    app.used_up(&user, 5).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("box.db");
    run(app.directory.path(), &["backup", path_text(&backup)]);
    let good = app.app.backups().unwrap().make(app.clock.now()).unwrap();
    let before = fs::read(&backup).unwrap();
    let other = rusqlite::Connection::open(app.directory.path().join("tallybox.db")).unwrap();
    other.execute("UPDATE accounts SET total = total + 1", []).unwrap();
    drop(other);
    for target in [&backup, &elsewhere.path().join("new.db")] {
        let said = fails(&run_with(app.directory.path(), &["backup", path_text(target)], ""));
        assert!(said.contains("no backup was made") && said.contains("account totals"), "{said}");
    }
    assert_eq!((names_in(elsewhere.path()), fs::read(&backup).unwrap()), (vec!["box.db".to_owned()], before));
    app.clock.advance_millis(3_600_000);
    app.app.backups().unwrap().make(app.clock.now()).unwrap_err();
    let kept = good.file_name().unwrap().to_str().unwrap();
    assert_eq!(names_in(good.parent().unwrap()), [kept], "the last good one stays");
}
