"""An authority of the tests, which vouches for names."""

import shutil
import subprocess

SETTINGS = """[req]
distinguished_name = subject
prompt = no
[subject]
CN = a test of Tallybox
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""


def can_vouch():
    return shutil.which("openssl") is not None


def vouch_for(names, place):
    """The files of the authority's certificate, and of a server's with its key."""
    place.mkdir()
    settings = place / "openssl.cnf"
    settings.write_text(SETTINGS.format(names=", ".join(f"DNS:{name}" for name in names)))
    new = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config", str(settings)]
    openssl = lambda *arguments: subprocess.run(["openssl", *arguments], cwd=place, check=True, capture_output=True)
    openssl(*new, "-x509", "-days", "2", "-extensions", "authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "-keyout", "server.key", "-out", "server.csr")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", str(settings), "-extensions", "server", "-out", "server.pem")
    # Whoever the container runs as reads it.
    (place / "ca.pem").chmod(0o644)
    return place / "ca.pem", place / "server.pem", place / "server.key"
