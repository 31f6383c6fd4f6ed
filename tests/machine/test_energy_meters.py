"""Joules by every meter against sums by hand, on pretend files and a clock that is moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_nvml import FakeNvml, install
from machine_files import lay_out

from edgeres.installation import install_hint
from edgeres.machine import (
    Energy,
    NoEnergy,
    NoMeter,
    idle_watts,
    measure_energy,
    open_meter,
)
from edgeres.machine.meters import NvmlMeter, RailMeter, RaplMeter
from edgeres.machine.rails import find_rails
from edgeres.serialization import to_json

HWMON = "sys/class/hwmon/hwmon3"
ORIN_NANO = {
    f"{HWMON}/name": "ina3221\n",
    f"{HWMON}/in1_label": "VDD_IN\n",
    f"{HWMON}/in1_input": "5000\n",
    f"{HWMON}/curr1_input": "1000\n",
    f"{HWMON}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{HWMON}/in2_input": "5000\n",
    f"{HWMON}/curr2_input": "400\n",
    f"{HWMON}/in7_label": "sum of shunt voltages\n",
    f"{HWMON}/in7_input": "9\n",
}
RAPL = "sys/class/powercap"
DESKTOP = {
    f"{RAPL}/intel-rapl:0/name": "package-0\n",
    f"{RAPL}/intel-rapl:0/energy_uj": "4000000\n",
    f"{RAPL}/intel-rapl:0/max_energy_range_uj": "9999999\n",
    f"{RAPL}/intel-rapl:0:0/name": "core\n",
    f"{RAPL}/intel-rapl:0:0/energy_uj": "77\n",
    f"{RAPL}/intel-rapl:0:0/max_energy_range_uj": "9999999\n",
    f"{RAPL}/intel-rapl:0:1/name": "dram\n",
    f"{RAPL}/intel-rapl:0:1/energy_uj": "1000000\n",
    f"{RAPL}/intel-rapl:0:1/max_energy_range_uj": "9999999\n",
    f"{RAPL}/intel-rapl:1/name": "psys\n",
    f"{RAPL}/intel-rapl:1/energy_uj": "99\n",
    f"{RAPL}/intel-rapl:1/max_energy_range_uj": "9999999\n",
}


class Clock:
    """Seconds that pass when they are set."""

    def __init__(self) -> None:
        """Starts at 100 s."""
        self.now = 100.0

    def __call__(self) -> float:
        """Returns the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += seconds


class ListMeter:
    """A meter that reads the values it is given."""

    name = "list"
    scope = ("A", "B")
    interval_s = None
    update_s = 0.1

    def __init__(self, *readings: float | OSError) -> None:
        """Takes the readings in order."""
        self.readings = list(readings)

    def joules(self) -> float:
        """Returns the next reading."""
        reading = self.readings.pop(0)
        if isinstance(reading, OSError):
            raise reading
        return reading

    def close(self) -> None:
        """Does nothing."""


def working(clock: Clock, seconds: float, images: int) -> Callable[[], int]:
    """Returns work that takes a time and infers so many images."""

    def work() -> int:
        clock.sleep(seconds)
        return images

    return work


def test_idle_power_is_subtracted() -> None:
    """90 J in 10 s at 4 W idle are 50 J of work: 0.5 J for each of 100 images, 2 images a joule."""
    clock, meter = Clock(), ListMeter(7.0, 19.0, 1000.0, 1090.0)
    idle = idle_watts(meter, 3.0, clock=clock, sleep=clock.sleep)
    assert idle == 4.0
    energy = measure_energy(meter, working(clock, 10.0, 100), idle_watts=idle, clock=clock)
    assert energy == Energy(
        meter="list",
        scope=("A", "B"),
        images=100,
        seconds=10.0,
        total_joules=90.0,
        idle_watts=4.0,
    )
    assert (energy.joules, energy.joules_per_image, energy.images_per_joule) == (50.0, 0.5, 2.0)
    assert json.loads(json.dumps(to_json(energy), allow_nan=False)) == {
        "meter": "list",
        "scope": ["A", "B"],
        "images": 100,
        "seconds": 10.0,
        "joules": 50.0,
        "total_joules": 90.0,
        "idle_watts": 4.0,
        "joules_per_image": 0.5,
        "images_per_joule": 2.0,
    }


