"""A path to a data set: class folders, a folder with `labels.csv`, or an `.npz`.

Everything that can be checked of a set without decoding its images is checked here: it is not
empty, every file that is named exists, every label is an index. A row of `labels.csv` is an image
and the index of its class.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeres.errors import DataError
from edgeres.files import IMAGE_SUFFIXES, LABELS_FILE
from edgeres.images.dataset import Dataset, ImageArray, ImageFiles
from edgeres.images.npz import load_arrays
from edgeres.input_files import ARRAYS, LABELS, exists, is_folder, read_text, reason_of
from edgeres.plurals import counted

COLUMNS = ("file", "class_index")


def read_labels(file: Path) -> dict[str, int]:
    """Returns the class index of each image that a labels.csv names, in the file's order.

    Args:
        file: UTF-8 text with the columns `file` and `class_index`; further ones are ignored.

    Raises:
        DataError: it cannot be read, names no image or one twice, or an index is not a number.
    """
    labels: dict[str, int] = {}
    columns = ",".join(COLUMNS)
    reader = csv.DictReader(io.StringIO(read_text(file, LABELS), newline=""), skipinitialspace=True)
    try:
        header = reader.fieldnames or ()
        if not set(COLUMNS) <= set(header):
            raise DataError(
                f"{file} begins with {','.join(header) or 'an empty line'}; expected the "
                f"columns {columns}. Write them as its first line."
            )
        for row in reader:
            # A row that is too short has None for the columns that it lacks.
            name, value = row["file"], row["class_index"] or ""
            where = f"{file} line {reader.line_num}"
            if not name:
                raise DataError(f"{where} names no file; expected {columns}.")
            if name in labels:
                raise DataError(
                    f"{where} names {name} a second time, which would count it twice. Take one out."
                )
            # No sign and no fraction; nine digits are more than any network has classes.
            if not re.fullmatch(r"[0-9]{1,9}", value.strip()):
                raise DataError(
                    f"{where} has the class index '{value}'; expected a whole number from 0, "
                    "the place of the class among the network's outputs."
                )
            labels[name] = int(value)
    except csv.Error as error:
        raise DataError(
            f"{file} cannot be read: {error}. Expected UTF-8 text with the columns {columns}."
        ) from error
    if not labels:
        raise DataError(f"{file} names no images; expected a row of {columns} for each.")
    return labels


_FORMS = (
    "expected a folder of class folders, a folder with labels.csv (file,class_index), or an .npz "
    "with images and labels"
)

_SYSTEM_FOLDERS = frozenset(
    {
        "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "lost+found",
        "system volume information",
    }
)  # fmt: skip
"""Folders, in lower case, that NAS boxes, archives and file systems leave beside what users put
there; Synology's `@eaDir` has a thumbnail of every photo. Hidden ones are left out anyway."""

_FolderId = tuple[int, int]
"""Device and inode: the same for a folder and every link to it."""


def load_dataset(path: Path, *, labelled: bool = True) -> Dataset:
    """Returns the data set at a path; its images are decoded only when they are read.

    A folder with `labels.csv` holds its images beside that file or under `images/`; images that
    the file does not name are not used. A folder of class folders takes all images in or below
    each of them; the sorted names are the classes. Links are followed, each real folder once. Hidden
    files, what systems leave (`@eaDir`, `__MACOSX`), and files whose name is not an image's
    (`IMAGE_SUFFIXES`) are ignored. An `.npz` has `images` uint8 (N, H, W, 3) RGB and
    `labels` (N,); other arrays in it are ignored.

    Args:
        path: a folder or an `.npz`.
        labelled: False also takes what has no labels: a folder of images and an `.npz` without
            `labels`, as calibration may.

    Raises:
        DataError: there are no images, or the set contradicts itself: the message names the place.
    """
    if not exists(path, ARRAYS):
        raise DataError(f"{path} does not exist; {_FORMS}. Check the path.")
    if is_folder(path, ARRAYS):
        try:
            if (path / LABELS_FILE).is_file():
                return _from_labels_file(path)
            return _from_folder(path, labelled)
        except OSError as error:
            raise DataError(
                f"{error.filename or path} cannot be listed: {reason_of(error)}. Check its permissions."
            ) from error
    if path.suffix.lower() == ".npz":
        pixels, labels = load_arrays(path, labelled=labelled)
        images = ImageArray(file=path.name, pixels=pixels, rows=np.arange(len(pixels)))
        return Dataset(name=path.name, path=path, images=images, labels=labels)
    raise DataError(f"{path} is a file of another kind; {_FORMS}.")


