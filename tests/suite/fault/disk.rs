//! A real disk without room, and a file that nobody may write.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Fault, memory, readiness, says};
use crate::suite::support::{TestApp, not_tested};

/// Who has no rights at all, on Debian as elsewhere.
const NOBODY: u32 = 65_534;

/// A small disk of its own, which goes with it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, said loudly, where this user may not mount one.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size},mode=0755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        not_tested(&format!("a real full disk. It takes root, who may mount a tmpfs: {mounted:?}"));
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Writes until nothing more goes in.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let block = [1_u8; 4_096];
    while file.write_all(&block).is_ok() {}
}

#[tokio::test]
async fn a_full_disk_is_said_and_is_over_when_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(place.path(), "24m") else { return };
    let directory = tempfile::tempdir_in(place.path()).unwrap();
    let filler = place.path().join("filler");
    let app = TestApp::with_config_at("[server]\ndisk_free_bytes_min = 1048576", directory);
    let user = app.user("a@example.org", "pro").await;
    let mut stored = 0;
    for round in 0..3 {
        assert_eq!(readiness(&app, "disk").await, (200, "ok".to_owned()));
        fill(&filler);
        let mut refused = 0;
        // What has been reserved already may take a few more.
        for number in 0..3_000 {
            let text = format!("{round} {number} {}", "filling ".repeat(40));
            let reply = app.tell(&user.token, "/memory/store", memory(&text)).await;
            if reply.status == 201 {
                stored += 1;
                continue;
            }
            assert_eq!((reply.status, reply.code()), (503, "unavailable"), "{}", reply.text);
            refused += 1;
            if refused == 5 {
                says(&reply, Fault::Full);
                break;
            }
        }
        assert_eq!(refused, 5, "the disk took everything");
        let (status, said) = readiness(&app, "disk").await;
        assert_eq!(status, 503);
        assert!(said.contains("server.disk_free_bytes_min"), "{said}");
        assert_eq!(readiness(&app, "writes").await.1, "the disk is full");
        // Reading goes on.
        let usage = app.ask(&user.token, "/memory/usage").await.expect(200);
        assert_eq!(usage.json["memory_counts"]["total"], stored);
        fs::remove_file(&filler).unwrap();
        app.tell(&user.token, "/memory/store", memory(&format!("room again {round}"))).await.expect(201);
        stored += 1;
        assert_eq!(readiness(&app, "writes").await, (200, "ok".to_owned()));
        let usage = app.ask(&user.token, "/memory/usage").await.expect(200);
        assert_eq!(usage.json["memory_counts"]["total"], stored);
        app.proves();
    }
    let app = TestApp::at(app.stop());
    app.proves();
    drop((app, disk));
}

/// Runs the program on a directory as somebody who has no special rights.
fn serve_unprivileged(directory: &Path, program: &Path) -> String {
    let mut command = Command::new(program);
    command.env_clear().args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory);
    if is_root(directory) {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "it serves what it cannot write");
    String::from_utf8(output.stderr).unwrap()
}

/// Root may write whatever its mode says.
fn is_root(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(directory).unwrap().uid() == 0
}

#[test]
fn a_database_that_may_not_be_written_is_refused_with_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let (directory, program) = (place.path().join("data"), place.path().join("tallybox"));
    let made = Command::new(env!("CARGO_BIN_EXE_tallybox"))
        .env_clear()
        .args(["user", "add", "a@example.org", "--data-dir"])
        .arg(&directory)
        .output()
        .unwrap();
    assert!(made.status.success());
    // Somebody else can reach neither the build nor a temporary directory of ours.
    fs::copy(env!("CARGO_BIN_EXE_tallybox"), &program).unwrap();
    for (path, mode) in [(place.path(), 0o755), (program.as_path(), 0o755), (directory.as_path(), 0o777)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let database = directory.join("tallybox.db");
    fs::set_permissions(&database, Permissions::from_mode(0o444)).unwrap();
    let said = serve_unprivileged(&directory, &program);
    assert!(said.contains("tallybox.db") && said.contains("cannot be opened for writing"), "{said}");
    fs::set_permissions(&database, Permissions::from_mode(0o000)).unwrap();
    let said = serve_unprivileged(&directory, &program);
    assert!(said.contains("tallybox.db") && said.contains("cannot be opened for writing"), "{said}");
    // The first start has made it.
    fs::remove_file(directory.join("tallybox.lock")).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o555)).unwrap();
    let said = serve_unprivileged(&directory, &program);
    assert!(said.contains("cannot be written") && said.contains("chown -R"), "{said}");
}
