"""The queue between reading threads and the scoring loop: files wait for room, frames of cameras are replaced."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Inbox"]

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue of several producers and one consumer.

    There are three ways in. `put` waits for room, so no image and no frame of a file is lost. `offer` replaces the item
    that the same camera offered before, so only its newest frame is scored. `post` never waits; it is for the few state
    changes of cameras.

    Args:
        ahead: how many items of `put` may wait.
    """

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._changed = threading.Condition()
        self._news: deque[T] = deque()
        self._waiting: deque[T] = deque()
        self._newest: dict[Hashable, T] = {}
        self._prefer_waiting = False

    def put(self, item: T, leave: threading.Event, poll: float = 0.1) -> bool:
        """Add an item as soon as there is room; False if `leave` was set before."""
        with self._changed:
            while len(self._waiting) >= self._ahead:
                if leave.is_set():
                    return False
                self._changed.wait(poll)
            self._waiting.append(item)
            self._changed.notify_all()
        return not leave.is_set()

    def offer(self, key: Hashable, item: T) -> T | None:
        """Make `item` the newest of `key`. Return the item that it replaces; None if that was taken."""
        with self._changed:
            before = self._newest.get(key)
            self._newest[key] = item  # keeps its place in the row: every camera in turn
            self._changed.notify_all()
        return before

    def withdraw(self, key: Hashable) -> T | None:
        """Remove the item that `key` offered and return it; None if it was taken."""
        with self._changed:
            return self._newest.pop(key, None)

    def post(self, item: T) -> None:
        """Add an item that goes before all others."""
        with self._changed:
            self._news.append(item)
            self._changed.notify_all()

    def take(self, timeout: float) -> T | None:
        """Take the next item: posted ones first, then files and cameras in turn. None if none arrived in time."""
        with self._changed:
            self._changed.wait_for(self._any, timeout)
            if self._news:
                return self._news.popleft()
            self._prefer_waiting = not self._prefer_waiting
            if self._waiting and (self._prefer_waiting or not self._newest):
                self._changed.notify_all()
                return self._waiting.popleft()
            if self._newest:
                return self._newest.pop(next(iter(self._newest)))
            return None

    def _any(self) -> bool:
        return bool(self._news or self._waiting or self._newest)
