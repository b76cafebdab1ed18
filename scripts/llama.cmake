# Read by CMake when llama-cpp-python is built for `make demo`: llama.cpp's own helper library serves its command-line
# tools only, and llama-cpp-python's build asks for it unconditionally.
set(LLAMA_BUILD_COMMON OFF)
