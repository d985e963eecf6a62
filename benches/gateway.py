"""The gateway between a client and an upstream that costs next to nothing: what it adds, beside LiteLLM's proxy.

All are asked the same over the same connections and in turns: the upstream itself, Tallybox, LiteLLM. Tallybox proves a token,
counts the prompt, holds, asks, settles and writes an entry, durably, for each call; LiteLLM compares one key and writes nothing.
"""

import json
import os
import pathlib
import secrets
import shutil
import statistics
import subprocess
import sys
import time

from common import BINARY, PROFILE, ROOT, ROUNDS, SECONDS, Server, free_port, median, percentile, row, tallybox, wait_for, wrk

PATH = "/v1/chat/completions"
USERS = 16
STREAMS = int(os.environ.get("BENCH_STREAMS", "1000"))
HELD_SECONDS = int(os.environ.get("BENCH_HELD_SECONDS", "60"))
# Calls a second at which latency is taken over several connections: one that all of them bear (at the most that one bears it is
# its queue that is timed), and a busier one, without LiteLLM. A single connection asks when its answer has come.
PACE = int(os.environ.get("BENCH_PACE", "100"))
BUSY_PACE = int(os.environ.get("BENCH_BUSY_PACE", "1000"))


def program():
    """Both ends of it, built once."""
    profile = ["--profile", PROFILE] if PROFILE else []
    command = ["cargo", "bench", *profile, "--bench", "upstream", "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2_000:])
    messages = map(json.loads, done.stdout.splitlines())
    return next(message["executable"] for message in messages
                if message.get("target", {}).get("name") == "upstream" and message.get("executable"))


class Peer:
    """Somebody who answers chats."""

    def __init__(self, name, server, tokens):
        self.name, self.server, self.tokens = name, server, tokens
        self.url, self.port = server.url, server.url.rsplit(":", 1)[1]


def directory_for(scratch, name):
    directory = os.path.join(scratch, name)
    os.makedirs(directory)
    return directory


def start_upstream(ends, scratch):
    port, directory = free_port(), directory_for(scratch, "upstream")
    server = Server([ends, "serve", str(port)], directory, f"http://127.0.0.1:{port}")
    wait_for(server.url, server.process)
    tokens = pathlib.Path(directory, "tokens")
    tokens.write_text("sk-operator\n")
    return Peer("direct", server, tokens)


def start_tallybox(scratch, upstream):
    """With users of a limited tier, so that each call is held against a limit."""
    directory = directory_for(scratch, "tallybox")
    settings = {
        "TALLYBOX_GATEWAY__UPSTREAMS": f"[{{ name = 'bench', base_url = '{upstream.url}/v1', api_key = 'sk-operator', "
                                       f"models = ['gpt-*'], max_concurrent = {2 * STREAMS + 256} }}]",
        "TALLYBOX_TIERS__BASIC__LLM_TOKENS_DAY": "1000000000000",
    }
    server = tallybox(directory, settings)
    environment = {**os.environ, **settings, "TALLYBOX_DATA_DIR": os.path.join(directory, "data")}

    def run(*arguments):
        done = subprocess.run([BINARY, *arguments], env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    held = []
    for user in range(USERS):
        email = f"user{user}@example.org"
        run("user", "add", email, "--tier", "basic")
        held.append(run("token", "create", "--user", email, "--name", "bench"))
    tokens = pathlib.Path(directory, "tokens")
    tokens.write_text("\n".join(held) + "\n")
    return Peer("Tallybox", server, tokens)


def start_litellm(scratch, upstream):
    """A worker for each core, one key, no database, no logs: as quick as its documentation makes it."""
    program = os.environ.get("LITELLM") or shutil.which("litellm")
    if not program:
        print("\n*** NOT MEASURED: LiteLLM's proxy, for want of litellm (PyPI: litellm[proxy]) ***\n", file=sys.stderr)
        return None
    port, directory = free_port(), directory_for(scratch, "litellm")
    config = pathlib.Path(directory, "config.yaml")
    # JSON is YAML.
    named = [{"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_base": f"{upstream.url}/v1", "api_key": "sk-operator"}}
             for name in ("gpt-4o", "gpt-4o-slow")]
    config.write_text(json.dumps({"model_list": named, "litellm_settings": {"telemetry": False, "num_retries": 0}}))
    # It does not start without a key, which it compares with the one that comes.
    key = f"sk-{secrets.token_hex(32)}"
    environment = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_MASTER_KEY": key}
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", str(os.cpu_count()),
               "--timeout_worker_healthcheck", "120", "--telemetry", "False"]
    server = Server(command, directory, f"http://127.0.0.1:{port}", environment)
    try:
        wait_for(server.url + "/health/liveliness", server.process, 300)
    except SystemExit:
        server.stop()
        raise
    # The workers come up one after the other.
    time.sleep(10)
    tokens = pathlib.Path(directory, "tokens")
    tokens.write_text(key + "\n")
    return Peer("LiteLLM", server, tokens)


