"""Lends each of an engine's execution contexts to one thread at a time, and ends when all are back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

from edgeres.errors import RunnerError
from edgeres.targets.tensorrt.device import PrimaryContext, cuda_errors
from edgeres.targets.tensorrt.execution_context import ExecutionContext


class ContextPool:
    """Execution contexts, each used by one thread at a time."""

    def __init__(
        self, contexts: Iterable[ExecutionContext], primary: PrimaryContext, name: str
    ) -> None:
        """Opens the pool.

        Args:
            contexts: at least one.
            primary: CUDA's context, which is current while one is lent.
            name: of the runner, for messages.
        """
        self.contexts = tuple(contexts)
        self.primary = primary
        self._free = list(self.contexts)
        self._changed = threading.Condition()
        self._is_open = True
        self._name = name

    @contextlib.contextmanager
    def borrowed(self, requested: ExecutionContext | None = None) -> Iterator[ExecutionContext]:
        """Lends the requested execution context, or any; waits until it is free.

        Raises:
            RunnerError: the pool was closed, or CUDA failed while the context was lent.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: not self._is_open or (requested in self._free if requested else self._free)
            )
            if not self._is_open:
                raise RunnerError(f"{self._name} is not open. Use it in a with statement.")
            context = requested or self._free[0]
            self._free.remove(context)
        try:
            with self.primary.current(), cuda_errors(f"{self._name} failed"):
                yield context
        finally:
            with self._changed:
                self._free.append(context)
                # All of the waiting threads: one may wait for this context, another for any.
                self._changed.notify_all()

    def close(self) -> None:
        """Lends nothing more, and waits until all contexts are back."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) == len(self.contexts))
