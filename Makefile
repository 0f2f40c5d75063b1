# Two commands: `make study` runs the embedded study, `make test` runs the tests. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
CORES ?= all
# Options for pip, e.g. the index of another PyTorch build (README, "PyTorch builds").
PIP_OPTIONS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: study test check format lock clean

study: $(READY)
	$(BIN)/snakemake --cores $(CORES)
	@echo && ls -1 results/report.html results/figures/*.png

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

# Pin again what is installed: envs/lock.txt and, from it, envs/lmshape.yaml.
lock: $(READY)
	$(BIN)/python envs/lock.py

$(READY): envs/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lmshape needs Python 3.11 or newer; name one: make study PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) --requirement envs/lock.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

clean:
	find results -mindepth 1 ! -path results/README.md -delete; rm -rf .snakemake
