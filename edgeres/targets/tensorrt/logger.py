"""NVIDIA's log through Python's: one ILogger a module, whose messages go to the log that is open.

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

_HARMLESS = ("Converting conv activation scales to fp32", "Converting conv weight scales to fp32")
"""In warnings that come with every INT8 build for RTX, and that no user can or need act on: the
builder stores the scales that the network states in FP16 as FP32 numbers of the same value."""


class TensorRTLog:
    """NVIDIA's messages of one build or engine: errors are kept, the rest goes to `logging` once."""

    def __init__(self, logger: Any) -> None:
        """Starts empty.

        Args:
            logger: the ILogger that builder, parser or runtime are created with.
        """
        self.logger = logger
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.callback_error: BaseException | None = None
        """What was raised while a message was logged, to be raised once NVIDIA has returned."""
        self._counts: Counter[tuple[int, str]] = Counter()

    def add(self, level: int, message: str) -> None:
        """Logs one message; `level` is one of `logging`'s."""
        if level == logging.WARNING and any(words in message for words in _HARMLESS):
            level = logging.INFO
        self._counts[level, message] += 1
        if level >= logging.ERROR:
            self.errors.append(message)
        elif self._counts[level, message] == 1:
            _PYTHON_LOG.log(level, "%s", message)
            if level == logging.WARNING:
                self.warnings.append(message)

    def worst(self) -> str:
        """Returns the first errors in one line."""
        return " ".join(self.errors[:_LISTED_ERRORS]) or "it gave no reason."

    def report_repeats(self) -> None:
        """Logs how often each message came that came more than once."""
        for (level, message), count in self._counts.items():
            if count > 1 and level < logging.ERROR:
                _PYTHON_LOG.log(level, "%d times: %s", count, message)


@contextmanager
def captured_log(trt: Any) -> Iterator[TensorRTLog]:
    """Yields a log that receives the module's messages until the block ends.

    Of several open logs the latest one receives; they may end in any order.
    """
    logger = _logger(trt)
    log = TensorRTLog(logger)
    logger.open_logs.append(log)
    try:
        yield log
    finally:
        logger.open_logs.remove(log)


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
            # pybind11 asks for the base's __init__ by name, not through super().
            trt.ILogger.__init__(self)
            self.open_logs: list[TensorRTLog] = []

        def log(self, severity: Any, msg: str) -> None:
            if not self.open_logs:
                return
            log = self.open_logs[-1]
            try:
                log.add(levels[severity], msg)
            # Ctrl-C too: no exception may travel through NVIDIA's C++ frames.
            except BaseException as error:
                log.callback_error = error

    return Logger()
