"""Make kits: a PULSE checkpoint becomes GGUF + ONNX, proven against the original. Workstation only."""
