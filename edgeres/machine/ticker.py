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
    done = threading.Event()
    errors: list[Exception] = []

    def run() -> None:
        try:
            while not done.wait(interval_s):
                call()
        except Exception as error:
            # A thread's own exception is printed and lost: hand it to the thread that waits.
            errors.append(error)

    # A daemon, so that a call that hangs cannot keep the program alive.
    thread = threading.Thread(target=run, name="edgeres-ticker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if errors:
        raise errors[0]
