# `make serve` and `make test` are all a fresh machine needs: Python 3.11 or later, and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: serve install install-train test test-all audit lint loadtest bench proto constraints image-requirements clean

serve: install
	$(BIN)/fovea serve

install: .venv/service
install-train: .venv/train

# On every core; a file's tests stay together, they share what they start.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --durations 10
test: .venv/test
	$(PYTEST) -m "not system"

test-all: test
	$(PYTEST) -m system

# Known vulnerabilities among the pinned dependencies.
audit: .venv/test
	$(BIN)/python -m tests.audit.install
	$(BIN)/python -m pytest tests/test_audit.py

lint: .venv/test .venv/lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/hadolint deploy/docker/*.Dockerfile

loadtest: .venv/loadtest
	$(BIN)/python -m loadtests

bench: .venv/loadtest
	$(BIN)/python -m loadtests.peers

proto: .venv/test
	$(BIN)/python -m grpc_tools.protoc -Iservice/pb=proto --python_out=. --pyi_out=. --grpc_python_out=. \
		service/pb/fovea/v1/classifier.proto

# Every dependency of every extra at one version.
constraints: .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --quiet --no-annotate --no-header \
		--no-emit-index-url --all-extras \
		--output-file constraints.txt

# What the container images install, and what they are built with: the same versions, with the hash of every file.
HASHED := $(BIN)/uv pip compile --constraint constraints.txt --universal --python-version 3.11 --quiet --no-annotate \
	--no-header --no-emit-index-url --generate-hashes
image-requirements: .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(HASHED) pyproject.toml --extra cpu --extra otlp --output-file deploy/docker/cpu.txt
	$(HASHED) pyproject.toml --extra gpu --extra otlp --output-file deploy/docker/cuda.txt
	$(HASHED) pyproject.toml --extra cpu --extra otlp --no-emit-package onnxruntime --output-file deploy/docker/jetson.txt
	$(HASHED) deploy/docker/build.in --output-file deploy/docker/build.txt

clean:
	rm -rf .venv

.venv:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: make PYTHON=…")'
	$(PYTHON) -m venv .venv

.venv/service: pyproject.toml constraints.txt | .venv
	$(INSTALL) '.[cpu]'
	touch $@

.venv/train: pyproject.toml constraints.txt | .venv
	$(INSTALL) '.[cpu,train]'
	touch $@

.venv/test: pyproject.toml constraints.txt | .venv
	$(INSTALL) '.[cpu,native,otlp,train,loadtest,test]'
	touch $@

.venv/lint: pyproject.toml constraints.txt | .venv
	$(INSTALL) '.[lint]'
	touch $@

.venv/loadtest: pyproject.toml constraints.txt | .venv
	$(INSTALL) '.[cpu,native,loadtest]'
	touch $@
