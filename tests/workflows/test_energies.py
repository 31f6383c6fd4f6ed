"""What both networks cost by one meter, or why that cannot be told."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeres.core.verdict import Energies
from edgeres.machine import Meter, NoEnergy, NoMeter
from edgeres.testing import FakeRunner
from edgeres.workflows import measure
from edgeres.workflows.measure import measure_energies

IMAGES = np.zeros((2, 3, 4, 4), np.float32)


class Meters:
    """A meter that counts joules by hand, and says when it was closed."""

    name = "fake"
    scope: tuple[str, ...] = ("rail",)
    interval_s: float | None = None
    update_s = 0.0

    def __init__(self, error: OSError | None = None) -> None:
        """Answers, or raises the error."""
        self.total, self.closed, self.error = 0.0, False, error

    def joules(self) -> float:
        """Returns what was counted."""
        if self.error is not None:
            raise self.error
        return self.total

    def close(self) -> None:
        """Is told."""
        self.closed = True


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Works for hundredths of a second, and takes the idle power at once."""
    monkeypatch.setattr(measure, "WORK_S", 0.02)
    monkeypatch.setattr(measure, "idle_watts", lambda meter: 0.0)


def runner(meter: Meters, joules: float) -> FakeRunner:
    """Returns a network that draws so much an inference."""

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        meter.total += joules
        return np.zeros((len(images), 10), np.float32)

    return FakeRunner(logits=logits)


def test_both_are_metered_and_the_meter_is_closed() -> None:
    """By hand: 4 and 1 joules for two images at a time."""
    meter = Meters()
    done: list[float] = []
    told = measure_energies(
        runner(meter, 4.0),
        runner(meter, 1.0),
        IMAGES,
        lambda: meter,
        lambda stage, reached, total, note="": done.append(reached / total),
    )
    assert isinstance(told, Energies)
    # Idle, reference, engine: the last step is reported once it is done.
    assert sorted(set(done)) == [0, 1 / 3, 2 / 3, 1]
    assert told.reference.joules_per_image == pytest.approx(2.0)
    assert told.engine.joules_per_image == pytest.approx(0.5)
    assert (told.engine.meter, told.engine.scope) == ("fake", ("rail",))
    assert meter.closed


def test_without_a_meter_nothing_runs() -> None:
    """The reason is handed on."""
    meter = Meters()
    pair = runner(meter, 1.0), runner(meter, 1.0)
    told = measure_energies(*pair, IMAGES, lambda: NoMeter(reason="There is none."))
    assert told == NoEnergy(reason="There is none.")
    assert meter.total == 0


def test_a_meter_that_stops_answering_is_told() -> None:
    """Its error is the reason, and it is closed."""
    meter = Meters(OSError("gone"))
    opened: Meter = meter
    told = measure_energies(runner(meter, 1.0), runner(meter, 1.0), IMAGES, lambda: opened)
    assert isinstance(told, NoEnergy)
    assert "gone" in told.reason
    assert meter.closed
