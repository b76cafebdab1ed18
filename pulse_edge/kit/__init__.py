"""Kits: their manifest, their files, the prompt, and the bounds that a manifest must keep."""
