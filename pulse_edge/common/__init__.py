"""Shared foundations: files, folders, printable text, strict JSON, isolated child processes.
Imports nothing above itself."""
