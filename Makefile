# Two commands do everything: `make demo` and `make test`. Both make what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An environment of its own: the generator of the stubs is older than what the project runs with.
PROTO_VENV := .venv/proto
OUT := out

.DEFAULT_GOAL := help
.PHONY: help install demo test test-quick lint servers proto bench bench-quick clean
# Linters, tests and benchmarks share the machine: one at a time.
.NOTPARALLEL:

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

install: $(BIN)/.installed ## Make .venv and install powercap with everything it needs

$(BIN)/.installed: setup.cfg pyproject.toml
	@echo "==> making $(VENV) and installing powercap (a minute or two, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --editable '.[dev,lint]'
	@touch $@

demo: install ## Emulated day of a mixed cluster: fit, plan, act under a cap, plot
	@mkdir -p $(OUT)/demo
	@$(BIN)/powercap demo --out $(OUT)/demo

test: install ## The whole verdict: linters, types, import rules, stubs, all tests on real servers
	@$(MAKE) --no-print-directory servers-begin
	@$(MAKE) --no-print-directory lint
	@echo "==> all tests, real servers included"
	@$(BIN)/pytest

# The first build of the API server takes minutes: it runs beside the linters and the tests
# wait for it (fetch.sh holds a lock).
.PHONY: servers-begin
servers-begin:
	@mkdir -p $(OUT)
	@echo "==> looking for the test servers (log: $(OUT)/servers.log)"
	@(tests/servers/fetch.sh prometheus && tests/servers/fetch.sh kube) >$(OUT)/servers.log 2>&1 </dev/null &

test-quick: install ## Tests that need no server
	@$(BIN)/pytest --ignore=tests/e2e -m 'not servers'

servers: ## Fetch or build the test servers into the cache
	@tests/servers/fetch.sh prometheus
	@tests/servers/fetch.sh kube

lint: install proto-check ## ruff, mypy, import rules, stub check
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "==> mypy --strict"
	@$(BIN)/mypy
	@echo "==> import rules"
	@$(BIN)/lint-imports --config setup.cfg --no-cache

$(PROTO_VENV)/.installed: proto/requirements.txt | $(BIN)/.installed
	@echo "==> installing the stub generator"
	@test -x $(PROTO_VENV)/bin/python || $(PYTHON) -m venv $(PROTO_VENV)
	@$(PROTO_VENV)/bin/python -m pip install --quiet -r proto/requirements.txt
	@touch $@

.PHONY: proto-check
proto-check: $(PROTO_VENV)/.installed
	@echo "==> stubs match the .proto files"
	@PATH="$(abspath $(PROTO_VENV))/bin:$$PATH" $(PROTO_VENV)/bin/python proto/generate.py --check

proto: $(PROTO_VENV)/.installed ## Regenerate the stubs from the .proto files
	@PATH="$(abspath $(PROTO_VENV))/bin:$$PATH" $(PROTO_VENV)/bin/python proto/generate.py

bench-quick: install ## Solver benchmarks, small sizes, under three minutes
	@$(BIN)/python benchmarks/run.py --quick --out $(OUT)/bench-quick
	@$(BIN)/python benchmarks/plots.py $(OUT)/bench-quick.jsonl --out $(OUT)/bench-plots

bench: install ## Solver benchmarks, every family and method, one to two hours
	@$(BIN)/python benchmarks/run.py --full --out $(OUT)/bench-full
	@$(BIN)/python benchmarks/run.py --scaling --out $(OUT)/bench-scaling
	@$(BIN)/python benchmarks/run.py --anytime --out $(OUT)/bench-anytime
	@$(BIN)/python benchmarks/run.py --gap-times --out $(OUT)/bench-gap-times
	@$(BIN)/python benchmarks/plots.py $(OUT)/bench-full.jsonl --out $(OUT)/bench-plots
	@$(BIN)/python benchmarks/plots.py $(OUT)/bench-scaling.jsonl --out $(OUT)/bench-plots
	@$(BIN)/python benchmarks/plots.py $(OUT)/bench-anytime.jsonl --out $(OUT)/bench-plots \
		--only gap_over_time
	@$(BIN)/python benchmarks/plots.py $(OUT)/bench-gap-times.jsonl --out $(OUT)/bench-plots \
		--only time_to_gap

clean: ## Remove everything made here (the cache of test servers stays)
	rm -rf $(VENV) $(OUT) build dist .tox .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf .coverage* .import_linter_cache
	find . -name '*.egg-info' -prune -exec rm -rf {} +
	find . -name __pycache__ -prune -exec rm -rf {} +
