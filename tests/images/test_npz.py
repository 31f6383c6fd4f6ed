"""Arrays from an .npz: the same however it is stored, and refused by its headers."""

from __future__ import annotations

import contextlib
import io
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeres.errors import DataError
from edgeres.images import npz
from edgeres.images.load import load_dataset

RNG = np.random.default_rng(11)
IMAGES = RNG.integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(7, dtype=np.uint8)


def saved(path: Path, **arrays: Any) -> Path:
    """Writes an uncompressed .npz."""
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("images", [IMAGES, np.asfortranarray(IMAGES)], ids=["C", "F"])
def test_images_and_labels_come_back(tmp_path: Path, save: Any, images: NDArray[np.uint8]) -> None:
    """Stored or compressed, in either memory order; other arrays are ignored."""
    save(tmp_path / "a.npz", index=np.zeros(3), images=images, labels=LABELS)
    data = load_dataset(tmp_path / "a.npz")
    np.testing.assert_array_equal([data.image(i) for i in range(7)], IMAGES)
    assert data.labels is not None
    assert data.labels.tolist() == list(range(7))
    assert data.labels.dtype == np.int64
    assert (data.name, data.image_name(3), data.classes) == ("a.npz", "a.npz[3]", ())


def test_stored_images_are_read_when_they_are_used(tmp_path: Path) -> None:
    """A set larger than memory can be used when it is stored uncompressed."""
    images = np.zeros((400, 100, 100, 3), np.uint8)
    path = saved(tmp_path / "a.npz", images=images, labels=np.arange(400))
    tracemalloc.start()
    data = load_dataset(path)
    assert [data.image(index).max() for index in range(400)] == [0] * 400
    assert tracemalloc.get_traced_memory()[1] < images.nbytes / 10
    tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, 300),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: os.utime(path, (1, 1)),
    ],
    ids=["shorter", "overwritten", "touched"],
)
def test_a_file_that_is_changed_under_its_reader(
    change: Callable[[Path], object], tmp_path: Path
) -> None:
    """A mapped one would end the process, or give other images than were counted before."""
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    os.utime(path, (2, 2))
    data = load_dataset(path)
    np.testing.assert_array_equal(data.image(6), IMAGES[6])
    change(path)
    with pytest.raises(DataError, match=r"a\.npz was changed while it was in use"):
        data.image(6)


def test_a_file_that_is_replaced_is_read_to_its_end(tmp_path: Path) -> None:
    """As it was opened: another file of that name is another file."""
    data = load_dataset(saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS))
    saved(tmp_path / "b.npz", images=255 - IMAGES, labels=LABELS).replace(tmp_path / "a.npz")
    np.testing.assert_array_equal([data.image(i) for i in range(7)], IMAGES)


def test_images_cannot_be_written_to(tmp_path: Path) -> None:
    """A set does not change under its reader."""
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(ValueError, match="read-only"):
        load_dataset(tmp_path / "a.npz").image(0)[0] = 0


def test_labels_may_be_absent_for_calibration(tmp_path: Path) -> None:
    """Labels are required only where accuracy is."""
    path = saved(tmp_path / "a.npz", images=IMAGES)
    assert load_dataset(path, labelled=False).labels is None
    with pytest.raises(
        DataError, match=r"a\.npz has no array labels; it has images\. Expected images"
    ):
        load_dataset(path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            IMAGES[..., 0],
            r"uint8 \(7, 6, 5\); expected uint8 \(N, H, W, 3\) RGB.*grayscale, repeat",
        ),
        (IMAGES.transpose(0, 3, 1, 2), r"\(7, 3, 6, 5\); .*move the second axis to the end"),
        (IMAGES / np.float32(255), r"float32 \(7, 6, 5, 3\); .* with values from 0 to 255"),
        (IMAGES[..., :1], r"\(7, 6, 5, 1\); expected"),
        (IMAGES[:0], r"has no images: its array is \(0, 6, 5, 3\)"),
    ],
    ids=["grayscale", "NCHW", "float", "one channel", "empty"],
)
def test_images_of_another_form_are_refused(tmp_path: Path, images: Any, message: str) -> None:
    """Type and shape are named with what was expected and, where it is plain, the remedy."""
    with pytest.raises(DataError, match=message):
        load_dataset(saved(tmp_path / "a.npz", images=images, labels=LABELS))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:5], r"uint8 \(5,\); expected integers of shape \(7,\)"),
        (LABELS.astype(np.float32), r"float32 \(7,\); expected integers"),
        (np.eye(7, dtype=np.uint8), r"uint8 \(7, 7\); expected integers"),
        (LABELS.astype(np.int64) - 3, r"has -3 in row 0; expected class indices from 0"),
    ],
    ids=["short", "float", "one-hot", "negative"],
)
def test_labels_of_another_form_are_refused(tmp_path: Path, labels: Any, message: str) -> None:
    """There is one index for each image, and it is not negative."""
    with pytest.raises(DataError, match=message):
        load_dataset(saved(tmp_path / "a.npz", images=IMAGES, labels=labels))


