"""Squash, letterbox, gray, not square, OpenCV: the pixels of Pillow's and OpenCV's own calls."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgeres.core.contract import Color, Contract, Crop, with_resize
from edgeres.core.resize import (
    NO_RESIZE,
    Interpolation,
    Resize,
    ResizeLibrary,
    ResizeMode,
    letterbox,
    shortest,
    squash,
)
from edgeres.errors import DataError, DependencyError
from edgeres.images import opencv
from edgeres.images.dataset import Dataset, ImageArray
from edgeres.images.decode import DecodedImage, decode, orientation_of
from edgeres.images.load import load_dataset
from edgeres.images.prepare import normalise, prepare
from edgeres.images.stream import batches, noting_turned, turned_note

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")

HEIGHT, WIDTH = 24, 36
SIZES = st.tuples(st.integers(2, 90), st.integers(2, 90))
PILLOW = [name for name in Interpolation if name is not Interpolation.AREA]
FLAGS = {
    Interpolation.NEAREST: cv2.INTER_NEAREST,
    Interpolation.BILINEAR: cv2.INTER_LINEAR,
    Interpolation.BICUBIC: cv2.INTER_CUBIC,
    Interpolation.LANCZOS: cv2.INTER_LANCZOS4,
    Interpolation.AREA: cv2.INTER_AREA,
}


def noise(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Returns random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def contract(resize: Resize, color: Color = Color.RGB, channels: int = 3) -> Contract:
    """Returns one of 24 x 36 pixels."""
    values = (0.5,) * channels
    bare = Contract(
        height=HEIGHT, width=WIDTH, color=color, channels=channels, mean=values, std=values
    )
    return with_resize(bare, resize)


@given(size=SIZES, name=st.sampled_from(PILLOW))
def test_a_squash_is_pillows_resize(size: tuple[int, int], name: Interpolation) -> None:
    """Torchvision's `Resize((24, 36))` calls `image.resize((36, 24), filter)`."""
    image = noise(size)
    own = Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling[name.name])
    squashed = prepare(image, contract(squash(HEIGHT, WIDTH, interpolation=name)))
    np.testing.assert_array_equal(squashed, np.asarray(own))


@given(size=SIZES, name=st.sampled_from(list(Interpolation)))
def test_a_squash_is_opencvs_resize(size: tuple[int, int], name: Interpolation) -> None:
    """`cv2.resize(image, (36, 24), interpolation=...)`, bit for bit."""
    image = noise(size)
    how = squash(HEIGHT, WIDTH, interpolation=name, library=ResizeLibrary.OPENCV)
    own = cv2.resize(image, (WIDTH, HEIGHT), interpolation=FLAGS[name])
    np.testing.assert_array_equal(prepare(image, contract(how)), own)


@given(size=SIZES, pad=st.integers(0, 255), name=st.sampled_from(PILLOW))
def test_a_letterbox_is_pillows_pad(size: tuple[int, int], pad: int, name: Interpolation) -> None:
    """`ImageOps.pad` with the image in the middle."""
    image = noise(size)
    own = ImageOps.pad(
        Image.fromarray(image), (WIDTH, HEIGHT), Image.Resampling[name.name], (pad,) * 3
    )
    how = letterbox(HEIGHT, WIDTH, pad=pad, interpolation=name)
    np.testing.assert_array_equal(prepare(image, contract(how)), np.asarray(own))


@given(size=SIZES, pad=st.integers(0, 255))
def test_a_letterbox_of_opencv_is_the_one_of_yolo(size: tuple[int, int], pad: int) -> None:
    """Ultralytics' steps written out: scale, resize, copyMakeBorder with rounded halves."""
    image = noise(size)
    ratio = min(HEIGHT / size[0], WIDTH / size[1])
    inner = (round(size[1] * ratio), round(size[0] * ratio))
    if min(inner) == 0:
        return
    dw, dh = (WIDTH - inner[0]) / 2, (HEIGHT - inner[1]) / 2
    resized = image
    if (size[1], size[0]) != inner:
        resized = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
    own = cv2.copyMakeBorder(
        resized,
        round(dh - 0.1), round(dh + 0.1), round(dw - 0.1), round(dw + 0.1),
        cv2.BORDER_CONSTANT, value=(pad,) * 3,
    )  # fmt: skip
    how = letterbox(HEIGHT, WIDTH, pad=pad, library=ResizeLibrary.OPENCV)
    np.testing.assert_array_equal(prepare(image, contract(how)), own)


