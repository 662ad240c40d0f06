# make demo   install, train a ViT on scikit-learn's digits, evaluate it, write report.html
# make test   install, lint, types, the whole test suite
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# The lock is what CI ran on Python 3.11; newer Pythons take the newest versions in range.
LOCK := $(shell $(PYTHON) -c 'import sys; print("-c requirements.lock" if sys.version_info[:2] == (3, 11) else "")')
DEMO := workdirs/digits_vit

.PHONY: demo test lint types unit lock clean
.DELETE_ON_ERROR:

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt requirements.lock | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt $(LOCK)
	@touch $@

$(VENV)/.installed-test: requirements-test.txt $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-test.txt $(LOCK)
	@touch $@

demo: $(VENV)/.installed
	$(RUN) train.py --config=configs/digits_vit.py --workdir=$(DEMO)
	$(RUN) evaluate.py --workdir=$(DEMO)

test: lint types unit

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.installed-test
	$(VENV)/bin/pyright

unit: $(VENV)/.installed-test
	$(RUN) -m pytest -n 2

# Writes the versions of this environment; run on Python 3.11.
lock: $(VENV)/.installed-test
	$(RUN) -m pip freeze > requirements.lock

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache
