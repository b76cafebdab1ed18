#!/usr/bin/env bash
# Make .venv with what reads pages, and nothing of the workstation. Called by the Makefile with the Python to use.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }

log=.venv/llama-build.log
say "setting up .venv, once: about two minutes on two cores; most of it compiles llama.cpp"
[ -x .venv/bin/python ] || "${1:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet pip==25.3

# Only what the runtime loads: no command-line tools, no llama.cpp image encoder. Ninja uses every core.
export CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE=$PWD/scripts/llama.cmake"
export SKBUILD_BUILD_TARGETS=llama SKBUILD_NINJA_MAKE_FALLBACK=0
.venv/bin/python -m pip install --verbose --constraint constraints.txt llama-cpp-python >"$log" 2>&1 &
build=$!
trap 'kill "$build" 2>/dev/null || true' EXIT

# Everything else is fetched while llama.cpp compiles.
requirements=$(.venv/bin/python - <<'PYTHON'
try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
names = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
print("\n".join(name for name in names if not name.startswith("llama-cpp-python")))
PYTHON
)
printf '%s\n' "$requirements" >.venv/requirements.txt
.venv/bin/python -m pip install --quiet --constraint constraints.txt -r .venv/requirements.txt

while kill -0 "$build" 2>/dev/null; do
    step=$(grep -o '\[[0-9]*/[0-9]*\]' "$log" | tail -1 || true)
    say "compiling llama.cpp ${step:-(preparing)}"
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$build" 2>/dev/null && sleep 1; done
done
trap - EXIT
wait "$build" || { tail -40 "$log"; say "llama.cpp was not built: the whole log is $log"; exit 1; }
.venv/bin/python -m pip install --quiet --constraint constraints.txt -e '.[cpu]'
say ".venv is ready"
