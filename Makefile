# Sets up its own environment once, then does the work. Only Python 3.11 or newer is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
SIZE ?= demo
READY := $(VENV)/.ready

.PHONY: demo validate test test-slow coverage mutate lint docs wheel-check matrix clean

demo: $(READY)  ## the whole way on made-up data with a known answer: scans -> stores -> model -> page
	$(BIN)/python -m sherlock_cli.demo demo

validate: $(READY)  ## planted truth, end to end; SIZE=tiny for a quick look, demo for a night
	$(BIN)/sherlock-models validate --size $(SIZE)

test: $(READY)  ## the tests, but for the slow ones; WORKERS=N at once
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m "not slow"

test-slow: $(READY)  ## the slow ones
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m slow

coverage: $(READY)  ## the tests but for the slow ones, with the lines and branches that none of them runs
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m "not slow" --cov --cov-report=term-missing:skip-covered

mutate: $(VENV)/.mutate  ## small faults in the clock, the mask, the splits and the loss: does a test see each?
	rm -rf mutants
	$(BIN)/mutmut run --max-children $(WORKERS)
	$(BIN)/python -m tests.mutation.survivors

lint: $(READY)  ## formatting, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs  ## the site, strict, its notebook executed: docs/_build/html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

wheel-check: $(READY)  ## wheel and sdist, and the quickstart with the wheel alone in a fresh environment
	$(BIN)/python .ci/wheel_check.py

matrix: $(READY)  ## every Python with the oldest and the newest dependencies, as a table
	$(BIN)/python .ci/matrix.py

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/.mutate: $(READY)
	$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable '.[mutate]'
	touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "setting up $(VENV): about 2.4 GB and some minutes; pip says nothing while it unpacks"
	$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:  ## everything that was made here, the environment too
	rm -rf $(VENV) demo build dist docs/_build docs/_generated *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* mutants
