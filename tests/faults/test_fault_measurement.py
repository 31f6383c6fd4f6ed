"""Measurements that do not say what was hoped: too slow, on a throttled machine, on few images."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from digits import Digits
from seeds import alarms, bench, reasons, rewritten, with_ballast

from edgeres.machine import StabilityMonitor, monitor_stability
from edgeres.onnx_file import load_model
from edgeres.workflows import measure as measure_module

SLOW, ACCURACY, UNSTABLE = 4, 3, 7
TIMED = "--samples 100 --iterations 200 --warmup 5 --no-energy"
COOLING = "sys/class/thermal/cooling_device0"


@pytest.fixture
def slowed(digits: Digits, tmp_path: Path) -> Path:
    """The INT8 engine with so much to compute beside that FP32 is faster."""
    return rewritten(digits.engine, with_ballast(load_model(digits.engine)), tmp_path / "slow.onnx")


def test_an_int8_engine_slower_than_fp32_fails_its_limit(digits: Digits, slowed: Path) -> None:
    """With a limit on speed, bench ends with 4."""
    result, verdict = bench(slowed, digits.model, digits.test, "--min-speedup", 1, brief=TIMED)
    assert result.exit_code == SLOW
    (reason,) = reasons(verdict, "speedup")
    assert reason.endswith("), short of the 1 requested")
    assert verdict["latency"]["speedup"] < 1
    assert not any("slower" in warning for warning in verdict["warnings"])


def test_an_int8_engine_slower_than_fp32_is_reported(digits: Digits, slowed: Path) -> None:
    """Without a limit the verdict warns, with the interval of the ratio."""
    _, verdict = bench(slowed, digits.model, digits.test, brief=TIMED)
    (warning,) = (warning for warning in verdict["warnings"] if "slower" in warning)
    low, high = verdict["latency"]["speedup_ci95"]
    assert f"times as fast, 95 % interval {low:.2f} to {high:.2f}." in warning
    assert high < 1


def test_a_faster_engine_is_not_reported(digits: Digits) -> None:
    """The ballast alone is what was slow."""
    _, verdict = bench(digits.engine, digits.model, digits.test, brief=TIMED)
    assert alarms(verdict) == []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one device that lowers the clock when it gets hot, monitored by bench."""
    folder = tmp_path / "machine" / COOLING
    folder.mkdir(parents=True)
    (folder / "type").write_text("thermal-cpufreq-0\n")
    (folder / "cur_state").write_text("0\n")

    def monitor_it(**options: Any) -> AbstractContextManager[StabilityMonitor]:
        return monitor_stability(tmp_path / "machine", **options)

    monkeypatch.setattr(measure_module, "monitor_stability", monitor_it)
    return tmp_path / "machine"


def test_clocks_that_hold_are_trusted(digits: Digits, machine: Path) -> None:
    """Strictly, too."""
    result, verdict = bench(digits.engine, digits.model, digits.test, "--strict")
    assert (result.exit_code, verdict["stability"]["stable"]) == (0, True)
    assert verdict["outcome"] == "MEASURED"


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), UNSTABLE)])
def test_throttled_clocks(
    digits: Digits, machine: Path, options: tuple[str, ...], code: int
) -> None:
    """Labelled always, refused where --strict asks for it."""
    (machine / COOLING / "cur_state").write_text("2\n")
    result, verdict = bench(digits.engine, digits.model, digits.test, *options)
    assert (result.exit_code, verdict["outcome"]) == (code, "INCONCLUSIVE" if code else "MEASURED")
    assert not verdict["stability"]["stable"]
    (finding,) = verdict["stability"]["findings"]
    assert finding["name"] == "thermal_throttled"
    expected = "The kernel lowered clocks against heat (thermal-cpufreq-0)"
    assert finding["sentence"].startswith(expected)
    assert [reason for reason in reasons(verdict, "stability") if expected not in reason] == []
    assert len(reasons(verdict, "stability")) == len(options)


@pytest.mark.parametrize(
    ("state", "options", "code"),
    [("0", ("1000",), 0), ("2", ("1000",), UNSTABLE), ("2", ("1000", "--strict"), UNSTABLE)],
)
def test_a_baseline_beside_throttled_clocks(
    digits: Digits, machine: Path, tmp_path: Path, state: str, options: tuple[str, ...], code: int
) -> None:
    """An engine compared with itself passes where clocks hold, and not where they do not."""
    _, calm = bench(digits.engine, digits.model, digits.test)
    old = tmp_path / "old.json"
    old.write_text(json.dumps(calm))
    (machine / COOLING / "cur_state").write_text(state)
    options = ("--baseline", str(old), "--max-slowdown", *options)
    result, verdict = bench(digits.engine, digits.model, digits.test, *options)
    assert (result.exit_code, verdict["passed"]) == (code, code == 0)
    (check,) = (one for one in verdict["checks"] if one["name"] == "baseline_latency")
    disturbed = "not to be trusted: The kernel lowered clocks against heat" in check["reason"]
    assert (check["passed"], disturbed) == (code == 0, code != 0)


def test_a_baseline_that_was_throttled(digits: Digits, machine: Path, tmp_path: Path) -> None:
    """It stays one that nothing is compared with, also where clocks hold now."""
    old = tmp_path / "old.json"
    (machine / COOLING / "cur_state").write_text("2\n")
    old.write_text(json.dumps(bench(digits.engine, digits.model, digits.test)[1]))
    (machine / COOLING / "cur_state").write_text("0\n")
    options = ("--baseline", str(old), "--max-slowdown", "1000")
    result, verdict = bench(digits.engine, digits.model, digits.test, *options)
    assert (result.exit_code, verdict["outcome"]) == (UNSTABLE, "INCONCLUSIVE")
    (check,) = (one for one in verdict["checks"] if one["name"] == "baseline_latency")
    assert "; old is not to be trusted: The kernel lowered clocks" in check["reason"]
    assert check["reason"].endswith("make the baseline again")


def test_too_few_images_to_decide(digits: Digits) -> None:
    """Fifty cannot show that a drop is below half a point, and it is said how many could."""
    few = "--samples 50 --iterations 2 --warmup 0 --no-energy"
    result, verdict = bench(digits.engine, digits.model, digits.test, "--max-drop", 0.5, brief=few)
    assert result.exit_code == ACCURACY
    (reason,) = reasons(verdict, "accuracy_drop")
    assert reason.startswith("50 images cannot decide: accuracy ")
    (check,) = verdict["checks"]
    assert check["images_needed"] > 50
    assert f"about {check['images_needed']:,} in all" in check["next_step"]
    assert verdict["outcome"] == "INCONCLUSIVE"


def test_enough_images_decide(digits: Digits) -> None:
    """All 797 show that the drop is below two points."""
    enough = "--iterations 2 --warmup 0 --no-energy"
    result, verdict = bench(digits.engine, digits.model, digits.test, "--max-drop", 2, brief=enough)
    assert (result.exit_code, alarms(verdict)) == (0, [])
