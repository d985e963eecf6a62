//! All that the tests' process logs, at every level of our own and at `debug` of what we build on: a line with a secret in it
//! ends the run.

use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

use tracing_subscriber::EnvFilter;

use super::support::PASSWORD;

/// What secrets of ours begin with; 43 characters follow.
const PREFIXES: [&str; 3] = ["tbx_", "tbs_", "tbl_"];
/// What no line may hold: hashes of passwords, and the tests' passwords and keys in every form they travel in.
const NEVER: [&str; 7] =
    ["$argon2", PASSWORD, "correct+horse", "correct%20horse", "sk-operator", "sk-secret", "not the password"];

/// A secret that `text` holds.
pub(crate) fn secret_in(text: &str) -> Option<&str> {
    let known = NEVER.into_iter().find(|secret| text.contains(secret));
    known.or_else(|| PREFIXES.into_iter().find_map(|prefix| begun_with(text, prefix)))
}

/// A secret of ours: what a name or a sentence says of a prefix alone is none.
fn begun_with<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let is_of_it = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    text.match_indices(prefix).find_map(|(at, _)| {
        let rest = &text[at..];
        let length = rest.bytes().take_while(|byte| is_of_it(byte)).count();
        (length >= prefix.len() + 20).then(|| &rest[..length])
    })
}

/// Lines that are kept for whoever looks for more than secrets in them; none while nobody does.
static KEPT: Mutex<Option<String>> = Mutex::new(None);

/// Begins to keep what is logged.
pub(crate) fn keep() {
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(String::new());
}

/// What was logged since.
pub(crate) fn kept() -> String {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
}

/// Where the log of the tests' process goes.
struct Sieve;

impl Write for Sieve {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        if let Some(secret) = secret_in(&line) {
            // Not a panic: the task that logs it may be one whose panics are caught, or whose end nobody looks at.
            let _ = writeln!(io::stderr(), "a secret was logged ({secret}): {line}");
            std::process::exit(101);
        }
        if let Some(kept) = KEPT.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            kept.push_str(&line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts to look, once a process.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let filter = EnvFilter::new("debug,tallybox=trace");
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Sieve);
        lines.try_init().unwrap();
    });
}

#[test]
fn the_sieve_finds_what_it_looks_for() {
    let token = format!("a tbx_{} b", "a-b_".repeat(10));
    assert_eq!(secret_in(&token), Some(&token[2..token.len() - 2]));
    assert!(secret_in(&format!("x={PASSWORD}")).is_some());
    assert!(secret_in("GET /setup?token=tbl_0123456789012345678901234567890123456789012").is_some());
    for harmless in ["a token begins with tbx_, a session with tbs_", "tbx_short", ""] {
        assert_eq!(secret_in(harmless), None);
    }
}
