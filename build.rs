//! Tells the program which commit it is built from.
#![expect(clippy::disallowed_methods, reason = "what cargo says, it says by the environment")]

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=TALLYBOX_BUILD");
    // Whoever builds without the repository may name the commit. Everyday builds do without: each commit would be a change
    // that all of the crate is compiled anew for.
    let named = env::var("TALLYBOX_BUILD").ok().filter(|build| !build.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(build) = named.or_else(|| is_release.then(of_repository).flatten()) {
        println!("cargo:rustc-env=TALLYBOX_BUILD={build}");
    }
}

/// The commit that is checked out; none without git or outside a repository.
fn of_repository() -> Option<String> {
    // Changes with every commit and every change of branch.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    // A repository around the sources of a release is not theirs.
    let root = git(&["rev-parse", "--show-toplevel"])?;
    if std::fs::canonicalize(root).ok()? != std::fs::canonicalize(env::var("CARGO_MANIFEST_DIR").ok()?).ok()? {
        return None;
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
