"""`pulse-edge` and `python -m pulse_edge`. Imports nothing before the current directory is off the
search path."""

from pulse_edge.common.child_process import enclose


def main() -> None:
    """Entry point."""
    enclose()
    from pulse_edge.cli.main import main

    main()


if __name__ == "__main__":
    main()