def _from_folder(path: Path, labelled: bool) -> Dataset:
    """Returns the images of class folders, or those that lie in the folder itself."""
    loose = tuple(sorted(entry.name for entry in path.iterdir() if _is_image(entry)))
    folders = sorted(
        (entry for entry in path.iterdir() if _is_data_folder(entry)),
        key=lambda folder: folder.name,
    )
    if loose and folders:
        raise DataError(
            f"{path} has {counted(len(loose), 'image')} (first: {loose[0]}) beside "
            f"{counted(len(folders), 'folder')} (first: {folders[0].name}). Move them into a class "
            "folder or out of the data."
        )
    if not loose and not folders:
        raise DataError(f"{path} has no images; {_FORMS}. Check the path.")
    if loose and labelled:
        raise DataError(
            f"{path} has {counted(len(loose), 'image')} but no labels. Sort them into a folder for "
            "each class, or write a labels.csv (file,class_index) beside them."
        )
    if loose:
        return Dataset(name=path.name, path=path, images=ImageFiles(root=path, files=loose))
    ids = [_folder_id(folder) for folder in folders]
    for index, own in enumerate(ids):
        if (first := ids.index(own)) < index:
            raise DataError(
                f"{folders[first].name} and {folders[index].name} of {path} are one folder by a "
                "link, so that each image would have two labels. Remove the link, or make it lead "
                "to the images of that class."
            )
    # A link in a class folder to another class, or to a folder above, adds no image of the class.
    above = {_folder_id(folder) for folder in (path, *path.resolve().parents)}
    images = [sorted(_images_below(folder, {*ids, *above})) for folder in folders]
    empty = [folder.name for folder, inside in zip(folders, images, strict=True) if not inside]
    if empty:
        raise DataError(
            f"{len(empty)} of {counted(len(folders), 'class folder')} of {path} have no images "
            f"(first: {empty[0]}). A class keeps its index only while its folder is there: add "
            "images, or remove the folder if it is no class."
        )
    files = tuple(image.relative_to(path).as_posix() for inside in images for image in inside)
    return Dataset(
        name=path.name,
        path=path,
        images=ImageFiles(root=path, files=files),
        classes=tuple(folder.name for folder in folders),
        labels=np.repeat(np.arange(len(images)), [len(inside) for inside in images]),
    )


def _images_below(folder: Path, walked: set[_FolderId]) -> Iterator[Path]:
    """Yields the images in and below a folder; adds the folders to those already `walked`."""
    # In sorted order, so that of two ways to a folder the same one is taken on every file system.
    # A list of what is open, since folders may be nested deeper than Python's calls.
    pending = [iter(sorted(folder.iterdir()))]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
        # Links are followed, as subsets are often made of them; one to a folder above never ends.
        elif _is_data_folder(entry):
            own = _folder_id(entry)
            if own not in walked:
                walked.add(own)
                pending.append(iter(sorted(entry.iterdir())))
        elif _is_image(entry):
            yield entry


def image_files(folder: Path) -> tuple[Path, ...]:
    """Returns the image files in and below a folder, in sorted order, by the rules of a data set.

    Raises:
        DataError: the folder cannot be listed, or has no images.
    """
    above = {_folder_id(each) for each in (folder, *folder.resolve().parents)}
    try:
        files = tuple(sorted(_images_below(folder, above)))
    except OSError as error:
        raise DataError(
            f"{error.filename or folder} cannot be listed: {error.strerror}. Check its permissions."
        ) from error
    if not files:
        raise DataError(f"{folder} has no images, nor has any folder in it. Check the path.")
    return files


def _is_data_folder(path: Path) -> bool:
    name = path.name.lower()
    return path.is_dir() and not name.startswith(".") and name not in _SYSTEM_FOLDERS


def _folder_id(path: Path) -> _FolderId:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_image(path: Path) -> bool:
    # macOS leaves a hidden `._photo.jpg` beside each photo.jpg that it copies.
    named_so = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return named_so and not path.is_dir()


def _from_labels_file(path: Path) -> Dataset:
    """Returns the images that a folder's labels.csv names, in its order."""
    labels = read_labels(path / LABELS_FILE)
    files, missing = [], []
    # The first name of each file: `./a.png` and `sub/../a.png` are the file `a.png` again.
    names: dict[Path, str] = {}
    folders: dict[Path, Path] = {}
    for name in labels:
        candidates = (file for file in (name, f"images/{name}") if (path / file).is_file())
        if (file := next(candidates, None)) is None:
            missing.append(name)
            continue
        # Only the folder is resolved, once for all its files: a file that is a link keeps its name,
        # and is found to be a copy by its pixels.
        folder = (path / file).parent
        if folder not in folders:
            folders[folder] = folder.resolve()
        if (first := names.setdefault(folders[folder] / Path(file).name, name)) != name:
            raise DataError(
                f"{path / LABELS_FILE} names one file twice, as {first} and as {name}, which would "
                "count it twice. Take one of the rows out."
            )
        files.append(file)
    if missing:
        raise DataError(
            f"{path / LABELS_FILE} names {counted(len(labels), 'image')} but {len(missing)} are "
            f"missing (first: {missing[0]}); they were looked for in {path} and {path / 'images'}. "
            "Copy them there or take their rows out."
        )
    return Dataset(
        name=path.name,
        path=path,
        images=ImageFiles(root=path, files=tuple(files)),
        labels=np.array(list(labels.values()), dtype=np.int64),
    )
