"""Lends each of an engine's execution contexts to one thread at a time, and ends when all are back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from edgeres.errors import RunnerError

if TYPE_CHECKING:
    from edgeres.targets.tensorrt.execution_context import ExecutionContext


class ContextPool:
    """Execution contexts, each used by one thread at a time."""

    def __init__(self, contexts: Iterable[ExecutionContext], name: str) -> None:
        """Opens the pool.

        Args:
            contexts: at least one.
            name: of the runner, for messages.
        """
        self.contexts = tuple(contexts)
        self._free = list(self.contexts)
        self._changed = threading.Condition()
        self._is_open = True
        self._name = name

    @contextlib.contextmanager
    def borrowed(self, requested: ExecutionContext | None = None) -> Iterator[ExecutionContext]:
        """Lends the requested context, or any; waits until it is free.

        Raises:
            RunnerError: the pool was closed.
        """
        with self._changed:
            # Without a request any free context serves; `requested` waits for its own.
            self._changed.wait_for(
                lambda: (
                    not self._is_open
                    or (requested in self._free if requested else bool(self._free))
                )
            )
            if not self._is_open:
                raise RunnerError(f"{self._name} is not open. Use it in a with statement.")
            context = requested or self._free[0]
            self._free.remove(context)
        try:
            yield context
        finally:
            with self._changed:
                self._free.append(context)
                self._changed.notify_all()

    def close(self) -> None:
        """Lends nothing more, and waits until all contexts are back."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) == len(self.contexts))
