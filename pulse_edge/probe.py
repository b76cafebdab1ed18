"""`python -m pulse_edge.probe` prints what llama.cpp was built for and which GPUs it sees, one JSON object.

A process of its own, for `doctor`: a library built for a newer processor ends the process with an illegal instruction.
"""

from __future__ import annotations

import json

from . import llm


def main() -> None:
    """Load llama.cpp, and print what it says of itself."""
    print(json.dumps({"system": llm.system(), "cuda": llm.cuda_missing(), "gpus": [vars(g) for g in llm.gpus()]}))


if __name__ == "__main__":
    main()
