"""Batches come in order, ahead of the consumer but not far, and leave no thread behind."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeres.core.contract import Contract, preset
from edgeres.core.resize import NO_RESIZE, shortest
from edgeres.errors import ConfigError, DataError
from edgeres.images.dataset import Dataset
from edgeres.images.decode import DecodedImage
from edgeres.images.load import load_dataset
from edgeres.images.prepare import normalise, prepare
from edgeres.images.stream import LOOK_AHEAD, batches, image_hash

PLAIN = Contract(height=4, width=4)
IMAGES = np.random.default_rng(8).integers(0, 256, (10, 6, 4, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Scripted:
    """Images of one grey, their index; reading may be slow, and fails at `broken`."""

    count: int
    broken: int = -1
    slow: tuple[int, ...] = ()
    read_so_far: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """Returns such as `image3`."""
        return f"image{index}"

    def read(self, index: int) -> DecodedImage:
        """Returns 4 x 4 pixels of the value `index`, slowly or not at all where so set."""
        self.read_so_far.append(index)
        if index == self.broken:
            raise DataError(f"image{index} cannot be decoded.")
        if index in self.slow:
            time.sleep(0.02)
        return DecodedImage(pixels=np.full((4, 4, 3), index, np.uint8))

    def take(self, indices: NDArray[np.int64]) -> Scripted:
        """Streams do not take subsets."""
        raise NotImplementedError


def scripted(images: Scripted) -> Dataset:
    """Returns a data set of scripted images."""
    return Dataset(name="scripted", path=Path("scripted"), images=images)


def decoding_threads() -> int:
    """Returns the number of decoding threads alive."""
    return sum(thread.name.startswith("edgeres-decode") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert decoding_threads() == 0


@pytest.fixture
def stored(tmp_path: Path) -> Dataset:
    """Ten labelled images in an .npz."""
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES, labels=np.arange(10))
    return load_dataset(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "contract",
    [
        PLAIN,
        Contract(height=4, width=4, resize=shortest(4)),
        Contract(height=3, width=3, resize=shortest(5)),
        preset("digits"),
    ],
    ids=["crop", "short side as is", "shrunk", "enlarged"],
)
@pytest.mark.parametrize("batch_size", [1, 4, 10, 16])
def test_batches_are_the_prepared_images_in_order(
    stored: Dataset, contract: Contract, batch_size: int
) -> None:
    """Whatever the batch size, images, labels and indices are those of the set one by one."""
    streamed = list(batches(stored, contract, batch_size=batch_size))
    expected = np.stack([prepare(image, contract) for image in IMAGES])
    images = np.concatenate([batch.images for batch in streamed])
    np.testing.assert_array_equal(images, normalise(expected, contract))
    assert all(batch.images.flags.c_contiguous for batch in streamed)
    assert [len(batch) for batch in streamed][:-1] == [batch_size] * (len(streamed) - 1)
    assert np.concatenate([batch.indices for batch in streamed]).tolist() == list(range(10))
    labels = [batch.labels for batch in streamed if batch.labels is not None]
    assert np.concatenate(labels).tolist() == list(range(10))


def test_files_and_arrays_give_the_same_batches(tmp_path: Path, stored: Dataset) -> None:
    """The same pixels as PNG files: the same tensors and the same hashes."""
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    files = load_dataset_of_pngs(tmp_path)
    pairs = zip(
        batches(files, PLAIN, batch_size=3), batches(stored, PLAIN, batch_size=3), strict=True
    )
    for one, other in pairs:
        np.testing.assert_array_equal(one.images, other.images)
        assert one.hashes == other.hashes
        assert one.labels is None


def load_dataset_of_pngs(folder: Path) -> Dataset:
    """Returns the PNG files of a folder, without labels."""
    (folder / "a.npz").rename(folder / "a.bak")
    return load_dataset(folder, labelled=False)


def test_slow_images_keep_their_place() -> None:
    """An image that takes longer than its successors is not overtaken."""
    data = scripted(Scripted(12, slow=(0, 5)))
    values = np.concatenate(
        [b.images[:, 0, 0, 0] for b in batches(data, PLAIN, batch_size=4, threads=4)]
    )
    np.testing.assert_allclose(values * 255, range(12), rtol=1e-6)


def test_decoding_runs_ahead_by_the_look_ahead_and_no_further() -> None:
    """While the first batch is in use the next are decoded, and memory stays bounded."""
    images = Scripted(100)
    stream = batches(scripted(images), PLAIN, batch_size=5, threads=2)
    next(stream)
    _wait_until(lambda: len(images.read_so_far) >= 5 * (LOOK_AHEAD + 1))
    assert sorted(images.read_so_far) == list(range(5 * (LOOK_AHEAD + 1)))
    stream.close()


def _wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition did not come true in 5 s")


def test_nothing_is_decoded_before_the_first_batch_is_asked_for() -> None:
    """A generator that is never started has no threads to stop."""
    images = Scripted(10)
    batches(scripted(images), PLAIN, batch_size=5)
    assert images.read_so_far == []


def test_an_error_comes_with_its_type_when_its_batch_is_due() -> None:
    """The batches before the broken image are delivered, then the worker's own error."""
    stream = batches(scripted(Scripted(12, broken=7)), PLAIN, batch_size=3, threads=2)
    assert [len(next(stream)), len(next(stream))] == [3, 3]
    with pytest.raises(DataError, match=r"image7 cannot be decoded\."):
        next(stream)
    assert decoding_threads() == 0


