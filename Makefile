# make run    build and start on ./data, and print where to go
# make test   everything: format, lints, all tests; installs what the tests need
# make clients  OpenAI's own client against the gateway
# make check  the fast loop: format, clippy, tests
# make bench  the measured table of the README, beside its peers
# make model  the embedding model from its hash-pinned original

CARGO ?= cargo
PYTHON ?= python3
# Rust's own tests run under nextest where it is installed, else under cargo test.
TEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo nextest run --no-fail-fast || echo test)

.PHONY: run test check clients bench needs

run:
	$(CARGO) build --release
	$(or $(CARGO_TARGET_DIR),target)/release/tallybox serve --data-dir data

test: needs check clients

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) $(TEST)

# The unmodified client of OpenAI against the gateway, in an environment of its own.
CLIENTS := $(or $(CARGO_TARGET_DIR),target)/clients
clients:
	$(CARGO) build
	@test -x $(CLIENTS)/bin/python || { $(PYTHON) -m venv $(CLIENTS) && $(CLIENTS)/bin/pip install -q openai; }
	$(CLIENTS)/bin/python tests/clients/openai_python.py $(or $(CARGO_TARGET_DIR),target)/debug/tallybox

# What the build and the tests need beside Rust: a C compiler, for SQLite.
needs:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer (rustup)"; exit 1; }
	@command -v cc >/dev/null || { command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq gcc libc6-dev; } \
	  || { echo "a C compiler is missing: install gcc or clang"; exit 1; }
	@$(CARGO) fmt --version >/dev/null 2>&1 && $(CARGO) clippy --version >/dev/null 2>&1 \
	  || rustup component add rustfmt clippy \
	  || { echo "rustfmt and clippy are missing: rustup component add rustfmt clippy"; exit 1; }

# Needs wrk; PocketBase and onnxruntime are measured beside where they are installed.
bench:
	$(CARGO) build --release
	$(PYTHON) benches/bench.py

include model.mk
