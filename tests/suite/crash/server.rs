//! The program as a process, and calls to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a start may take before the test gives up.
const START_PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn tallybox(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallybox"));
    command.env_clear().env("TALLYBOX_DATA_DIR", directory).args(arguments);
    command
}

pub(super) fn output_of(directory: &Path, arguments: &[&str]) -> String {
    let output = tallybox(directory, arguments).output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{error}");
    out.trim().to_owned()
}

/// As [`output_of`], of a command that reads `input`.
pub(super) fn with_input(directory: &Path, arguments: &[&str], input: &str) {
    let mut command = tallybox(directory, arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{arguments:?}");
}

/// An address that nobody listens on.
pub(super) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that is killed when the test is done with it, or fails.
pub(super) struct Server(Child);

impl Server {
    /// Starts the server, without waiting for it.
    pub(super) fn launch(directory: &Path, address: SocketAddr) -> Self {
        let mut command = tallybox(directory, &["serve", "--listen", &address.to_string()]);
        // Closes nothing that a test records, unless it records it in the past.
        command.env("TALLYBOX_LEDGER__KEEP_DAYS", "35");
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts the server and waits until it answers.
    pub(super) fn start(directory: &Path, address: SocketAddr) -> Self {
        let mut server = Self::launch(directory, address);
        let caller = Caller { address, token: "" };
        let begun = Instant::now();
        while caller.call("GET", "/healthz", None, None).is_none() {
            assert!(begun.elapsed() < START_PATIENCE, "the server does not come up");
            // Another test may have been given the same port for a moment.
            if server.0.try_wait().unwrap().is_some() {
                server = Self::launch(directory, address);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// `kill -9`, and the end of the process.
    pub(super) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who calls where.
#[derive(Clone, Copy)]
pub(super) struct Caller<'t> {
    pub(super) address: SocketAddr,
    pub(super) token: &'t str,
}

impl Caller<'_> {
    /// Status and body of a call on a connection of its own; none where the server went away before it had answered.
    pub(super) fn call(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(START_PATIENCE)).ok()?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let key = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{key}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let (mut length, mut header) = (0_usize, String::new());
        while reader.read_line(&mut header).ok()? > 2 {
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            header.clear();
        }
        // A body that is cut short is no answer.
        let mut text = vec![0; length];
        reader.read_exact(&mut text).ok()?;
        Some((status, serde_json::from_slice(&text).unwrap_or(Value::Null)))
    }
}
