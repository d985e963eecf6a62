"""What an operator relies on, each tried on a container."""

import json
import os
import pathlib
import re
import ssl
import tarfile
import threading
from http.server import ThreadingHTTPServer

import authority
from box import EMAIL, Box, inside, run, volume, wait_for
from fake import Upstream
from names import NameServer

BYTES_MAX = 60_000_000
MANIFEST = pathlib.Path(__file__).resolve().parents[2] / "Cargo.toml"
ENTRIES = 110_000
PEANUTS = "The guest in room 12 is allergic to peanuts."
OTHERS = ["The ferry to Ullapool leaves at half past nine.", "The boiler was serviced in March by a firm from Leeds."]


def try_all(docker, tag, told, scratch):
    print(f"image: what is told of it: {what_is_told(docker, tag, told)}", flush=True)
    for case in (labels_and_content, the_first_hour, no_network, stopping, hardened, another_user, no_volume, unwritable,
                 health, names_of_upstreams, demo):
        said = case(docker, tag, scratch)
        print(f"image: {case.__name__.replace('_', ' ')}: {said or 'ok'}", flush=True)


def what_is_told(docker, tag, told):
    labels = json.loads(docker("image", "inspect", tag))[0]["Config"]["Labels"]
    for name, value in told.items():
        assert labels[f"org.opencontainers.image.{name.lower()}"] == value, labels
    with run(docker, tag) as box:
        seen = json.loads(box.wait().call("GET", "/healthz")[1])
    assert seen["build"] == told["REVISION"], seen
    return "ok"