def test_work_that_draws_no_more_than_idling() -> None:
    """Images for a joule are then unavailable, instead of being negative or infinite."""
    clock = Clock()
    energy = measure_energy(
        ListMeter(0.0, 20.0), working(clock, 5.0, 10), idle_watts=4.0, clock=clock
    )
    assert isinstance(energy, Energy)
    assert (energy.joules, energy.images_per_joule) == (0.0, None)


def test_work_too_short_for_the_meter() -> None:
    """The reason has how long it must be, and ran all the same."""
    clock = Clock()
    energy = measure_energy(
        ListMeter(0.0, 9.0), working(clock, 0.5, 10), idle_watts=4.0, clock=clock
    )
    assert energy == NoEnergy(
        reason="The work took 0.50 s, too short for list, which updates every 0.1 s: "
        "2 s or more can be measured. Take more images."
    )
    assert clock.now == 100.5


@pytest.mark.parametrize("at", [0, 1])
def test_a_meter_that_stops_answering(at: int) -> None:
    """Its own words, whenever it stopped; the work is not disturbed."""
    readings: list[float | OSError] = [0.0, 9.0]
    readings[at] = OSError("bus error")
    clock = Clock()
    energy = measure_energy(
        ListMeter(*readings), working(clock, 5.0, 10), idle_watts=4.0, clock=clock
    )
    assert energy == NoEnergy(reason="The meter list stopped answering: bus error.")
    assert clock.now == 105.0


def test_without_a_meter_the_work_still_runs() -> None:
    """And the reason is passed on, by both measurements."""
    clock, meter = Clock(), NoMeter(reason="there is none")
    idle = idle_watts(meter, 3.0, clock=clock, sleep=clock.sleep)
    assert idle == NoEnergy(reason="there is none")
    energy = measure_energy(meter, working(clock, 5.0, 10), idle_watts=idle, clock=clock)
    assert energy == NoEnergy(reason="there is none")
    assert clock.now == 108.0


def test_idle_power_that_could_not_be_told() -> None:
    """Without it nothing can be subtracted, so nothing is claimed."""
    clock = Clock()
    energy = measure_energy(
        ListMeter(0.0, 90.0),
        working(clock, 5.0, 10),
        idle_watts=NoEnergy(reason="The meter broke."),
        clock=clock,
    )
    assert energy == NoEnergy(reason="The meter broke.")


def test_what_the_work_raises_passes_through() -> None:
    """The meter's thread has ended then."""

    def fail() -> int:
        raise RuntimeError("inference failed")

    with pytest.raises(RuntimeError, match="inference failed"):
        measure_energy(ListMeter(0.0, 1.0), fail, idle_watts=1.0)


def test_a_rail_is_integrated(tmp_path: Path) -> None:
    """By trapezoids: 5 W to 9 W in 2 s, then 9 W for 1 s, are 14 J and 9 J."""
    root, clock = lay_out(tmp_path, ORIN_NANO), Clock()
    meter = RailMeter(find_rails(root), clock)
    assert meter.scope == ("VDD_IN",)
    assert meter.joules() == 0.0
    clock.sleep(2.0)
    lay_out(root, {f"{HWMON}/in1_input": "4500\n", f"{HWMON}/curr1_input": "2000\n"})
    assert meter.joules() == 14.0
    clock.sleep(1.0)
    assert meter.joules() == 23.0


def test_a_rail_whose_file_goes_away(tmp_path: Path) -> None:
    """The meter names it, as an OSError that the measurement turns into its reason."""
    root, clock = lay_out(tmp_path, ORIN_NANO), Clock()
    meter = RailMeter(find_rails(root), clock)
    (root / HWMON / "curr1_input").unlink()
    energy = measure_energy(meter, working(clock, 5.0, 10), idle_watts=1.0, clock=clock)
    assert isinstance(energy, NoEnergy)
    assert energy.reason.startswith("The meter ina3221 stopped answering: ")
    assert "curr1_input holds no number" in energy.reason


def test_the_rails_serve_gpu_and_cpu_alike(tmp_path: Path) -> None:
    """A Jetson's module has one supply."""
    root = lay_out(tmp_path, ORIN_NANO)
    assert isinstance(open_meter(root, gpu=True), RailMeter)
    assert isinstance(open_meter(root, gpu=False), RailMeter)


