"""Many pages in one run: the work list, and the supervisor that outlives crashes."""
