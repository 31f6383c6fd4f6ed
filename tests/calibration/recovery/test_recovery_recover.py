"""Recovery as a whole: a table comes back whose engines are closer to FP32, or a refusal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sized
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import pytest
from commands import passed, refusal, run
from digits import Digits
from networks import images, initializers, logits_of, network, with_weight
from numpy.typing import NDArray
from tables import table_by_every_method

from edgeres.calibration.auto import with_choices
from edgeres.calibration.quality import LogitEvaluator, sqnr_db
from edgeres.calibration.recovery.layers import Fitted, nearest_rounding
from edgeres.calibration.recovery.recover import recover
from edgeres.calibration.recovery.trained import Start
from edgeres.core.methods import Method, Recover
from edgeres.core.precision import Precision
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import CalibrationTable, load_table
from edgeres.core.tuning import Choice
from edgeres.errors import CalibrationError, DependencyError
from edgeres.onnx_file import LoadedModel, load_onnx
from edgeres.quantization.graph import view
from edgeres.quantization.lowering import Lowering
from edgeres.quantization.parameters import Parameters
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.quantization.rounding import grid_scales, on_grid
from edgeres.targets.onnxruntime.quantize import quantize_for_cpu
from edgeres.targets.tensorrt.calibration_cache import trt_cache

S = TypeVar("S", bound=Sized)

Array = NDArray[np.float32]

RECOVERY = "edgeres.calibration.recovery"

CONFIGS = {
    kind: CalibrationRequest(recover=kind, recover_iterations=40, method=Method.MAX)
    for kind in (Recover.BIAS, Recover.ADAROUND)
}


def saved(model: onnx.ModelProto, folder: Path) -> tuple[LoadedModel, CalibrationTable]:
    """Returns the network, whose file is gone once it was read, and its table by every method."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    loaded = load_onnx(path)
    path.unlink()
    table = table_by_every_method(view(model), images(8))
    return loaded, replace(table, model_sha256=loaded.artifact.sha256)


def unbalanced() -> onnx.ModelProto:
    """Returns the identity network with channels of very different range inside its block."""
    factors = (4.0 ** np.arange(-4, 4)).astype(np.float32)
    model = with_weight(network("identity"), "main1_w", lambda w: w * factors[:, None, None, None])
    model = with_weight(model, "main1_b", lambda bias: bias * factors)
    return with_weight(model, "main2_w", lambda w: w / factors[:, None, None])


def reweighted(name: str, change: Callable[[Array], Array]) -> onnx.ModelProto:
    """Returns a network with each convolution's weight changed."""
    model = network(name)
    for node in (n for n in view(model).nodes if n.op_type == "Conv"):
        model = with_weight(model, node.input[1], change)
    return model


def coarse(weight: Array) -> Array:
    """Returns a weight of few steps: one value of each filter is far beyond the others."""
    changed = weight / 10
    changed[:, 0, 0, 0] = 10 * np.abs(weight).max()
    return changed.astype(np.float32)


