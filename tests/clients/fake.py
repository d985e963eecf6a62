"""What clients are tried with: an upstream that answers as a model would, and a server on a directory of its own.

The server is the binary that the command line names.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BINARY = sys.argv[1] if len(sys.argv) > 1 else "target/debug/tallybox"
USAGE = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}
SILENT = threading.Event()


class Upstream(BaseHTTPRequestHandler):
    """Answers as a model would, in the form that was asked for."""

    protocol_version = "HTTP/1.1"
    asked = []

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Upstream.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        if body.get("user") == "silent":
            SILENT.wait(20)
        if self.path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}]
            return self.whole({"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
        if self.path == "/v1/responses":
            part = {"type": "output_text", "text": "Well then.", "annotations": []}
            item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
            usage = {"input_tokens": 12, "output_tokens": 7, "total_tokens": 19,
                     "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
            response = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "status": "completed",
                        "output": [item], "usage": usage, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
            if not body.get("stream"):
                return self.whole(response)
            created = {**response, "status": "in_progress", "output": [], "usage": None}
            events = [{"type": "response.created", "response": created}]
            events += [{"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": word, "logprobs": []}
                       for word in ("Well", " then", ".")]
            events += [{"type": "response.completed", "response": response}]
            return self.stream([{**event, "sequence_number": number} for number, event in enumerate(events)], done=False)
        message = {"role": "assistant", "content": "Well then."}
        if body.get("tools"):
            function = {"name": "look", "arguments": "{\"place\":\"here\"}"}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
        answer = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            choices = [{"index": index, "message": message, "finish_reason": "stop"} for index in range(int(body.get("n", 1)))]
            return self.whole({**answer, "object": "chat.completion", "choices": choices, "usage": USAGE})
        chunk = {**answer, "object": "chat.completion.chunk"}
        words = ["Well", " then", "."] * (40 if body.get("user") == "long" else 1)
        deltas = [{"role": "assistant", "content": ""}] + [{"content": word} for word in words]
        events = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        events.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if body.get("stream_options", {}).get("include_usage"):
            events.append({**chunk, "choices": [], "usage": USAGE})
        self.stream(events)

    def whole(self, answer):
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def stream(self, events, done=True):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" if "type" in event else f"data: {json.dumps(event)}\n\n" for event in events]
        for line in lines + (["data: [DONE]\n\n"] if done else []):
            text = line.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


class Box:
    """A server of its own."""

    def __init__(self, upstream):
        self.directory = tempfile.TemporaryDirectory()
        self.address = f"127.0.0.1:{free_port()}"
        upstreams = f"[{{ name = 'fake', base_url = 'http://127.0.0.1:{upstream}/v1', api_key = 'sk-operator', models = ['gpt-*', 'text-*'] }}]"
        self.environment = {"TALLYBOX_DATA_DIR": self.directory.name, "TALLYBOX_GATEWAY__UPSTREAMS": upstreams,
                            "TALLYBOX_LOG__LEVEL": "warn", "PATH": os.environ["PATH"]}
        self.run("user", "add", "a@example.org", "--tier", "free_trial")
        self.token = self.run("token", "create", "--user", "a@example.org", "--name", "client")
        self.server = subprocess.Popen([BINARY, "serve", "--listen", self.address], env=self.environment, stdout=subprocess.DEVNULL)
        for _ in range(400):
            try:
                urllib.request.urlopen(f"http://{self.address}/healthz")
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the server does not come up")

    def run(self, *arguments):
        return subprocess.run([BINARY, *arguments], env=self.environment, check=True, capture_output=True, text=True).stdout.strip()

    def ask(self, path):
        request = urllib.request.Request(f"http://{self.address}{path}", headers={"Authorization": f"Bearer {self.token}"})
        return json.load(urllib.request.urlopen(request))

    def used(self):
        return self.ask("/usage/tokens")["used"]

    def close(self):
        self.server.terminate()
        assert self.server.wait(20) == 0
        assert self.run("check").startswith("ok")


def try_client(check):
    """Hands a box to `check`, and proves afterwards that nothing leaked."""
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    # The gateway hangs up on answers that nobody waits for.
    upstream.handle_error = lambda *_: None
    upstream.daemon_threads = True
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    box = Box(upstream.server_address[1])
    try:
        check(box)
    finally:
        SILENT.set()
        box.close()
