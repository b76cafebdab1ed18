"""Measure kits: calibration data and accuracy. Workstation only."""
