"""Images and labels out of an `.npz`, checked by their headers before anything large is read.

Arrays are read as plain numbers: a pickled object is refused, never loaded.
"""

from __future__ import annotations

import math
import os
import struct
import weakref
import zipfile
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import DataError
from edgeres.images.decode import MAX_PIXELS
from edgeres.input_files import ARRAYS, foreign_parser, open_input, reason_of

_LOCAL_HEADER = 30
"""Bytes of a zip entry's header before its name; the lengths of name and extra field are the
two words at 26. Source: PKWARE's APPNOTE.TXT, section 4.3.7."""

_EXPECTED = "expected images uint8 (N, H, W, 3) RGB and labels, integers (N,)"
MAX_UNPACKED = 4 << 30
"""Bytes that a compressed array may have in memory; what is stored uncompressed is read by the image."""


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int
    """Bytes from the start of the entry to the array's first value."""


class StoredImages:
    """Images of an uncompressed file, each read when it is used; an array of them, to be indexed.

    Not mapped: of a file that becomes shorter, a mapped part ends the process.
    """

    def __init__(self, path: Path, file: BinaryIO, *, offset: int, shape: tuple[int, ...]) -> None:
        """Keeps the open file.

        Args:
            path: its name in messages.
            file: holds the values.
            offset: bytes before the first image.
            shape: (N, H, W, 3).
        """
        self.shape = shape
        self._path = path
        self._offset = offset
        self._descriptor = os.dup(file.fileno())
        self._state = self._stated()
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns an image, (H, W, 3), or those of several rows, (n, H, W, 3); only to be read.

        Raises:
            DataError: the file was changed since it was opened, or cannot be read.
        """
        chosen = np.atleast_1d(rows)
        images = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        size = math.prod(self.shape[1:])
        with foreign_parser(partial(_unreadable, self._path)):
            read = [
                os.preadv(self._descriptor, [image], self._offset + int(row) * size)
                for image, row in zip(images, chosen, strict=True)
            ]
        if self._stated() != self._state or any(count != size for count in read):
            raise DataError(
                f"{self._path} was changed while it was in use, so that not all of its images are "
                "those that were counted. Run again when nothing writes to it."
            )
        images.flags.writeable = False
        return images if np.ndim(rows) else images[0]

    def _stated(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns


def load_arrays(
    path: Path, *, labelled: bool
) -> tuple[NDArray[np.uint8] | StoredImages, NDArray[np.int64] | None]:
    """Returns the images, (N, H, W, 3) uint8, and the labels, (N,) int64, of an `.npz`.

    Images that are stored uncompressed (`numpy.savez`) are read when they are used.

    Args:
        path: the file.
        labelled: whether labels must be there; without, they may be.

    Raises:
        DataError: the file is damaged, or an array is missing or has another type or shape.
    """
    with open_input(path, ARRAYS) as file, foreign_parser(partial(_unreadable, path)):
        archive = zipfile.ZipFile(file)
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        missing = {"images", "labels"} - names if labelled else {"images"} - names
        if missing:
            raise DataError(
                f"{path} has no array {' and no array '.join(sorted(missing))}; it has "
                f"{', '.join(sorted(names)) or 'none'}. {_EXPECTED.capitalize()}."
            )
        images = _images(path, archive, file)
        labels = _labels(path, archive, len(images)) if "labels" in names else None
    return images, labels


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read: {reason_of(error)}. It may be truncated: copy it again, or write "
        "it with numpy.savez."
    )


def _labels(path: Path, archive: zipfile.ZipFile, count: int) -> NDArray[np.int64]:
    header = _header(archive, "labels")
    if header.dtype.kind not in "iu" or header.shape != (count,):
        raise DataError(
            f"labels of {path} is {header.dtype} {header.shape}; expected integers of "
            f"shape ({count},), one for each image."
        )
    labels = _array(path, archive, "labels", header).astype(np.int64)
    if labels.min() < 0:
        row = int(np.argmax(labels < 0))
        raise DataError(
            f"labels of {path} has {labels[row]} in row {row}; expected class indices "
            "from 0. Take images without a class out."
        )
    return labels


def _images(
    path: Path, archive: zipfile.ZipFile, file: BinaryIO
) -> NDArray[np.uint8] | StoredImages:
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
    if shape[1] * shape[2] > MAX_PIXELS:
        raise DataError(
            f"images of {path} is {shape}; at most {MAX_PIXELS} pixels of an image are taken. Scale "
            "the images down first."
        )
    if 0 in shape:
        raise DataError(f"{path} has no images: its array is {shape}. Check how it was written.")
    entry = archive.getinfo("images.npy")
    if entry.compress_type != zipfile.ZIP_STORED:
        images: NDArray[np.uint8] = _array(path, archive, "images", header)
        return images
    if header.fortran_order:
        # The values of an image are all over the file.
        return _array(path, archive, "images", header)
    _check_claim(path, entry, header)
    file.seek(entry.header_offset)
    # The local header is read, not the central directory: their extra fields may differ.
    name, extra = struct.unpack_from("<HH", file.read(_LOCAL_HEADER), 26)
    offset = entry.header_offset + _LOCAL_HEADER + name + extra + header.offset
    return StoredImages(path, file, offset=offset, shape=shape)


def _header(archive: zipfile.ZipFile, name: str) -> _Header:
    with archive.open(f"{name}.npy") as file:
        return _read_header(file)


def _read_header(file: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(file)
    # Version 2 only has a longer length field; version 3 differs in names of fields alone.
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    return _Header(*read(file), offset=file.tell())


def _check_claim(path: Path, entry: zipfile.ZipInfo, header: _Header) -> int:
    """Returns the bytes that an array's header claims, which have to be those of its entry.

    Raises:
        DataError: they are others.
    """
    # In Python's integers, which do not wrap.
    claimed = math.prod(header.shape) * header.dtype.itemsize
    if header.offset + claimed != entry.file_size:
        raise DataError(
            f"{entry.filename} of {path} is {header.dtype} {header.shape}, {claimed} bytes, and "
            f"its archive has {entry.file_size - header.offset}. Write it again with numpy.savez."
        )
    return claimed


def _array(path: Path, archive: zipfile.ZipFile, name: str, header: _Header) -> NDArray[Any]:
    """Returns an array that fits into memory.

    Raises:
        DataError: it does not, or its archive and its own header claim different sizes.
    """
    entry = archive.getinfo(f"{name}.npy")
    claimed = _check_claim(path, entry, header)
    if claimed > MAX_UNPACKED:
        raise DataError(
            f"{name} of {path} has {claimed} bytes, unpacked from {entry.compress_size}; at "
            f"most {MAX_UNPACKED} are unpacked. Write it with numpy.savez, uncompressed: then "
            "images are read one by one."
        )
    with archive.open(entry) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    array.flags.writeable = False
    return array


def load_tensor(path: Path) -> NDArray[Any]:
    """Returns the array of an `.npy` file.

    Raises:
        DataError: it cannot be read, is no array of numbers, or has another length than its
            header claims.
    """
    remedy = "Write it with numpy.save."
    with (
        open_input(path, ARRAYS) as file,
        foreign_parser(lambda error: DataError(f"{path} is no .npy ({error}). {remedy}")),
    ):
        shape, _, dtype, offset = _read_header(file)
        claimed = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "fiu" or offset + claimed != os.fstat(file.fileno()).st_size:
            raise DataError(
                f"{path} is {dtype} {shape}, {claimed} bytes by its header; expected numbers, and "
                f"as many as the file has. {remedy}"
            )
        file.seek(0)
        tensor: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return tensor
