"""The systemd unit and the reverse proxy's file, by the tools that read them, where they are installed."""

import os
import pathlib
import re
import shutil
import subprocess

PACKAGING = pathlib.Path(__file__).resolve().parents[2] / "packaging"
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
