"""`python -m pulse_edge.inference.probe` prints what llama.cpp was built for and which GPUs it
sees, one JSON object.

A process of its own, for `doctor`: a library built for a newer processor ends the process with an
illegal instruction.
"""

from __future__ import annotations

import json

from pulse_edge.inference import llama_cpp


def main() -> None:
    """Load llama.cpp, and print what it says of itself."""
    print(
        json.dumps(
            {
                "system": llama_cpp.system(),
                "cuda": llama_cpp.cuda_missing(),
                "gpus": [vars(g) for g in llama_cpp.gpus()],
            }
        )
    )


if __name__ == "__main__":
    main()
