# make demo: draw people, train, prove and use a model.   make test, make lint: what .ci/run checks.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO = demo

.PHONY: install demo test lint bench reference

install: $(VENV)/installed

$(VENV)/installed: setup.cfg
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "Kiln needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -e .[dev]
	@touch $@

demo: install
	rm -rf $(DEMO)
	$(RUN) -m data.figures $(DEMO)/figures
	$(RUN) -m data.pack market1501 $(DEMO)/figures $(DEMO)/packed
	$(RUN) -m data.doctor $(DEMO)/packed
	$(RUN) train.py --operation check --config_path params/recipes/demo.json
	$(RUN) train.py --operation train --config_path params/recipes/demo.json --sub_working_dir figures
	$(RUN) export.py --run_dir $(DEMO)/runs/figures
	$(RUN) -m deploy.selftest $(DEMO)/runs/figures/model.onnx
	$(RUN) -m deploy.extract $(DEMO)/runs/figures/model.onnx $(DEMO)/figures/query --output $(DEMO)/features.npz
	@$(RUN) -m benchmarks.demo_table $(DEMO)/runs/figures $(DEMO)/features.npz

test: install
	$(RUN) -m pytest -n 2 --dist worksteal

lint: install
	$(RUN) -m flake8
	$(RUN) -m mypy

bench: install
	$(RUN) -m pip install --quiet -e .[bench]
	$(RUN) -m benchmarks

reference: install
	$(RUN) -m docs.generate
