"""Input and output tensor of a TensorRT engine: names, shapes of the largest batch, the smallest batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgeres.core.artifacts import TensorSpec
from edgeres.errors import MismatchError
from edgeres.plurals import counted
from edgeres.targets.runner import fed_to

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
    dtype: str = "float32"
    """Of the images."""
    channels_last: bool = False
    """Whether their memory is (N, H, W, C), although the binding is (N, C, H, W)."""

    @property
    def memory(self) -> tuple[int, ...]:
        """Shape of the images in memory."""
        batch, channels, *sides = self.images
        return (batch, *sides, channels) if self.channels_last else self.images

    def fed(self, images: NDArray[Any], name: str) -> NDArray[Any]:
        """Returns images, floats of (N, C, H, W) or bytes of (N, H, W, C), as the memory has them.

        Raises:
            MismatchError: they are of another type, or the batch or the images have another size.
        """
        spec = TensorSpec(name=self.input, shape=(None, *self.memory[1:]), dtype=self.dtype)
        turned = fed_to(spec, images, name)
        self.check(turned, name)
        return turned

    @property
    def largest(self) -> int:
        """Images in the largest batch that the engine takes."""
        return self.images[0]

    def check(self, images: NDArray[Any], name: str) -> None:
        """Checks that the engine takes a batch.

        Args:
            images: as the memory has them.
            name: of the runner, for the message.

        Raises:
            MismatchError: the images or the batch have another size.
        """
        if images.ndim != IMAGE_AXES or images.shape[1:] != self.memory[1:]:
            raise MismatchError(
                f"{name} takes images of shape {('N', *self.memory[1:])}, not {images.shape}. "
                "Check that data and engine belong to the same model."
            )
        if not self.smallest <= len(images) <= self.largest:
            raise MismatchError(
                f"{name} takes batches of {self.smallest} to {counted(self.largest, 'image')}, not "
                f"{len(images)}. Pass another batch size, or build the engine with --batch "
                f"{max(1, min(self.smallest, len(images)))}:{self.largest}:{max(self.largest, len(images))}."
            )
