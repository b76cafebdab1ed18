"""Make kits: a PULSE checkpoint becomes GGUF and ONNX files that are proven against the original.

This package runs on a workstation only.
"""

import pulse_edge as pulse_edge  # first: see its child.py
