//! Asking the server on this machine whether it is alive.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

const PATIENCE: Duration = Duration::from_secs(3);
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// # Errors
/// Where nobody answers at `listen`, or not with 200.
pub(super) fn ask(listen: SocketAddr) -> anyhow::Result<()> {
    let address = reachable(listen);
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("no server at {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST).with_context(|| format!("{address} took no request"))?;
    let mut answer = [0_u8; 12];
    stream.read_exact(&mut answer).with_context(|| format!("{address} gave no answer"))?;
    if &answer == b"HTTP/1.1 200" {
        return Ok(());
    }
    bail!("{address} answered {}", String::from_utf8_lossy(&answer))
}

/// A server that listens on every address is asked on the machine's own.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        named => named,
    };
    SocketAddr::new(ip, listen.port())
}
