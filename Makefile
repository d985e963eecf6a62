# make run    build and start on ./data, and print where to go
# make test   everything: format, lints, all tests; installs what the tests need
# make check  the fast loop: format, clippy, cargo tests
# make bench  the measured table; make model: rebuild the embedding model from its original

CARGO ?= cargo
# Rust's own tests run under nextest where it is installed, else under cargo test.
TEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo nextest run --no-fail-fast || echo test)

.PHONY: run test check fmt bench model

run:
	$(CARGO) build --release
	./target/release/tallybox serve --data-dir data

test: check

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) $(TEST)

fmt:
	$(CARGO) fmt

bench:
	$(CARGO) build --release
	python3 benches/bench.py
