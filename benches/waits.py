"""The part `waits` of bench.py: how long a call waits at most beside what is large: a backup, and bodies of megabytes.

BENCH_BACKUP_ENTRIES sets the entries of the database that is copied (3,000,000). The command that backs up runs in a session of
its own, as beside a server that a service manager started: the kernel then gives it its share, whatever its priority.
"""

import json
import os
import pathlib
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
    done, times, failures = threading.Event(), [], []

    def repeat(call):
        try:
            while not done.is_set():
                times.append(call())
                time.sleep(pause)
        except (SystemExit, OSError) as failure:
            failures.append(failure)

    threads = [threading.Thread(target=repeat, args=(call,)) for call in others]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
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
    """Records while the database is copied: by the schedule, then by a command whose copies replace one another."""
    data, copy = os.path.join(scratch, "data"), os.path.join(scratch, "copy.db")
    bench_binary("ledger", "fill", data, ENTRIES, 1_000)
    os.sync()

    def writers(server):
        return [caller(server, user, "POST", "/usage/record", RECORD) for user in range(1, CONNECTIONS + 1)]

    def back_up():
        command = [BINARY, "--data-dir", data, "backup", copy]
        subprocess.run(command, check=True, stdout=server.log, stderr=server.log, start_new_session=True)

    def made_by_itself():
        directory = pathlib.Path(data, "backups")
        while not list(directory.glob("tallybox-*.db")):
            time.sleep(0.1)

    server = tallybox(scratch)
    beside(writers(server), lambda: time.sleep(2))
    alone = beside(writers(server), lambda: time.sleep(15))
    back_up()
    again = [waited for _ in range(COPIES) for waited in beside(writers(server), back_up)]
    size = os.path.getsize(copy) / 1e6
    server.stop()
    server = tallybox(scratch, {"TALLYBOX_BACKUP__EVERY": "1h"})
    scheduled = beside(writers(server), made_by_itself)
    server.stop()
    row(f"`POST /usage/record`, {CONNECTIONS} connections, while {size:.0f} MB are backed up by the schedule", figures(scheduled),
        f"without: {figures(alone)}")
    row(f"the same, by a command, {COPIES} copies that replace the one before", figures(again))


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
