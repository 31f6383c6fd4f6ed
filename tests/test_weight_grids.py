"""Weights that were rounded to 10 bits or fewer are known from their values, and trained ones are not taken for it."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeres.weight_grids import are_rounded

Weights = NDArray[np.float32]

SHAPES = [(16, 3, 3, 3), (64, 64, 1, 1), (32, 1, 3, 3), (10, 64)]
"""A first convolution, one of 1x1, one by channel, and a classifier."""


def trained(shape: tuple[int, ...]) -> Weights:
    """Returns weights whose channels differ in size, one of them nearly dead and one dead."""
    chance = np.random.default_rng(3)
    spread = chance.lognormal(size=(shape[0], *(1 for _ in shape[1:])))
    spread[1], spread[2] = 1e-9, 0
    return (chance.normal(size=shape) * spread).astype(np.float32)


def steps(weights: Weights, largest: int, *, per_channel: bool = True) -> Weights:
    """Returns weights rounded to multiples of a step, as many above zero as `largest`."""
    axes = tuple(range(1, weights.ndim)) if per_channel else None
    step = np.abs(weights).max(axis=axes, keepdims=True) / largest
    step[step == 0] = 1
    rounded: Weights = (np.rint(weights / step) * step).astype(np.float32)
    return rounded


def asymmetric(weights: Weights, largest: int = 255) -> Weights:
    """Returns weights rounded to as many steps from the least to the largest."""
    step = (weights.max() - weights.min()) / largest
    zero = np.rint(-weights.min() / step)
    rounded: Weights = ((np.rint(weights / step + zero) - zero) * step).astype(np.float32)
    return rounded


def fp8(weights: Weights, kind: type) -> Weights:
    """Returns weights rounded to a kind of FP8 with one scale."""
    scale = np.abs(weights).max() / 448
    rounded: Weights = (weights / scale).astype(kind).astype(np.float32) * np.float32(scale)
    return rounded


ROUNDED: dict[str, Callable[[Weights], Weights]] = {
    "INT8 by channel": lambda w: steps(w, 127),
    "INT8 by tensor": lambda w: steps(w, 127, per_channel=False),
    "clipped": lambda w: steps(np.clip(w, -1, 1), 127),
    "UINT8": asymmetric,
    "5 bits by channel": lambda w: steps(w, 15),
    "INT10 by channel": lambda w: steps(w, 511),
    "10 bits from the least to the largest": lambda w: asymmetric(w, 1023),
    "10 bits by tensor, folded since": lambda w: (
        steps(w, 511, per_channel=False)
        * np.linspace(0.1, 3, len(w), dtype=np.float32).reshape(-1, *[1] * (w.ndim - 1))
    ),
    "E4M3": lambda w: fp8(w, ml_dtypes.float8_e4m3fn),
    "E5M2": lambda w: fp8(w, ml_dtypes.float8_e5m2),
    "kept in FP16 since": lambda w: steps(w, 127).astype(np.float16).astype(np.float32),
    "output channels last": lambda w: np.moveaxis(steps(w, 127), 0, -1),
    "batch normalisation folded since": lambda w: (
        steps(w, 127)
        * np.linspace(-2, 3, len(w), dtype=np.float32).reshape(-1, *[1] * (w.ndim - 1))
    ),
}


@pytest.mark.parametrize("kind", ROUNDED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rounded_weights_are_known(shape: tuple[int, ...], kind: str) -> None:
    """However they were rounded, and whatever was folded into them since."""
    assert are_rounded(ROUNDED[kind](trained(shape)))


TRAINED: dict[str, Callable[[Weights], Weights]] = {
    "FP32": lambda w: w,
    "FP16": lambda w: w.astype(np.float16).astype(np.float32),
    "BF16": lambda w: w.astype(ml_dtypes.bfloat16).astype(np.float32),
    "12 bits": lambda w: steps(w, 2047),
    "BF16, folded since": lambda w: (
        w.astype(ml_dtypes.bfloat16).astype(np.float32) * np.float32(0.7)
    ),
    "pruned": lambda w: np.where(np.abs(w) < np.median(np.abs(w)), 0, w),
    "dead": np.zeros_like,
    "one channel in FP32": lambda w: np.concatenate([steps(w, 127)[:-1], w[-1:]]),
    "constant": np.ones_like,
    "signs": np.sign,
    "one row for all": lambda w: np.tile(w[:1], (len(w), *[1] * (w.ndim - 1))),
}


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_trained_weights_are_no_rounded_ones(shape: tuple[int, ...], kind: str) -> None:
    """Nor are those that somebody wrote by hand, or left at zero."""
    assert not are_rounded(TRAINED[kind](trained(shape)))


def test_a_blur_is_no_rounded_weight() -> None:
    """Its one filter stands in every channel. Source: Zhang 2019, the binomial filter of 5 places."""
    row = np.array([1, 4, 6, 4, 1], np.float32) / 16
    assert not are_rounded(np.tile(np.outer(row, row), (64, 1, 1, 1)))
