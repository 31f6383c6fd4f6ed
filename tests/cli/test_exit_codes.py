"""Outcome and exit code say what a CI job has to know: pass, error, usage, accuracy, speed, ..."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from commands import passed, refusal, run
from digits import QUICK, Digits, gpu_plan

from edgeres.core.requests import BuildRequest
from edgeres.core.table import CalibrationTable, Threshold, load_table
from edgeres.core.verdict import EXIT_ACCURACY, EXIT_PASS, EXIT_SPEED, EXIT_UNSTABLE
from edgeres.workflows import BuildInputs, build_from_model


def clipped(table: CalibrationTable, share: float) -> CalibrationTable:
    """Returns the table with every threshold at `share` of itself."""

    def shrunk(threshold: Threshold) -> Threshold:
        u8 = threshold.u8
        return Threshold(s8=threshold.s8 * share, u8=None if u8 is None else u8 * share)

    tensors = {
        name: replace(seen, thresholds={m: shrunk(t) for m, t in seen.thresholds.items()})
        for name, seen in table.tensors.items()
    }
    return replace(table, tensors=tensors)


@pytest.fixture(scope="module")
def broken(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine whose activations are clipped at a twentieth of what they should reach."""
    path = tmp_path_factory.mktemp("broken") / "digits.onnx"
    build_from_model(
        BuildInputs(model=digits.model, table=clipped(load_table(digits.table), 0.05), output=path),
        BuildRequest(),
    )
    return path


def bench(digits: Digits, engine: Path, limits: str = "") -> Result:
    """Returns what bench answers about an engine under these limits."""
    line = "bench {judged} --reference {model} --data {test} " + QUICK
    return run(*digits.words(f"{line} {limits}", judged=engine))


def test_a_good_engine_passes(digits: Digits) -> None:
    """0 with limits that it keeps; without any too, and then it is only measured."""
    kept = bench(digits, digits.engine, "--max-drop 5")
    assert kept.exit_code == EXIT_PASS == 0
    assert kept.stdout.startswith("PASS  accuracy ")
    measured = bench(digits, digits.engine)
    assert measured.exit_code == EXIT_PASS
    assert measured.stdout.startswith("MEASURED  no limit was set")


def test_a_bad_engine_fails_its_accuracy_check(digits: Digits, broken: Path) -> None:
    """3, and without a limit nothing is checked."""
    assert bench(digits, broken, "--max-drop 5").exit_code == EXIT_ACCURACY == 3
    assert bench(digits, broken).exit_code == EXIT_PASS


def test_too_few_images_leave_the_bound_undecided_and_not_the_point(digits: Digits) -> None:
    """3 with the number that would decide; 0 where the measured drop alone is asked about."""
    undecided = bench(digits, digits.engine, "--max-drop 1")
    assert undecided.exit_code == EXIT_ACCURACY
    told = " ".join(undecided.stdout.split())
    assert told.startswith("INCONCLUSIVE 100 images cannot decide: accuracy drop 0 pp, ")
    assert "in all, would show that the drop is below the limit." in told
    assert bench(digits, digits.engine, "--max-drop 1 --decide point").exit_code == EXIT_PASS


def test_a_slow_engine_fails_its_speed_check(digits: Digits) -> None:
    """4: nothing is a thousand times as fast; 7 where two inferences are to show that."""
    words = "--min-speedup 1000 --iterations"
    assert bench(digits, digits.engine, f"{words} 100").exit_code == EXIT_SPEED == 4
    undecided = bench(digits, digits.engine, f"{words} 2")
    assert undecided.exit_code == EXIT_UNSTABLE == 7
    assert "Time 100 inferences or more" in " ".join(undecided.stdout.split())


def test_accuracy_is_told_before_speed(digits: Digits, broken: Path) -> None:
    """3 where both checks fail."""
    failed = bench(digits, broken, "--max-drop 5 --min-speedup 1000")
    assert failed.exit_code == EXIT_ACCURACY


def test_a_failed_verdict_is_printed_with_its_reason(digits: Digits, broken: Path) -> None:
    """FAIL comes first."""
    shown = bench(digits, broken, "--max-drop 5").stdout
    assert shown.startswith("FAIL  accuracy drop ")
    assert "over the drop limit of 5 pp" in " ".join(shown.split())


def test_an_error_is_1(digits: Digits) -> None:
    """What edgeres explains and no limit decides."""
    said = refusal(*digits.words("bench none --reference {model} --data {test}"))
    assert said.startswith("none does not exist.")


def test_a_wrong_request_is_2(digits: Digits) -> None:
    """Whether click or edgeres finds it."""
    refusal("bench", digits.engine, code=2)
    refusal(*digits.words("export vgg16 --weights {weights} -o never.onnx"), code=2)


def test_a_plan_for_a_gpu_is_6(digits: Digits, tmp_path: Path) -> None:
    """The engine does not belong to this machine; the sentence says what can be done here."""
    plan = gpu_plan(digits, tmp_path / "a.plan")
    line = digits.words("bench {plan} --reference {model} --data {test}", plan=plan)
    said = refusal(*line, code=6)
    assert said.startswith(f"{plan} is a plan for tensorrt in int8, compute capability 8.7, and ")
    assert "edgeres bench TABLE.json --simulate --reference MODEL.onnx --data PATH" in said


def test_a_stale_engine_is_6(digits: Digits, tmp_path: Path) -> None:
    """The reference is not the file that the engine was built from."""
    other = tmp_path / "other.onnx"
    line = "export resnet20 --weights {weights} --preset digits --opset 18 -o {other}"
    passed(*digits.words(line, other=other))
    line = "bench {engine} --reference {other} --data {test}"
    said = refusal(*digits.words(line, other=other), code=6)
    assert said.startswith(f"{digits.engine} was built from a model with sha256 ")
    assert said.endswith("or pass the model that it was built from.")
