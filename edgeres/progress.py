"""How far a stage has come: the one callback for passes over images or layers, searches and builds.

Stages call it; the command line draws a bar from it; whoever wants none passes `silent`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Protocol, TypeVar

S = TypeVar("S", bound=Sized)
T = TypeVar("T")


class Progress(Protocol):
    """Receives how much of a stage is done."""

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Receives one step.

        Args:
            stage: what is being done, such as `Calibrating`; another name starts another stage.
            done: images, layers or a fraction, in the unit of `total`.
            total: what `done` reaches in the end.
            note: what the last step was, such as the block that was tried.
        """
        ...


def silent(stage: str, done: float, total: float, note: str = "") -> None:
    """Shows nothing; the `Progress` of a caller that wants none."""


def tracked_batches(
    batches: Iterable[S], total: int, stage: str, progress: Progress
) -> Iterator[S]:
    """Passes batches on, whose lengths add up to `total`, and reports each once it is used."""
    done = 0
    progress(stage, done, total)
    for batch in batches:
        yield batch
        done += len(batch)
        progress(stage, done, total)


def tracked(items: Sequence[T], stage: str, progress: Progress) -> Iterator[T]:
    """Passes items on and reports each once it is used."""
    for done, item in enumerate(items):
        progress(stage, done, len(items))
        yield item
    progress(stage, len(items), len(items))
