"""Make kits: a PULSE checkpoint becomes GGUF + ONNX, proven against the original. Workstation only."""

import pulse_edge as pulse_edge  # first: see its child.py
