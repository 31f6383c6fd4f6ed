"""NVIDIA's log through ours: one logger a module, and what was heard kept for errors.

A process may have one logger of each module: NVIDIA ignores a second one for as long as any
builder or runtime of the first is alive, and would then send one's errors to the other's log.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_LISTED_ERRORS = 3
_PYTHON_LOG = logging.getLogger("edgeres.tensorrt")


class TrtLog:
    """NVIDIA's messages to one listener: errors are kept, the rest goes to `logging`, once each."""

    def __init__(self) -> None:
        """Starts with nothing heard."""
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.stopped: BaseException | None = None
        """What was raised while a message was taken, to be raised once NVIDIA has returned."""
        self._counts: Counter[tuple[int, str]] = Counter()

    def add(self, level: int, message: str) -> None:
        """Takes one message; `level` is one of `logging`'s."""
        self._counts[level, message] += 1
        if level >= logging.ERROR:
            self.errors.append(message)
        elif self._counts[level, message] == 1:
            _PYTHON_LOG.log(level, "%s", message)
        if level == logging.WARNING and self._counts[level, message] == 1:
            self.warnings.append(message)

    def worst(self) -> str:
        """Returns the first errors in one line."""
        return " ".join(self.errors[:_LISTED_ERRORS]) or "it gave no reason."

    def report_repeats(self) -> None:
        """Says how often each message came that came more than once."""
        for (level, message), count in self._counts.items():
            if count > 1 and level < logging.ERROR:
                _PYTHON_LOG.log(level, "%d times: %s", count, message)


@contextmanager
def listening(trt: Any) -> Iterator[tuple[Any, TrtLog]]:
    """Yields the module's logger and the log that hears it until the block ends.

    Of several the one that came last hears; they may end in any order.
    """
    logger, log = _logger(trt), TrtLog()
    logger.listeners.append(log)
    try:
        yield logger, log
    finally:
        logger.listeners.remove(log)


@cache
def _logger(trt: Any) -> Any:
    """Returns the ILogger of this process for a module."""
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
        severity.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listeners: list[TrtLog] = []

        def log(self, severity: Any, msg: str) -> None:
            if not self.listeners:
                return
            log = self.listeners[-1]
            try:
                log.add(levels[severity], msg)
            except BaseException as error:  # must not cross NVIDIA's frames
                log.stopped = error

    return Logger()
