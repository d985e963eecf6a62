#!/usr/bin/env python3
"""What `make bench-recall` runs: how many of the memories that answer a question are found.

Loads conversations over HTTP into fresh instances as a client would, one memory a turn with the instant it was said, and
asks every question in each mode; once with each memory's session named and once without any. Prints a Markdown table.

RECALL_DATA names a directory with two files of JSON lines:
  memories.jsonl  {id, user, text, timestamp, metadata: {session, ...}}  in the order they were said
  queries.jsonl   {id, user, query, category, category_name, evidence: [id of a memory, ...]}
Categories 1 to 4 make the main score; 5 (the question is about another person than the one who said it) stands apart.
"""

import http.client
import json
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = TARGET / ("debug" if os.environ.get("BENCH_PROFILE") == "dev" else "release") / "tallybox"
MODES = os.environ.get("RECALL_MODES", "semantic keyword hybrid").split()
BATCH = 128
ADVERSARIAL = 5


class Instance:
    """A server on a directory of its own, and a connection to it."""

    def __init__(self, directory):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = {
            **os.environ,
            "TALLYBOX_LISTEN": f"127.0.0.1:{self.port}",
            "TALLYBOX_AUTH__IDENTITY_PROXIES": "127.0.0.1",
            "TALLYBOX_AUTH__AUTO_PROVISION": "true",
            "TALLYBOX_AUTH__DEFAULT_TIER": "pro",
            "TALLYBOX_LOG__LEVEL": "warn",
        }
        self.log = open(os.path.join(directory, "recall.log"), "wb")
        command = [BINARY, "serve", "--data-dir", os.path.join(directory, "data")]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        for _ in range(600):
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended, see {self.log.name}")
            try:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port)
                self.connection.request("GET", "/healthz")
                self.connection.getresponse().read()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the server does not answer")

    def post(self, user, path, body):
        headers = {"Content-Type": "application/json", "X-User-Id": user}
        self.connection.request("POST", path, json.dumps(body), headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"POST {path} answered {answer.status}: {text[:300]!r}")
        return json.loads(text)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.log.close()


def read(directory, name):
    path = pathlib.Path(directory) / name
    if not path.is_file():
        raise SystemExit(f"RECALL_DATA names no directory with {name}: {path}")
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def load(instance, users, memories, with_sessions):
    """Stores the memories, and gives by the instance's id which of them each is."""
    names = {}
    for user, theirs in users.items():
        mine = [memory for memory in memories if memory["user"] == user]
        for begin in range(0, len(mine), BATCH):
            some = mine[begin:begin + BATCH]
            body = []
            for memory in some:
                metadata = {key: value for key, value in memory.get("metadata", {}).items() if key != "session"}
                entry = {"type": "conversation", "input_context": memory["text"], "timestamp": memory["timestamp"],
                         "metadata": metadata}
                session = memory.get("metadata", {}).get("session")
                if with_sessions and session is not None:
                    entry["session"] = str(session)
                body.append(entry)
            answer = instance.post(theirs, "/memory/store/batch", {"memories": body})
            for memory, result in zip(some, answer["memories"], strict=True):
                names[result["id"]] = memory["id"]
    return names


def figures(found, evidence):
    """recall@5, recall@10, reciprocal rank and nDCG@10 of the ids `found`, best first."""
    wanted = set(evidence)
    ranks = [rank for rank, name in enumerate(found, 1) if name in wanted]
    gain = sum(1 / math.log2(rank + 1) for rank in ranks)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(wanted), len(found)) + 1)) or 1
    return (sum(rank <= 5 for rank in ranks) / len(wanted), len(ranks) / len(wanted), 1 / ranks[0] if ranks else 0, gain / best)


def ask(instance, users, queries, names, mode):
    results = []
    for query in queries:
        search = {"query": query["query"], "mode": mode, "limit": 10}
        hits = instance.post(users[query["user"]], "/memory/search", search)["results"]
        results.append(figures([names[hit["id"]] for hit in hits], query["evidence"]))
    return results


def mean(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else []


def show(label, results, queries):
    def line(what, chosen):
        rows = [row for row, query in zip(results, queries, strict=True) if chosen(query)]
        if rows:
            cells = " | ".join(f"{figure:.3f}" for figure in mean(rows))
            print(f"| {label} | {what} | {len(rows)} | {cells} |", flush=True)

    line("**main (1-4)**", lambda query: query["category"] != ADVERSARIAL)
    for category in sorted({query["category"] for query in queries}):
        name = next(query["category_name"] for query in queries if query["category"] == category)
        line(name, lambda query, category=category: query["category"] == category)


def main():
    directory = os.environ.get("RECALL_DATA")
    if not directory:
        raise SystemExit("RECALL_DATA must name a directory with memories.jsonl and queries.jsonl")
    memories, queries = read(directory, "memories.jsonl"), read(directory, "queries.jsonl")
    queries = [query for query in queries if query["evidence"]]
    names = sorted({memory["user"] for memory in memories})
    users = {user: f"00000000-0000-4000-8000-{number:012x}" for number, user in enumerate(names, 1)}
    print(f"{len(memories):,} memories of {len(users)} users, {len(queries)} questions\n")
    print("| mode | category | questions | recall@5 | recall@10 | MRR@10 | nDCG@10 |\n|---|---|---|---|---|---|---|")
    for with_sessions in (True, False):
        with tempfile.TemporaryDirectory(prefix="tallybox-recall-") as scratch:
            instance = Instance(scratch)
            try:
                known = load(instance, users, memories, with_sessions)
                # Sessions make no difference to meaning and words alone.
                for mode in MODES if with_sessions else [mode for mode in MODES if mode == "hybrid"]:
                    label = mode if mode != "hybrid" else f"hybrid, {'sessions' if with_sessions else 'no sessions'}"
                    show(label, ask(instance, users, queries, known, mode), queries)
            finally:
                instance.stop()


if __name__ == "__main__":
    sys.exit(main())
