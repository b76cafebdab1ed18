"""Calibrate the probabilities of a kit's findings, and measure them (`calibration findings`).

run      the command: ask the kit, fit, measure, attach
pages    which pages calibrate and which test
file     the JSON file of the result
platt    log odds -> probabilities and verdicts (pure functions)
measure  figures of the file from the answers to all pages
"""