@given(size=st.tuples(st.integers(40, 90), st.integers(40, 90)))
def test_a_short_side_of_opencv_keeps_torchvisions_length(size: tuple[int, int]) -> None:
    """The long side is truncated whoever resizes; the crop is of 24 x 36."""
    image = noise(size)
    longer = int(40 * max(size) / min(size))
    made = (40, longer) if size[1] < size[0] else (longer, 40)
    own = cv2.resize(image, made, interpolation=cv2.INTER_LINEAR) if min(size) != 40 else image
    top, left = (own.shape[0] - HEIGHT) // 2, (own.shape[1] - WIDTH) // 2
    how = shortest(40, library=ResizeLibrary.OPENCV)
    np.testing.assert_array_equal(
        prepare(image, contract(how)), own[top : top + HEIGHT, left : left + WIDTH]
    )


@given(size=SIZES)
def test_gray_is_each_librarys_own(size: tuple[int, int]) -> None:
    """Torchvision's `Grayscale` calls `convert("L")`, before the resize; OpenCV's is cvtColor."""
    image = noise(size)
    by_pillow = (
        Image.fromarray(image).convert("L").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    )
    single = contract(squash(HEIGHT, WIDTH), Color.GRAY, 1)
    np.testing.assert_array_equal(prepare(image, single)[..., 0], np.asarray(by_pillow))
    by_opencv = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (WIDTH, HEIGHT))
    how = squash(HEIGHT, WIDTH, library=ResizeLibrary.OPENCV)
    np.testing.assert_array_equal(prepare(image, contract(how, Color.GRAY, 1))[..., 0], by_opencv)


def test_gray_in_three_channels_is_the_same_in_each() -> None:
    """Each with its own mean and std; a single channel is the first of these."""
    image = noise((50, 70))
    single, triple = (contract(squash(HEIGHT, WIDTH), Color.GRAY, channels) for channels in (1, 3))
    first, second = (normalise(prepare(image, one)[None], one) for one in (single, triple))
    assert (first.shape, second.shape) == ((1, 1, HEIGHT, WIDTH), (1, 3, HEIGHT, WIDTH))
    for channel in range(3):
        np.testing.assert_array_equal(second[:, channel], first[:, 0])


@pytest.mark.parametrize("library", list(ResizeLibrary))
def test_gray_images_keep_their_values(library: ResizeLibrary) -> None:
    """Three equal channels have the luma of that value."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    contract = Contract(
        height=16, width=16, channels=1, color=Color.GRAY, mean=(0.0,), std=(1.0,),
        resize=Resize(library=library),
    )  # fmt: skip
    np.testing.assert_array_equal(prepare(ramp, contract)[..., 0], ramp[..., 0])


@pytest.mark.parametrize(
    ("how", "color", "channels"),
    [
        (squash(HEIGHT, WIDTH), Color.BGR, 3),
        (squash(HEIGHT + 8, WIDTH + 8), Color.RGB, 3),
        (letterbox(HEIGHT, WIDTH, pad=114), Color.RGB, 3),
        (shortest(40), Color.GRAY, 1),
        (NO_RESIZE, Color.GRAY, 3),
        (squash(HEIGHT, WIDTH, library=ResizeLibrary.OPENCV), Color.GRAY, 1),
    ],
    ids=str,
)
def test_an_array_and_single_images_are_prepared_alike(
    how: Resize, color: Color, channels: int
) -> None:
    """A stored array takes a shorter way, which makes the same batch."""
    pixels = np.stack([noise((50, 70), seed) for seed in range(3)])
    images = ImageArray(file="a.npz", pixels=pixels, rows=np.arange(3))
    dataset = Dataset(name="a", path=Path("a"), images=images)
    own = contract(how, color, channels)
    (batch,) = batches(dataset, own, batch_size=3)
    each = np.stack([prepare(image, own) for image in pixels])
    np.testing.assert_array_equal(batch.images, normalise(each, own))


@settings(max_examples=20)
@given(size=st.tuples(st.integers(1, 3), st.integers(3000, 9000)))
@pytest.mark.parametrize("library", list(ResizeLibrary))
def test_a_strip_is_named_or_padded(library: ResizeLibrary, size: tuple[int, int]) -> None:
    """An image so thin that nothing of it is left in the frame is an error with its size."""
    how = letterbox(HEIGHT, WIDTH, library=library)
    strip = np.zeros((*size, 3), np.uint8)
    with pytest.raises(DataError, match=rf"a\.png is {size[1]} x {size[0]}: .* no pixel"):
        prepare(strip, contract(how), name="a.png")


def test_an_image_of_another_size_is_named_where_none_is_made() -> None:
    """Neither resize nor crop: the images have to be of the network's size."""
    exact = replace(contract(NO_RESIZE), crop=Crop.NONE)
    image = noise((HEIGHT, WIDTH))
    np.testing.assert_array_equal(prepare(image, exact), image)
    with pytest.raises(DataError, match=r"a\.png is 70 x 50, and the contract takes .* 36 x 24 as"):
        prepare(noise((50, 70)), exact, name="a.png")


