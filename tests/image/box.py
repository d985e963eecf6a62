"""A container of the image, as an operator has it."""

import contextlib
import ctypes
import json
import os
import pathlib
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "clients"))

from fake import free_port

EMAIL, PASSWORD = "root@example.org", "correct-horse-battery"
# How long whatever is waited for may take on a machine that is busy; nothing is measured by it.
PATIENCE = 90


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(NoRedirects)


def wait_for(what, is_there):
    """The first answer of `is_there` that holds."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = is_there()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come within {PATIENCE} s")


class Box:
    def __init__(self, docker, name, port):
        self.docker, self.name, self.port, self.token = docker, name, port, None

    def call(self, method, path, body=None, form=None):
        """Status and text of an answer."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if form is not None:
            data, headers["Content-Type"] = urllib.parse.urlencode(form).encode(), "application/x-www-form-urlencoded"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with OPENER.open(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def answers(self):
        try:
            return self.call("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def wait(self):
        """Waits until it serves."""
        def serves():
            assert self.inspect(".State.Running") == "true", self.logs()
            return self.answers()
        wait_for("the server", serves)
        return self

    def inspect(self, path):
        return self.docker("inspect", "-f", "{{" + path + "}}", self.name)

    def logs(self):
        return self.docker("logs", self.name, with_errors=True)

    def run(self, *arguments):
        """What a command of the program says inside the container."""
        return self.docker("exec", self.name, "/tallybox", *arguments)

    def exit_code(self):
        return int(self.docker("wait", self.name))

    def set_up(self):
        """Makes the first administrator by the link that the first start printed, and signs in."""
        link = wait_for("the setup link", lambda: [line for line in self.logs().splitlines() if "/setup?token=" in line])
        assert len(link) == 1, link
        secret = link[0].split("/setup?token=")[1].split()[0]
        assert self.call("GET", f"/setup?token={secret}")[0] == 200
        form = {"token": secret, "email": EMAIL, "password": PASSWORD}
        assert self.call("POST", "/setup", form=form)[0] == 303
        assert self.call("POST", "/setup", form=form)[0] == 410
        self.sign_in()

    def sign_in(self):
        status, answer = self.call("POST", "/auth/login", {"email": EMAIL, "password": PASSWORD})
        assert status == 200, answer
        self.token = json.loads(answer)["token"]

    def store(self, text):
        status, answer = self.call("POST", "/memory/store", {"type": "note", "input_context": text})
        assert status == 201, answer
        return json.loads(answer)["id"]

    def finds(self, query, limit=10):
        """The texts that a search finds, by the model inside."""
        status, answer = self.call("POST", "/memory/search", {"query": query, "limit": limit})
        assert status == 200, answer
        return [hit["input_context"] for hit in json.loads(answer)["results"]]

    def begin_storing(self, text):
        """A request whose body is half sent; gives what sends the rest and returns the status line."""
        body = json.dumps({"type": "note", "input_context": text}).encode()
        head = (f"POST /memory/store HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        stream.sendall(head.encode() + body[:-5])

        def finish():
            stream.sendall(body[-5:])
            with stream.makefile("rb") as answer:
                return answer.readline().decode()
        return finish


@contextlib.contextmanager
def inside(box):
    """In the network of the container, where it answers at its own port: that of one without a network is reached no other way."""
    setns = ctypes.CDLL(None, use_errno=True).setns
    outside, port = os.open("/proc/self/ns/net", os.O_RDONLY), box.port
    there = os.open(f"/proc/{box.inspect('.State.Pid')}/ns/net", os.O_RDONLY)
    try:
        assert setns(there, 0) == 0, os.strerror(ctypes.get_errno())
        box.port = 8080
        yield
    finally:
        assert setns(outside, 0) == 0, os.strerror(ctypes.get_errno())
        box.port = port
        os.close(there)
        os.close(outside)


@contextlib.contextmanager
def run(docker, tag, *options, command=(), publish=True):
    """A container that goes at the end."""
    port = free_port()
    ports = ["-p", f"127.0.0.1:{port}:8080"] if publish else []
    name = docker("run", "-d", *ports, *options, tag, *command)
    try:
        yield Box(docker, name, port)
    finally:
        docker.quietly("rm", "-f", "-v", name)


@contextlib.contextmanager
def volume(docker):
    """A volume with a name."""
    name = f"tallybox-test-{free_port()}"
    docker("volume", "create", name)
    try:
        yield name
    finally:
        docker.quietly("volume", "rm", "-f", name)
