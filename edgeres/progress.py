"""How a caller is shown the progress of a pass over images, or over layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

S = TypeVar("S", bound=Sized)


class Track(Protocol):
    """Wraps the batches of a pass, whose lengths add up to `total`, and passes them on."""

    def __call__(self, stream: Iterable[S], total: int, label: str) -> Iterator[S]:
        """Yields the same batches; `label` says what is done."""
        ...


def untracked(stream: Iterable[S], total: int, label: str) -> Iterator[S]:
    """Passes batches on; the `Track` of a caller that shows no progress."""
    yield from stream
