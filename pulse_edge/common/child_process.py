"""Start child processes that run this program alone, and switch telemetry off in every process.

Every child of the package is started with `command` and `environment`: in Python's isolated mode,
without the current directory, the user's site packages or variables of the shell on its search
path, as `python -I child_process.py MODULE`. This module imports only what no file in the current
directory can replace, because a command imports it before it has taken that directory off the
search path. Standard library only; no `from __future__`.
"""

import os
import sys

OWN = ("pulse_edge", "export", "calibration")
"""Top-level packages that are only taken from this checkout or installation."""
QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables that switch telemetry off. ONNX Runtime 1.32 for Linux posts to its maker and writes a
device id into the user's cache unless ORT_DISABLE_TELEMETRY is set before it is imported: its
`disable_telemetry_events` comes too late for the id. The others are for huggingface_hub,
transformers, optimum, torch and Ray, which only the workstation has."""
LIBRARIES = ("GGML_BACKEND_PATH", "LLAMA_CPP_LIB", "LLAVA_CPP_LIB", "MTMD_CPP_LIB")
"""Beginnings of the names of variables by which llama.cpp and llama-cpp-python load libraries from
another place."""
_REMOVED = (
    "PYTHON",
    "PIP_",
    "XDG_CONFIG_",  # where pip looks for settings
    "VIRTUAL_ENV",
    "LD_PRELOAD",
    "LD_AUDIT",
    "DYLD_INSERT_LIBRARIES",
    *LIBRARIES,
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
)
"""Beginnings of the names of variables that make a process load code from somewhere else."""
_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
"""Lists of folders. An empty or relative entry means the current directory: an unset variable in
front of a colon is enough."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs `module` of this package (or of export, calibration)
    isolated, with `arguments`.

    `module` is a full name such as "pulse_edge.page.pdf" and is run as `__main__`. Use it together
    with `environment`.
    """
    flags = ["-I"]  # no current directory, no PYTHON variables, no user site
    if sys.dont_write_bytecode:
        flags.append("-B")
    return [sys.executable, *flags, os.path.abspath(__file__), module, *arguments]


def pip(*arguments: str) -> list[str]:
    """Return the command line that runs pip with `arguments`, isolated from the settings of the
    user and the shell.

    Those of the machine (/etc/pip.conf) and of this Python's folder (pip.conf in it) still hold: an
    administrator wrote them, and they name a registry's mirror. Use it together with `environment`.
    """
    return [sys.executable, "-I", "-m", "pip", "--isolated", *arguments]


def environment(**extra: str) -> dict[str, str]:
    """Return the variables for a child: this process's without those that load foreign code,
    telemetry off, and `extra`."""
    given = (
        {name: value for name, value in os.environ.items() if not name.startswith(_REMOVED)}
        | QUIET
        | extra
    )
    for name in _SEARCHED:
        given[name] = _absolute(given.get(name, ""))
    return {name: value for name, value in given.items() if value or name not in _SEARCHED}


def _absolute(folders: str) -> str:
    """A search path without its empty and relative entries."""
    return os.pathsep.join(part for part in folders.split(os.pathsep) if os.path.isabs(part))


# --- this process ---------------------------------------------------------------------------------

IMPORTED_BEFORE = "onnxruntime" in sys.modules and os.environ.get("ORT_DISABLE_TELEMETRY") != "1"
"""True where a program imported onnxruntime before this package and with its telemetry on: it
cannot be stopped any more."""


def be_quiet() -> None:
    """Switch telemetry off in this process, before any engine is imported."""
    os.environ.update(QUIET)


def named_by_m() -> bool:
    """Whether this process was started as `python -m` with one of our modules, which Python is
    still looking for."""
    words = sys.orig_argv
    named = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return sys.argv[:1] == ["-m"] and named != [] and named[0].split(".")[0] in OWN


def enclose() -> None:
    """Keep this process from importing or loading anything from the current directory.

    The directory comes off the module search path, and our packages are found where they lie. If a
    search path for libraries holds it, the process starts again without it, because the loader
    reads that path only at the start.

    For commands (`pulse-edge`, `python -m pulse_edge`, `python -m export`), not for programs that
    import the package.
    """
    _pin()
    _begin_again_without_relative_folders()
    here = os.path.realpath(os.getcwd())
    installed = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    if any(here == prefix or here.startswith(prefix + os.sep) for prefix in installed):
        here = ""  # the user is in the Python installation itself, which is no foreign code
    sys.path[:] = [
        part for part in sys.path if os.path.isabs(part) and os.path.realpath(part) != here
    ]


def _begin_again_without_relative_folders() -> None:
    searched = {name: os.environ[name] for name in _SEARCHED if name in os.environ}
    clean = {name: _absolute(value) for name, value in searched.items()}
    for name, value in clean.items():
        if value:
            os.environ[name] = value
        else:
            del os.environ[name]
    loader = [name for name in searched if name != "PATH" and clean[name] != searched[name]]
    if loader and os.name == "posix":
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class _Own:
    """Finds the top-level packages in OWN next to this package only, whatever the search path
    holds."""

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> object:
        if name not in OWN:
            return None
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [cls.root])


def _pin() -> None:
    finders: list[object] = list(sys.meta_path)
    if _Own not in finders:
        sys.meta_path.insert(0, _Own)  # type: ignore[arg-type]


def _start() -> None:
    """Run the module that the command line names."""
    _pin()
    root = _Own.root
    if root not in sys.path and any(
        n.startswith("pulse_edge-") and n.endswith(".dist-info") for n in os.listdir(root)
    ):
        # Installed into a folder of its own, such as the user's: the dependencies are there.
        sys.path.append(root)
    import runpy

    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _start()
