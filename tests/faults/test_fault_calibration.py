"""Calibrations that fit nothing, or bias the accuracy: each is reported or refused, with figures."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from commands import passed, refusal
from digits import Digits
from seeds import alarms, arrays, bench, reasons, save_arrays

from edgeres.core.contract_options import ContractOptions
from edgeres.core.methods import Method, Recover
from edgeres.core.recovery import Recovery
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.core.table import load_table
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.workflows import BuildInputs, build_from_model, calibrate_model, export_stage

FIGURES = re.compile(
    r"The engine was calibrated on images unlike these: its ranges are a factor of "
    r"(?P<factor>[\d.]+) from those of (?P<images>\d+) evaluated images, whose own halves differ by "
    r"(?P<chance>[\d.]+)\. (?P<clipped>\d+) of (?P<all>\d+) activations are clipped, "
    r"(?P<coarse>\d+) are coarser than needed; the worst is '.+' with [\d.e+-]+ where [\d.e+-]+ is "
    r"observed\. Calibrate again on images of the kind that the engine will see, prepared in the "
    r"same way\."
)


EVERY = "--iterations 2 --warmup 0 --no-energy"
"""Options of bench on all images."""


@dataclass(frozen=True)
class Figures:
    """What the warning says."""

    factor: float
    chance: float


def figures(warnings: list[str]) -> Figures:
    """Returns the figures of the one warning there is."""
    (warning,) = warnings
    result = FIGURES.fullmatch(warning)
    assert result is not None, warning
    return Figures(factor=float(result["factor"]), chance=float(result["chance"]))


def engine_on(digits: Digits, data: Path, folder: Path, *options: object) -> Path:
    """Returns an INT8 engine calibrated on other images, by the commands."""
    table, engine = folder / "other.table.json", folder / "other.int8.onnx"
    passed("calibrate", digits.model, "--data", data, *options, "-o", table)
    passed("build-engine", digits.model, "--calibration", table, "-o", engine)
    return engine


def test_digits_raise_no_alarm(digits: Digits) -> None:
    """Nor does a simulation from the same table."""
    assert alarms(bench(digits.engine, digits.model, digits.test)[1]) == []
    simulated = bench(digits.table, digits.model, digits.test, "--simulate", brief="--samples 100")
    assert alarms(simulated[1]) == []


def test_few_calibration_images_are_counted(digits: Digits, tmp_path: Path) -> None:
    """Sixteen digits give ranges of digits: their number is the one warning."""
    images, labels = arrays(digits.train)
    few = save_arrays(tmp_path / "few.npz", images[:16], labels[:16])
    (alarm,) = alarms(bench(engine_on(digits, few, tmp_path), digits.model, digits.test)[1])
    assert alarm.startswith("Calibration used 16 distinct images, fewer than 64")


def test_what_recovery_rescaled_is_not_compared(digits: Digits, tmp_path: Path) -> None:
    """Those ranges are of another network than the FP32 model; the others still are held to it."""
    table, name = load_table(digits.table), next(iter(load_table(digits.table).tensors))
    recovery = Recovery(
        kind=Recover.BIAS,
        method=Method.MSE,
        seed=0,
        samples=8,
        held_out=8,
        lowerings={},
        equalization={name: (2.0,)},
        rounding={},
    )
    model = load_onnx(digits.model)
    plain = LoweredNetwork(model=model.proto, source=model.artifact, table=table)
    rescaled = replace(plain, table=replace(table, recovery=recovery))
    calibrated = set(table.tensors) - {"logits"}
    assert set(plain.ranges) == calibrated
    assert set(rescaled.ranges) == calibrated - {name}
    assert replace(plain, table=None).ranges == {}


def test_a_recovered_engine_raises_no_alarm(digits: Digits, tmp_path: Path) -> None:
    """Its biases are corrected, and its ranges are those of digits."""
    engine = engine_on(digits, digits.train, tmp_path, "--recover", "bias", "--samples", 128)
    assert alarms(bench(engine, digits.model, digits.test)[1]) == []


@pytest.mark.parametrize("kind", ["uniform", "normal", "black"])
def test_calibration_on_noise(digits: Digits, tmp_path: Path, kind: str) -> None:
    """Uniform, normal and no noise at all are all unlike digits."""
    chance = np.random.default_rng(0)
    images = {
        "uniform": chance.integers(0, 256, (64, 8, 8, 3)),
        "normal": chance.normal(127, 40, (64, 8, 8, 3)).clip(0, 255),
        "black": np.zeros((64, 8, 8, 3)),
    }[kind].astype(np.uint8)
    noise = save_arrays(tmp_path / "noise.npz", images, np.zeros(64, np.int64))
    result, verdict = bench(engine_on(digits, noise, tmp_path), digits.model, digits.test)
    # All black images are one.
    few = [text for text in verdict["warnings"] if text.startswith("Calibration used 1 distinct")]
    assert len(few) == (kind == "black")
    ranges = figures([text for text in verdict["warnings"] if text not in few])
    assert ranges.factor > 1.3 > 1.1 > ranges.chance
    assert result.exit_code == 0


def test_a_simulation_from_noise_is_reported(digits: Digits, tmp_path: Path) -> None:
    """The table itself is evaluated before any board has an engine of it."""
    chance = np.random.default_rng(0)
    images = chance.normal(127, 40, (64, 8, 8, 3)).clip(0, 255).astype(np.uint8)
    noise = save_arrays(tmp_path / "noise.npz", images, np.zeros(64, np.int64))
    table = tmp_path / "noise.table.json"
    calibrate_model(digits.model, noise, CalibrationRequest(), output=table)
    _, verdict = bench(table, digits.model, digits.test, "--simulate", brief="--samples 100")
    assert figures(verdict["warnings"]).factor > 1.3


def test_calibration_on_validation_images(digits: Digits, tmp_path: Path) -> None:
    """They are recognised by their pixels, under another file's name."""
    images, labels = arrays(digits.test)
    calibrated = save_arrays(tmp_path / "seen.npz", images[:300], labels[:300])
    engine = engine_on(digits, calibrated, tmp_path)
    _, verdict = bench(engine, digits.model, digits.test, brief=EVERY)
    assert verdict["warnings"] == [
        "300 of the 797 images were also used for calibration: the accuracy of the engine on them "
        "is optimistically biased. Evaluate on images that were not used for calibration."
    ]
    # 497 others show that the drop is small; of the calibration images alone nothing passes.
    limit = ("--max-drop", 5)
    result, verdict = bench(engine, digits.model, digits.test, *limit, brief=EVERY)
    assert (result.exit_code, verdict["outcome"]) == (0, "PASS")
    result, verdict = bench(engine, digits.model, calibrated, *limit, brief=EVERY)
    assert (result.exit_code, verdict["outcome"]) == (3, "INCONCLUSIVE")
    (reason,) = reasons(verdict, "unseen_images")
    assert reason.startswith("calibration used all 300 of these images")


