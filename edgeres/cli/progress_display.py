"""Progress bars on a terminal: one at a time, drawn at every step and once a second in between.

A stage that times inferences is drawn at its steps alone: no thread runs beside a sample.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from edgeres.machine.ticker import every
from edgeres.plurals import percent
from edgeres.printable import printable
from edgeres.progress import TIMED_STAGES

if TYPE_CHECKING:
    from rich.console import Console

REDRAW_S = 0.1
"""Shortest time between two drawings at steps."""

BEAT_S = 1.0
"""Time between two drawings without a step."""

_FIGURES = len("left 00:00:00 after 00:00:00") + 5
"""Columns of the two times, and of the spaces between all parts of a line."""

_LEAST_BAR = 4
"""Columns that rich gives a bar at least."""


@dataclass(slots=True)
class ProgressDisplay:
    """Bars of rich's; called, a `Progress`."""

    bars: Progress
    tasks: dict[str, TaskID] = field(default_factory=dict)
    reached: dict[str, float] = field(default_factory=dict)
    drawn_s: float = 0.0
    working: TaskID | None = None
    """Bar of what reports no steps; None while a stage is under way."""
    beats: ExitStack = field(default_factory=ExitStack)
    is_beating: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    @contextmanager
    def opened(cls, console: Console, *, hidden: bool) -> Iterator[ProgressDisplay]:
        """Shows bars until the block ends, unless they are hidden."""
        one_line = Column(no_wrap=True)
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}", markup=False),
            TimeRemainingColumn(table_column=one_line),
            TextColumn("after"),
            TimeElapsedColumn(table_column=one_line),
            TextColumn("{task.fields[note]}", markup=False),
        ]
        bars = Progress(
            *columns,
            console=console,
            transient=True,
            disable=hidden,
            auto_refresh=False,
            # rich would print on stderr, above the bar, what belongs into a pipe.
            redirect_stdout=False,
        )
        with bars:
            display = cls(bars)
            with display.beats:
                if not hidden:
                    display.beat()
                yield display

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Shows one step."""
        # Before the lock: the thread that ends may be waiting for it.
        if stage.startswith(TIMED_STAGES) and done < total:
            self.rest()
        with self.lock:
            # A search reports a fraction, a pass over images or layers their number.
            count = f"{done:.0f}/{total:.0f}" if total > 1 else percent(done / total, 0)
            # rich would shorten the figures as it shortens the words.
            room = self.bars.console.width - _FIGURES - _LEAST_BAR - len(f"{count} done, ")
            name = _fitting(stage, room)
            fields: dict[str, Any] = {
                "note": _fitting(note, room - len(name)),
                "count": f"{count} done, left",
            }
            # A stage that goes back has begun anew, such as the evaluation of the next target.
            if stage not in self.tasks or done < self.reached[stage]:
                self._hide()
                self.tasks[stage] = self.bars.add_task(name, total=total, **fields)
            elif self.working is not None:
                self._hide()
            self.reached[stage] = done
            self.bars.update(self.tasks[stage], completed=done, total=total, visible=True, **fields)
            if time.monotonic() - self.drawn_s >= REDRAW_S or not 0 < done < total:
                self.bars.refresh()
                self.drawn_s = time.monotonic()
        if not stage.startswith(TIMED_STAGES) or done >= total:
            self.beat()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Takes the bar off the terminal while something else is written there."""
        with self.lock:
            self.bars.stop()
            try:
                yield
            finally:
                self.bars.start()

    def beat(self) -> None:
        """Draws once a second from now on."""
        if not (self.is_beating or self.bars.disable):
            self.is_beating = True
            self.beats.enter_context(every(BEAT_S, self._between_steps))

    def rest(self) -> None:
        """Draws at steps alone from now on."""
        self.is_beating = False
        self.beats.close()

    def _between_steps(self) -> None:
        with self.lock:
            # A bar at its end would look as if the command were, too.
            if self.working is None and all(
                task.finished or not task.visible for task in self.bars.tasks
            ):
                self._hide()
                name = "Working" if self.tasks else "Starting"
                self.working = self.bars.add_task(name, total=None, note="", count="")
            # A terminal that is gone is no reason to lose the result.
            with suppress(OSError):
                self.bars.refresh()

    def _hide(self) -> None:
        for task in self.bars.task_ids:
            self.bars.update(task, visible=False)
        self.working = None


def _fitting(words: str, columns: int) -> str:
    """Returns words that are no longer, with an ellipsis where they were; none for a few columns."""
    words = printable(words)
    if len(words) <= columns:
        return words
    return f"{words[: columns - 1]}…" if columns > 8 else ""
