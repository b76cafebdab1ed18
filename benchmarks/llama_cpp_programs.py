"""Build llama.cpp's own programs from llama-cpp-python's source, linked to the libraries installed
with it.

A difference between them and the runtime is then one of the programs instead of the compilers.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

PROJECT = """
cmake_minimum_required(VERSION 3.14)
project(llama-tools C CXX)
file(CREATE_LINK ${SOURCE}/ggml ${CMAKE_CURRENT_SOURCE_DIR}/ggml SYMBOLIC)
include(${SOURCE}/cmake/common.cmake)
include(${SOURCE}/cmake/license.cmake)
set(BUILD_SHARED_LIBS OFF)
set(LLAMA_BUILD_NUMBER 0)
set(LLAMA_BUILD_COMMIT unknown)
set(CMAKE_BUILD_RPATH ${LIBRARIES})
foreach(name llama ggml ggml-base ggml-cpu mtmd)
    add_library(${name} SHARED IMPORTED GLOBAL)
    set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${LIBRARIES}/lib${name}.so)
    target_include_directories(${name} INTERFACE ${SOURCE}/include ${SOURCE}/ggml/include)
endforeach()
target_link_libraries(llama INTERFACE ggml ggml-base ggml-cpu)
target_include_directories(mtmd INTERFACE ${SOURCE}/tools/mtmd)
target_link_libraries(mtmd INTERFACE llama)
foreach(part vendor vendor/cpp-httplib common tools/imatrix tools/quantize tools/llama-bench)
    add_subdirectory(${SOURCE}/${part} ${part} EXCLUDE_FROM_ALL)
endforeach()
# Not by its own folder's list, which would build the library again.
add_executable(llama-mtmd-cli EXCLUDE_FROM_ALL ${SOURCE}/tools/mtmd/mtmd-cli.cpp)
target_link_libraries(llama-mtmd-cli PRIVATE llama-common mtmd)
"""


def programs(work: Path, source: Path | None, *names: str) -> list[Path]:
    """Paths of these programs, such as `llama-bench`; built once in `work`/tools, which takes
    minutes.

    `source` is llama.cpp's source of the version that is installed; None: llama-cpp-python's is
    fetched.
    """
    folder, spec = work / "tools", find_spec("llama_cpp")
    if all(built := [_built(folder, name) for name in names]):
        return [path for path in built if path]
    assert spec is not None
    assert spec.origin is not None
    folder.mkdir(parents=True, exist_ok=True)
    source = source or _fetched(folder)
    (folder / "CMakeLists.txt").write_text(PROJECT)
    libraries = Path(spec.origin).parent / "lib"
    settings = [
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DSOURCE={source.resolve()}",
        f"-DLIBRARIES={libraries}",
    ]
    build = ["cmake", "--build", "build", "--target", *names]
    for command in (["cmake", "-S", ".", "-B", "build", *settings], build):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return [path for name in names if (path := _built(folder, name))]


def _built(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / "build").rglob(name) if path.is_file()), None)


def _fetched(folder: Path) -> Path:
    """llama.cpp's source from the package index."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-d",
        str(folder),
    ]
    name = f"llama-cpp-python=={version('llama-cpp-python')}"
    subprocess.run([*pip, "--no-binary", "llama-cpp-python", name], check=True)
    archive = next(folder.glob("*.tar.gz"))
    subprocess.run(["tar", "xf", archive.name], cwd=folder, check=True)
    return next(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
