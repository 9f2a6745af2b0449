# Every target sets up what it needs, in a virtual environment of its own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt
SET ?= textile
# A file's tests share what it starts. In the order of names: files of a few tests that take minutes come first.
PROCESSES := --numprocesses 3 --dist loadfile --no-loadscope-reorder
EXTRAS := bench,demo,demo-elpv,dev,docs,onnx,openvino,parquet,postgres,starter

.DEFAULT_GOAL := help
.PHONY: help demo test coverage lint format bench docs starter constraints clean

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(VENV)/.base: pyproject.toml constraints.txt
	@test -d $(VENV) || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing Shotline with PyTorch; the first time takes some minutes"
	@$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[bench,demo,dev,onnx,openvino,parquet,postgres,starter]'
	@touch $@

$(VENV)/.elpv: $(VENV)/.base
	@$(PIP) --editable '.[demo,demo-elpv]'
	@touch $@

$(VENV)/.starter: $(VENV)/.base
	@$(PIP) --editable '.[starter]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	@$(PIP) --editable '.[docs]'
	@touch $@

demo: $(VENV)/.base $(if $(filter elpv,$(SET)),$(VENV)/.elpv)  ## Tune on real photographs, decide on others, show both
	@$(BIN)/python -m examples.demo --set $(SET) $(if $(filter-out 0,$(KEEP)),--keep)

test: lint  ## Everything that CI runs
	$(BIN)/python -m pytest $(PROCESSES)

coverage: $(VENV)/.dev  ## The tests again, with the lines that they reach; a quarter slower
	$(BIN)/python -m pytest $(PROCESSES) --cov --cov-report=term:skip-covered

lint: $(VENV)/.dev  ## Format, style, types, architecture, dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

format: $(VENV)/.dev  ## Put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev $(VENV)/.elpv  ## Measurements that take minutes to an hour; writes benchmarks/results
	$(BIN)/python -m benchmarks.starter
	$(BIN)/python -m benchmarks.xsdd
	$(BIN)/python -m benchmarks.fusion
	$(BIN)/python -m benchmarks.science
	$(BIN)/python -m benchmarks.verdict
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.tune_time
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.peak_memory
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.decoder
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.int8
	$(BIN)/python -m benchmarks.folds
	$(BIN)/python -m benchmarks.trust
	$(BIN)/python -m benchmarks.findings
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.learning_curve
	$(BIN)/python -m benchmarks.faults

docs: $(VENV)/.docs  ## The documents as HTML, in build/docs
	$(BIN)/sphinx-build --fail-on-warning --builder html docs build/docs

starter: $(VENV)/.starter  ## Build the starter backbone anew, into build/starter
	$(BIN)/python -m models.starter.build --out build/starter

clean:  ## Remove the environment and what was built
	rm -rf build $(VENV)

constraints:  ## Pin every dependency anew, from a fresh environment
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip --quiet install torch==2.14.1 torchvision==0.29.1
	build/constraints/bin/python -m pip --quiet install --editable '.[$(EXTRAS)]'
	build/constraints/bin/python -m pip freeze --exclude-editable > constraints.txt
	rm -rf build/constraints
