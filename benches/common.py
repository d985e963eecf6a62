"""What the parts of the benchmark have in common: servers on directories of their own, wrk, and the rows of the table."""

import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROFILE = os.environ.get("BENCH_PROFILE", "")
BINARY = TARGET / {"": "release", "dev": "debug"}.get(PROFILE, PROFILE) / "tallybox"
USERS = 1_000
SMALL, LARGE = int(os.environ.get("BENCH_SMALL", "10000")), int(os.environ.get("BENCH_LARGE", "10000000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "5"))
ROWS = []


def row(what, figure, note=""):
    ROWS.append((what, figure, note))
    print(f"| {what} | {figure} | {note} |", flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, process, seconds=60):
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        if process.poll() is not None:
            raise SystemExit(f"the server exited with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return time.perf_counter() - begun
        except OSError:
            time.sleep(0.002)
    raise SystemExit(f"{url} does not answer")


class Server:
    """A process on a directory of its own, ended by its pid."""

    def __init__(self, command, directory, url, env=None):
        self.directory, self.url = directory, url
        self.log = open(os.path.join(directory, "bench.log"), "ab")
        environment = {**os.environ, **(env or {})}
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.log.close()

    def memory_mb(self, what):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(what + ":"):
                return int(line.split()[1]) / 1024


def tallybox(directory, settings=None):
    port = free_port()
    env = {
        "TALLYBOX_LISTEN": f"127.0.0.1:{port}",
        "TALLYBOX_AUTH__IDENTITY_PROXIES": "127.0.0.1",
        "TALLYBOX_AUTH__AUTO_PROVISION": "true",
        "TALLYBOX_AUTH__DEFAULT_TIER": "pro",
        "TALLYBOX_LOG__LEVEL": "warn",
        **(settings or {}),
    }
    server = Server([BINARY, "serve", "--data-dir", os.path.join(directory, "data")], directory, f"http://127.0.0.1:{port}", env)
    server.healthy_s = wait_for(server.url + "/healthz", server.process)
    return server


def wrk(server, script, connections, target="tallybox", seconds=SECONDS, env=None):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s", "-s", str(ROOT / "benches" / script), server.url]
    done = subprocess.run(command, env={**os.environ, "TARGET": target, **(env or {})}, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"wrk failed: {done.stdout}{done.stderr}")
    result = json.loads(lines[0].removeprefix("RESULT "))
    if result["bad"]:
        raise SystemExit(f"{result['bad']} of the requests failed")
    return result


def bench_binary(name, *arguments):
    """What the benchmark in process of that name says last."""
    profile = ["--profile", PROFILE] if PROFILE else []
    command = ["cargo", "bench", *profile, "--bench", name, "--", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2_000:])
    return done.stdout.strip().splitlines()[-1]


def percentile(times, share):
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


class Client:
    """One connection, as one user, over a plain socket: Python's own client takes as long for a call as the server."""

    def __init__(self, server, user):
        self.host = server.url.removeprefix("http://")
        address, port = self.host.rsplit(":", 1)
        self.socket = socket.create_connection((address, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.user = f"00000000-0000-4000-8000-{user:012x}"
        self.took_ms = 0

    def call(self, method, path, body=None, expected=(200, 201)):
        data = (body or "").encode()
        head = (f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nX-User-Id: {self.user}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n")
        begun = time.perf_counter()
        self.socket.sendall(head.encode() + data)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = self.socket.recv(65_536)
            if not piece:
                raise SystemExit(f"{path}: the server hung up")
            answer += piece
        head, _, text = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head)[1])
        while len(text) < length:
            piece = self.socket.recv(65_536)
            if not piece:
                raise SystemExit(f"{path}: the server hung up")
            text += piece
        self.took_ms = (time.perf_counter() - begun) * 1e3
        status = int(head.split(b" ", 2)[1])
        if status not in expected:
            raise SystemExit(f"{path} answered {status}: {text[:300]}")
        return json.loads(text)


def median(results, key):
    return statistics.median(result[key] for result in results)