def test_a_table_of_another_model(digits: Digits, tmp_path: Path) -> None:
    """Neither an engine nor a simulation comes of it."""
    other = tmp_path / "other.onnx"
    stage = export_stage()
    request = stage.ExportRequest(
        architecture="resnet20",
        weights=digits.weights,
        contract=ContractOptions(preset="digits"),
        opset=18,
    )
    stage.export_model(request, output=other)
    expected = (
        f"The calibration table belongs to another model: it was made from sha256 "
        f"{load_table(digits.table).model_sha256[:12]}, {other} is "
    )
    built = tmp_path / "never.onnx"
    message = refusal("build-engine", other, "--calibration", digits.table, "-o", built)
    assert message.startswith(expected)
    assert message.endswith("Run calibrate on this model.")
    assert not built.exists()
    simulate = ("bench", digits.table, "--simulate", "--reference", other, "--data", digits.test)
    assert refusal(*simulate).startswith(expected)


@pytest.mark.shared
@pytest.mark.parametrize("noisy", [False, True], ids=["photographs", "noise"])
def test_a_trained_network_on_photographs_and_noise(
    noisy: bool, shared: Path, tmp_path: Path
) -> None:
    """CIFAR-10: a factor of 1.10 by its own training images, 1.47 by noise."""
    model, engine = tmp_path / "resnet20.onnx", tmp_path / "resnet20.int8.onnx"
    stage = export_stage()
    request = stage.ExportRequest(
        architecture="resnet20",
        weights=shared / "data/cifar10-resnets/resnet20-12fca82f.th",
        contract=ContractOptions(preset="cifar-imagenet-norm"),
    )
    stage.export_model(request, output=model)
    data = shared / "data/cifar10/calib1000.npz"
    if noisy:
        pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
        data = save_arrays(tmp_path / "noise.npz", pixels, np.zeros(64, np.int64))
    table = calibrate_model(model, data, CalibrationRequest(samples=256))
    build_from_model(BuildInputs(model=model, table=table, output=engine), BuildRequest())
    _, verdict = bench(engine, model, shared / "data/cifar10/test.npz")
    if noisy:
        assert figures(verdict["warnings"]).factor > 1.3
    else:
        assert alarms(verdict) == []
