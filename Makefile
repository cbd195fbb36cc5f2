# Commands for people who work on tokenwire. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?=
AGENT ?=
WORKERS ?=
STORE ?=
SECONDS ?= 600
HOST ?=
PORT ?=
ARGS ?=

# Compiled Python is kept, whatever the shell says: without it each of the some hundred servers that
# the tests start, and each test worker, compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup serve example-app test test-python test-js lint format bench faults fuzz fuzz-native wheel release docs film page clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- set-up: each part is done once, and again when what it is made from changes ----------------

setup: $(VENV)/.installed $(VENV)/.speedups $(VENV)/.page ## Virtual environment, page and packages

# `--no-deps`: the lock names everything. Left to resolve, pip looks at a newer release of a package
# that is asked for with an extra before it looks at the pin, and refuses the whole list.
$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tokenwire needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The express lane in C, and the reading of pages. Without a compiler or Python's headers all works
# without it; one that was built before and fits no longer is not kept.
$(VENV)/.speedups: $(VENV)/.installed speedups/pyproject.toml speedups/setup.py speedups/tokenwire_speedups.c speedups/tokenwire_pages.c
	@rm -rf speedups/build
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall ./speedups >$(VENV)/speedups.log 2>&1 \
	  || { $(BIN)/pip uninstall -q -y tokenwire-speedups >/dev/null 2>&1; \
	    echo "the express lane could not be built in C ($(VENV)/speedups.log says why): it runs in Python"; }
	@touch $@

# What `make serve` needs on a new machine: the same environment without the test tools is not kept
# apart; one environment is simpler than two.
$(VENV)/.page: $(VENV)/.installed package-lock.json $(shell find packages -path '*/node_modules' -prune -o -path '*/dist' -prune -o -type f -print 2>/dev/null)
	@if ! command -v npm >/dev/null 2>&1; then \
	  echo "npm is not installed: the API works, the chat page is left out"; \
	elif ! node -e 'process.exit(+(parseInt(process.versions.node) < 20))'; then \
	  echo "Node $$(node --version) is too old (20 is needed): the API works, the chat page is left out"; \
	else \
	  npm ci --loglevel=error --no-fund --no-audit && npm run --silent build && touch $@; \
	fi

page: $(VENV)/.page ## Build the chat page into the server

# --- run ----------------------------------------------------------------------------------------

# The API does not need the page: where npm cannot build it, that is told in a line, and `/` says it too.
serve: $(VENV)/.installed ## Serve the chat page and the API (MODEL=, AGENT=, STORE=, WORKERS=, HOST=, PORT=)
	@$(MAKE) --no-print-directory page 2>$(VENV)/page.log || echo "the chat page could not be built ($(VENV)/page.log says why): the API works without it; 'make page' tries again"
	@$(BIN)/tokenwire serve $(if $(HOST),--host '$(HOST)') $(if $(PORT),--port '$(PORT)') \
	  $(if $(AGENT),--agent '$(AGENT)') $(if $(MODEL),--model '$(MODEL)') $(if $(STORE),--store '$(STORE)') \
	  $(if $(WORKERS),--workers '$(WORKERS)') $(ARGS)

example-app: setup ## The application of examples/app, on port 8000
	@npx vite build examples/app/web --logLevel error
	$(BIN)/python examples/app/app.py $(or $(PORT),8000)

# --- check --------------------------------------------------------------------------------------

test: setup ## All tests (browser and Redis tests where these can be had)
	@sh scripts/system_packages.sh
	$(MAKE) --no-print-directory test-js
	$(MAKE) --no-print-directory test-python

test-js: setup $(VENV)/.clients
	@if command -v npm >/dev/null 2>&1; then npm test --silent; else echo "npm is not installed: the TypeScript tests are left out"; fi

# The client packages of others that the tests run against the server.
$(VENV)/.clients: $(VENV)/.installed tests/node/package-lock.json
	@if command -v npm >/dev/null 2>&1; then npm ci --silent --no-fund --no-audit --prefix tests/node && cp tests/node/package-lock.json tests/node/node_modules/.tokenwire-installed && touch $@; fi

