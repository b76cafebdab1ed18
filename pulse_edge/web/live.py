"""Tell every watcher of a page about its changes, at most ten times a second.

Between two looks of a watcher any number of changes become one, so a slow watcher holds back
neither the others nor memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

PAUSE = 0.1
"""Seconds between two looks of one watcher."""


class Watcher:
    """Somebody who watches one page, or all of them."""

    def __init__(self, reading: str | None) -> None:
        self.reading = reading
        self.changed: set[str] = set()
        self.everything = False
        self.closed = False
        self.wake = asyncio.Event()

    async def changes(self) -> set[str] | None:
        """Wait for changes; return the ids of pages that have changed, or None for all of them.

        Raises StopWatching when the server stops.
        """
        await self.wake.wait()
        await asyncio.sleep(PAUSE)
        self.wake.clear()
        if self.closed:
            raise StopWatching
        changed, self.changed = self.changed, set()
        everything, self.everything = self.everything, False
        return None if everything else changed


class StopWatching(Exception):
    """The server stops."""


class Watchers:
    """Everybody who watches."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()
        self._closed = False

    def changed(self, reading: str) -> None:
        """Note that a page has changed."""
        for watcher in self._watchers:
            if watcher.reading in (None, reading):
                watcher.changed.add(reading)
                watcher.wake.set()

    def changed_all(self) -> None:
        """Note that something about every page has changed, such as their places in the queue."""
        for watcher in self._watchers:
            watcher.everything = True
            watcher.wake.set()

    def close(self) -> None:
        """End every watch: the server stops."""
        self._closed = True
        for watcher in self._watchers:
            watcher.closed = True
            watcher.wake.set()

    @contextlib.contextmanager
    def watching(self, reading: str | None) -> Iterator[Watcher]:
        """Add a watcher: no change is missed from here on."""
        watcher = Watcher(reading)
        if self._closed:
            watcher.closed = True
            watcher.wake.set()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def __len__(self) -> int:
        return len(self._watchers)
