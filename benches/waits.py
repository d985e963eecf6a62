"""The part `waits` of bench.py: how long a call waits at most beside what is large: a backup, and bodies of megabytes.

BENCH_BACKUP_ENTRIES sets the entries of the database that is copied (3,000,000).
"""

import json
import os
import subprocess
import threading
import time

from common import BINARY, Client, bench_binary, percentile, row, tallybox

ENTRIES = int(os.environ.get("BENCH_BACKUP_ENTRIES", "3000000"))
CONNECTIONS = 4
COPIES = 5
RECORD = json.dumps({"resourceType": "llm_tokens", "amount": 1})


def beside(others, work, pause=0):
    """Milliseconds of each call that `others`, one a thread, made until `work` was done."""
    done, times = threading.Event(), []

    def repeat(call):
        while not done.is_set():
            times.append(call())
            time.sleep(pause)

    threads = [threading.Thread(target=repeat, args=(call,)) for call in others]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return times


def caller(server, user, method, path, body=None, expected=(200, 201)):
    client = Client(server, user)

    def call():
        client.call(method, path, body, expected)
        return client.took_ms

    return call


def figures(times):
    return f"p50 {percentile(times, .5):.2f}, p99 {percentile(times, .99):.1f}, p99.9 {percentile(times, .999):.1f}, most {max(times):.1f} ms"


def backup(scratch):
    """Records while the database is copied: the first copy has a new name, those after it replace it."""
    data, copy = os.path.join(scratch, "data"), os.path.join(scratch, "copy.db")
    bench_binary("ledger", "fill", data, ENTRIES, 1_000)
    server = tallybox(scratch)
    writers = [caller(server, user, "POST", "/usage/record", RECORD) for user in range(1, CONNECTIONS + 1)]

    def back_up():
        subprocess.run([BINARY, "--data-dir", data, "backup", copy], check=True, stdout=server.log, stderr=server.log)

    beside(writers, lambda: time.sleep(2))
    alone = beside(writers, lambda: time.sleep(15))
    first = beside(writers, back_up)
    again = [waited for _ in range(COPIES) for waited in beside(writers, back_up)]
    size = os.path.getsize(copy) / 1e6
    server.stop()
    what = f"`POST /usage/record`, {CONNECTIONS} connections, while {size:.0f} MB are backed up"
    row(what, figures(first), f"without: {figures(alone)}")
    row(f"the same, {COPIES} copies that replace the one before", figures(again))


def bodies(scratch):
    """Signs of life while two connections send bodies of 4 MiB."""
    server = tallybox(scratch, {"TALLYBOX_SERVER__BODY_BYTES_MAX": str(8 << 20)})
    entry = {"resourceType": "llm_tokens", "amount": 1, "metadata": {"numbers": list(range(700)), "text": "x" * 900}}
    records = json.dumps({"entries": [entry] * 1_000})
    chat = json.dumps({"model": "none", "messages": [{"role": "user", "content": "a word " * 600_000}]})
    alive = [caller(server, 1, "GET", "/healthz")]
    beside(alive, lambda: time.sleep(2), pause=0.002)
    row("`GET /healthz`", figures(beside(alive, lambda: time.sleep(5), pause=0.002)))
    for name, path, body, status in (("records", "/usage/record/batch", records, 201), ("chats", "/v1/chat/completions", chat, 404)):
        large = [caller(server, user, "POST", path, body, (status,)) for user in (2, 3)]
        waited = []
        took = beside(large, lambda waited=waited: waited.extend(beside(alive, lambda: time.sleep(10), pause=0.002)))
        row(f"`GET /healthz` while 2 connections send {name} of {len(body) / 1e6:.1f} MB", figures(waited), f"{len(took)} bodies")
    server.stop()


def measure(scratch):
    for part in (backup, bodies):
        directory = os.path.join(scratch, part.__name__)
        os.makedirs(directory)
        part(directory)
