"""Several runners of one engine, each lent to one thread at a time."""

from __future__ import annotations

from contextlib import ExitStack
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeres.core.artifacts import TensorSpec
from edgeres.targets.runner import Runner

if TYPE_CHECKING:
    from typing_extensions import Self


class SideBySide:
    """Runners that are open together; `infer` takes a free one and waits where there is none."""

    def __init__(self, runners: tuple[Runner, ...]) -> None:
        """Keeps what to open.

        Args:
            runners: at least one, of the same engine.
        """
        self.name: str = runners[0].name
        self.input: TensorSpec = runners[0].input
        self.output: TensorSpec = runners[0].output
        self._runners = runners
        self._free: SimpleQueue[Runner] = SimpleQueue()
        self._resources = ExitStack()

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the logits, (N, classes) float32, of `images`, (N, 3, H, W) float32.

        Raises:
            MismatchError: the images' shape is not one that the engine takes.
            RunnerError: the runtime failed.
        """
        runner = self._free.get()
        try:
            return runner.infer(images)
        finally:
            self._free.put(runner)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for runner in self._runners:
                self._free.put(opened.enter_context(runner))
            self._resources = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._free = SimpleQueue()
        self._resources.close()
