"""`python -m pulse_edge`."""

from .cli import main

main()
