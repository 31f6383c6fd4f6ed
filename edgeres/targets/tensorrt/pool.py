"""Lends one of a few things to each of many threads, and ends only when all are back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from edgeres.errors import RunnerError

T = TypeVar("T")


class Pool(Generic[T]):
    """Things of which each is used by one thread at a time."""

    def __init__(self, things: Iterable[T], name: str) -> None:
        """Takes the things.

        Args:
            things: at least one.
            name: of the whole, for messages.
        """
        self.things = tuple(things)
        self._free = list(self.things)
        self._changed = threading.Condition()
        self._open = True
        self._name = name

    @contextlib.contextmanager
    def borrowed(self, wanted: T | None = None) -> Iterator[T]:
        """Lends a free thing, or the one that is wanted; waits until there is one.

        Raises:
            RunnerError: the pool was ended.
        """
        thing = self._take(wanted)
        try:
            yield thing
        finally:
            with self._changed:
                self._free.append(thing)
                self._changed.notify_all()

    def end(self) -> None:
        """Lends nothing more, and waits until all are back."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) == len(self.things))

    def _take(self, wanted: T | None) -> T:
        with self._changed:
            self._changed.wait_for(lambda: not self._open or self._has(wanted))
            if not self._open:
                raise RunnerError(f"{self._name} is not open. Use it in a with statement.")
            thing = self._free[0] if wanted is None else wanted
            self._free.remove(thing)
            return thing

    def _has(self, wanted: T | None) -> bool:
        return bool(self._free) if wanted is None else wanted in self._free
