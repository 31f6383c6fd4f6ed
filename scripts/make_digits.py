"""Makes calibration/digits.npz from scikit-learn's copy of the UCI handwritten digits.

    python -m pip install scikit-learn
    python scripts/make_digits.py

The file holds `images` uint8 (1797, 8, 8, 3) RGB and `labels` uint8 (1797,). Its zip entries
carry a fixed date and system, so that the same zlib writes the same bytes again.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LEVELS = 16
"""Highest pixel value of the set. Source: scikit-learn's `load_digits`, UCI's optdigits.names."""

_OUTPUT = Path(__file__).resolve().parents[1] / "calibration" / "digits.npz"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


def rgb_from_levels(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Returns (N, 8, 8, 3) uint8 RGB of grey levels (N, 8, 8) in 0..16; 16 becomes 255."""
    grey = np.rint(levels * (255 / LEVELS)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def save_npz(path: Path, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """Writes a compressed `.npz` whose bytes do not depend on when and where it is written."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            entry.create_system = _UNIX
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def main() -> None:
    """Writes the file and prints its size."""
    from sklearn.datasets import load_digits

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, default=_OUTPUT, help="default: %(default)s")
    output: Path = parser.parse_args().output
    levels, labels = load_digits(return_X_y=True)
    images = rgb_from_levels(levels.reshape(-1, 8, 8))
    save_npz(output, {"images": images, "labels": labels.astype(np.uint8)})
    print(f"{output}: {len(images)} images, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