# Tests wait much more than they compute: six workers on two cores. The order is tests/conftest.py's.
# The agent frameworks that the tests run with, in two environments of their own: their pins are
# theirs, and the newest ones of all of them do not go together. A third one has web frameworks, a
# fourth what makes the documentation site.
FRAMEWORKS := .venv-agents/.installed .venv-agents-more/.installed .venv-hosts/.installed .venv-docs/.installed
$(FRAMEWORKS): .venv-%/.installed: requirements/%.txt
	@$(PYTHON) -m venv .venv-$* && .venv-$*/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r $< && touch $@ \
	  || echo "the packages of $< could not be installed: their tests are left out"

# The workers of the tests read all test files at the same moment, and each would compile them: the
# first time, one process does it for all. What fails here fails in the tests too, and is told there.
$(VENV)/.compiled: $(VENV)/.installed
	@$(BIN)/python -m pytest --collect-only -qq >$(VENV)/collect.log 2>&1 || true
	@touch $@

prepare: setup $(VENV)/.clients $(VENV)/.compiled $(FRAMEWORKS) ## What the tests need beside the set-up; done in `make test` as well
	@sh scripts/system_packages.sh

test-python: setup $(VENV)/.clients $(VENV)/.compiled $(FRAMEWORKS)
	$(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	@if command -v npm >/dev/null 2>&1; then npm run --silent check; else echo "npm is not installed: the TypeScript types were not checked"; fi

format: $(VENV)/.installed ## Put the code into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed ## All benchmarks, or those of ARGS="start encode" (ARGS=goals: the goals); see benchmarks/README.md
	$(BIN)/python benchmarks/all.py $(ARGS)

faults: setup .venv-agents/.installed ## The fault harness, long: 1,000 kills, seeded
	@sh scripts/system_packages.sh
	$(BIN)/python -m tests.faults $(ARGS)

fuzz: $(VENV)/.installed ## Coverage-guided fuzzing of every decoder (SECONDS=600)
	$(BIN)/python tests/fuzz/fuzz_decoders.py -max_total_time=$(SECONDS) $(ARGS)

fuzz-native: setup ## What is in C under AddressSanitizer and UBSan (SECONDS=600)
	$(BIN)/python tests/fuzz/fuzz_native.py --seconds $(SECONDS) $(ARGS)

wheel: setup ## A wheel with the page inside, and one of the express lane in C, in dist/
	$(BIN)/python -m build --no-isolation --wheel --outdir dist .
	@$(BIN)/python -m build --no-isolation --outdir dist speedups >$(VENV)/speedups.log 2>&1 \
	  || echo "no wheel of the express lane in C ($(VENV)/speedups.log says why): tokenwire's runs without"

# What checks a release is in an environment of its own, so that the tests' stays as it is.
.venv-release/.installed: requirements/release.txt
	$(PYTHON) -m venv .venv-release && .venv-release/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r $< && touch $@

scripts/release/node_modules/.installed: scripts/release/package-lock.json
	npm ci --silent --no-fund --no-audit --prefix scripts/release && touch $@

release: .venv-release/.installed scripts/release/node_modules/.installed ## Wheel, sdist and npm packages of the last commit, checked, in dist/release/
	.venv-release/bin/python scripts/release/release.py $(ARGS)

# Looked at with `python -m http.server -d dist/docs`.
scripts/docs/node_modules/.installed: scripts/docs/package-lock.json
	npm ci --silent --no-fund --no-audit --prefix scripts/docs && touch $@

docs: setup .venv-docs/.installed scripts/docs/node_modules/.installed ## The documentation site, every link checked, in dist/docs/
	.venv-docs/bin/python scripts/docs/make_site.py $(ARGS)

film: setup .venv-docs/.installed ## The moving picture of README, from a real browser, in docs/film.webp
	$(BIN)/python scripts/film/film.py $(ARGS)

clean: ## Remove everything that was built or installed
	rm -rf $(VENV) .venv-agents .venv-agents-more .venv-hosts .venv-release .venv-docs node_modules scripts/release/node_modules scripts/docs/node_modules packages/*/node_modules packages/*/dist dist build speedups/build speedups/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find src/tokenwire/server/static -mindepth 1 ! -name .gitkeep -delete
