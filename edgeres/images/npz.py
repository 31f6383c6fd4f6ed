"""Images and labels out of an `.npz`, checked by their headers before anything large is read.

Arrays are read as plain numbers: a pickled object is refused, never loaded.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import DataError

_LOCAL_HEADER = 30
"""Bytes of a zip entry's header before its name; the lengths of name and extra field are the
two words at 26. Source: PKWARE's APPNOTE.TXT, section 4.3.7."""

_EXPECTED = "expected images uint8 (N, H, W, 3) RGB and labels, integers (N,)"
_UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error
)  # fmt: skip
"""What zipfile and numpy raise at damaged files."""


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int
    """Bytes from the start of the entry to the array's first value."""


def load_arrays(
    path: Path, *, labelled: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Returns the images, (N, H, W, 3) uint8, and the labels, (N,) int64, of an `.npz`.

    Images that are stored uncompressed (`numpy.savez`) are mapped from the file, not read.

    Args:
        path: the file.
        labelled: whether labels must be there; without, they may be.

    Raises:
        DataError: the file is damaged, or an array is missing or has another type or shape.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            missing = {"images", "labels"} - names if labelled else {"images"} - names
            if missing:
                raise DataError(
                    f"{path} has no array {' and no array '.join(sorted(missing))}; it has "
                    f"{', '.join(sorted(names)) or 'none'}. {_EXPECTED.capitalize()}."
                )
            images = _images(path, archive)
            labels = None
            if "labels" in names:
                header = _header(archive, "labels")
                if header.dtype.kind not in "iu" or header.shape != (len(images),):
                    raise DataError(
                        f"labels of {path} is {header.dtype} {header.shape}; expected integers of "
                        f"shape ({len(images)},), one for each image."
                    )
                labels = _array(archive, "labels").astype(np.int64)
                if labels.min() < 0:
                    row = int(np.argmax(labels < 0))
                    raise DataError(
                        f"labels of {path} has {labels[row]} in row {row}; expected class indices "
                        "from 0. Take images without a class out."
                    )
    except _UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read: {error}. It may be truncated: copy it again, or write it "
            "with numpy.savez."
        ) from error
    return images, labels


def _images(path: Path, archive: zipfile.ZipFile) -> NDArray[np.uint8]:
    header = _header(archive, "images")
    shape = header.shape
    if header.dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3:
        hint = ""
        if len(shape) == 3:
            hint = ". For grayscale, repeat the values along a last axis of 3"
        elif len(shape) == 4 and shape[1] == 3:
            hint = ". For (N, 3, H, W), move the second axis to the end"
        elif len(shape) == 4 and shape[-1] == 3:
            hint = " with values from 0 to 255"
        raise DataError(
            f"images of {path} is {header.dtype} {shape}; expected uint8 (N, H, W, 3) RGB{hint}."
        )
    if 0 in shape:
        raise DataError(f"{path} has no images: its array is {shape}. Check how it was written.")
    entry = archive.getinfo("images.npy")
    if entry.compress_type != zipfile.ZIP_STORED:
        images: NDArray[np.uint8] = _array(archive, "images")
        return images
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        # The local header is read, not the central directory: their extra fields may differ.
        name, extra = struct.unpack_from("<HH", file.read(_LOCAL_HEADER), 26)
    offset = entry.header_offset + _LOCAL_HEADER + name + extra + header.offset
    order: Literal["C", "F"] = "F" if header.fortran_order else "C"
    return np.asarray(np.memmap(path, np.uint8, "r", offset, shape, order))


def _header(archive: zipfile.ZipFile, name: str) -> _Header:
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        # Version 2 only has a longer length field; version 3 differs in names of fields alone.
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        return _Header(*read(file), offset=file.tell())


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    array.flags.writeable = False
    return array
