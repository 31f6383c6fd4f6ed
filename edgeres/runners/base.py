"""What every runner offers. Evaluation and timing know this and no runtime."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeres.artifacts import TensorSpec

if TYPE_CHECKING:
    from typing_extensions import Self


class Runner(Protocol):
    """An engine that is ready to infer between `__enter__` and `__exit__`.

    Device memory, streams and sessions are taken in `__enter__` and released in `__exit__`,
    on every way out.
    """

    @property
    def name(self) -> str:
        """Short text on what runs where, such as `resnet50_int8.onnx on onnxruntime-cpu`."""
        ...

    @property
    def input(self) -> TensorSpec:
        """Shape (N, 3, H, W) float32; N is None where the batch is dynamic."""
        ...

    @property
    def output(self) -> TensorSpec:
        """Shape (N, classes) float32."""
        ...

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the logits, (N, classes) float32, of `images`, (N, 3, H, W) float32.

        `images` is only read. The result belongs to the caller: the next call does not touch it.

        Raises:
            MismatchError: the images' shape is not one that the engine takes.
            RunnerError: the runtime failed.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any: ...
