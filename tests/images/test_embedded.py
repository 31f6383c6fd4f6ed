"""The embedded digits are the UCI set, split as documented, and available wherever edgeres stands."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgeres.errors import DataError
from edgeres.images import embedded
from edgeres.images.embedded import embedded_digits, embedded_path

FIRST_LEVELS = (
    (0, 0, 5, 13, 9, 1, 0, 0),
    (0, 0, 13, 15, 10, 15, 5, 0),
    (0, 3, 15, 2, 0, 11, 8, 0),
    (0, 4, 12, 0, 0, 8, 8, 0),
    (0, 5, 8, 0, 0, 9, 8, 0),
    (0, 4, 11, 0, 1, 12, 7, 0),
    (0, 2, 14, 5, 10, 12, 0, 0),
    (0, 0, 6, 13, 10, 0, 0, 0),
)
"""The set's first digit, a zero. Source: scikit-learn's documentation of `load_digits`."""


@pytest.fixture
def script() -> ModuleType:
    """scripts/make_digits.py as a module."""
    path = Path(__file__).resolve().parents[2] / "scripts" / "make_digits.py"
    spec = importlib.util.spec_from_file_location("make_digits", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_split_is_1000_and_797() -> None:
    """The first 1,000 are for training and calibration, the last 797 for testing."""
    train, test = embedded_digits()
    assert (len(train), len(test)) == (1000, 797)
    assert (train.image_name(0), test.image_name(0)) == ("digits.npz[0]", "digits.npz[1000]")
    assert train.classes == test.classes == tuple("0123456789")


def test_the_first_digit_is_the_published_one() -> None:
    """Levels 0..16 are scaled so that 16 is 255."""
    image = embedded_digits()[0].image(0)
    expected = np.round(np.array(FIRST_LEVELS) * 255 / 16)
    np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, axis=-1))


def test_the_classes_have_the_published_counts() -> None:
    """The 1,797 digits are 178 zeros, 182 ones and so on."""
    labels = [part.labels for part in embedded_digits() if part.labels is not None]
    counts = np.bincount(np.concatenate(labels)).tolist()
    assert counts == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_an_installed_wheel_carries_the_folder_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder inside the package comes before the one beside it."""
    (tmp_path / "edgeres" / "calibration").mkdir(parents=True)
    inside = shutil.copy(embedded_path("digits.npz"), tmp_path / "edgeres" / "calibration")
    folders = (tmp_path / "edgeres" / "calibration", tmp_path / "calibration")
    monkeypatch.setattr(embedded, "_FOLDERS", folders)
    assert embedded_path("digits.npz") == Path(inside)
    assert len(embedded_digits()[1]) == 797


def test_a_missing_file_is_named() -> None:
    """The message names the file and where it was looked for."""
    with pytest.raises(
        DataError, match=r"'nothing\.npz' is missing; .*calibration.* Install edgeres"
    ):
        embedded_path("nothing.npz")


def test_the_script_scales_levels_to_rgb(script: ModuleType) -> None:
    """0, 5 and 16 become 0, 80 and 255, in three channels."""
    levels = np.array([0, 5, 16], np.float64).reshape(1, 1, 3)
    assert script.rgb_from_levels(levels).tolist() == [[[[0] * 3, [80] * 3, [255] * 3]]]


def test_the_script_writes_the_same_bytes_again(script: ModuleType, tmp_path: Path) -> None:
    """The committed arrays, written twice, are equal byte for byte and read back the same."""
    with np.load(embedded_path("digits.npz")) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name in ("a.npz", "b.npz"):
        script.save_npz(tmp_path / name, arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as rewritten:
        np.testing.assert_array_equal(rewritten["images"], arrays["images"])