def test_a_missing_opencv_is_named_before_an_image_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the line that installs it, and not from a thread in the middle of a run."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    opencv.load_opencv.cache_clear()
    dataset = Dataset(
        name="a",
        path=Path("a"),
        images=ImageArray(file="a", pixels=noise((9, 9))[None], rows=np.arange(1)),
    )
    how = squash(HEIGHT, WIDTH, library=ResizeLibrary.OPENCV)
    with pytest.raises(DependencyError, match=r"OpenCV's resize.*pip install '\.\[opencv\]'"):
        batches(dataset, contract(how), batch_size=1)
    opencv.load_opencv.cache_clear()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_applied_as_opencv_and_pillow_do(tmp_path: Path, orientation: int) -> None:
    """cv2.imread of the file, and ImageOps.exif_transpose; torchvision's loader leaves it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(noise((20, 30)))
    image.save(tmp_path / "a.png", exif=exif)
    found = decode(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        by_pillow = np.asarray(ImageOps.exif_transpose(stored))
    by_opencv = cv2.cvtColor(cv2.imread(str(tmp_path / "a.png")), cv2.COLOR_BGR2RGB)
    assert found.orientation == orientation
    np.testing.assert_array_equal(found.as_read_by(ResizeLibrary.PILLOW), np.asarray(image))
    np.testing.assert_array_equal(found.as_read_by(ResizeLibrary.OPENCV), by_pillow)
    np.testing.assert_array_equal(found.as_read_by(ResizeLibrary.OPENCV), by_opencv)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_each_format_that_carries_exif_is_read_as_opencv_reads_it(
    tmp_path: Path, suffix: str
) -> None:
    """A photograph of a phone, stored lying."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{suffix}"
    smooth = Image.fromarray(noise((3, 4))).resize((48, 32), Image.Resampling.BICUBIC)
    smooth.save(path, exif=exif)
    own = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)
    found = decode(path).as_read_by(ResizeLibrary.OPENCV).astype(int)
    assert found.shape == own.shape
    # Lossy decoders of two libraries may differ by rounding.
    assert np.abs(found - own).max() <= 2


def test_a_tiff_is_turned_by_pillow_alone(tmp_path: Path) -> None:
    """Its orientation is a tag of the format, which Pillow applies; it is not applied twice."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = noise((20, 30))
    Image.fromarray(pixels).save(tmp_path / "a.tiff", exif=exif)
    found = decode(tmp_path / "a.tiff")
    assert found.orientation == 1
    for library in ResizeLibrary:
        np.testing.assert_array_equal(found.as_read_by(library), np.rot90(pixels, -1))


def test_images_that_exif_turns_are_counted_and_told(tmp_path: Path) -> None:
    """Their number, the first of them, and what was done about it by which library."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for index in range(4):
        image = Image.fromarray(noise((40, 60), index))
        image.save(tmp_path / f"{index}.png", exif=exif if index % 2 else Image.Exif())
    dataset = load_dataset(tmp_path, labelled=False)
    for library, words in (
        (ResizeLibrary.PILLOW, "it was ignored, as by torchvision's loader"),
        (ResizeLibrary.OPENCV, "they were turned upright, as cv2.imread does"),
    ):
        own = contract(squash(HEIGHT, WIDTH, library=library))
        turned: list[int] = []
        streamed = list(noting_turned(batches(dataset, own, batch_size=3), turned))
        assert turned == [1, 3]
        note = turned_note(dataset, turned, own)
        assert note.startswith(f"2 of 4 images carry an EXIF orientation (first: 1.png): {words}")
        stored = decode(tmp_path / "1.png").as_read_by(library)
        expected = normalise(prepare(stored, own)[None], own)
        np.testing.assert_array_equal(streamed[0].images[1:2], expected)


def test_an_orientation_that_exif_does_not_have_counts_as_none() -> None:
    """Cameras write 0 where they do not know."""
    image = Image.new("RGB", (4, 4))
    image.getexif()[0x0112] = 0
    assert orientation_of(image) == 1
    assert DecodedImage(pixels=noise((4, 4))).orientation == 1


def test_every_mode_is_covered() -> None:
    """A mode that is added needs a reference here."""
    assert set(ResizeMode) == {"none", "shortest", "squash", "letterbox"}