def test_other_names_are_listed(tmp_path: Path) -> None:
    """Keras' own x and y are named, so that the remedy is plain."""
    with pytest.raises(DataError, match="no array images and no array labels; it has x, y"):
        load_dataset(saved(tmp_path / "a.npz", x=IMAGES, y=LABELS))


class _Trap:
    """Pickles to a call that would make a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def test_a_pickled_array_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    """An object array is refused by its header; what it pickles is not called."""
    trap = np.array([_Trap(tmp_path / "ran")] * 7, dtype=object)
    with pytest.raises(DataError, match=r"labels of .* is object \(7,\); expected integers"):
        load_dataset(saved(tmp_path / "a.npz", images=IMAGES, labels=trap))
    with pytest.raises(DataError, match=r"images of .* is object"):
        load_dataset(saved(tmp_path / "b.npz", images=trap, labels=LABELS))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.95])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_file_is_refused(tmp_path: Path, save: Any, keep: float) -> None:
    """Whatever is missing, the file is named and the next step is given."""
    path = tmp_path / "cut.npz"
    save(path, images=IMAGES, labels=LABELS)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(DataError, match=r"cut\.npz cannot be read: .*copy it again"):
        load_dataset(path)


def test_damaged_content_is_refused(tmp_path: Path) -> None:
    """A bit that flipped in compressed pixels is detected by the checksum."""
    path = tmp_path / "flip.npz"
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    data = bytearray(path.read_bytes())
    data[400] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"flip\.npz cannot be read"):
        load_dataset(path)


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """Returns the header of an .npy that claims a shape."""
    file = io.BytesIO()
    claim = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, claim)
    return file.getvalue()


def archived(path: Path, *, compressed: bool = True, **entries: bytes) -> Path:
    """Writes an .npz of entries that may be anything."""
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("shape", "claimed"),
    [
        ((10**6, 64, 64, 3), 12288000000),
        ((1 << 62, 4, 4, 3), 221360928884514619392),
        ((7, 6, 5, 3), 630),
    ],
    ids=["12 GB", "more than 64 bits", "a little more"],
)
def test_what_an_array_claims_is_checked_before_it_is_unpacked(
    tmp_path: Path, shape: tuple[int, ...], claimed: int, compressed: bool
) -> None:
    """Or mapped: what stands behind it in the file is not its images."""
    path = archived(tmp_path / "a.npz", compressed=compressed, images=header(shape) + bytes(600))
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as refused:
            load_dataset(path, labelled=False)
        assert f"is uint8 {shape}, {claimed} bytes, and its archive has 600." in str(refused.value)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_the_budget_is_what_refuses_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array just as large as it is unpacked, a byte more is not."""
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES)
    monkeypatch.setattr(npz, "MAX_UNPACKED", IMAGES.size)
    assert len(load_dataset(tmp_path / "a.npz", labelled=False)) == 7
    monkeypatch.setattr(npz, "MAX_UNPACKED", IMAGES.size - 1)
    with pytest.raises(
        DataError, match=r"Write it with numpy\.savez, uncompressed: then images are"
    ):
        load_dataset(tmp_path / "a.npz", labelled=False)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x09\x00" + header((7, 6, 5, 3))[8:],
        header((7, 6, 5, 3)).replace(b"(7,", b"((" * 40),
        header((7, 6, 5, 3), descr="|O"),
        header((7, 6, 5, -3)),
        header(()),
        header((0, 6, 5, 3)),
        header((7, 6, 5, 3)).replace(b"'descr'", b"'d\xff\x00cr'"),
    ],
)
def test_a_damaged_header_is_a_data_error(tmp_path: Path, head: bytes) -> None:
    """Whatever numpy raises at it."""
    path = archived(tmp_path / "a.npz", images=head + bytes(630))
    with pytest.raises(DataError, match=r"a\.npz"):
        load_dataset(path, labelled=False)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_archive_is_a_data_error(tmp_path: Path, seed: int, compressed: bool) -> None:
    """Bytes changed, taken out or doubled anywhere: images or a sentence, nothing else."""
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, images=IMAGES, labels=LABELS)
    content, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for _ in range(random.integers(1, 4)):
        at, length = int(random.integers(len(content))), int(random.integers(1, 9))
        content[at : at + length] = random.bytes(int(random.integers(0, 2 * length)))
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        load_dataset(path).image(0)
