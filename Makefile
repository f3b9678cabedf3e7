# Needs Python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
# Linux without a GPU: TORCH_INDEX=https://download.pytorch.org/whl/cpu spares gigabytes of CUDA libraries.
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint docs docs-serve bench bench-notebook clean

help:
	@echo "make demo         train, export, index and query on MovieLens-100K"
	@echo "make test         lint, types, tests, the built wheel"
	@echo "make test-fast    the tests that are not marked slow"
	@echo "make lint         ruff and mypy"
	@echo "make docs         the documentation site, in docs/_build/html"
	@echo "make docs-serve   the same, on http://127.0.0.1:8001"
	@echo "make bench        the benchmarks"

# The stamp is newer than what it was made from, or it is made again.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(PIP) install --quiet --constraint constraints.txt --index-url $(TORCH_INDEX) torch
endif
	$(PIP) install --quiet --constraint constraints.txt --editable ".[test,docs]"
	@touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/twotower demo --out artifacts/demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy twotower.py train export retrieval tests benchmarks

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile
	PYTHON=$(BIN)/python .ci/wheel

test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

# Warnings are errors, so a broken link or reference fails the build.
docs: install
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory docs/_build/html 8001

bench: install
	@for script in $(filter-out benchmarks/quality.py benchmarks/ablation.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-notebook: install
	$(BIN)/python benchmarks/notebook.py --write

clean:
	rm -rf $(VENV) build dist docs/_build docs/_generated *.egg-info .mypy_cache .pytest_cache .ruff_cache
