"""Input and output tensor of a TensorRT engine: names, shapes of the largest batch, the smallest batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import MismatchError

IMAGE_AXES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """Input and output of an engine, with the shapes of the largest batch."""

    input: str
    output: str
    images: tuple[int, ...]
    """(N, 3, H, W), N the largest batch."""
    logits: tuple[int, ...]
    """(N, classes)."""
    smallest: int
    """Images in the smallest batch that the engine takes."""

    @property
    def largest(self) -> int:
        """Images in the largest batch that the engine takes."""
        return self.images[0]

    def check(self, images: NDArray[np.float32], name: str) -> None:
        """Checks that the engine takes a batch.

        Args:
            images: (N, 3, H, W).
            name: of the runner, for the message.

        Raises:
            MismatchError: the images or the batch have another size.
        """
        if images.ndim != IMAGE_AXES or images.shape[1:] != self.images[1:]:
            raise MismatchError(
                f"{name} takes images of shape {('N', *self.images[1:])}, not {images.shape}. "
                "Check that data and engine belong to the same model."
            )
        if not self.smallest <= len(images) <= self.largest:
            raise MismatchError(
                f"{name} takes batches of {self.smallest} to {self.largest} images, not "
                f"{len(images)}. Pass another batch size, or build the engine with --batch "
                f"{max(1, min(self.smallest, len(images)))}:{self.largest}:"
                f"{max(self.largest, len(images))}."
            )
