"""The labels.csv of a data set: an image and the index of its class in each row."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from edgeres.errors import DataError
from edgeres.input_files import LABELS, read_text

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
