"""The installer of an offline bundle: standard library only, and it imports nothing outside this package."""
