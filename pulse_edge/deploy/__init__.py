"""Signed offline bundles of kits, made on the workstation."""
