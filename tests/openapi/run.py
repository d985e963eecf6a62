#!/usr/bin/env python3
"""The description of the API against the server that gives it: schemathesis makes calls of it, good ones and bad ones, and holds
each answer against what is described.

    pip install schemathesis
    python3 tests/openapi/run.py [path of the tallybox binary]

Starts an upstream and a server of its own with several users. What is checked and what is not, with the reason, stands in
schemathesis.toml; what a schema cannot say of good calls stands in hooks.py.
"""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import ThreadingHTTPServer

import jsonschema_rs

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
from fake import BINARY, Upstream, free_port  # noqa: E402

PASSWORD = "correct-horse-battery"
USERS = [("ada@example.org", "pro", "user"), ("bob@example.org", "basic", "user"), ("root@example.org", "pro", "admin"),
         ("first-victim@example.org", "basic", "user"), ("other-victim@example.org", "basic", "user")]


def without_recalled(body):
    """A body without the message that tells what the box remembers, which may be one more than a caller may send."""
    first = (body.get("messages") or [None])[0]
    is_recalled = isinstance(first, dict) and first.get("role") == "system" and len(body["messages"]) > 1
    return {**body, "messages": body["messages"][1:]} if is_recalled else body


class Strict(Upstream):
    """Refuses what a model's server would refuse: what is not as the description says."""

    schemas = {}
    named = {"/v1/chat/completions": "ChatRequest", "/v1/completions": "CompletionRequest",
             "/v1/responses": "ResponseRequest", "/v1/embeddings": "EmbeddingsRequest"}

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        if not Strict.schemas[Strict.named[self.path]].is_valid(without_recalled(body)):
            text = json.dumps({"error": {"message": "not understood", "type": "invalid_request_error", "param": None, "code": None}}).encode()
            self.send_response(400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            return
        body = {name: value for name, value in body.items() if name in ("model", "n", "stream", "stream_options") and value is not None}
        text = json.dumps(body).encode()
        self.headers.replace_header("Content-Length", str(len(text)))
        socket, self.rfile = self.rfile, io.BytesIO(text)
        try:
            super().do_POST()
        finally:
            self.rfile = socket


def validator(document, schema):
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}, validate_formats=True)


def examples(value, path=""):
    """Every schema that stands beside an example."""
    if isinstance(value, dict):
        if "schema" in value and "example" in value:
            yield path, value["schema"], value["example"]
        for name, inner in value.items():
            if name not in ("example", "schema"):
                yield from examples(inner, f"{path}/{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from examples(inner, f"{path}/{index}")


def closed(value):
    """The same schemas, in which an answer holds nothing that is not described."""
    if isinstance(value, dict):
        value = {name: closed(inner) for name, inner in value.items()}
        if isinstance(value.get("properties"), dict) and "required" in value and value.get("type") == "object":
            value.setdefault("additionalProperties", False)
        return value
    return [closed(inner) for inner in value] if isinstance(value, list) else value


class Box:
    """A server of its own, with people."""

    def __init__(self, directory, upstream):
        self.url = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            "TALLYBOX_DATA_DIR": directory,
            "TALLYBOX_GATEWAY__UPSTREAMS": f"[{{ name = 'strict', base_url = 'http://127.0.0.1:{upstream}/v1', models = ['*'] }}]",
            # So that failed logins of the calls that are made up do not keep the people out.
            "TALLYBOX_SERVER__TRUSTED_PROXIES": "['127.0.0.1/32']",
            "TALLYBOX_LOG__LEVEL": "error",
            "PATH": os.environ["PATH"],
        }
        for email, tier, role in USERS:
            self.run("user", "add", email, "--tier", tier, "--role", role, "--password-stdin", typed=PASSWORD + "\n")
        self.server = subprocess.Popen([BINARY, "serve", "--listen", self.url.removeprefix("http://")], env=self.environment,
                                       stdout=subprocess.DEVNULL)
        for _ in range(400):
            try:
                urllib.request.urlopen(f"{self.url}/healthz")
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the server does not come up")

    def run(self, *arguments, typed=None):
        return subprocess.run([BINARY, *arguments], env=self.environment, check=True, capture_output=True, text=True, input=typed).stdout.strip()

    def ask(self, method, path, body=None, token=None):
        headers = {"Content-Type": "application/json", "X-Forwarded-For": "192.0.2.9"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        return json.load(urllib.request.urlopen(urllib.request.Request(self.url + path, data=data, headers=headers, method=method)))

    def close(self):
        self.server.terminate()
        assert self.server.wait(30) == 0
        said = self.run("check")
        assert said.startswith("ok"), said


def prove(box, directory):
    document = box.ask("GET", "/openapi.json")
    found = list(examples(document))
    assert len(found) > 100, len(found)
    faults = []
    for path, schema, example in found:
        for fault in validator(document, schema).iter_errors(example):
            faults.append(f"{path}: {fault.message}")
    assert not faults, "examples that are not as described:\n" + "\n".join(faults)
    Strict.schemas = {name: validator(document, {"$ref": f"#/components/schemas/{name}"}) for name in Strict.named.values()}

    root = box.ask("POST", "/auth/login", {"email": "root@example.org", "password": PASSWORD})["token"]
    users = {user["email"]: user["id"] for user in box.ask("GET", "/api/admin/users", token=root)["users"]}
    described = pathlib.Path(directory, "openapi.json")
    described.write_text(json.dumps(closed(document)))
    environment = {**os.environ, "KEPT_USERS": ",".join(users[email] for email, *_ in USERS[:3]),
                   "VICTIMS": ",".join(users[email] for email, *_ in USERS[3:])}
    tool = pathlib.Path(sys.executable).with_name("schemathesis")
    # It leaves files where it runs, and looks there for those that its configuration names.
    for name in ("schemathesis.toml", "hooks.py", "users.json"):
        shutil.copy(HERE / name, directory)
    command = [str(tool), "run", str(described), "--url", box.url]
    return subprocess.run([*command, *sys.argv[2:]], env=environment, cwd=directory).returncode


def main():
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Strict)
    upstream.handle_error = lambda *_: None
    upstream.daemon_threads = True
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as directory:
        box = Box(os.path.join(directory, "data"), upstream.server_address[1])
        try:
            failed = prove(box, directory)
        finally:
            box.close()
    sys.exit(failed)


main()
