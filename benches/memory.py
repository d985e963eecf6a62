"""The part `memory` of bench.py: searches by meaning and by word, storing, space, deletion.

Vectors are real: the built-in model's of generated sentences, or of the lines of the file that BENCH_TEXTS names, made once
and kept in BENCH_CACHE (about 5 ms a text). Needs numpy, for the exact search that recall is held against. Chroma is measured
where BENCH_CHROMA names a Python that has chromadb. BENCH_MEMORIES sets the number of memories of one user (100,000);
BENCH_MANY that of the thousand users together (1,000,000), 0 to leave that out.
"""

import collections
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import common
from common import Client, bench_binary, percentile

try:
    import numpy
except ImportError:
    numpy = None

MEMORIES = int(os.environ.get("BENCH_MEMORIES", "100000"))
MANY = int(os.environ.get("BENCH_MANY", "1000000"))
CACHE = pathlib.Path(os.environ.get("BENCH_CACHE", pathlib.Path.home() / ".cache/tallybox-bench"))
CHROMA = os.environ.get("BENCH_CHROMA")
QUERIES = 200

PEOPLE = "Maria Tom grandfather Aisha Kenji the-plumber my-sister our-neighbour Elena the-dentist Ravi Sophie the-landlord".split()
ACTS = ("bought sold repaired forgot painted borrowed lost found returned cleaned ordered cancelled booked photographed planted "
        "promised described wanted missed preferred").split()
THINGS = ("bicycle kettle ticket garden boiler violin passport sofa recipe telescope ferry lantern laptop window sweater "
          "birthday-cake allergy-test contract podcast bookshelf tomato-plants tent camera password invoice").split()
PLACES = ("in Leeds|near the harbour|at the market|on the train to Porto|behind the school|at the clinic|by the river|"
          "in the cellar|at work|during the concert|at the airport|in the new flat").split("|")
WHYS = ("because it was cheaper|after the long winter|although nobody asked|so that the children could use it|before the "
        "guests arrived|which surprised everyone|and talked about it for days|because the old one broke|to save some money|"
        "but regretted it later|as the doctor had said|since the deadline moved").split("|")
WHENS = "yesterday|last spring|on Tuesday|in 2021|this morning|two weeks ago|at Christmas|in early May".split("|")


def sentence(number):
    chance = random.Random(number)
    pick = lambda words: chance.choice(words).replace("-", " ")
    return (f"{pick(WHENS).capitalize()} {pick(PEOPLE)} {pick(ACTS)} a {pick(THINGS)} {pick(PLACES)} {pick(WHYS)}, "
            f"and {pick(PEOPLE)} {pick(ACTS)} {chance.randrange(2, 90)} of them.")


def texts_file():
    """One text a line."""
    if os.environ.get("BENCH_TEXTS"):
        return pathlib.Path(os.environ["BENCH_TEXTS"])
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / f"texts-{MEMORIES}.txt"
    if not file.exists():
        file.write_text("".join(sentence(number) + "\n" for number in range(MEMORIES + QUERIES)))
    return file


def vectors_file(scratch, texts):
    """An embedding a text, by the built-in model."""
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / f"{texts.stem}.f32"
    lines = texts.read_text().splitlines()
    if file.exists() and file.stat().st_size == len(lines) * 1_536:
        return file
    directory = os.path.join(scratch, "embed")
    os.makedirs(directory)
    server = common.tallybox(directory)
    client = Client(server, 1)
    print(f"embedding {len(lines):,} texts", file=sys.stderr)
    with open(file, "wb") as out:
        for first in range(0, len(lines), 256):
            body = {"model": "all-minilm-l6-v2", "input": lines[first:first + 256]}
            data = client.call("POST", "/v1/embeddings", json.dumps(body))["data"]
            out.write(numpy.array([item["embedding"] for item in data], "<f4").tobytes())
    server.stop()
    return file


def fill(directory, texts, vectors, count, users):
    return float(bench_binary("memory", "fill", directory, texts, vectors, count, users).split()[-1])


