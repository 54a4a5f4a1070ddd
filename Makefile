# The two commands: `make demo` and `make test`. The long ones: `make fuzz`, `make bench`, `make soak`,
# `make screenshots`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test lint types layers tests tools dashboards fuzz bench soak screenshots clean

demo: $(READY)
	@$(BIN)/sentinel demo

test: $(READY) tools lint types layers tests

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Sentinel needs Python 3.11 or newer; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { tests/install-tools python3-venv && $(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

# The system's packages that the tests use: installed where that is possible, listed where it is not.
tools:
	@tests/install-tools

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

tests: $(READY)
	$(BIN)/pytest -n 2 -m 'not alone'
	$(BIN)/pytest -m alone

# The boards as Grafana reads them, out of dashboards/src.
dashboards: $(READY)
	$(BIN)/python -m dashboards.src

fuzz: $(READY)
	$(BIN)/pytest tests/fuzz --hypothesis-profile=fuzz -n 2

bench: $(READY)
	$(BIN)/python -m benchmarks.run $(PARTS)

soak: $(READY)
	$(BIN)/python -m benchmarks.soak

screenshots: $(READY) tools
	@command -v pngquant >/dev/null || tests/install-tools pngquant
	$(BIN)/python -m tests.screenshots

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
