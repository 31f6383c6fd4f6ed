"""A call at a steady interval beside a measurement, on a thread that sleeps in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def every(interval_s: float | None, call: Callable[[], None]) -> Iterator[None]:
    """Calls `call` every `interval_s` seconds while the block runs; not at all where it is None.

    What `call` raises ends the calls and is raised when the block ends, unless the block itself
    raised.
    """
    if interval_s is None:
        yield
        return
    ticker = _Ticker(interval_s, call)
    ticker.start()
    try:
        yield
    finally:
        ticker.stop()
    if ticker.error is not None:
        raise ticker.error


class _Ticker(threading.Thread):
    """The thread; a daemon, so that a call that hangs cannot keep the program alive."""

    def __init__(self, interval_s: float, call: Callable[[], None]) -> None:
        super().__init__(name="edgeres-ticker", daemon=True)
        self._interval_s = interval_s
        self._call = call
        self._done = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """Calls until `stop`."""
        try:
            while not self._done.wait(self._interval_s):
                self._call()
        except Exception as error:
            self.error = error  # handed to the thread that waits

    def stop(self) -> None:
        """Ends the calls; returns when the one under way has returned."""
        self._done.set()
        self.join()
