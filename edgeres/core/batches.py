"""What the stages need of a batch of images: the values that `edgeres.images` yields, by their use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ImageBatch(Protocol):
    """Preprocessed images."""

    @property
    def images(self) -> NDArray[np.float32]:
        """(N, 3, H, W), preprocessed by the model's contract."""
        ...


class HashedBatch(ImageBatch, Protocol):
    """A batch whose images can be recognised."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """One hash of the decoded pixels per image."""
        ...


class LabelledBatch(ImageBatch, Protocol):
    """A batch whose images may have labels."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,), class indices from 0; None where the data has none."""
        ...


class EvaluationBatch(LabelledBatch, HashedBatch, Protocol):
    """A batch as evaluation needs it; one without labels is refused."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """(N,), position of each image in its data set."""
        ...