def time_answers(ends, peer, connections, rate, kind):
    command = [ends, "time", peer.port, PATH, peer.tokens, str(connections), str(SECONDS), str(rate), kind]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not done.stdout:
        raise SystemExit(f"{peer.name} failed: {done.stderr[-2_000:]}")
    return [int(line) / 1e3 for line in done.stdout.split()]


def latency(ends, peers, connections, rate, kind, what):
    """Rounds in turns. Medians of the rounds; what is added is their difference from those of the upstream itself."""
    rounds = {peer.name: [] for peer in peers}
    for _ in range(ROUNDS):
        for peer in peers:
            rounds[peer.name].append(time_answers(ends, peer, connections, rate, kind))
    figures = {name: tuple(statistics.median(percentile(times, share) for times in taken) for share in (0.5, 0.99))
               for name, taken in rounds.items()}
    direct, ours = figures["direct"], figures["Tallybox"]
    note = f"upstream itself p50 {direct[0]:.2f} ms, p99 {direct[1]:.2f} ms"
    if "LiteLLM" in figures:
        theirs = figures["LiteLLM"]
        ratio = (theirs[0] - direct[0]) / max(ours[0] - direct[0], 0.001)
        note += f"; LiteLLM adds p50 {theirs[0] - direct[0]:.2f} ms, p99 {theirs[1] - direct[1]:.2f} ms: {ratio:.0f} times"
    row(f"gateway, {what}, {connections} connection{'s'[:connections > 1]}",
        f"adds p50 {ours[0] - direct[0]:.2f} ms, p99 {ours[1] - direct[1]:.2f} ms", note)


def throughput(peers, connections, asked):
    rounds = {peer.name: [] for peer in peers}
    for _ in range(ROUNDS):
        for peer in peers:
            env = {"TOKENS": str(peer.tokens), "BODY": asked, "GATEWAY_PATH": PATH}
            rounds[peer.name].append(wrk(peer, "gateway.lua", connections, env=env))
    rate = median(rounds["Tallybox"], "rate")
    note = f"upstream itself {median(rounds['direct'], 'rate'):,.0f}/s"
    if "LiteLLM" in rounds:
        theirs = rounds["LiteLLM"]
        note += f"; LiteLLM {median(theirs, 'rate'):,.0f}/s, p50 {median(theirs, 'p50_us') / 1e3:.1f} ms: {rate / median(theirs, 'rate'):.0f} times"
    row(f"gateway, whole answers as fast as they come, {connections} connections",
        f"{rate:,.0f} calls/s, p50 {median(rounds['Tallybox'], 'p50_us') / 1e3:.2f} ms, p99 {median(rounds['Tallybox'], 'p99_us') / 1e3:.1f} ms", note)


def memory(ends, box):
    """What the process takes before, with and after so many streams."""
    before = box.server.memory_mb("VmRSS")
    command = [ends, "open", box.port, PATH, box.tokens, str(STREAMS), str(HELD_SECONDS)]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    seen = {}
    for word in ("open", "held"):
        said = client.stdout.readline().strip()
        if said != word:
            raise SystemExit(f"the streams ended before their time: {said}")
        seen[word] = box.server.memory_mb("VmRSS")
    client.communicate("\n", timeout=30)
    if client.returncode:
        raise SystemExit(f"the client of the streams exited with {client.returncode}")
    row(f"gateway, resident memory with 0 / {STREAMS:,} open streams / the same after {HELD_SECONDS} s of words",
        f"{before:.0f} / {seen['open']:.0f} / {seen['held']:.0f} MB", f"{(seen['open'] - before) * 1024 / STREAMS:.0f} KiB a stream")


def gateway(scratch):
    """Added latency, calls a second and memory under streams."""
    ends = program()
    peers = [start_upstream(ends, scratch)]
    try:
        for start in (start_tallybox, start_litellm):
            peers += filter(None, [start(scratch, peers[0])])
        for peer in peers:
            # Warm, so that the first round is like the others.
            for kind in ("whole", "stream"):
                time_answers(ends, peer, 4, 0, kind)
        memory(ends, peers[1])
        for connections in (1, 16):
            rate, what = (PACE, f"whole answers at {PACE} calls/s") if connections > 1 else (0, "whole answers")
            latency(ends, peers, connections, rate, "whole", what)
            latency(ends, peers, connections, 0, "stream", "first word of streams of 20 words in 0.2 s")
        latency(ends, peers[:2], 16, BUSY_PACE, "whole", f"whole answers at {BUSY_PACE:,} calls/s")
        asked = subprocess.run([ends, "body"], check=True, capture_output=True, text=True).stdout.strip()
        for connections in (16, 64):
            throughput(peers, connections, asked)
    finally:
        for peer in reversed(peers):
            peer.server.stop()