def questions(vectors, count, users):
    """Vectors near to those that are stored, of whom they are asked, and the ten nearest by exact search."""
    chance = numpy.random.default_rng(7)
    asked = []
    for _ in range(QUERIES):
        user = int(chance.integers(users))
        first, end = -(-user * count // users), -(-(user + 1) * count // users)
        vector = vectors[int(chance.integers(first, end)) % len(vectors)]
        other = chance.standard_normal(384).astype("<f4")
        vector = vector + 0.5 * other / numpy.linalg.norm(other)
        vector /= numpy.linalg.norm(vector)
        numbers = numpy.arange(first, end)
        scores = vectors[numbers % len(vectors)] @ vector
        asked.append(([float(number) for number in vector], user, [int(n) for n in numbers[numpy.argsort(-scores)[:10]]]))
    return asked


def by_meaning(server, asked):
    """Times and recall of semantic searches over HTTP, after a first round that fills the index."""
    clients = {}
    for _ in range(2):
        times, found = [], 0
        for vector, user, exact in asked:
            client = clients.setdefault(user, Client(server, user + 1))
            body = json.dumps({"embedding": vector, "mode": "semantic", "limit": 10})
            hits = client.call("POST", "/memory/search", body)["results"]
            times.append(client.took_ms)
            found += len({hit["metadata"]["n"] for hit in hits} & set(exact))
    return sorted(times), found / (10 * len(asked))


def chroma(scratch, vectors, count, users, asked):
    if not CHROMA:
        return None
    directory, queries = os.path.join(scratch, "chroma"), os.path.join(scratch, "queries.json")
    json.dump(asked, open(queries, "w"))
    peer = pathlib.Path(__file__).parent / "chroma_peer.py"
    command = [CHROMA, peer, directory, vectors, count, users, queries]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    shutil.rmtree(directory, ignore_errors=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2_000:])
    return json.loads(done.stdout.splitlines()[-1])


def setting(scratch, texts, vectors_path, count, users):
    """One of the three: so many memories of so many users."""
    vectors = numpy.fromfile(vectors_path, "<f4").reshape(-1, 384)
    directory = os.path.join(scratch, f"of-{users}")
    os.makedirs(directory)
    rate = fill(os.path.join(directory, "data"), texts, vectors_path, count, users)
    asked = questions(vectors, count, users)
    server = common.tallybox(directory)
    times, recall = by_meaning(server, asked)
    peer = chroma(scratch, vectors_path, count, users, asked)
    note = f"in process {rate:,.0f} stored/s"
    if peer:
        note = (f"Chroma {peer['version']} p50 {peer['p50_ms']:.2f} ms, p99 {peer['p99_ms']:.1f} ms, recall@10 {peer['recall']:.3f}: "
                f"{peer['p50_ms'] / times[len(times) // 2]:.1f} times; it stores {peer['rate']:,.0f}/s, "
                f"{peer['bytes'] / count / 1_536:.2f} times the vectors on disk")
    common.row(f"`POST /memory/search` by meaning, {count:,} memories of {users:,} user{'s'[:users > 1]}",
              f"p50 {times[len(times) // 2]:.2f} ms, p99 {times[len(times) * 99 // 100]:.2f} ms, recall@10 {recall:.3f}", note)
    return server, directory, asked


def by_words(server, texts):
    """Keyword searches of one to four words as they occur, common ones included."""
    client, chance = Client(server, 1), random.Random(3)
    words = [word.strip(".,;:()\"'`").lower() for line in texts.read_text().splitlines()[:MEMORIES] for word in line.split()]
    words = [word for word in words if word.isalpha()]
    most_common = [word for word, _ in collections.Counter(words).most_common(50)]
    queries = [" ".join(chance.choices(words, k=1 + number % 4)) for number in range(950)] + most_common
    chance.shuffle(queries)
    for name in ("first time", "again"):
        times = []
        for query in queries:
            client.call("POST", "/memory/search", json.dumps({"query": query, "mode": "keyword"}))
            times.append(client.took_ms)
        common.row(f"`POST /memory/search` by words, {MEMORIES:,} memories, {name}",
                  f"p50 {percentile(times, .5):.2f} ms, p99 {percentile(times, .99):.2f} ms",
                  f"{len(queries):,} queries, the 50 most common words alone among them")
    times = []
    for query in queries[:200]:
        client.call("POST", "/memory/search", json.dumps({"query": query}))
        times.append(client.took_ms)
    common.row(f"`POST /memory/search`, both, {MEMORIES:,} memories, embedding of the query included",
              f"p50 {percentile(times, .5):.1f} ms, p99 {percentile(times, .99):.1f} ms")


def store_rate(server, vectors):
    """Batches of 256 with given embeddings over HTTP, from 2 connections, their bodies made beforehand."""
    batches = [json.dumps({"memories": [
        {"type": "given", "input_context": sentence(first + n), "embedding": [round(float(v), 6) for v in vectors[first + n]]}
        for n in range(256)]}) for first in range(0, 5_120, 256)]
    rates = []
    for _ in range(common.ROUNDS):
        halves = [batches[::2], batches[1::2]]
        threads = [threading.Thread(target=lambda half=half: [
            Client(server, 900).call("POST", "/memory/store/batch", body) for body in half]) for half in halves]
        begun = time.perf_counter()
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        rates.append(len(batches) * 256 / (time.perf_counter() - begun))
    common.row("`POST /memory/store/batch` of 256 with given embeddings, durable", f"{statistics.median(rates):,.0f} memories/s",
              "2 connections; goal 5,000")


