# `make demo` and `make test` set up everything in .venv themselves. PYTHON may be any CPython from 3.10 to 3.13.
PYTHON ?= python3
BIN := .venv/bin
say = @printf '%s  %s\n' "$$(date +%H:%M:%S)"

.PHONY: demo test lint docs setup

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(say) "setting up .venv, once: 10 to 20 minutes, mostly for building llama.cpp; later runs skip this"
	$(say) "1/4  making .venv with $(PYTHON) (seconds)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet pip==25.3
	$(say) "2/4  fetching torch (750 MB on disk)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(say) "3/4  building llama.cpp (8 minutes on two cores, nothing is printed meanwhile)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt llama-cpp-python
	$(say) "4/4  fetching everything else (1.1 GB on disk, a few minutes)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group export --group calibration --group cluster --group dev -e '.[cpu,report,pack]'
	@touch $@
	$(say) ".venv is ready"

demo: setup
	$(say) "reading pulse_edge/assets/example_page.png with the demonstration kit (a few seconds)"
	@$(BIN)/pulse-edge interpret pulse_edge/assets/example_page.png --kit pulse_edge/assets/kits/miniature
	$(say) "done. Try it with your own page: $(BIN)/pulse-edge interpret PAGE; all commands: $(BIN)/pulse-edge --help"

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m tools.cli_reference
	$(BIN)/python -m export.schema manifest > docs/manifest.schema.json
	$(BIN)/python -m export.schema report > docs/report.schema.json
