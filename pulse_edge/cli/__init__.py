"""The command line: click and rich, one module for each command."""
