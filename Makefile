# Every target is what CI runs too. PYTHONSAFEPATH keeps our kernels/ from hiding Hugging Face's.
export PYTHONSAFEPATH = 1
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SETUP = $(VENV)/.ready

.PHONY: setup demo test test-gpu lint types check wheel bench fidelity clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(SETUP)

demo: setup
	$(BIN)/sparsediff generate samples/models/shapes-wan \
		"a red circle moving right on a dark background" \
		--compare --density 0.25 --repeat 3 --output runs/demo

test: setup
	$(BIN)/pytest -q -n 2

# On a GPU machine's own Python (torch, triton, pytest): nothing is installed, not even this project.
# ARGS="-n 8" where pytest-xdist is there: most of the time goes into compiling.
test-gpu:
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m pytest -q -ra $(ARGS) tests/gpu

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy -p sparsediff

check: test lint types

wheel: setup
	rm -rf dist
	$(BIN)/python -m build --wheel --sdist --quiet

bench: setup
	$(BIN)/sparsediff bench --kernel

fidelity: setup
	$(BIN)/python samples/fidelity.py

clean:
	rm -rf $(VENV) dist build runs *.egg-info
