"""Data that ships with edgeres: the UCI handwritten digits.

The folder `calibration` stands inside the package in an installed wheel and beside it in a
source checkout.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeres.errors import DataError
from edgeres.images.dataset import Dataset, take
from edgeres.images.load import load_dataset

TRAINING_DIGITS = 1000
"""Images of digits.npz, from the first, that are for training and calibration."""

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "calibration", _PACKAGE.parent / "calibration")


def embedded_path(name: str) -> Path:
    """Returns where a file of the folder `calibration` stands, such as `digits.npz`.

    Raises:
        DataError: this installation does not have it.
    """
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"The embedded file '{name}' is missing; it was looked for in "
        f"{' and '.join(map(str, _FOLDERS))}. Install edgeres again."
    )


def embedded_digits() -> tuple[Dataset, Dataset]:
    """Returns the handwritten digits: 1,000 images to train and calibrate on, 797 to test on.

    Images are (8, 8, 3) uint8 RGB, labels the digits 0 to 9. calibration/README.md has the
    source and the licence.

    Raises:
        DataError: this installation does not have the file.
    """
    digits = replace(
        load_dataset(embedded_path("digits.npz")), classes=tuple(str(digit) for digit in range(10))
    )
    rows = np.arange(len(digits))
    return (
        replace(take(digits, rows[:TRAINING_DIGITS]), name="digits-train"),
        replace(take(digits, rows[TRAINING_DIGITS:]), name="digits-test"),
    )