def test_an_image_smaller_than_the_crop_is_named_with_its_folder() -> None:
    """The message names the file."""
    with pytest.raises(DataError, match=r"scripted/image0 is 4 x 4, smaller than the 8 x 8 crop"):
        next(batches(scripted(Scripted(1)), Contract(height=8, width=8), batch_size=1))


def test_an_array_smaller_than_the_crop_is_named_with_its_row(stored: Dataset) -> None:
    """The message names the array and the row."""
    with pytest.raises(DataError, match=r"a\.npz\[0\] is 4 x 6, smaller than the 8 x 8 crop"):
        next(batches(stored, Contract(height=8, width=8), batch_size=2))


def test_leaving_the_loop_stops_the_threads() -> None:
    """After a break the images still queued are not decoded."""
    images = Scripted(1000, slow=tuple(range(1000)))
    for _ in batches(scripted(images), PLAIN, batch_size=8, threads=2):
        break
    assert decoding_threads() == 0
    assert len(images.read_so_far) < 24


def test_ctrl_c_stops_the_threads() -> None:
    """An interrupt inside the loop passes through and leaves nothing running."""
    stream = batches(scripted(Scripted(100)), PLAIN, batch_size=4)
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    assert decoding_threads() == 0


@pytest.mark.parametrize(("batch_size", "threads"), [(0, 1), (1, 0)])
def test_impossible_sizes_are_refused_at_the_call(batch_size: int, threads: int) -> None:
    """A wrong size is refused where it was passed, not at the first batch."""
    with pytest.raises(ConfigError, match=f"batch size {batch_size} and threads {threads} must"):
        batches(scripted(Scripted(1)), PLAIN, batch_size=batch_size, threads=threads)


def test_the_hash_is_blake2b_of_shape_and_pixels() -> None:
    """16 digits, computed here from the definition."""
    digest = hashlib.blake2b(b"(6, 4, 3)" + IMAGES[0].tobytes(), digest_size=8).hexdigest()
    assert image_hash(IMAGES[0]) == digest
    assert len(digest) == 16


def test_the_hash_sees_shape_and_every_pixel() -> None:
    """The same bytes in another shape, and one level in one pixel, hash differently."""
    changed = IMAGES[0].copy()
    changed[5, 3, 2] ^= 1
    hashes = {image_hash(IMAGES[0]), image_hash(changed), image_hash(IMAGES[0].reshape(4, 6, 3))}
    assert len(hashes) == 3


def test_the_hash_does_not_depend_on_memory_layout() -> None:
    """A view and a Fortran-ordered copy are the same image."""
    assert image_hash(np.asfortranarray(IMAGES[0])) == image_hash(IMAGES[0])


def test_calibration_images_are_not_among_the_test_images(shared: Path) -> None:
    """The hashes of CIFAR-10's training and test images have nothing in common."""
    root = shared / "data" / "cifar10"
    hashes = [
        {
            h
            for batch in batches(load_dataset(root / name), preset("cifar"), batch_size=500)
            for h in batch.hashes
        }
        for name in ("calib1000.npz", "test.npz")
    ]
    assert [len(each) for each in hashes] == [1000, 10000]
    assert not hashes[0] & hashes[1]


@pytest.mark.shared
def test_photographs_stream_as_they_are_one_by_one(shared: Path) -> None:
    """JPEG files of 227 x 227, cropped at offset 1, BGR minus the mean."""
    data = load_dataset(shared / "data" / "imagenet" / "val1300")
    contract = replace(preset("imagenet-caffe"), resize=NO_RESIZE)
    stream = batches(data, contract, batch_size=8)
    batch = next(stream)
    stream.close()
    pixels = data.image(5)[1:225, 1:225, ::-1].astype(np.float64)
    expected = pixels - [103.939, 116.779, 123.68]
    np.testing.assert_allclose(batch.images[5], expected.transpose(2, 0, 1), atol=1e-5)
    assert batch.hashes[5] == image_hash(data.image(5))
