"""`pulse-edge` and `python -m pulse_edge`. Imports nothing before the current directory is off the search path."""

from .child import enclose


def main() -> None:
    """Entry point."""
    enclose()
    from .cli import main

    main()


if __name__ == "__main__":
    main()
