"""The local page and its API: a server for one laptop, and the two workers that do its work."""
