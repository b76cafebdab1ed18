# `make demo` and `make test` set up everything in .venv themselves. PYTHON may be any CPython from 3.10 to 3.13.
PYTHON ?= python3
BIN := .venv/bin
say = @printf '%s  %s\n' "$$(date +%H:%M:%S)"

.PHONY: demo test lint coverage locks docs setup

demo: .venv/runtime
	@$(BIN)/pulse-edge interpret pulse_edge/assets/example_page.png --kit pulse_edge/assets/kits/miniature
	$(say) "done. Read a page of your own: $(BIN)/pulse-edge interpret PAGE. All commands: $(BIN)/pulse-edge --help"

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Lines of the packages that the tests run, without those in child processes.
coverage: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov=pulse_edge --cov=export --cov=calibration --cov-report=term

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_words.py

# What reads pages: no torch, no development tools.
.venv/runtime: pyproject.toml constraints.txt
	@scripts/setup_runtime.sh $(PYTHON)
	@touch $@

# The workstation's libraries and the development tools on top.
setup: .venv/ready

.venv/ready: .venv/runtime
	$(say) "fetching torch (750 MB on disk)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(say) "fetching the libraries of the workstation and the development tools (1.2 GB on disk)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group export --group calibration --group cluster --group dev -e '.[cpu,report,pack,serve]'
	@touch $@
	$(say) "everything is ready"

# Versions and hashes of what bundles carry. Review the difference before you commit it.
locks: .venv/runtime
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group locks
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/make_locks.py

# What is generated from the code: docs/cli.md.
docs: setup
	$(BIN)/python -m scripts.cli_reference
