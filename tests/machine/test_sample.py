"""A sample of a machine: every figure from its file, and None where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machine_files import CALM, CPU, THERMAL, lay_out

from edgeres.machine.gpu import GpuState, open_gpu
from edgeres.machine.sample import MAX_POLICIES, CpuState, CpuTicks, Probe, Sample
from edgeres.machine.stability import stability_of
from edgeres.serialization import to_json


def sample_of(root: Path) -> Sample:
    """Returns one sample of the machine below `root`."""
    return Probe.find(root, open_gpu(root)).read(2.5)


def test_everything_that_a_board_reports(tmp_path: Path) -> None:
    """Figures by hand from the files: kHz to MHz, millidegrees to degrees, ticks summed."""
    sample = sample_of(lay_out(tmp_path, CALM))
    assert sample.at_s == 2.5
    assert sample.cpu == CpuState(
        governors=("performance",),
        mhz=(1728.0, 2201.6),
        fixed=False,
        load_1min=0.5,
        ticks=CpuTicks(total=9350, idle=8100, steal=0, own=500),
        processors=2,
        throttled_periods=7,
        throttle_events=7,
    )
    assert (sample.memory_stall_us, sample.swapped_pages) == (5000, 30)
    assert sample.temperatures_c == {"cpu-thermal": 48.5, "gpu-thermal": 61.0, "x86_pkg_temp": 40.0}
    assert sample.headroom_c == 38.0
    assert sample.slowed_by == ()
    assert (sample.over_current_events, sample.power_mode) == (7, "2")
    assert sample.gpu == GpuState(mhz=1300.5, max_mhz=1300.5)


def test_a_machine_that_reports_nothing(tmp_path: Path) -> None:
    """No file, no figure, no error."""
    sample = Probe.find(tmp_path).read(0.0)
    assert sample == Sample(at_s=0.0, cpu=CpuState(), temperatures_c={})


def test_a_sample_as_json(tmp_path: Path) -> None:
    """The JSON form survives text."""
    raw = to_json(sample_of(lay_out(tmp_path, CALM)))
    assert json.loads(json.dumps(raw, allow_nan=False))["cpu"]["mhz"] == [1728.0, 2201.6]


@pytest.mark.parametrize(
    ("lines", "folder"),
    [
        ("4:cpu,cpuacct:/box\n3:cpuset:/\n1:name=systemd:/\n", "cpu,cpuacct/box"),
        ("2:cpu:/\n", "cpu"),
        ("0::/\n", ""),
        ("4:cpu,cpuacct:/docker/unseen/from/inside\n", "cpu,cpuacct"),
    ],
)
def test_the_quota_of_either_cgroup_version(tmp_path: Path, lines: str, folder: str) -> None:
    """The first version's hierarchy of the CPU, the second's only one, and a container's root."""
    files = {
        "proc/self/cgroup": lines,
        f"sys/fs/cgroup/{folder}/cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 9\n",
        "sys/fs/cgroup/cpuset/cpu.stat": "nr_throttled 100\n",
    }
    assert sample_of(lay_out(tmp_path, files)).cpu.throttled_periods == 2


def test_a_cooling_device_in_action(tmp_path: Path) -> None:
    """Those that lower a clock are named; a fan that turns slows nothing down."""
    files = {f"{THERMAL}/cooling_device1/cur_state": "1\n"}
    assert sample_of(lay_out(tmp_path, {**CALM, **files})).slowed_by == ("cpu-throttle-alert",)


def test_a_sensor_that_is_switched_off(tmp_path: Path) -> None:
    """A GPU without power answers with an error; the other zones are still reported."""
    root = lay_out(tmp_path, CALM)
    zone = root / THERMAL / "thermal_zone1/temp"
    zone.unlink()
    zone.mkdir()
    sample = sample_of(root)
    assert set(sample.temperatures_c) == {"cpu-thermal", "x86_pkg_temp"}
    assert sample.headroom_c == 50.5


@pytest.mark.parametrize("without", [-256000, -273150, -273000, -2147483648, 150001, 255000])
def test_a_sensor_without_a_reading_is_no_temperature(tmp_path: Path, without: int) -> None:
    """Neither is it shown, nor is the machine far from heat for it."""
    root = lay_out(tmp_path, CALM)
    (root / THERMAL / "thermal_zone1/temp").write_text(f"{without}\n")
    sample = sample_of(root)
    assert set(sample.temperatures_c) == {"cpu-thermal", "x86_pkg_temp"}
    assert sample.headroom_c == 50.5


@pytest.mark.parametrize("millidegrees", [-40000, 0, 104500, 150000])
def test_hot_and_cold_boards_are_read(tmp_path: Path, millidegrees: int) -> None:
    """From an industrial board in winter to a junction at its end."""
    root = lay_out(tmp_path, CALM)
    (root / THERMAL / "thermal_zone1/temp").write_text(f"{millidegrees}\n")
    assert millidegrees / 1000 in sample_of(root).temperatures_c.values()


def test_sensors_that_all_lack_a_reading_are_unavailable(tmp_path: Path) -> None:
    """Silence never passes for a cool machine."""
    root = lay_out(tmp_path, CALM)
    for zone in (root / THERMAL).glob("thermal_zone*/temp"):
        zone.write_text("-256000\n")
    sample = sample_of(root)
    assert (dict(sample.temperatures_c), sample.headroom_c) == ({}, None)
    unavailable = stability_of([sample, sample]).unavailable
    assert {"temperatures", "the temperature at which clocks are lowered"} <= set(unavailable)


def test_clocks_without_a_choice_are_fixed(tmp_path: Path) -> None:
    """As jetson_clocks leaves them: lowest and highest are one, whatever the governor is called."""
    files = {f"{CPU}/cpufreq/policy4/scaling_min_freq": "2201600\n"}
    assert sample_of(lay_out(tmp_path, {**CALM, **files})).cpu.fixed is True


def test_a_machine_with_many_policies_is_read_in_part(tmp_path: Path) -> None:
    """In the order of their numbers, and no more than the limit."""
    files = {
        f"{CPU}/cpufreq/policy{number}/scaling_cur_freq": f"{number}000\n" for number in range(40)
    }
    assert sample_of(lay_out(tmp_path, files)).cpu.mhz == tuple(map(float, range(MAX_POLICIES)))


def test_text_that_is_no_figure_is_not_guessed(tmp_path: Path) -> None:
    """A state file or counter of another form is as good as none."""
    files = {
        "var/lib/nvpmodel/status": "mode 2\n",
        "proc/pressure/memory": "full avg10=0.00 total=4000\n",
        "proc/stat": "cpu0 1 2 3 4 5 6 7 8\n",
        f"{CPU}/cpufreq/policy0/scaling_cur_freq": "<unknown>\n",
    }
    sample = sample_of(lay_out(tmp_path, {**CALM, **files}))
    assert (sample.power_mode, sample.memory_stall_us, sample.cpu.ticks) == (None, None, None)
    assert sample.cpu.mhz == (2201.6,)
