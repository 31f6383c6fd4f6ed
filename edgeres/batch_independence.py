"""Whether a network gives an image the same logits alone and in a batch, found by running it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import RunnerError

Array = NDArray[np.float32]

IMAGES = 4
"""Images that are taken: with two evaluated, 8 inferences of one image in all."""

TOLERANCE = 1e-3
"""Largest difference, as a fraction of the spread of an image's logits. Sums in another order
differ by about 1e-5 in FP32 ResNets; batch statistics change logits by a tenth and more."""

QUANTIZED_TOLERANCE = 0.05
"""The same of a quantized network, where such a sum may round to the next level. In the same place
of a batch as large the sums have one order, so there `TOLERANCE` holds for it too."""

_ROUNDING = 1e-5
"""The same of the largest logit."""


def check_batch_independence(
    infer: Callable[[Array], Array], images: Array, *, name: str, tolerance: float = TOLERANCE
) -> None:
    """Checks that logits do not depend on the other images of a batch.

    Args:
        infer: returns the logits, (N, classes), of N images; any N is taken.
        images: (N, 3, H, W), preprocessed, at least one; `IMAGES` are used.
        name: of the network, for the message.
        tolerance: largest difference between an image alone and in a batch, as a fraction of the
            spread of its logits.

    Raises:
        RunnerError: they do depend on them, or inference failed.
    """
    # Where there are too few images, contrast and sign make others with other statistics.
    # Of bytes the negative is the complement.
    on_bytes = images.dtype == np.uint8
    variants = (
        (images[:1].astype(np.float32) * factor % 256).astype(images.dtype)
        if on_bytes
        else images[:1] * np.float32(factor)
        for factor in (-1, 2, -0.5)
    )
    first, second, *others = np.concatenate([images, *variants])[:IMAGES]
    # Once at the start and once at the end: what accumulates along the batch reaches only one.
    batches = (np.stack([first, second, others[0]]), np.stack([others[1], second, first]))
    inside = [infer(batch) for batch in batches]
    if any(logits.ndim != 2 or len(logits) != 3 for logits in inside):
        raise RunnerError(
            f"{name} gives {' and '.join(str(logits.shape) for logits in inside)} for 3 images; "
            "expected (3, classes). Export it as a classifier with a dynamic batch."
        )
    compared = []
    for image, position in ((first, (0, 2)), (second, (1, 1))):
        alone = infer(image[np.newaxis])[0]
        among = (logits[row] for logits, row in zip(inside, position, strict=True))
        compared += [(alone, logits, tolerance, "in a batch than alone") for logits in among]
    # Between the batches the second image keeps its place, and its companions change.
    compared.append(
        (inside[0][1], inside[1][1], TOLERANCE, "beside some images than beside others")
    )
    for alone, logits, largest, where in compared:
        difference, spread = float(np.abs(logits - alone).max()), float(np.ptp(alone))
        # Logits that are all nearly the same differ by the rounding of their own magnitude. NaN is
        # refused by evaluation, which names the image that it comes from.
        if difference > largest * spread + _ROUNDING * float(np.abs(alone).max()):
            raise RunnerError(
                f"{name} gives an image other logits {where}: they differ by "
                f"{difference:.3g} where they spread over {spread:.3g}. An accuracy would depend "
                "on the batch. Export the network in inference mode, with model.eval(), and "
                "without operators that mix the images of a batch."
            )
