"""Labelled images, decoded, prepared as a network was trained and streamed in batches.

Knows Pillow and numpy, and nothing of networks or runtimes.
"""

from edgeres.images.dataset import Dataset, ImageArray, check_labels, select, take
from edgeres.images.embedded import embedded_digits, embedded_path
from edgeres.images.load import load_dataset
from edgeres.images.prepare import normalise, prepare
from edgeres.images.stream import Batch, batches, image_hash
from edgeres.images.thumbnail import thumbnail

__all__ = [
    "Batch",
    "Dataset",
    "ImageArray",
    "batches",
    "check_labels",
    "embedded_digits",
    "embedded_path",
    "image_hash",
    "load_dataset",
    "normalise",
    "prepare",
    "select",
    "take",
    "thumbnail",
]
