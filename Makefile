# What there is to do here. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON := .venv/bin/python
setup := tests/support/setup.sh
# make test PYTEST="-k cache -x"
PYTEST ?=
# Processes that share the tests where all of them run; a few are over sooner in one, which starts one HDFS.
JOBS ?= 2

.PHONY: help install demo test hunt check bench e2e image proto lock format clean

help: ## list the targets
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## /\1\t/' | expand -t 10

install: ## what a mount needs: Debian packages (as root) and .venv from the lock
	@$(setup) install
	@echo "ready: .venv/bin/hdfs-fuse --help, .venv/bin/hdfs-csi --help"

demo: ## a real HDFS on this machine, mounted, and what one sees in it
	@$(setup) demo
	@$(PYTHON) -m tests.e2e.demo

test: ## all tests, against a real HDFS and real mounts (PYTEST="-k name" for some)
	@$(setup) test
	$(PYTHON) -m pytest $(or $(PYTEST),--numprocesses=$(JOBS))

e2e: ## a real Kubernetes on this machine, the chart installed, and its tests (KEEP=1 leaves it up, PYTEST="-k name" for some)
	@$(setup) e2e
	@$(PYTHON) -m tests.e2e.kubernetes all $(PYTEST)

image: ## the container image as build/hdfs-csi.tar, from Debian packages and wheels, without any registry
	@mkdir -p build
	@deploy/images/build.sh build/hdfs-csi.tar

hunt: ## kill the driver's processes at random moments, and compare with a model (EXAMPLES=8, about 12 s each)
	@$(setup) test
	EXAMPLES=$(or $(EXAMPLES),8) $(PYTHON) -m pytest tests/model/test_csi_processes.py

check: ## format, lint, types, generated code, import directions
	@$(setup) check
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy driver fuse tests
	$(PYTHON) proto/generate.py --check
	$(PYTHON) -m pytest -q tests/unit/test_architecture.py

bench: ## throughput and latency beside the raw client, the local disk and rclone; volumes on a node
	@$(setup) bench
	@$(PYTHON) -m tests.perf.bench
	@$(PYTHON) -m tests.perf.volumes

proto: ## regenerate the CSI messages from proto/csi.proto
	@$(setup) check
	$(PYTHON) proto/generate.py

format: ## let ruff format and fix
	@$(setup) check
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

# Without annotations and index: the locks say what is installed, not why or from where.
compile := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --system-certs \
	--no-annotate --custom-compile-command "make lock" $(UPGRADE)

lock: ## resolve the locked versions anew (UPGRADE=--upgrade takes newer ones)
	@$(setup) check
	$(compile) pyproject.toml -o requirements.lock
	$(compile) pyproject.toml --constraint requirements.lock --extra pyarrow --group dev -o requirements-dev.lock
	$(compile) --constraint requirements-dev.lock --group pyproject.toml:build -o requirements-build.lock

clean: ## remove .venv and what builds and tests leave in the tree (not the cache outside it)
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
