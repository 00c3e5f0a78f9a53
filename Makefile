# make demo: train, prove and use a small model.   make test, make lint: what .ci/run checks.
PYTHON ?= python3.11
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: install demo test lint bench reference clean

install: $(VENV)/installed

$(VENV)/installed: setup.cfg
	command -v $(PYTHON) >/dev/null || { echo "Kiln needs Python 3.11: set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet torch==2.13.0
	$(RUN) -m pip install --quiet -e .[dev]
	touch $@

test: install
	$(RUN) -m pytest -n 2

lint: install
	$(RUN) -m flake8
	$(RUN) -m mypy
