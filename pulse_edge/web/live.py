"""Tell every watcher of a page about its changes, at most ten times a second.

A watcher gets the current state first. Between two looks any number of changes become one, so a
slow watcher holds back neither the others nor memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

PAUSE = 0.1
"""Seconds between two states that one watcher gets."""


class Watchers:
    """Everybody who watches one page, or all of them."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()
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
            watcher.wake.set()

    async def watch(self, reading: str | None) -> AsyncIterator[set[str] | None]:
        """Yield the ids of pages that have changed since the last time; None: all of them."""
        with self._added(reading) as watcher:
            while not self._closed:
                await watcher.wake.wait()
                watcher.wake.clear()
                if self._closed:
                    return
                changed, watcher.changed = watcher.changed, set()
                everything, watcher.everything = watcher.everything, False
                yield None if everything else changed
                await asyncio.sleep(PAUSE)

    @contextlib.contextmanager
    def _added(self, reading: str | None) -> Iterator[_Watcher]:
        watcher = _Watcher(reading)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def __len__(self) -> int:
        return len(self._watchers)


class _Watcher:
    def __init__(self, reading: str | None) -> None:
        self.reading = reading
        self.changed: set[str] = set()
        self.everything = False
        self.wake = asyncio.Event()
