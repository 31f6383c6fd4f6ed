"""Labelled images, decoded, prepared as a network was trained and streamed in batches.

Knows Pillow and numpy, and nothing of networks or runtimes.
"""

from edgeres.images.dataset import (
    Dataset,
    ImageArray,
    check_labels,
    class_order_note,
    order_classes,
    select,
    take,
)
from edgeres.images.decode import decode, rgb_pixels
from edgeres.images.distinct import DistinctImages, distinct_images, without_copies
from edgeres.images.embedded import embedded_digits, embedded_path
from edgeres.images.frames import Frame, frame_pixels, states_color
from edgeres.images.load import image_files, load_dataset
from edgeres.images.npz import load_tensor
from edgeres.images.prepare import fed, is_kept, normalise, prepare
from edgeres.images.stream import Batch, batches, image_hash, noting_turned, turned_note
from edgeres.images.thumbnail import png_bytes, thumbnail

__all__ = [
    "Batch",
    "Dataset",
    "DistinctImages",
    "Frame",
    "ImageArray",
    "batches",
    "check_labels",
    "class_order_note",
    "decode",
    "distinct_images",
    "embedded_digits",
    "embedded_path",
    "fed",
    "frame_pixels",
    "image_files",
    "image_hash",
    "is_kept",
    "load_dataset",
    "load_tensor",
    "normalise",
    "noting_turned",
    "order_classes",
    "png_bytes",
    "prepare",
    "rgb_pixels",
    "select",
    "states_color",
    "take",
    "thumbnail",
    "turned_note",
    "without_copies",
]