def labels_and_content(docker, tag, scratch):
    seen = json.loads(docker("image", "inspect", tag))[0]
    settings, size = seen["Config"], seen["Size"]
    assert size < BYTES_MAX, f"the image has {size} bytes, {BYTES_MAX} are allowed"
    version = re.search(r'^version = "(.+)"', MANIFEST.read_text(), re.MULTILINE).group(1)
    assert docker("run", "--rm", tag, "--version") == f"tallybox {version}"
    labels = settings["Labels"]
    assert labels["org.opencontainers.image.version"] == version, labels
    assert labels["org.opencontainers.image.licenses"] == "MIT OR Apache-2.0", labels
    assert settings["User"] == "65532:65532" and list(settings["Volumes"]) == ["/data"], settings
    archive = scratch / "image.tar"
    docker("save", "-o", str(archive), tag)
    files = {}
    with tarfile.open(archive) as outer:
        for layer in json.load(outer.extractfile("manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                files.update({item.name.strip("/"): (item.isdir(), item.uid, oct(item.mode & 0o7777)) for item in inner})
    archive.unlink()
    assert files == {"tallybox": (False, 0, "0o755"), "data": (True, 65532, "0o700"), "tmp": (True, 65532, "0o700")}, files
    return f"{size / 1e6:.1f} MB, the binary and two empty directories"


def the_first_hour(docker, tag, _):
    with volume(docker) as there, run(docker, tag, "-v", f"{there}:/data") as box:
        box.wait().set_up()
        stored = [box.store(text) for text in (OTHERS[0], PEANUTS, OTHERS[1])][1]
        assert box.finds("which food must be avoided?", 1) == [PEANUTS]
        docker("restart", box.name)
        box.wait()
        # Still signed in, and nobody is asked to set up again.
        status, answer = box.call("GET", f"/memory/{stored}")
        assert status == 200 and "peanuts" in answer, answer
        assert box.logs().count("/setup?token=") == 1 and "NO VOLUME" not in box.logs(), box.logs()
        assert box.run("check").startswith("ok: ")
        # Another container finds what this one stored.
        docker("rm", "-f", "-v", box.name)
        with run(docker, tag, "-v", f"{there}:/data") as other:
            other.wait().sign_in()
            assert other.finds("peanuts", 1) == [PEANUTS]


def no_network(docker, tag, _):
    if docker.gateway is None:
        return "left out: needs a daemon of our own"
    with run(docker, tag, "--network", "none", publish=False) as box:
        wait_for("the server", lambda: "listening on" in box.logs())
        with inside(box):
            box.wait().set_up()
            for text in (OTHERS[0], PEANUTS, OTHERS[1]):
                box.store(text)
            assert box.finds("which food must be avoided?", 1) == [PEANUTS]


def stopping(docker, tag, _):
    with volume(docker) as there:
        with run(docker, tag, "-v", f"{there}:/data") as box:
            box.wait().set_up()
            finish = box.begin_storing("Sent while it stops.")
            # Kept, since its connection would end with it.
            stuck = box.begin_storing("Never sent to the end.")
            docker("kill", "-s", "TERM", box.name)
            wait_for("the drain", lambda: "stopping" in box.logs())
            assert finish().startswith("HTTP/1.1 201"), box.logs()
            # Docker would kill it after its own patience; then this were 137.
            docker("stop", box.name)
            assert box.exit_code() == 0, box.logs()
            del stuck
        with run(docker, tag, "-v", f"{there}:/data") as box:
            box.wait().sign_in()
            assert box.finds("sent") == ["Sent while it stops."]
            docker("kill", "-s", "INT", box.name)
            assert box.exit_code() == 0, box.logs()


def hardened(docker, tag, _):
    with volume(docker) as there:
        options = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-v", f"{there}:/data"]
        with run(docker, tag, *options) as box:
            box.wait().set_up()
            box.store("Nothing else is written.")
            assert box.finds("what is written?") == ["Nothing else is written."]
            # So many entries that what is proven of the copy does not fit into the memory that SQLite takes for it.
            box.run("user", "set-tier", EMAIL, "pro")
            entries = [{"resourceType": "llm_tokens", "amount": 1 + number % 7, "metadata": {"model": f"model-{number % 90}"}}
                       for number in range(1000)]
            for _ in range(ENTRIES // len(entries)):
                status, answer = box.call("POST", "/usage/record/batch", {"entries": entries})
                assert status == 201, answer
            box.run("backup", "/data/copy.db")


def another_user(docker, tag, scratch):
    if os.geteuid() != 0:
        return "left out: only root can give a directory away"
    there = scratch / "another-user"
    there.mkdir(mode=0o700)
    os.chown(there, 1000, 1000)
    with run(docker, tag, "--user", "1000:1000", "--read-only", "-v", f"{there}:/data") as box:
        box.wait().set_up()
        box.store("Owned by another.")
        assert "NO VOLUME" not in box.logs(), box.logs()
    assert {path.stat().st_uid for path in there.iterdir()} == {1000}


def no_volume(docker, tag, _):
    memory = ["--tmpfs", "/data:uid=65532,mode=0700"]
    for options, said in [([], "NO VOLUME was named for /data"), (memory, "NO VOLUME is at /data, but main memory")]:
        with run(docker, tag, *options) as box:
            box.wait()
            assert box.logs().count(said) == 1 and "-v tallybox:/data" in box.logs(), box.logs()
        with run(docker, tag, *options, "-e", "TALLYBOX_SERVER__REQUIRE_VOLUME=true") as box:
            assert box.exit_code() == 1
            assert said in box.logs() and "server.require_volume" in box.logs(), box.logs()
    with volume(docker) as there:
        with run(docker, tag, "-v", f"{there}:/data", "-e", "TALLYBOX_SERVER__REQUIRE_VOLUME=true") as box:
            box.wait()


def unwritable(docker, tag, scratch):
    there = scratch / "another-ones"
    there.mkdir(mode=0o755)
    for mount, said in [(f"{there}:/data", "chown -R 65532:65532 /data"), (f"{there}:/data:ro", "mounted read-only")]:
        with run(docker, tag, "-v", mount) as box:
            assert box.exit_code() == 1
            assert said in box.logs(), box.logs()
    assert list(there.iterdir()) == []


def health(docker, tag, _):
    with volume(docker) as there, run(docker, tag, "-v", f"{there}:/data") as box:
        wait_for("health", lambda: box.inspect(".State.Health.Status") == "healthy")
        # Where nobody serves, the same question fails.
        with run(docker, tag, command=["healthcheck"], publish=False) as silent:
            assert silent.exit_code() == 1 and "no server" in silent.logs(), silent.logs()


def names_of_upstreams(docker, tag, scratch):
    """A static binary has no C library beside it that would find addresses, and no certificates of the machine's: it must find
    the ones by itself, and believe the others where they are mounted."""
    if docker.gateway is None:
        return "left out: needs a daemon of our own"
    if not authority.can_vouch():
        return "left out: openssl is not installed"
    # One upstream by five names: found by the name server, listed in the container's own file, not in the certificate, in it but
    # with nobody to believe, and found nowhere.
    ours, certificate, key = authority.vouch_for(["asked.example", "listed.example", "doubted.example"], scratch / "authority")
    upstream = ThreadingHTTPServer((docker.gateway, 0), Upstream)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    upstream.socket = tls.wrap_socket(upstream.socket, server_side=True)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    port = upstream.server_address[1]
    upstreams = [f"{{ name = '{name}', base_url = 'https://{name}.example:{port}/v1', models = ['{name}-*']"
                 f"{'' if name == 'doubted' else ', ca_file = ' + repr('/ca.pem')} }}"
                 for name in ("asked", "listed", "misnamed", "doubted", "nowhere")]
    options = ["-e", f"TALLYBOX_GATEWAY__UPSTREAMS=[{', '.join(upstreams)}]", "-v", f"{ours}:/ca.pem:ro", "--dns", docker.gateway,
               "--add-host", f"listed.example:{docker.gateway}"]
    known = {f"{name}.example": docker.gateway for name in ("asked", "misnamed", "doubted")}
    with NameServer(docker.gateway, known), run(docker, tag, *options) as box:
        box.wait().set_up()
        box.run("user", "set-tier", EMAIL, "pro")
        for name, status, code in [("asked", 200, ""), ("listed", 200, ""), ("misnamed", 502, "upstream_untrusted"),
                                   ("doubted", 502, "upstream_untrusted"), ("nowhere", 502, "upstream_unreachable")]:
            call = {"model": f"{name}-1", "messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 20}
            got, answer = box.call("POST", "/v1/chat/completions", call)
            assert got == status and code in answer, f"{name}: {got} {answer}"
    upstream.shutdown()


def demo(docker, tag, _):
    with run(docker, tag, command=["demo"]) as box:
        Box.wait(box)
        wait_for("what to do", lambda: "Ctrl-C" in box.logs())
        assert box.call("GET", "/login")[0] == 200
        docker("stop", box.name)
        assert box.exit_code() == 0, box.logs()
