"""This machine: processor, memory, and what was measured on it."""
