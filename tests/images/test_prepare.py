"""Resize, crop and normalisation against Pillow, hand computation and float64 arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgeres.core.contract import PRESETS, Color, Contract, preset
from edgeres.core.resize import Interpolation, shortest
from edgeres.errors import DataError
from edgeres.images.load import load_dataset
from edgeres.images.prepare import normalise, prepare

RNG = np.random.default_rng(2)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """Returns random pixels."""
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "resized"),
    [
        (300, 451, (384, 256)),
        (451, 300, (256, 384)),
        (100, 333, (852, 256)),
        (256, 256, (256, 256)),
        (50, 50, (256, 256)),
    ],
)
def test_the_short_side_is_resized_and_the_long_side_truncated(
    height: int, width: int, resized: tuple[int, int]
) -> None:
    """The sizes (width, height) are torchvision's, int(256 * long / short), worked out by hand."""
    image = noise(height, width)
    expected = Image.fromarray(image).resize(resized, Image.Resampling.BILINEAR)
    left, top = (resized[0] - 224) // 2, (resized[1] - 224) // 2
    expected = expected.crop((left, top, left + 224, top + 224))
    np.testing.assert_array_equal(prepare(image, preset("imagenet")), np.asarray(expected))


@pytest.mark.parametrize("name", [name for name in Interpolation if name != "area"])
def test_the_filter_is_pillows_of_that_name(name: Interpolation) -> None:
    """Each interpolation resizes with Pillow's filter, antialiasing included."""
    image = noise(40, 40)
    contract = Contract(height=16, width=16, resize=shortest(16, interpolation=name))
    expected = Image.fromarray(image).resize((16, 16), Image.Resampling[name.value.upper()])
    np.testing.assert_array_equal(prepare(image, contract), np.asarray(expected))


def test_the_centre_of_227_begins_at_one() -> None:
    """An odd margin is floored: rows and columns 1 to 224."""
    image = noise(227, 227)
    np.testing.assert_array_equal(
        prepare(image, Contract(height=224, width=224)), image[1:225, 1:225]
    )


@given(height=st.integers(8, 20), width=st.integers(8, 20))
def test_the_crop_is_central(height: int, width: int) -> None:
    """What is cut off on the two sides differs by one pixel at most, the larger at the end."""
    rows = np.arange(height, dtype=np.uint8)[:, None] * np.ones(width, np.uint8)
    columns = np.arange(width, dtype=np.uint8) * np.ones((height, 1), np.uint8)
    result = prepare(np.dstack([rows, columns, rows]), Contract(height=8, width=8))
    first, last = result[0, 0].astype(int), result[-1, -1].astype(int)
    after = np.array([height, width]) - 1 - last[:2]
    assert set((after - first[:2]).tolist()) <= {0, 1}


def test_an_image_smaller_than_the_crop_is_named() -> None:
    """Without a resize a small image is an error with both sizes, not a black frame."""
    with pytest.raises(
        DataError, match=r"a\.jpg is 300 x 200, smaller than the 224 x 224 crop.*--resize"
    ):
        prepare(noise(200, 300), Contract(height=224, width=224), name="a.jpg")


def test_an_image_too_long_to_resize_is_named() -> None:
    """A strip of 3 x 9000 pixels would become 256 x 768000."""
    with pytest.raises(DataError, match=r"strip\.png is 9000 x 3: .*196608000 pixels, more than"):
        prepare(np.zeros((3, 9000, 3), np.uint8), preset("imagenet"), name="strip.png")


@pytest.mark.parametrize("name", list(PRESETS))
def test_normalisation_is_exact(name: str) -> None:
    """Every raw value becomes the float32 nearest to its float64 result, NCHW and contiguous."""
    contract = preset(name)
    batch = np.stack([noise(16, 16), np.arange(768, dtype=np.uint8).reshape(16, 16, 3)])
    result = normalise(batch, contract)
    colors = batch if contract.color is Color.RGB else batch[..., ::-1]
    exact = (colors * contract.scale - np.array(contract.mean)) / np.array(contract.std)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, exact.transpose(0, 3, 1, 2).astype(np.float32))


def test_caffe_takes_the_mean_from_blue_first() -> None:
    """Red 200, green 100, blue 50 become 50 - 103.939, 100 - 116.779, 200 - 123.68."""
    pixel = np.array([200, 100, 50], np.uint8).reshape(1, 1, 1, 3)
    result = normalise(pixel, preset("imagenet-caffe"))[0, :, 0, 0]
    np.testing.assert_allclose(result, [-53.939, -16.779, 76.32], rtol=1e-6)


def test_another_contract_has_its_own_tables() -> None:
    """The tables of one contract are not used for another."""
    pixel = np.full((1, 1, 1, 3), 255, np.uint8)
    contract = Contract(height=1, width=1)
    assert normalise(pixel, contract).ravel().tolist() == [1, 1, 1]
    assert normalise(pixel, replace(contract, mean=(1.0, 0.0, 0.5))).ravel().tolist() == [0, 1, 0.5]


@pytest.mark.shared
def test_a_real_photograph_is_prepared_as_by_pillow(shared: Path) -> None:
    """Decode, resize, crop and normalise agree with the same steps written out."""
    root = shared / "data" / "imagenet" / "calib500"
    data = load_dataset(root)
    with Image.open(root / data.image_name(0)) as file:
        width, height = file.size
        scale = 256 / min(width, height)
        image = file.convert("RGB").resize(
            (int(width * scale), int(height * scale)), Image.Resampling.BILINEAR
        )
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float64) / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    result = normalise(prepare(data.image(0), preset("imagenet"))[None], preset("imagenet"))
    np.testing.assert_allclose(result[0], expected.transpose(2, 0, 1), atol=1e-6)


def test_a_contract_reads_as_what_is_done() -> None:
    """One line in the order of the steps; without a resize there is none to read."""
    assert str(preset("imagenet")) == (
        "resize 256 bilinear, crop 224, rgb, "
        "(x * 0.00392157 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)"
    )
    assert str(preset("cifar")).startswith("crop 32, rgb, ")
