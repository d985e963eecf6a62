"""Chroma, in process, on the same vectors: `chroma_peer.py DIRECTORY VECTORS COUNT USERS QUERIES` prints a line of JSON.

QUERIES names a JSON file: a list of [vector, user, [exact ids]]. Run by memory.py with the Python that BENCH_CHROMA names.
"""

import json
import os
import sys
import time

import chromadb
import numpy

directory, vectors, count, users, queries = sys.argv[1:]
count, users, queries = int(count), int(users), json.load(open(queries))
vectors = numpy.fromfile(vectors, "<f4").reshape(-1, 384)
client = chromadb.PersistentClient(directory)
space = {"hnsw": {"space": "cosine"}}
collection = client.create_collection("memories", configuration=space)
begun = time.perf_counter()
for first in range(0, count, 1_000):
    numbers = range(first, min(first + 1_000, count))
    collection.add(ids=[str(n) for n in numbers], embeddings=[vectors[n % len(vectors)] for n in numbers],
                   metadatas=[{"user": n * users // count} for n in numbers])
rate = count / (time.perf_counter() - begun)
times, found = [], 0
for round in range(2):
    times, found = [], 0
    for vector, user, exact in queries:
        where = {"user": user} if users > 1 else None
        begun = time.perf_counter()
        answer = collection.query(query_embeddings=[vector], n_results=10, where=where, include=["distances"])
        times.append((time.perf_counter() - begun) * 1e3)
        found += len({int(name) for name in answer["ids"][0]} & set(exact))
times.sort()
size = sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(directory) for name in names)
print(json.dumps({"version": chromadb.__version__, "rate": rate, "p50_ms": times[len(times) // 2],
                  "p99_ms": times[len(times) * 99 // 100], "recall": found / (10 * len(queries)), "bytes": size}))
