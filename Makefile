# Every target is what CI runs too. PYTHONSAFEPATH keeps our kernels/ from hiding Hugging Face's.
export PYTHONSAFEPATH = 1
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SETUP = $(VENV)/.ready

.PHONY: setup demo ui test browser first-comparison test-gpu kernel-gates lint types check wheel floor floor-environment floor-tests quantised bench fidelity plans models clean

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

# The comparison app, in a browser of yours.
ui: setup
	$(BIN)/sparsediff ui

test: setup
	$(BIN)/pytest -q -n 2 --dist worksteal --durations=40 --ignore tests/browser

# The app in a real browser, alone: videos are to stay in step. Skipped, with the reason, where there is none.
browser: setup
	UI_SCREENSHOTS=runs/screenshots $(BIN)/pytest -q -n 0 -rs --durations=5 tests/browser

# How long a newcomer waits for the first comparison on the sample model; on a machine otherwise idle.
first-comparison: setup
	FIRST_COMPARISON=1 UI_SCREENSHOTS=runs/screenshots \
		$(BIN)/pytest -q -s -n 0 tests/browser/test_first_comparison.py

# On a GPU machine's own Python (torch, triton, pytest): nothing is installed, not even this project.
# ARGS="-n 8" where pytest-xdist is there: most of the time goes into compiling.
test-gpu:
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m pytest -q -ra $(ARGS) tests/gpu

# The Triton kernels without a GPU, see docs/kernels.md: in Triton's interpreter, and compiled ahead of
# time. With the Triton of constraints.txt, and with the one of torch 2.11, whose interpreter needs an
# older numpy: both lie in a folder of their own, in front of the environment's.
OLD_TRITON = $(VENV)/triton-3.6.0
GATE = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -p no:cacheprovider tests/gates
OLD_GATE = PYTHONPATH="$(CURDIR)/$(OLD_TRITON)" KERNEL_GATE_SAMPLE=1

$(OLD_TRITON)/.ready: $(SETUP)
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(OLD_TRITON) triton==3.6.0 numpy==2.3.5
	touch $@

kernel-gates: setup $(OLD_TRITON)/.ready
	KERNEL_GATE=interpreter $(GATE)
	KERNEL_GATE=static $(GATE)
	$(OLD_GATE) KERNEL_GATE=interpreter $(GATE)
	$(OLD_GATE) KERNEL_GATE=static $(GATE)

# Quantised weights, by torchao in a folder of its own: diffusers loads it wherever it finds it, with
# warnings that nobody else has to read.
TORCHAO = $(VENV)/torchao-0.18.0

$(TORCHAO)/.ready: $(SETUP)
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(TORCHAO) torchao==0.18.0
	touch $@

quantised: setup $(TORCHAO)/.ready
	PYTHONPATH="$(CURDIR)/$(TORCHAO)" $(BIN)/python -c "import torchao.quantization"  # else it is skipped
	PYTHONPATH="$(CURDIR)/$(TORCHAO)" $(BIN)/pytest -q -n 0 tests/cpu/attach/test_offload.py -k quantised

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy -p sparsediff

check: test lint types

# The tests of every model family, and the table of their results.
models: setup
	MODELS_TABLE=docs/models.md $(BIN)/pytest -q -n 2 tests/cpu/attach/test_families.py

wheel: setup
	rm -rf dist build
	$(BIN)/python -m build --wheel --sdist --quiet

# The wheel with the lowest versions that pyproject.toml promises, in an environment of its own. Tested is
# what diffusers and transformers decide; the rest, and what compiles, is tested with the newest only.
FLOOR = $(VENV)/floor
FLOOR_TESTS = tests/cpu/attach tests/cpu/plans -k "not ($(NEWEST_ONLY))"
NEWEST_ONLY = compil or fuzz or bad_ or density_one or batch_rows or attention_mask or token_order or layouts

floor: floor-environment floor-tests

floor-environment: wheel
	test -x $(FLOOR)/bin/python || $(PYTHON) -m venv $(FLOOR)
	$(FLOOR)/bin/python -m pip install --quiet --no-compile --constraint constraints-floor.txt \
		"$$(echo dist/*.whl)[lora]" pytest pytest-xdist hypothesis
	$(FLOOR)/bin/python -m pip install --quiet --no-deps --force-reinstall dist/*.whl

floor-tests:
	cd $(FLOOR) && bin/python "$(CURDIR)/tests/smoke/installed_wheel.py" "$(CURDIR)/samples/models/shapes-wan"
	OMP_NUM_THREADS=1 $(FLOOR)/bin/pytest -q -n 2 -rs $(FLOOR_TESTS)

bench: setup
	$(BIN)/sparsediff bench --kernel

fidelity: setup
	$(BIN)/sparsediff fidelity samples/models/shapes-wan --prompts samples/prompts.txt --steps 10

# The plans in samples/plans, searched anew in runs/.
PLAN = $(BIN)/sparsediff search samples/models/shapes-wan --prompts samples/calibration.txt \
	--limit 6 --steps 10 --density 0.3
PLAN_FILES = plan.json tables.safetensors README.md

plans: setup
	$(PLAN) --out runs/plan-0.3
	$(PLAN) --online --out runs/plan-0.3-online
	mkdir -p samples/plans/shapes-wan-0.3 samples/plans/shapes-wan-0.3-online
	cp $(addprefix runs/plan-0.3/,$(PLAN_FILES)) samples/plans/shapes-wan-0.3
	cp $(addprefix runs/plan-0.3-online/,$(PLAN_FILES)) samples/plans/shapes-wan-0.3-online

clean:
	rm -rf $(VENV) dist build runs *.egg-info
