"""The golden pair: an image and what the engine predicts for it, to check the other side with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.predictions import Prediction
from edgeres.errors import MismatchError
from edgeres.images import png_bytes
from edgeres.input_files import IMAGE, read_bytes
from edgeres.runtime import open_classifier
from edgeres.serialization import json_text

TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenPair:
    """An image, and what the engine predicts for it."""

    name: str
    """Of the image's file."""
    content: bytes
    """The image's file."""
    tensor: NDArray[np.float32]
    """What the network takes, (1, C, H, W)."""
    top: tuple[Prediction, ...]
    """The highest five."""

    @property
    def expected(self) -> str:
        """The predictions as JSON."""
        return json_text({"image": self.name, "top": self.top})


def golden_pair(engine: EngineArtifact, image: Path | None) -> GoldenPair | str:
    """Returns the golden pair of an engine, or why this machine has none.

    Args:
        engine: what is deployed.
        image: the image; None draws one.

    Raises:
        DataError: the image cannot be decoded.
        RunnerError: inference failed.
    """
    try:
        classifier = open_classifier(engine, warmup=0)
    except MismatchError as error:
        return f"There is no golden pair: this machine cannot run the engine ({error})"
    with classifier:
        pixels = drawn_image(engine)
        content = png_bytes(pixels) if image is None else read_bytes(image, IMAGE)
        tensor = (
            classifier.prepare([pixels], color="rgb")
            if image is None
            else classifier.prepare([image])
        )
        (top,) = classifier.rank(tensor, top=TOP)
    name = "golden.png" if image is None else f"golden{image.suffix.lower()}"
    return GoldenPair(name=name, content=content, tensor=tensor, top=top)


def drawn_image(engine: EngineArtifact) -> NDArray[np.uint8]:
    """Returns a picture with edges, gradients and all colours, larger than the network's input."""
    contract = engine.manifest.contract
    rows, columns = (2 * size + 17 for size in (contract.height, contract.width))
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    disc = (x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.06
    stripes = np.sin(40 * x + 9 * y * y) > 0
    picture = np.stack([x, 1 - y, (x + y) / 2], axis=-1)
    picture[disc] = 1 - picture[disc]
    picture[stripes & (y > 0.5)] *= 0.4
    # Different height and width, so that a crop or a squash makes a difference.
    drawn: NDArray[np.uint8] = np.rint(255 * picture).astype(np.uint8)[: rows - rows // 4]
    return drawn
