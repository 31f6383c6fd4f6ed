"""How far a stage has come: the one callback for passes over images or layers, searches and builds.

Stages call it; the command line draws a bar from it; whoever wants none passes `silent`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Protocol, TypeVar

S = TypeVar("S", bound=Sized)
T = TypeVar("T")


TIMED_STAGES = ("Timing", "LoadGen", "Profiling")
"""How the names of stages that time inferences begin; nothing is drawn within their steps."""


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


PROGRESS_VARIABLE = "EDGERES_PROGRESS"
"""Set to `json`, a command writes its progress to stderr as lines for another program."""
_MARK = "\x1e"
"""Record separator, which starts such a line. Source: RFC 7464."""


def progress_line(stage: str, done: float, total: float, note: str = "") -> str:
    """Returns one step as a line that `read_progress` reads."""
    return _MARK + json.dumps([stage, done, total, note]) + "\n"


def read_progress(line: str) -> tuple[str, float, float, str] | None:
    """Returns the arguments of a `Progress` of such a line; None of any other."""
    if not line.startswith(_MARK):
        return None
    try:
        stage, done, total, note = json.loads(line[1:])
        return str(stage), float(done), float(total), str(note)
    except (ValueError, TypeError):
        return None
