"""A path to a data set: class folders, a folder with `labels.csv`, or an `.npz`.

Everything that can be said of a set without decoding its images is checked here: it is not
empty, every file that is named exists, every label is an index.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgeres.errors import DataError
from edgeres.images.dataset import Dataset, ImageArray, ImageFiles
from edgeres.images.decode import SUFFIXES
from edgeres.images.npz import load_arrays

LABELS_FILE = "labels.csv"
COLUMNS = ("file", "class_index")

_FORMS = (
    "expected a folder of class folders, a folder with labels.csv (file,class_index), or an .npz "
    "with images and labels"
)


def load_dataset(path: Path, *, labelled: bool = True) -> Dataset:
    """Returns the data set at a path; its images are decoded only when they are read.

    A folder with `labels.csv` holds its images beside that file or under `images/`; images that
    the file does not name are not used. A folder of class folders takes all images in or below
    each of them; the sorted names are the classes. Hidden files and files whose name is not an
    image's (`decode.SUFFIXES`) are ignored. An `.npz` has `images` uint8 (N, H, W, 3) RGB and
    `labels` (N,); other arrays in it are ignored.

    Args:
        path: a folder or an `.npz`.
        labelled: False also takes what has no labels: a folder of images and an `.npz` without
            `labels`, as calibration may.

    Raises:
        DataError: there are no images, or the set contradicts itself: the message says where.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; {_FORMS}. Check the path.")
    if path.is_dir():
        try:
            return _from_folder(path, labelled)
        except OSError as error:
            raise DataError(
                f"{error.filename or path} cannot be listed: {error.strerror}. Check its permissions."
            ) from error
    if path.suffix.lower() == ".npz":
        return _from_npz(path, labelled)
    raise DataError(f"{path} is a file of another kind; {_FORMS}.")


def _from_npz(path: Path, labelled: bool) -> Dataset:
    images, labels = load_arrays(path, labelled=labelled)
    rows = np.arange(len(images))
    return Dataset(
        name=path.name,
        path=path,
        images=ImageArray(file=path.name, pixels=images, rows=rows),
        labels=labels,
    )


def _from_folder(path: Path, labelled: bool) -> Dataset:
    if (path / LABELS_FILE).is_file():
        return _from_labels_file(path)
    loose = tuple(sorted(entry.name for entry in path.iterdir() if _is_image(entry)))
    folders = sorted(
        (p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")),
        key=lambda folder: folder.name,
    )
    if loose and folders:
        raise DataError(
            f"{path} has {len(loose)} images (first: {loose[0]}) beside {len(folders)} folders "
            f"(first: {folders[0].name}). Move them into a class folder or out of the data."
        )
    if folders:
        return _from_class_folders(path, folders)
    if not loose:
        raise DataError(f"{path} has no images; {_FORMS}. Check the path.")
    if labelled:
        raise DataError(
            f"{path} has {len(loose)} images but no labels. Sort them into a folder for each "
            "class, or write a labels.csv (file,class_index) beside them."
        )
    return Dataset(name=path.name, path=path, images=ImageFiles(root=path, files=loose))


def _is_image(path: Path) -> bool:
    named_so = path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    return named_so and not path.is_dir()


def _from_class_folders(path: Path, folders: list[Path]) -> Dataset:
    found = [sorted(_images_below(folder)) for folder in folders]
    empty = [folder.name for folder, images in zip(folders, found, strict=True) if not images]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(folders)} class folders of {path} have no images (first: "
            f"{empty[0]}). A class keeps its index only while its folder is there: add images, "
            "or remove the folder if it is no class."
        )
    files = tuple(image.relative_to(path).as_posix() for images in found for image in images)
    return Dataset(
        name=path.name,
        path=path,
        images=ImageFiles(root=path, files=files),
        classes=tuple(folder.name for folder in folders),
        labels=np.repeat(np.arange(len(found)), [len(images) for images in found]),
    )


def _images_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if _is_image(Path(parent, name)))


def _raise(error: OSError) -> None:
    raise error


def _from_labels_file(path: Path) -> Dataset:
    rows = _labels(path / LABELS_FILE)
    found = {name: _image_path(path, name) for name in rows}
    missing = [name for name, file in found.items() if file is None]
    if missing:
        raise DataError(
            f"{path / LABELS_FILE} names {len(rows)} images but {len(missing)} are missing (first: "
            f"{missing[0]}); they were looked for in {path} and {path / 'images'}. Copy them "
            "there or take their rows out."
        )
    return Dataset(
        name=path.name,
        path=path,
        images=ImageFiles(root=path, files=tuple(file for file in found.values() if file)),
        labels=np.array(list(rows.values()), dtype=np.int64),
    )


def _image_path(root: Path, name: str) -> str | None:
    candidates = (name, f"images/{name}")
    return next((file for file in candidates if (root / file).is_file()), None)


def _labels(file: Path) -> dict[str, int]:
    """Returns the class index of each image that a labels.csv names, in the file's order."""
    labels: dict[str, int] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            _check_columns(file, reader.fieldnames or ())
            for row in reader:
                _add_label(file, reader.line_num, row, labels)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{file} cannot be read: {error}. Expected UTF-8 text with the columns "
            f"{','.join(COLUMNS)}."
        ) from error
    if not labels:
        raise DataError(f"{file} names no images; expected a row of {','.join(COLUMNS)} for each.")
    return labels


def _check_columns(file: Path, found: Sequence[str]) -> None:
    if not set(COLUMNS) <= set(found):
        raise DataError(
            f"{file} begins with {','.join(found) or 'an empty line'}; expected the columns "
            f"{','.join(COLUMNS)}. Write them as its first line."
        )


def _add_label(file: Path, line: int, row: dict[str, str | None], labels: dict[str, int]) -> None:
    name, value = row["file"], row["class_index"]
    if not name:
        raise DataError(f"{file} line {line} names no file; expected {','.join(COLUMNS)}.")
    if name in labels:
        raise DataError(
            f"{file} line {line} names {name} again, which would count it twice. Take one out."
        )
    labels[name] = _class_index(file, line, value or "")


def _class_index(file: Path, line: int, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()):
        raise DataError(
            f"{file} line {line} has the class index '{value}'; expected a whole number from 0, "
            "the place of the class among the network's outputs."
        )
    return int(value)
