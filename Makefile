# `make demo` and `make test` set up everything in .venv themselves. PYTHON may be any CPython from 3.10 to 3.13.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint setup

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet pip==25.3
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group export --group calibration --group cluster --group dev -e '.[cpu,report,pack]'
	touch $@

demo: setup
	$(BIN)/pulse-edge interpret pulse_edge/example_page.png --kit pulse_edge/kits/miniature

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
