"""A Docker daemon: the one that answers, or one of our own."""

import contextlib
import os
import re
import shutil
import subprocess
import time


class Missing(Exception):
    """Why no daemon can be had."""


class Docker:
    """The client of a daemon."""

    def __init__(self, client, host, gateway):
        self.client = client
        self.environment = {**os.environ, "DOCKER_BUILDKIT": "1", **({"DOCKER_HOST": host} if host else {})}
        # The address of this machine as containers of our own daemon see it; none where the daemon is another's.
        self.gateway = gateway

    def __call__(self, *arguments, may_fail=False, with_errors=False):
        """What a command prints on stdout, and where that is wanted on stderr."""
        command = [self.client, *arguments]
        errors = subprocess.STDOUT if with_errors else subprocess.PIPE
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        if done.returncode and not may_fail:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr or ''}")
        return done.stdout.strip()

    def quietly(self, *arguments):
        return self(*arguments, may_fail=True)

    def build(self, *arguments):
        self("build", *arguments)

    def answers(self):
        command = [self.client, "version", "--format", "{{.Server.Os}}"]
        asked = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return asked.returncode == 0 and asked.stdout.strip() == "linux"


def find_client():
    """A client that builds with BuildKit: since version 23 it needs the plug-in buildx for that."""
    candidates = dict.fromkeys(filter(None, [os.environ.get("DOCKER"), shutil.which("docker"), "/usr/bin/docker"]))
    for client in filter(shutil.which, candidates):
        version = subprocess.run([client, "--version"], capture_output=True, text=True).stdout
        major = re.search(r"version (\d+)\.", version)
        buildx = subprocess.run([client, "buildx", "version"], capture_output=True).returncode == 0
        if buildx or (major and 19 <= int(major.group(1)) < 23):
            return client
    raise Missing("there is no Docker client that builds with BuildKit (Debian: apt-get install docker.io)")


@contextlib.contextmanager
def daemon(scratch):
    client = find_client()
    there = Docker(client, None, None)
    if there.answers():
        yield there
        return
    if os.geteuid() != 0:
        raise Missing("no Docker daemon answers, and only root can start one")
    if not shutil.which("dockerd"):
        raise Missing("no Docker daemon answers, and dockerd is not installed (Debian: apt-get install docker.io)")
    with bridge() as (name, gateway), dockerd(scratch, name) as host:
        yield Docker(client, host, gateway)


@contextlib.contextmanager
def bridge():
    """A network of our own, so that no other daemon's is touched, nor the firewall."""
    name = f"tallybox{os.getpid() % 1_000_000}"
    gateway = f"10.213.{os.getpid() % 256}.1"
    run = lambda *arguments: subprocess.run(["ip", *arguments], capture_output=True, text=True)
    made = run("link", "add", "name", name, "type", "bridge")
    if made.returncode:
        raise Missing(f"no network bridge can be made: {made.stderr.strip()}")
    try:
        run("addr", "add", f"{gateway}/24", "dev", name)
        run("link", "set", name, "up")
        yield name, gateway
    finally:
        run("link", "del", name)


@contextlib.contextmanager
def dockerd(scratch, bridge_name):
    """The address of a daemon that lives in `scratch`."""
    socket, log_path = scratch / "docker.sock", scratch / "dockerd.log"
    host = f"unix://{socket}"
    command = ["dockerd", "--iptables=false", "--ip-masq=false", "--ip-forward=false", f"--bridge={bridge_name}", "-H", host,
               f"--data-root={scratch / 'docker'}", f"--exec-root={scratch / 'docker-exec'}", f"--pidfile={scratch / 'docker.pid'}"]
    with open(log_path, "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        probe = Docker(find_client(), host, None)
        until = time.monotonic() + 60
        while not probe.answers():
            if process.poll() is not None or time.monotonic() > until:
                raise Missing(f"a Docker daemon does not start here:\n{log_path.read_text()[-2000:]}")
            time.sleep(0.2)
        yield host
    finally:
        # It ends the containers that are left, and containerd, which it started.
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
