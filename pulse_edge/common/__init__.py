"""Shared foundations: files, folders, paths, printable text, strict JSON, isolated child processes.

No module here imports another package than this one and `errors`.
"""
