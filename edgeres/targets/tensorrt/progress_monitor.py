"""NVIDIA's build progress as a fraction, and Ctrl-C as a build that stops.

An exception must not travel through NVIDIA's frames: it is kept, the build is stopped by the
monitor's answer, and what called the build raises it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from edgeres.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Phase:
    parent: str | None
    steps: int
    done: float = 0.0
    """Fraction of the steps."""


class Phases:
    """Where a build stands: phases within phases, each of a number of steps."""

    def __init__(self) -> None:
        """Starts before the first phase."""
        self._open: dict[str, _Phase] = {}
        self._reported = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Enters a phase of `steps` steps, within `parent` where it has one."""
        self._open[name] = _Phase(parent=parent, steps=max(steps, 1))

    def step(self, name: str, step: int) -> None:
        """Completes a step, counted from 0."""
        if phase := self._open.get(name):
            self._open[name] = replace(phase, done=min((step + 1) / phase.steps, 1.0))

    def finish(self, name: str) -> None:
        """Leaves a phase."""
        phase = self._open.pop(name, None)
        # Only the outermost phase ends the build: of an inner one, the parent reports its own step.
        # NVIDIA may finish a phase before its last step, so the end counts and not the steps.
        if phase is not None and phase.parent not in self._open:
            self._reported = 1.0

    def fraction(self) -> float:
        """Returns how much of the build is done, never less than it returned before."""
        roots = [name for name, phase in self._open.items() if phase.parent not in self._open]
        # NVIDIA may enter a phase again, with other steps.
        self._reported = max(self._reported, *(self._within(name) for name in roots), 0.0)
        return self._reported

    def _within(self, name: str) -> float:
        """Returns the done fraction of a phase, with that of the step its children work on."""
        phase = self._open[name]
        children = [key for key, child in self._open.items() if child.parent == name]
        inner = max((self._within(child) for child in children), default=0.0)
        return min(phase.done + inner / phase.steps, 1.0)


def progress_monitor(trt: Any, progress: Progress) -> Any:
    """Returns an IProgressMonitor that reports to `progress`; what that raises is `.callback_error`.

    NVIDIA calls it from several threads; `progress` is called by one at a time.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            # pybind11 asks for the base's __init__ by name, not through super().
            trt.IProgressMonitor.__init__(self)
            self.callback_error: BaseException | None = None
            self._phases, self._lock = Phases(), Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._report(
                phase_name, lambda: self._phases.start(phase_name, parent_phase, num_steps)
            )

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, lambda: self._phases.step(phase_name, step))
            # False stops the build.
            return self.callback_error is None

        def phase_finish(self, phase_name: str) -> None:
            self._report(phase_name, lambda: self._phases.finish(phase_name))

        def _report(self, phase_name: str, change: Callable[[], None]) -> None:
            try:
                with self._lock:
                    change()
                    progress("Building", self._phases.fraction(), 1, phase_name)
            # Ctrl-C too: no exception may travel through NVIDIA's C++ frames.
            except BaseException as error:
                self.callback_error = self.callback_error or error

    return Monitor()
