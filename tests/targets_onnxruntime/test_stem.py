"""The folded stem computes the same integers as the convolution that it replaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgeres.targets.onnxruntime.stem import FOLD, fold_stem

torch = pytest.importorskip("torch", reason="torch, the reference here, is not installed")


def conv(taps: tuple[int, int], pads: list[int], **attributes: Any) -> onnx.NodeProto:
    """Returns a convolution of stride 2 unless `attributes` say otherwise."""
    settings = {"strides": [2, 2], **attributes}
    return helper.make_node(
        "Conv", ["x", "w"], ["y"], kernel_shape=list(taps), pads=pads, **settings
    )


def convolved(image: Any, weight: Any, pads: tuple[int, ...], stride: int) -> Any:
    """Returns torch's convolution, in float64, which holds these integers exactly."""
    top, left, bottom, right = pads
    padded = np.pad(image.astype(np.float64), [(0, 0), (0, 0), (top, bottom), (left, right)])
    kernel = torch.from_numpy(weight.astype(np.float64))
    return torch.nn.functional.conv2d(torch.from_numpy(padded), kernel, stride=stride).numpy()


def space_to_depth(image: Any) -> Any:
    """Returns the image as ONNX's own reference implementation folds it."""
    node = helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=FOLD)
    results: Any = ReferenceEvaluator(node).run(None, {"x": image})
    return results[0]


@pytest.mark.parametrize(
    ("taps", "pads"),
    [
        ((7, 7), [3, 3, 3, 3]),
        ((7, 7), [2, 3, 3, 2]),
        ((3, 3), [1, 1, 1, 1]),
        ((3, 3), [0, 0, 1, 1]),
        ((5, 7), [2, 3, 2, 3]),
        ((1, 1), [0, 0, 0, 0]),
        ((4, 2), [1, 0, 1, 0]),
    ],
)
def test_the_folded_convolution_gives_the_same_sums(taps: tuple[int, int], pads: list[int]) -> None:
    """Every window, padded evenly or not; or the convolution is left alone."""
    rng = np.random.default_rng(sum(taps) + sum(pads))
    image = rng.integers(-128, 128, (2, 3, 12, 16)).astype(np.float32)
    weight = rng.integers(-127, 128, (5, 3, *taps)).astype(np.int8)
    folded = fold_stem(conv(taps, pads), taps, image.shape[1:])
    assert folded is not None
    expected = convolved(image, weight, tuple(pads), 2)
    actual = convolved(space_to_depth(image), folded.weight(weight), folded.pads, 1)
    np.testing.assert_array_equal(actual, expected)
    assert folded.attributes["kernel_shape"] == folded.weight(weight).shape[2:]


@pytest.mark.parametrize(
    ("node", "image"),
    [
        (conv((3, 3), [1, 1, 1, 1], strides=[1, 1]), (3, 12, 12)),
        (conv((3, 3), [1, 1, 1, 1], dilations=[2, 2]), (3, 12, 12)),
        (conv((3, 3), [1, 1, 1, 1], group=3), (3, 12, 12)),
        (conv((3, 3), [1, 1, 1, 1], auto_pad="SAME_UPPER"), (3, 12, 12)),
        (conv((3, 3), [1, 1, 1, 1]), (3, 13, 12)),
        (conv((3, 3), [1, 1, 1, 1]), (64, 12, 12)),
        (helper.make_node("Conv", ["x", "w"], ["y"]), (3, 12, 12)),
    ],
    ids=["stride 1", "dilated", "grouped", "auto pad", "odd height", "many channels", "default"],
)
def test_other_convolutions_stay(node: onnx.NodeProto, image: tuple[int, ...]) -> None:
    """What the arithmetic does not cover is left as it is."""
    assert fold_stem(node, (3, 3), image) is None
