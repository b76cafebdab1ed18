"""`python -m pulse_edge.inference.probe` prints what llama.cpp was built for and which GPUs it sees, one JSON object.

A process of its own, for `doctor`: a library built for a newer processor ends the process with an illegal instruction.
"""

from __future__ import annotations

import json

from pulse_edge.inference import language_model


def main() -> None:
    """Load llama.cpp, and print what it says of itself."""
    print(
        json.dumps(
            {
                "system": language_model.system(),
                "cuda": language_model.cuda_missing(),
                "gpus": [vars(g) for g in language_model.gpus()],
            }
        )
    )


if __name__ == "__main__":
    main()
