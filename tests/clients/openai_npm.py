#!/usr/bin/env python3
"""The unmodified client of OpenAI for Node against the gateway: what it asks stands in openai_npm.cjs.

    NODE_PATH=[folder of the module openai] python3 tests/clients/openai_npm.py [path of the tallybox binary]
"""

import os
import pathlib
import subprocess

from fake import Upstream, try_client

SCRIPT = pathlib.Path(__file__).with_suffix(".cjs")


def check(box):
    environment = {"PATH": os.environ["PATH"], "NODE_PATH": os.environ["NODE_PATH"]}
    subprocess.run(["node", str(SCRIPT), f"http://{box.address}", box.token], env=environment, check=True, timeout=120)
    # Node's own requests came, and none of them carried the caller's token to the upstream.
    assert len(Upstream.asked) > 10
    assert all(headers["authorization"] == "Bearer sk-operator" for _, headers, _ in Upstream.asked)
    assert not any(box.token in str(headers) + str(body) for _, headers, body in Upstream.asked)


try_client(check)