def exact(weight: Array) -> Array:
    """Returns a weight that INT8 holds as it is."""
    return on_grid(weight, grid_scales(weight))


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("name", ["down-sampling", "grouped", "pre-activation"])
def test_every_layer_is_recovered(
    name: str, kind: Recover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each quantized convolution gets a bias, and with AdaRound bits; the figures are told."""
    # Equalization alone may leave AdaRound nothing to win.
    monkeypatch.setattr(f"{RECOVERY}.recover.equalization_of", lambda *_: {})
    artifact, table = saved(reweighted(name, coarse), tmp_path)
    found = recover(artifact, table, images(80), CONFIGS[kind]).recovery
    assert found is not None
    convolutions = [n.name for n in view(network(name)).nodes if n.op_type == "Conv"]
    assert (found.kind, found.samples, found.held_out) == (kind, 40, 40)
    assert convolutions == [layer.name for layer in found.layers]
    for lowering in ("tensorrt", "onnxruntime"):
        assert list(found.lowerings[lowering].biases) == convolutions
    assert list(found.rounding) == (convolutions if kind is Recover.ADAROUND else [])


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_same_seed_gives_the_same_table(kind: Recover, tmp_path: Path) -> None:
    """Bit for bit, hash and all."""
    artifact, table = saved(network("bottleneck"), tmp_path)
    first, second = (recover(artifact, table, images(20), CONFIGS[kind]) for _ in range(2))
    assert first.sha256 == second.sha256 != table.sha256


def test_both_lowerings_take_the_recovered_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The integers differ from nearest rounding, and are the same on every target."""
    # Equalization alone may leave the CPU nothing to gain.
    monkeypatch.setattr(f"{RECOVERY}.recover.equalization_of", lambda *_: {})
    artifact, table = saved(reweighted("identity", coarse), tmp_path)
    found = recover(artifact, table, images(80), CONFIGS[Recover.ADAROUND])
    plain = initializers(quantize_for_tensorrt(artifact, table).model)
    tensorrt = initializers(quantize_for_tensorrt(artifact, found).model)
    half = initializers(quantize_for_tensorrt(artifact, found, floats=Precision.FP16).model)
    cpu = initializers(quantize_for_cpu(artifact, found).model)
    weights = [name for name in plain if name.endswith("/weight_s8")]
    assert len(weights) == 3
    assert any(not np.array_equal(plain[name], tensorrt[name]) for name in weights)
    for name in weights:
        assert np.array_equal(tensorrt[name], half[name])
        assert np.array_equal(tensorrt[name], cpu[name])


@pytest.mark.parametrize("kind", CONFIGS)
def test_unbalanced_channels_are_equalized(kind: Recover, tmp_path: Path) -> None:
    """Where it pays, both targets' logits are closer to FP32 on images that nothing has seen."""
    artifact, table = saved(unbalanced(), tmp_path)
    found = recover(artifact, table, images(40), CONFIGS[kind])
    assert found.recovery is not None
    assert "hidden_relu" in found.recovery.equalization
    for lowered in found.recovery.lowerings.values():
        assert lowered.after_db > lowered.before_db + 2
    unseen = images(16, seed=9)
    reference = logits_of(unbalanced(), unseen)
    for quantize in (quantize_for_tensorrt, quantize_for_cpu):
        before, after = (
            sqnr_db(reference, logits_of(quantize(artifact, t).model, unseen, optimized=False))
            for t in (table, found)
        )
        assert after > before + 2


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_cache_of_tensorrt_leaves_channels_on_their_scales(kind: Recover, tmp_path: Path) -> None:
    """Its lines are those of the table without recovery; biases stay in the table."""
    artifact, table = saved(unbalanced(), tmp_path)
    config = replace(CONFIGS[kind], keeps_channels=True)
    found = recover(artifact, table, images(40), config)
    assert found.recovery is not None
    assert found.recovery.lowerings["tensorrt"].biases
    assert trt_cache(artifact, found, "10.3.0") == trt_cache(artifact, table, "10.3.0")


def test_a_command_that_writes_the_cache_equalizes_nothing(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much it would gain, since minutes of calibration would end in a refusal."""

    def equalized(trained: object, start: Start) -> Start:
        return replace(start, equalization={"/relu/Relu_output_0": (2.0,) * 16})

    monkeypatch.setattr(f"{RECOVERY}.recover._equalized", equalized)
    line = "calibrate {model} --data {train} --samples 20 --recover bias -o {table}"
    table, cache = tmp_path / "t.json", tmp_path / "c.cache"
    passed(*digits.words(line, table=table), "--emit-trt-cache", str(cache))
    assert cache.exists()
    recovery = load_table(table).recovery
    assert recovery is not None
    assert not recovery.equalization


def test_balanced_channels_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equalization that gains nothing on held-out images is not used, and thresholds stay.

    Seeded fault: factors that unbalance the channels instead.
    """
    artifact, table = saved(network("identity"), tmp_path)
    monkeypatch.setattr(
        f"{RECOVERY}.recover.equalization_of",
        lambda *_: {"hidden_relu": tuple(4.0 ** np.arange(-4, 4))},
    )
    found = recover(artifact, table, images(20), CONFIGS[Recover.BIAS])
    assert found.recovery is not None
    assert not found.recovery.equalization
    assert found.tensors == table.tensors


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("harm", [0.5, 2.0])
def test_a_correction_that_does_not_help_is_not_applied(
    kind: Recover, harm: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lowerings are as without it, number for number."""
    artifact, table = saved(reweighted("identity", coarse), tmp_path)

    def moved(trained: Parameters) -> Fitted:
        nearest = nearest_rounding(trained).weight
        shift = np.full_like(trained.bias, harm)
        return Fitted(weight=nearest, shift=shift, up=nearest > trained.weight, before=1, after=0)

    monkeypatch.setattr(f"{RECOVERY}.adaround.fit_rounding", lambda *of: moved(of[3]))
    for stage in ("recover", "bias"):
        monkeypatch.setattr(f"{RECOVERY}.{stage}.fit_bias", lambda *of: moved(of[1]))
    # Equalization is decided apart, and gains here.
    monkeypatch.setattr(f"{RECOVERY}.recover.equalization_of", lambda *_: {})
    found = recover(artifact, table, images(40), CONFIGS[kind])
    assert found.recovery is not None
    for lowered in found.recovery.lowerings.values():
        assert not lowered.applied
    assert (
        quantize_for_tensorrt(artifact, found).model == quantize_for_tensorrt(artifact, table).model
    )
    assert quantize_for_cpu(artifact, found).model == quantize_for_cpu(artifact, table).model


@pytest.mark.parametrize(
    ("gains", "together", "taking"),
    [
        # The second would not show its gain among so few images, but the mean of both does.
        ((0.9, 0.2), 0.0, {"onnxruntime", "tensorrt"}),
        ((0.3, 0.3), -1.0, {"onnxruntime", "tensorrt"}),
        ((0.9, -0.1), 0.0, {"onnxruntime"}),
        # The mean is within chance, and so is the second.
        ((0.5, 0.01), 1.0, {"onnxruntime"}),
        ((0.1, 0.1), 1.0, set()),
    ],
)
def test_a_gain_shows_in_a_lowering_or_in_the_mean_of_both(
    gains: tuple[float, float],
    together: float,
    taking: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each image's gain is known to 1 dB; `together` is the correlation of both lowerings' errors.

    Reference: a one-sided t test of 20 images at 95 % finds 0.39 dB, or of the mean of two
    independent errors 0.27.
    """
    artifact, table = saved(network("identity"), tmp_path)
    random = np.random.default_rng(0).standard_normal((20, 3))
    first, second = np.linalg.qr(random - random.mean(axis=0))[0].T[:2] * 19**0.5
    errors = {
        "onnxruntime": gains[0] + first,
        "tensorrt": gains[1] + together * first + (1 - together**2) ** 0.5 * second,
    }

    def qualities(
        _: object, lowering: Lowering, __: object, table: CalibrationTable, *___: object
    ) -> NDArray[np.float64]:
        recovery = table.recovery
        corrected = recovery is not None and recovery.applies_to(lowering.name)
        return np.asarray(30 + corrected * errors[lowering.name])

    monkeypatch.setattr(LogitEvaluator, "qualities", qualities)
    monkeypatch.setattr(f"{RECOVERY}.recover.equalization_of", lambda *_: {})
    recovery = recover(artifact, table, images(40), CONFIGS[Recover.BIAS]).recovery
    assert recovery is not None
    assert {name for name, each in recovery.lowerings.items() if each.applied} == taking


def test_adaround_reports_what_it_could_win(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where float weights would not help, nothing is rounded by it; where they do, weights are."""
    fine, table = saved(reweighted("identity", exact), tmp_path)
    skipped = recover(fine, table, images(40), CONFIGS[Recover.ADAROUND]).recovery
    assert skipped is not None
    assert not skipped.rounding
    assert "little of their error is the weights' rounding" in caplog.text
    caplog.clear()
    few_steps, table = saved(reweighted("identity", coarse), tmp_path)
    fitted = recover(few_steps, table, images(40), CONFIGS[Recover.ADAROUND]).recovery
    assert fitted is not None
    assert len(fitted.rounding) == 3
    assert not caplog.text


def test_the_choices_of_method_auto_scale_an_equalized_range(tmp_path: Path) -> None:
    """The search is not repeated: its method and its factor are of the new ranges."""
    artifact, table = saved(unbalanced(), tmp_path)
    size = "x".join(map(str, view(artifact.proto).shapes["hidden_relu"][1:]))
    choice = Choice(
        target="onnxruntime",
        images=8,
        method=Method.MAX,
        sqnr_db={},
        factors={f"{size} Conv unsigned": 0.5},
        tuned_db=0.0,
    )
    auto = with_choices(view(artifact.proto), table, (choice, replace(choice, target="tensorrt")))
    found = recover(artifact, auto, images(20), CONFIGS[Recover.BIAS])
    seen = found.tensors["hidden_relu"]
    assert seen.amax != table.tensors["hidden_relu"].amax
    assert seen.thresholds[Method.AUTO].u8 == pytest.approx(seen.amax / 2)
    assert quantize_for_cpu(artifact, found).model.graph.node


def test_layers_are_tracked_one_by_one(tmp_path: Path) -> None:
    """Progress receives each layer, out of all of them."""
    artifact, table = saved(network("identity"), tmp_path)
    reported: list[tuple[str, float, float]] = []

    def progress(stage: str, done: float, total: float, note: str = "") -> None:
        reported.append((stage, done, total))

    recover(artifact, table, images(10), CONFIGS[Recover.BIAS], progress=progress)
    stages = ("Recovering", "Correcting the CPU's biases")
    assert reported == [(stage, done, 3) for stage in stages for done in range(4)]


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    """Nothing can be held out of a handful."""
    artifact, table = saved(network("identity"), tmp_path)
    with pytest.raises(
        CalibrationError, match=r"--recover bias was given 9 images; .* at least 10"
    ):
        recover(artifact, table, images(9), CONFIGS[Recover.BIAS])


def test_adaround_without_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it; bias correction needs none."""
    artifact, table = saved(network("identity"), tmp_path)
    monkeypatch.delitem(sys.modules, "edgeres.calibration.recovery.adaround", raising=False)
    monkeypatch.delattr("edgeres.calibration.recovery.adaround", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        DependencyError, match=r"needs torch.* pip install '\.\[export\]'.* --recover bias"
    ):
        recover(artifact, table, images(10), CONFIGS[Recover.ADAROUND])
    assert recover(artifact, table, images(10), CONFIGS[Recover.BIAS]).recovery is not None


def test_the_command_recovers(digits: Digits, tmp_path: Path) -> None:
    """The table that it writes builds both kinds of engine, and inspect says what was done."""
    path = tmp_path / "table.json"
    line = "calibrate {model} --data {train} --samples 40 --recover adaround --recover-iterations 4"
    passed(*digits.words(line), "-o", path)
    recovery = load_table(path).recovery
    assert recovery is not None
    assert len(recovery.layers) == 19
    assert "recovery by adaround, seed 0, fitted on 20 images" in passed("inspect", path)
    passed("build-engine", digits.model, "--calibration", path, "-o", tmp_path / "cpu.onnx")
    words = digits.words("--reference {model} --data {test} --samples 50 --json")
    passed("bench", path, "--simulate", *words)


def test_the_command_refuses_what_it_cannot_do(digits: Digits, tmp_path: Path) -> None:
    """Too few images, and no iterations."""
    line = digits.words(
        "calibrate {model} --data {train} --recover bias -o {out}", out=tmp_path / "t"
    )
    assert "was given 4 images" in refusal(*line, "--samples", 4)
    assert "--recover-iterations is 0" in refusal(*line, "--recover-iterations", 0, code=2)


def test_what_another_method_leaves_out_is_told(digits: Digits, tmp_path: Path) -> None:
    """The engine is built, on that method's thresholds, and a line says what it lacks."""
    path, engine = tmp_path / "table.json", tmp_path / "engine.onnx"
    line = "calibrate {model} --data {train} --samples 64 --recover bias -o {table}"
    passed(*digits.words(line, table=path))
    build = "build-engine {model} --calibration {table} -o {engine}"
    words = digits.words(build, table=path, engine=engine)
    assert "is left out" not in run(*words).stderr
    said = run(*words, "--method", "max")
    assert said.exit_code == 0
    assert "recovery (bias) was fitted to mse thresholds and is left out with max" in said.stderr
    assert "calibrate --method max --recover bias" in said.stderr
