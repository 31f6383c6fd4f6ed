"""A data set as normalised batches, decoded ahead of the consumer by a few threads.

Pillow, blake2b and numpy release the interpreter lock, so threads are enough. The order is the
data set's own, whatever the threads do, and memory is bounded by the look-ahead.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeres.core.contract import Color, Contract
from edgeres.core.resize import ResizeLibrary
from edgeres.errors import ConfigError
from edgeres.images.dataset import Dataset, ImageArray
from edgeres.images.decode import UPRIGHT
from edgeres.images.opencv import load_opencv
from edgeres.images.prepare import crop, empty_fed, feed_into, is_kept, prepare
from edgeres.plurals import counted

LOOK_AHEAD = 2
"""Batches that are decoded or being decoded while the consumer works on another."""

_MAX_THREADS = 8
_HASH_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Consecutive images of a data set, ready for a network."""

    images: NDArray[Any]
    """As runners take them by the contract, of `fed`; the consumer's own."""
    labels: NDArray[np.int64] | None
    """(N,), index of each image's class; None where the data set has no labels."""
    indices: NDArray[np.int64]
    """(N,), positions in the data set."""
    hashes: tuple[str, ...]
    """`image_hash` of each decoded image."""
    turned: tuple[int, ...] = ()
    """Positions in the data set of images that are stored turned or mirrored by their EXIF."""

    def __len__(self) -> int:
        return len(self.images)


def image_hash(pixels: NDArray[np.uint8]) -> str:
    """Returns 16 hexadecimal digits of a decoded image, (H, W, 3) uint8 RGB.

    It depends on the pixels and the shape alone: the same picture stored losslessly in another
    file has the same hash. Source: BLAKE2b with a digest of 8 bytes, RFC 7693; among a million
    images two differing ones share a hash with a probability of 3e-8.
    """
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=_HASH_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def batches(
    dataset: Dataset, contract: Contract, *, batch_size: int, threads: int | None = None
) -> Generator[Batch, None, None]:
    """Yields the whole data set in its order, `batch_size` images at a time, the last batch fewer.

    `LOOK_AHEAD` batches are decoded ahead. Closing the generator, or leaving the loop over it,
    stops the threads at once; only an image that is being decoded is finished first.

    Args:
        dataset: the images.
        contract: what the network takes.
        batch_size: images in a batch, at least 1.
        threads: decoding threads; None takes one for each processor, at most 8.

    Raises:
        ConfigError: `batch_size` or `threads` is below 1.
        DataError: an image cannot be decoded or is smaller than the crop. It is raised when the
            batch that holds the image is due, and ends the generator.
        DependencyError: the contract names OpenCV, which is missing.
    """
    if threads is None:
        threads = min(_MAX_THREADS, os.cpu_count() or 1)
    if batch_size < 1 or threads < 1:
        raise ConfigError(f"batch size {batch_size} and threads {threads} must be at least 1.")
    if contract.resize.library is ResizeLibrary.OPENCV:
        load_opencv()
    return _stream(dataset, contract, batch_size, threads)


def _stream(
    dataset: Dataset, contract: Contract, batch_size: int, threads: int
) -> Generator[Batch, None, None]:
    """Yields the batches; a generator's own checks would wait for the first one to be requested."""
    # Batches whose parts are being decoded; calling one waits for it.
    waiting: deque[Callable[[], Batch]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="edgeres-decode")
    try:
        for start in range(0, len(dataset), batch_size):
            span = range(start, min(start + batch_size, len(dataset)))
            images = empty_fed(len(span), contract)
            # An array is read in one piece; a file is decoded by a thread of its own.
            in_array = isinstance(dataset.images, ImageArray)
            spans = [span] if in_array else [range(index, index + 1) for index in span]
            parts = [
                pool.submit(
                    _fill, images[part.start - start : part.stop - start], dataset, contract, part
                )
                for part in spans
            ]
            waiting.append(partial(_complete, dataset, span, images, parts))
            if len(waiting) > LOOK_AHEAD:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()
    finally:
        # On every way out, a closed generator's too, the queue is dropped and no thread is left.
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Part:
    """What is known of the images of one part of a batch."""

    hashes: list[str]
    turned: list[int]


def _complete(
    dataset: Dataset, span: range, images: NDArray[Any], parts: list[Future[_Part]]
) -> Batch:
    """Returns a batch once all its parts are done; raises what the first of them raised."""
    done = [part.result() for part in parts]
    return Batch(
        images=images,
        labels=None if dataset.labels is None else dataset.labels[span.start : span.stop],
        indices=np.arange(span.start, span.stop),
        hashes=tuple(text for part in done for text in part.hashes),
        turned=tuple(index for part in done for index in part.turned),
    )


def _fill(result: NDArray[Any], dataset: Dataset, contract: Contract, span: range) -> _Part:
    """Writes the images of a span, as runners take them, into `result`.

    Args:
        result: (n, C, H, W), or (n, H, W, C) of bytes.
        dataset: files, of which a span is one, or an array.
        contract: what the network takes.
        span: positions in the data set.
    """
    images = dataset.images
    if not isinstance(images, ImageArray):
        (index,) = span
        image = images.read(index)
        ready = prepare(
            image.as_read_by(contract.resize.library),
            contract,
            name=str(dataset.path / dataset.image_name(index)),
        )
        feed_into(result, ready[None], contract)
        turned = [] if image.orientation == UPRIGHT else [index]
        return _Part([image_hash(image.pixels)], turned)
    # Read here, on the decoding thread, where they are still in the file.
    pixels, name = images.pixels[images.rows[span.start : span.stop]], images.name(span.start)
    if contract.color is not Color.GRAY and is_kept(contract.resize, *pixels.shape[1:3]):
        # All are of one size, so one crop does for all.
        ready = crop(pixels, contract, name=name)
    else:
        ready = np.stack([prepare(image, contract, name=name) for image in pixels])
    feed_into(result, ready, contract)
    return _Part([image_hash(image) for image in pixels], [])


def noting_turned(stream: Iterable[Batch], positions: list[int]) -> Iterator[Batch]:
    """Passes batches on and adds to `positions` which images are stored turned by EXIF."""
    for batch in stream:
        positions.extend(batch.turned)
        yield batch


def turned_note(dataset: Dataset, positions: Sequence[int], contract: Contract) -> str:
    """Returns what was done about images that EXIF turns, for a warning.

    Args:
        dataset: the images.
        positions: of those images, at least one.
        contract: what they were prepared by.
    """
    first = dataset.image_name(positions[0])
    text = f"{len(positions)} of {counted(len(dataset), 'image')} carry an EXIF orientation (first: {first}): "
    if contract.resize.library is ResizeLibrary.OPENCV:
        return text + "they were turned upright, as cv2.imread does."
    return text + (
        "it was ignored, as by torchvision's loader, so the network sees them as they are stored. "
        "If it was trained on images that cv2.imread read, export it with --resize-library opencv."
    )