def embedding_seconds(server):
    metrics = urllib.request.urlopen(server.url + "/metrics", timeout=30).read().decode()
    return float(re.search(r"^tallybox_embedding_seconds_sum (\S+)$", metrics, re.MULTILINE)[1])


def store_texts(server):
    """Batches of 256 texts from one connection, and the model's share of the time."""
    client = Client(server, 901)
    batches = [json.dumps({"memories": [{"type": "text", "input_context": sentence(first + n)} for n in range(256)]})
               for first in range(0, 2_048, 256)]
    client.call("POST", "/memory/store/batch", batches[0])
    before, begun = embedding_seconds(server), time.perf_counter()
    for body in batches[1:]:
        client.call("POST", "/memory/store/batch", body)
    seconds = time.perf_counter() - begun
    share = (embedding_seconds(server) - before) / seconds / os.cpu_count()
    common.row("`POST /memory/store/batch` of 256 sentences, durable", f"{256 * (len(batches) - 1) / seconds:,.0f} memories/s",
               f"1 connection; {share:.0%} of the time of {os.cpu_count()} cores is the model's; goal 90")


def database_bytes(directory):
    return os.path.getsize(os.path.join(directory, "data", "tallybox.db"))


def delete_half(server, asked):
    client = Client(server, 1)
    before, _ = by_meaning(server, asked[:100])
    begun = time.perf_counter()
    deleted = client.call("DELETE", "/memory?type=even&confirm=true")["deleted"]
    seconds = time.perf_counter() - begun
    odd = [(vector, user, [n for n in exact if n % 2]) for vector, user, exact in asked[:100]]
    after, _ = by_meaning(server, odd)
    common.row(f"the same search, after half of {MEMORIES:,} are deleted",
              f"p50 {after[len(after) // 2]:.2f} ms, before {before[len(before) // 2]:.2f} ms",
              f"{deleted:,} deleted in {seconds:.1f} s")
    server.stop()


def first_memory(scratch):
    directory = os.path.join(scratch, "first")
    os.makedirs(directory)
    sizes = []
    for user in (1, 2):
        server = common.tallybox(directory)
        client = Client(server, user)
        client.call("GET", "/usage/tier")
        server.stop()
        sizes.append(database_bytes(directory))
        server = common.tallybox(directory)
        Client(server, user).call("POST", "/memory/store", json.dumps({"type": "note", "input_context": sentence(user)}))
        server.stop()
        sizes.append(database_bytes(directory))
    common.row("disk for a user's first memory", f"{(sizes[3] - sizes[2]) / 1024:.0f} KiB",
              f"of a box's first user {(sizes[1] - sizes[0]) / 1024:.0f} KiB; goal 64")


def measure(scratch):
    if not numpy:
        print("\n*** NOT MEASURED: memories, for want of numpy ***\n", file=sys.stderr)
        return
    texts = texts_file()
    vectors_path = vectors_file(scratch, texts)
    server, directory, asked = setting(scratch, texts, vectors_path, MEMORIES, 1)
    by_words(server, texts)
    server.stop()
    raw = MEMORIES * 1_536
    mean = statistics.mean(len(line.encode()) for line in texts.read_text().splitlines()[:MEMORIES])
    size = database_bytes(directory)
    common.row(f"disk, {MEMORIES:,} memories of {mean:.0f} bytes of text", f"{size / raw:.2f} times the raw vectors",
              f"{size / MEMORIES:,.0f} bytes a memory, ledger and full text included; goal 1.5")
    server = common.tallybox(directory)
    delete_half(server, asked)
    half = fill(os.path.join(directory, "data"), texts, vectors_path, MEMORIES // 2, 1)
    common.row("disk after half were deleted and as many stored again", f"{database_bytes(directory) / size:.3f} times what it was",
              f"in process {half:,.0f} stored/s")
    server = common.tallybox(directory, {"TALLYBOX_METRICS__ACCESS": "open"})
    store_texts(server)
    store_rate(server, numpy.fromfile(vectors_path, "<f4").reshape(-1, 384))
    common.row("resident memory after that", f"{server.memory_mb('VmRSS'):.0f} MB")
    server.stop()
    shutil.rmtree(directory)
    for count, users in ((MEMORIES, 100), (MANY, 1_000)):
        if count:
            server, directory, _ = setting(scratch, texts, vectors_path, count, users)
            server.stop()
            shutil.rmtree(directory)
    first_memory(scratch)