def test_a_processors_counters(tmp_path: Path) -> None:
    """Package and memory; cores are within the package, and the platform's sum is not added."""
    root = lay_out(tmp_path, DESKTOP)
    meter = open_meter(root, gpu=False)
    assert isinstance(meter, RaplMeter)
    assert meter.scope == ("package-0", "dram-0")
    first = meter.joules()
    lay_out(
        root,
        {
            f"{RAPL}/intel-rapl:0/energy_uj": "6500000\n",
            f"{RAPL}/intel-rapl:0:1/energy_uj": "1250000\n",
        },
    )
    assert meter.joules() - first == 2.75


def test_a_counter_that_wraps(tmp_path: Path) -> None:
    """From 4 to the highest value of 9.999999 and on to 1: 7 J, followed over two rounds."""
    root = lay_out(tmp_path, DESKTOP)
    meter = open_meter(root, gpu=False)
    assert isinstance(meter, RaplMeter)
    readings = []
    for counter in ("1000000", "9000000", "0"):
        lay_out(root, {f"{RAPL}/intel-rapl:0/energy_uj": counter})
        readings.append(meter.joules())
    assert readings == [7.0, 15.0, 16.0]


def test_a_counter_that_only_root_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason has the command that allows it."""
    root = lay_out(tmp_path, DESKTOP)
    real = Path.read_text

    def guarded(path: Path, *arguments: str, **options: str) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", guarded)
    meter = open_meter(root, gpu=False)
    assert isinstance(meter, NoMeter)
    path = root / RAPL / "intel-rapl:0/energy_uj"
    assert meter.reason == (
        f"{path} cannot be read: Permission denied. Run as root, or allow it until the next boot: "
        f"sudo chmod a+r {path}"
    )


def test_a_virtual_machine_has_no_counter(tmp_path: Path) -> None:
    """Nothing is guessed from a load."""
    meter = open_meter(tmp_path, gpu=False)
    assert isinstance(meter, NoMeter)
    assert "has no energy counter" in meter.reason
    assert "virtual machines do not have" in meter.reason


def test_a_gpus_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Millijoules since the driver was loaded; NVML is shut down at the end."""
    nvml = FakeNvml(energy_mj=123_000)
    install(monkeypatch, nvml, "0000:01:00.0")
    meter = open_meter(tmp_path, gpu=True)
    assert isinstance(meter, NvmlMeter)
    assert (meter.scope, nvml.asked) == (("NVIDIA Test GPU",), ["0000:01:00.0"])
    nvml.energy_mj += 4_250
    assert meter.joules() == 4.25
    meter.close()
    assert nvml.is_open == 0


@pytest.mark.parametrize(
    ("unsupported", "reason"),
    [
        ("nvmlInit", "NVML does not answer: Not Supported. Check the driver with nvidia-smi."),
        (
            "nvmlDeviceGetTotalEnergyConsumption",
            "NVIDIA Test GPU has no energy counter (NVML reports: Not Supported): it needs Volta or "
            "newer.",
        ),
    ],
)
def test_a_gpu_without_a_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsupported: str, reason: str
) -> None:
    """The reason, and nothing stays open."""
    nvml = FakeNvml(unsupported=frozenset({unsupported}))
    install(monkeypatch, nvml)
    assert open_meter(tmp_path, gpu=True) == NoMeter(reason=reason)
    assert nvml.is_open == 0


def test_the_energy_of_a_mig_instance_is_not_that_of_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its neighbours' would be in it; the reason, and nothing stays open."""
    nvml = FakeNvml(mig=True)
    install(monkeypatch, nvml, "0000:41:00.0")
    assert open_meter(tmp_path, gpu=True) == NoMeter(
        reason="NVIDIA Test GPU is divided into MIG instances, and its energy counter has the sum "
        "of them all. Switch MIG off to meter it: sudo nvidia-smi -mig 0."
    )
    assert nvml.is_open == 0


def test_nvml_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason has the line that installs it."""
    install(monkeypatch, None)
    meter = open_meter(tmp_path, gpu=True)
    assert isinstance(meter, NoMeter)
    assert meter.reason.endswith(f"not installed. {install_hint('pynvml')}")
