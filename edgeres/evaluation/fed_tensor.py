"""What another program fed to its engine for an image, compared with what the contract makes of it.

Knows pixels, the contract and the usual mistakes, and no runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeres.core.contract import Contract, InputType
from edgeres.errors import DataError
from edgeres.evaluation.mistakes.candidates import ImageSizes, candidate_contracts, with_geometry
from edgeres.evaluation.mistakes.values import options_between
from edgeres.images import fed, prepare

SAME = 0.02
"""Root mean square of the difference, relative to the tensor's own, up to which two are the same:
decoders and resizes of two libraries differ by about a level of 255."""


def compare_fed_tensor(
    tensor: NDArray[np.generic], pixels: NDArray[np.uint8], contract: Contract, *, name: str
) -> str:
    """Returns in a sentence how a tensor differs from what the contract makes of an image.

    Args:
        tensor: of one image, (C, H, W) or (H, W, C), with or without a batch of 1.
        pixels: the image, (H, W, 3) uint8 RGB.
        contract: of the engine.
        name: what a message calls the tensor.

    Raises:
        DataError: no layout of the tensor has the shape that the network takes.
    """
    values = np.asarray(tensor, np.float64)
    layouts = dict(_layouts(values, contract))
    if not layouts:
        raise DataError(
            f"{name} has the shape {tensor.shape}; the network takes {contract.shape}, as "
            "(channels, height, width) or with the channels last. Save the tensor of one image as "
            "it is passed to the engine."
        )
    present = _fed(pixels, contract)
    if (ours := layouts.get("")) is not None and _distance(ours, present) <= SAME:
        return f"{name} is what the engine's contract makes of the image ({contract})."
    sizes = ImageSizes(sizes=frozenset({(pixels.shape[0], pixels.shape[1])}))
    singles = candidate_contracts(contract, sizes)
    pairs = [pair for candidate in singles for pair in with_geometry(candidate, sizes)]
    # The search for a network's own contract knows no mean of 0 to 1 on values of 0 to 255.
    scaled = [replace(contract, scale=scale) for scale in (1.0, 1 / 255, contract.scale / 255)]
    best = (np.inf, "", contract)
    for other in (contract, *scaled, *(each.contract for each in (*singles, *pairs))):
        if other.shape != contract.shape:
            continue
        try:
            expected = present if other == contract else _fed(pixels, other)
        except DataError:
            # An image that is smaller than the crop has no such form.
            continue
        for layout, array in layouts.items():
            if (distance := _distance(array, expected)) < best[0]:
                best = (distance, layout, other)
    distance, layout, other = best
    if distance > SAME:
        return (
            f"{name} is not what the contract makes of the image ({contract}), and no usual "
            f"mistake explains it: it differs by {_distance(next(iter(layouts.values())), present):.2g} "
            "of its size. Compare the image, its decoder and each step by itself."
        )
    differences = ([layout] if layout else []) + list(options_between(contract, other))
    return (
        f"{name} is prepared otherwise than the engine's contract has it: "
        f"{'; '.join(differences)}. It is what '{other}' makes of the image, and the contract is "
        f"'{contract}'. Correct the program, or export the model as it was trained."
    )


def _layouts(
    values: NDArray[np.float64], contract: Contract
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yields a tensor as (C, H, W) by what is wrong with its layout; empty for nothing."""
    array = values[0] if values.ndim == 4 and len(values) == 1 else values
    if array.ndim != 3:
        return
    orders = {
        "": (0, 1, 2),
        "the channels come last (HWC)": (2, 0, 1),
        "height and width are exchanged": (0, 2, 1),
    }
    for words, order in orders.items():
        turned = array.transpose(order)
        if turned.shape == contract.shape:
            yield words, turned


def _fed(pixels: NDArray[np.uint8], contract: Contract) -> NDArray[np.float64]:
    values: NDArray[np.float64] = fed(prepare(pixels, contract)[None], contract)[0].astype(
        np.float64
    )
    return values if contract.input is InputType.FLOAT32 else values.transpose(2, 0, 1)


def _distance(array: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Returns the root mean square of the difference, relative to the expected values' own."""
    size = float(np.sqrt(np.mean(expected**2))) or 1.0
    return float(np.sqrt(np.mean((array - expected) ** 2))) / size
