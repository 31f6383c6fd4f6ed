"""A network whose logits depend on the batch is found by running it on a few images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from networks import NAMES, images, logits_of, network
from numpy.typing import NDArray

from edgeres.batch_independence import QUANTIZED_TOLERANCE, check_batch_independence
from edgeres.errors import RunnerError

Array = NDArray[np.float32]


def linear(x: Array) -> Array:
    """Returns logits, (N, 5), of each image by itself."""
    return (x.reshape(len(x), -1)[:, :5] * 3).astype(np.float32)


MIXTURES: dict[str, Any] = {
    "the batch's mean is subtracted": lambda x: linear(x - x.mean(axis=0)),
    "all is scaled by the largest value": lambda x: linear(x / np.abs(x).max()),
    "the image before is added": lambda x: linear(x + 0.1 * np.roll(x, 1, axis=0)),
    "what came earlier is added up": lambda x: linear(np.cumsum(x, axis=0)),
    "the first image is left out": lambda x: linear(x) - 0.1 * linear(x)[:1],
    "noise": lambda x: linear(x) + np.random.default_rng().standard_normal((len(x), 5)),
}


@pytest.mark.parametrize("count", [1, 2, 4, 9])
@pytest.mark.parametrize("kind", MIXTURES)
def test_a_mixture_is_refused(kind: str, count: int) -> None:
    """However few images there are."""
    with pytest.raises(RunnerError, match=r"^net gives an image other logits .* model\.eval\(\)"):
        check_batch_independence(MIXTURES[kind], images(count), name="net")


@pytest.mark.parametrize("strength", [0.02, 0.04])
@pytest.mark.parametrize("mixture", [np.mean, np.max, np.std])
def test_a_mixture_below_the_rounding_of_a_quantized_network_is_refused(
    mixture: Any, strength: float
) -> None:
    """In the same place of a batch as large nothing is rounded otherwise: the companions tell."""

    def quantized(x: Array) -> Array:
        batch = mixture(linear(x), axis=0, keepdims=True)
        mixed: Array = np.round(linear(x) + strength * batch, 4).astype(np.float32)
        return mixed

    with pytest.raises(RunnerError, match="beside some images than beside others"):
        check_batch_independence(quantized, images(4), name="net", tolerance=QUANTIZED_TOLERANCE)


def test_a_quantized_network_may_round_otherwise_in_a_batch_of_another_size() -> None:
    """By less than its tolerance, and the same for all images."""

    def quantized(x: Array) -> Array:
        return (linear(x) * (1 + 0.01 * len(x))).astype(np.float32)

    check_batch_independence(quantized, images(4), name="net", tolerance=QUANTIZED_TOLERANCE)
    with pytest.raises(RunnerError, match="in a batch than alone"):
        check_batch_independence(quantized, images(4), name="net")


@pytest.mark.parametrize("name", NAMES)
def test_a_network_in_inference_mode_is_accepted(name: str) -> None:
    """ONNX Runtime's rounding depends on the batch, and is no dependence."""
    model = network(name)
    check_batch_independence(lambda x: logits_of(model, x), images(4), name=name)
    check_batch_independence(lambda x: logits_of(model, x), images(1), name=name)


def test_rounding_and_constant_logits_are_no_dependence() -> None:
    """Logits that hardly differ are compared by their magnitude."""
    noise = np.random.default_rng(0)

    def nearly_constant(x: Array) -> Array:
        return (1000 + 1e-4 * noise.standard_normal((len(x), 5))).astype(np.float32)

    check_batch_independence(nearly_constant, images(4), name="net")
    check_batch_independence(lambda x: np.zeros((len(x), 5), np.float32), images(4), name="net")


def test_a_batch_that_is_folded_into_the_classes_is_refused() -> None:
    """Rows are what images are known by."""
    with pytest.raises(RunnerError, match=r"\(1, 15\) .* for 3 images"):
        check_batch_independence(lambda x: linear(x).reshape(1, -1), images(4), name="net")


def test_eight_inferences_of_one_image_are_all_that_it_takes() -> None:
    """Its cost is that of eight images, whatever the data."""
    sizes: list[int] = []

    def counted(x: Array) -> Array:
        sizes.append(len(x))
        return linear(x)

    check_batch_independence(counted, images(20), name="net")
    assert sum(sizes) == 8
