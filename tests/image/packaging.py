"""The systemd unit, the reverse proxies' files and compose.yaml, by the tools that read them, where they are installed."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import authority

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
HOST = "box.example.org"
# Of systemd's 100 points for a service without any protection.
EXPOSURE_MAX = 15


def ask(what, tool, *arguments, **environment):
    """Runs a tool, which must find nothing."""
    if not shutil.which(tool):
        print(f"packaging: {what}: left out: {tool} is not installed", flush=True)
        return
    done = subprocess.run([tool, *arguments], env={**os.environ, **environment}, capture_output=True, text=True)
    # A line that systemd cannot read is passed over with a word on stderr alone.
    assert done.returncode == 0 and "tallybox.service:" not in done.stderr, done.stdout + done.stderr
    print(f"packaging: {what}: ok", flush=True)


def try_all(scratch):
    unit = scratch / "tallybox.service"
    text = (PACKAGING / "tallybox.service").read_text()
    program = re.search(r"^ExecStart=(\S+) serve$", text, re.MULTILINE).group(1)
    # The verification wants the program to be there.
    there = shutil.which("true")
    unit.write_text(text.replace(f"ExecStart={program}", f"ExecStart={there}"))
    ask("the unit", "systemd-analyze", "verify", "--man=no", str(unit))
    ask("its exposure", "systemd-analyze", "security", "--no-pager", "--offline=yes", f"--threshold={EXPOSURE_MAX}", str(unit))
    proxy = str(PACKAGING / "Caddyfile")
    ask("the proxy", "caddy", "validate", "--adapter", "caddyfile", "--config", proxy, TALLYBOX_HOST="localhost", HOME=str(scratch))
    nginx(scratch)
    compose()


def nginx(scratch):
    """The example for nginx, with a certificate of its own."""
    if not authority.can_vouch():
        print("packaging: nginx: left out: openssl is not installed", flush=True)
        return
    _, certificate, key = authority.vouch_for([HOST], scratch / "nginx")
    text = (PACKAGING / "nginx.conf").read_text()
    for name, path in [("certificate", certificate), ("certificate_key", key)]:
        text = re.sub(rf"ssl_{name} \S+;", f"ssl_{name} {path};", text)
    whole = scratch / "nginx.conf"
    whole.write_text(f"pid {scratch}/nginx.pid;\nevents {{}}\nhttp {{\n{text}}}\n")
    ask("nginx", "nginx", "-t", "-q", "-e", str(scratch / "nginx.log"), "-p", str(scratch), "-c", str(whole))


def compose():
    """compose.yaml as the tool reads it: complete, and what it names is there."""
    read = composed()
    if read is None:
        print("packaging: compose.yaml: left out: neither docker compose nor docker-compose is installed", flush=True)
        return
    # All of a service's lines.
    service = lambda name: re.search(rf"^  {name}:\n((?:    .*\n)+)", read, re.MULTILINE).group(1)
    box, proxy = service("tallybox"), service("caddy")
    for line in ["read_only: true", "- ALL", "no-new-privileges:true", f"https://{HOST}", "condition: service_healthy"]:
        assert line in box + proxy, f"{line} is not in compose.yaml:\n{read}"
    # Whom the box believes are the two of that network.
    believed = re.search(r"TRUSTED_PROXIES: (\S+)", box).group(1)
    assert f"subnet: {believed}" in read, read
    # What is mounted from the clone is there, and leads to the service by its name and the image's port.
    mounted = [path for path in re.findall(r"(/\S+?)(?::/|\n)", proxy) if path.startswith(str(ROOT))]
    assert mounted and all(pathlib.Path(path).is_file() for path in mounted), (mounted, proxy)
    port = re.search(r"^EXPOSE (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE).group(1)
    assert f"reverse_proxy tallybox:{port}" in (PACKAGING / "Caddyfile").read_text()
    # Docker waits for longer than draining may take.
    drain, grace = (int(re.search(rf"{name}: (\d+)s", box).group(1)) for name in ("DRAIN_TIMEOUT", "stop_grace_period"))
    assert drain < grace, box
    print("packaging: compose.yaml: ok", flush=True)


def composed():
    for tool in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(tool[0]) and subprocess.run([*tool, "version"], capture_output=True).returncode == 0:
            done = subprocess.run([*tool, "-f", str(ROOT / "compose.yaml"), "config"], capture_output=True, text=True,
                                  env={**os.environ, "TALLYBOX_HOST": HOST})
            assert done.returncode == 0, done.stderr
            return done.stdout
    return None


def try_settings(docker, tag):
    """The program knows what compose.yaml sets."""
    read = composed() or ""
    told = re.findall(r"^      (TALLYBOX_\w+__\w+): (.+)$", read, re.MULTILINE)
    assert told or not read, read
    options = [word for name, value in told for word in ("-e", f"{name}={json.loads(value) if value[0] == chr(34) else value}")]
    said = docker("run", "--rm", *options, tag, "config")
    assert not read or f"https://{HOST}" in said, said
    print("packaging: what compose.yaml sets: ok", flush=True)
