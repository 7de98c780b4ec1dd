# Every target installs what it needs; the only tools wanted beforehand are Python 3.11, Go 1.26, git, and a browser for `test`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
UV := build/uv/bin/uv
RUN := $(VENV)/bin
EXTRAS := --extra operator --extra gateway --extra worker
BENCHMARKS := $(patsubst tests/scale/test_bench_%.py,%,$(wildcard tests/scale/test_bench_*.py))
PYTEST := $(RUN)/python -m pytest -W error -q -p no:cacheprovider
# One process a core, a file at a time in each; arithmetic with one thread, so that they do not fight for cores.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
# The longest story in one process, those on the shared platform in another.
STORIES := -n 2 --dist loadgroup --no-loadscope-reorder
# Tables of faults, by the words in the names of their files and tests; `make fault-table` plays them all.
FAULTS := _fault or fail_once or fails_once or one_failure or one_failed_call or one_lost_write or lost_answer
FAULTS := $(FAULTS) or call_that_fails or edited_between_steps or killed_anywhere
FAULT_ROOMS := tests/unit/controllers tests/unit/workers/backup tests/contract
FAULT_STORIES ?= tests/e2e/test_deletion_faults.py tests/e2e/test_killed_operator.py

# A machine with a GPU may have a Python with the right torch, ONNX Runtime and TensorRT already: GPU_PYTHON=python3, and
# GPU_CHECKPOINT=folder, need nothing installed here.
GPU_PYTHON ?= $(RUN)/python

.PHONY: help demo test fault-table lint bench gpu-check sandbox clean install fixtures-check generated types style

help: ## Show the targets
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*## "} {printf "  %-16s %s\n", $$1, $$2}'

$(UV):
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

$(VENV)/.installed: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --python $(PYTHON) $(EXTRAS)
	@touch $@

install: $(VENV)/.installed ## Install the locked dependencies into .venv

demo: install ## The main job once, on real parts; KEEP=1 leaves it running
	@$(RUN)/python -m searchops_sandbox.cli build >&2
	@$(RUN)/python -m searchops_sandbox.demo

test: lint ## Lint, generated files, then every test
	$(RUN)/python -m searchops_sandbox.cli build --all
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) tests/unit tests/contract
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) tests/integration
	$(PYTEST) $(STORIES) tests/e2e

fault-table: install ## Every table of faults: each call fails, answers are lost, processes die; ends with the rows
	$(RUN)/python -m searchops_sandbox.cli build
	rm -f build/fault-table*
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) --junitxml build/fault-table-calls.xml -k "$(FAULTS)" $(FAULT_ROOMS)
	$(PYTEST) $(STORIES) --junitxml build/fault-table-processes.xml $(FAULT_STORIES)
	@$(RUN)/python -m searchops_sandbox.fault_table build

lint: install ## ruff, mypy --strict, import contracts, generated files
	$(MAKE) --no-print-directory --jobs 2 --output-sync types style generated

types: install
	$(RUN)/mypy

style: install
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/lint-imports

generated: install ## Generated files are current: CRDs, docs tables, examples
	$(RUN)/python -m searchops.api.crdgen --check
	$(RUN)/python docs/generate.py --check
	$(RUN)/python -m searchops_sandbox.demo.examples --check

fixtures-check: install ## The model ladder holds under the pinned profile
	$(UV) sync --frozen --inexact --python $(PYTHON) $(EXTRAS) --group ladder
	$(RUN)/python -m searchops_sandbox.fixtures check

bench: install ## Benchmarks, one JSON line a figure in build/bench
	$(PYTEST) tests/scale

bench-tenants: install ## Every promise about tenants, the read for drift too
	$(PYTEST) tests/scale/test_bench_tenants.py tests/scale/test_bench_drift.py

bench-%: install ## One benchmark by its file's name: gate, operator, reindex, search, serving, tenants
	$(PYTEST) $(or $(wildcard tests/scale/test_bench_$*.py),$(error there is no benchmark $*: $(BENCHMARKS)))

gpu-check: $(if $(GPU_CHECKPOINT),,build/ladder/r3) ## On a machine with an NVIDIA GPU: accuracy and speed of torch, ONNX Runtime and TensorRT
	@PYTHONPATH=operator:workers $(GPU_PYTHON) -m searchops_workers.engines.gpu_check \
		$(or $(GPU_CHECKPOINT),build/ladder/r3) --out build/bench/gpu.jsonl $(GPU_FLAGS)

build/ladder/r3: | install
	$(RUN)/python -m searchops_sandbox.fixtures ladder --out build/ladder

sandbox: install ## The platform's parts on this machine, in the foreground
	$(RUN)/searchops-sandbox up

clean: ## Remove what was built here (caches under the user's cache folder stay)
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
