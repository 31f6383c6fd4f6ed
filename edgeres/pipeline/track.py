"""How a caller is shown the progress of a pass over images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from edgeres.data import Batch

Track = Callable[[Iterable[Batch], int, str], Iterator[Batch]]
"""Wraps the batches of a pass: (batches, number of images, what is done) -> the same batches."""


def untracked(stream: Iterable[Batch], total: int, label: str) -> Iterator[Batch]:
    """Passes batches on; the `Track` of a caller that shows no progress."""
    yield from stream
