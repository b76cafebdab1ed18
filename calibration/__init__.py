"""Measure kits: calibration data and accuracy. Workstation only."""

import pulse_edge as pulse_edge  # first: see its child.py
