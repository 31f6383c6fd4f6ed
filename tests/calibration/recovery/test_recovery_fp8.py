"""FP8's own biases: fitted to the roundings of E4M3, taken where they bring its logits closer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from commands import passed, refusal, run
from digits import Digits, write_npz
from networks import images, initializers, logits_of, network
from numpy.typing import NDArray
from onnx import numpy_helper
from tables import EMPTY, saved_network

from edgeres.calibration.quality import LogitEvaluator, sqnr_db
from edgeres.calibration.recovery.fp8 import fp8_fits
from edgeres.calibration.recovery.layers import Fitted
from edgeres.calibration.recovery.recover import recover
from edgeres.core.artifacts import load_engine
from edgeres.core.methods import Method, Recover, WeightMethod
from edgeres.core.precision import Precision
from edgeres.core.recovery import Corrected
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import CalibrationTable, load_table, save_table
from edgeres.errors import ConfigError, QuantizationError
from edgeres.images import embedded_digits, take
from edgeres.onnx_file import LoadedModel
from edgeres.progress import silent
from edgeres.quantization.graph import view
from edgeres.quantization.grids import E4M3
from edgeres.quantization.lowering import Lowering
from edgeres.quantization.qdq.network import LOWERING, fp8_lowering, quantize_for_tensorrt
from edgeres.session import open_session, run_session
from edgeres.targets.onnxruntime.quantize import quantize_for_cpu

Array = NDArray[np.float32]

ROUNDED, FLOAT = "tensorrt-fp8", "tensorrt-fp8-float-stream"
CONFIG = CalibrationRequest(
    recover=Recover.BIAS, precision=Precision.FP8, method=Method.MAX, samples=40
)


def fp8_of(model: LoadedModel, table: CalibrationTable, *, float_stream: bool = False) -> bytes:
    """Returns the FP8 network of a table, as a file has it."""
    lowered = quantize_for_tensorrt(model, table, grid=E4M3, float_stream=float_stream)
    content: bytes = lowered.model.SerializeToString(deterministic=True)
    return content


def by_ml_dtypes(values: Array, amax: float) -> Array:
    """Returns values as E4M3 holds them with the scale of a threshold."""
    scale = np.float32(amax / 448)
    steps = (values / scale).clip(-448, 448).astype(ml_dtypes.float8_e4m3fn)
    rounded: Array = steps.astype(np.float32) * scale
    return rounded


def rounded_weight(weight: Array) -> Array:
    """Returns a weight with each filter rounded by the best of eight scales."""
    channels = []
    for channel in weight:
        largest = float(np.abs(channel).max())
        tried = [by_ml_dtypes(channel, largest * 2 ** (eighth / 8)) for eighth in range(8)]
        channels.append(min(tried, key=lambda each: float(np.square(each - channel).sum())))
    return np.stack(channels)


def shift_by_hand(exact: Array, made: Array, *, relu: bool) -> Array:
    """Returns the mean by which each channel falls short where the ReLU lets it through."""
    powers = np.square(exact.astype(np.float64)).mean(axis=(1, 2, 3))
    weights = 1 / np.maximum(powers, np.median(powers))
    shift = np.zeros(exact.shape[1], np.float64)
    for channel in range(exact.shape[1]):
        short = through = 0.0
        for image, weight in enumerate(weights):
            found, wanted = made[image, channel], exact[image, channel]
            open_ = found > 0 if relu else np.ones_like(found, bool)
            wanted = np.maximum(wanted, 0) if relu else wanted
            short += weight * float((wanted - found)[open_].sum(dtype=np.float64))
            through += weight * int(open_.sum())
        shift[channel] = short / through
    return shift.astype(np.float32)


def test_shifts_by_hand(tmp_path: Path) -> None:
    """Of both layers, the second behind the corrected first; ml_dtypes rounds, ONNX Runtime convolves."""
    model, table = saved_network("identity", tmp_path)
    x, fitted = images(40, 4), 32
    fits = fp8_fits(view(model.proto), table, x, fitted=fitted, progress=silent)
    by_hand = onnx.shape_inference.infer_shapes(network("identity"))
    weights = {t.name: t for t in by_hand.graph.initializer}

    def part(feed: dict[str, Array], output: str) -> Array:
        extracted = onnx.utils.Extractor(by_hand).extract_model(list(feed), [output])
        return run_session(open_session(extracted.SerializeToString()), [output], feed)[0]

    def threshold(name: str) -> float:
        amax = table.threshold(name).e4m3
        assert amax is not None
        return amax

    exact = {name: part({"image": x[:fitted]}, name) for name in ("entry", "hidden", "sum")}
    for name in ("main1_w", "main2_w"):
        rounded = rounded_weight(numpy_helper.to_array(weights[name]))
        weights[name].CopyFrom(numpy_helper.from_array(rounded, name))
    entry = by_ml_dtypes(exact["entry"], threshold("entry"))
    hidden = part({"entry": entry}, "hidden")
    first = shift_by_hand(exact["hidden"], hidden, relu=True)
    read = by_ml_dtypes(np.maximum(hidden + first[:, None, None], 0), threshold("hidden_relu"))
    total = part({"hidden_relu": read}, "main") + entry
    second = shift_by_hand(exact["sum"], total, relu=True)
    assert len(fits) == 2
    for fit, expected in zip(fits.values(), (first, second), strict=True):
        assert np.abs(expected).max() > 1e-3
        # A value within rounding of two numbers' middle may fall on either side.
        np.testing.assert_allclose(fit.shift, expected, atol=0.02 * np.abs(expected).max())


def test_a_relu_before_fp8_is_computed(tmp_path: Path) -> None:
    """ONNX Runtime's fusions would leave it out; in floats they do not."""
    model, table = saved_network("identity", tmp_path)
    lowered = fp8_lowering(float_stream=False).lower(view(model.proto), table, Method.MAX)
    x = images(8, 4)
    plain, found = (
        run_session(session, ["logits"], {"image": x})[0]
        for session in (
            open_session(lowered.SerializeToString(), integer=False, portable=True),
            open_session(lowered.SerializeToString(), integer=False),
        )
    )
    error = np.abs(logits_of(network("identity"), x) - plain).mean()
    assert np.abs(found - plain).mean() < error / 4


def test_both_forms_gain_and_int8_is_as_before(tmp_path: Path) -> None:
    """On unseen images; the table is read back as it was, and serves INT8 byte for byte."""
    model, plain = saved_network("identity", tmp_path)
    table = recover(model, plain, images(80), CONFIG)
    recovery = table.recovery
    assert recovery is not None
    assert list(recovery.lowerings) == [ROUNDED, FLOAT]
    assert (recovery.samples, recovery.held_out, len(recovery.layers)) == (40, 40, 2)
    assert not recovery.rounding
    assert not recovery.equalization
    save_table(tmp_path / "t.json", table)
    assert load_table(tmp_path / "t.json") == table
    unseen = images(64, seed=9)
    reference = logits_of(network("identity"), unseen)
    evaluator = LogitEvaluator.of(model.proto, view(model.proto), [unseen])
    for float_stream in (False, True):
        lowering = fp8_lowering(float_stream=float_stream)
        assert recovery.lowerings[lowering.name].applied
        before, after = (
            sqnr_db(
                reference,
                evaluator.lowered_logits(lowering, view(model.proto), each, Method.MAX),
            )
            for each in (plain, table)
        )
        assert after > before + 0.1
        own, trained = (fp8_of(model, each, float_stream=float_stream) for each in (table, plain))
        assert own != trained
    for quantize in (quantize_for_tensorrt, quantize_for_cpu):
        assert quantize(model, table).model == quantize(model, plain).model


def test_the_network_has_the_fitted_biases(tmp_path: Path) -> None:
    """Each form its own, added to the trained ones; weights stay as FP8 rounds the trained ones."""
    model, plain = saved_network("identity", tmp_path)
    names = [n.name for n in view(model.proto).nodes if n.op_type == "Conv"][1:]
    steps = np.arange(8, dtype=np.float32)
    lowerings = {
        form: Corrected(
            before_db=0,
            after_db=0,
            biases={name: tuple(map(float, steps * by)) for name in names},
        )
        for form, by in ((ROUNDED, 0.25), (FLOAT, 0.5), ("tensorrt", 8.0))
    }
    bits = dict.fromkeys(names, bytes(8 * 8 * 9 // 8))
    recovery = replace(EMPTY, lowerings=lowerings, rounding=bits)
    # How INT8's weights are scaled is no matter of FP8's.
    table = replace(plain, recovery=recovery, weight_method=WeightMethod.MSE)
    trained = initializers(network("identity"))
    for float_stream, by in ((False, 0.25), (True, 0.5)):
        found, before = (
            quantize_for_tensorrt(model, each, grid=E4M3, float_stream=float_stream).model
            for each in (table, plain)
        )
        values = {t.name: t for t in found.graph.initializer}
        for index, name in enumerate(names, start=1):
            node = next(n for n in found.graph.node if n.name == name)
            bias = numpy_helper.to_array(values[node.input[2]])
            np.testing.assert_array_equal(bias, trained[f"main{index}_b"] + steps * by)
        for tensor in (t for t in before.graph.initializer if t.name.endswith("/weight_e4m3")):
            assert values[tensor.name].raw_data == tensor.raw_data


@pytest.mark.parametrize(
    ("gains", "taking"),
    [
        ({ROUNDED: -1.0, FLOAT: 2.0}, {FLOAT}),
        ({ROUNDED: 2.0, FLOAT: -1.0}, {ROUNDED}),
        ({ROUNDED: 0.01, FLOAT: 0.0}, set()),
        ({ROUNDED: -2.0, FLOAT: -1.0}, set()),
    ],
)
def test_a_form_that_gains_nothing_is_as_trained(
    gains: dict[str, float], taking: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, whatever the other form gains; each image's gain is known to 1 dB."""
    model, plain = saved_network("identity", tmp_path)
    errors = np.random.default_rng(0).standard_normal(40)
    errors -= errors.mean()

    def qualities(
        _: object, lowering: Lowering, __: object, table: CalibrationTable, *___: object
    ) -> NDArray[np.float64]:
        return np.asarray(30 + (table.recovery is not None) * (gains[lowering.name] + errors))

    monkeypatch.setattr(LogitEvaluator, "qualities", qualities)
    table = recover(model, plain, images(80), CONFIG)
    assert table.recovery is not None
    applied = {name for name, each in table.recovery.lowerings.items() if each.applied}
    assert applied == taking
    for float_stream in (False, True):
        network_of = partial(fp8_of, model, float_stream=float_stream)
        name = fp8_lowering(float_stream=float_stream).name
        assert (network_of(table) != network_of(plain)) is (name in taking)


def test_a_harmful_correction_is_not_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeded fault: biases moved by half a unit. Nothing of the networks changes."""
    model, plain = saved_network("identity", tmp_path)

    def moved(*of: object) -> Fitted:
        nearest = of[1]
        return Fitted(
            weight=nearest.weight,  # type: ignore[attr-defined]
            shift=np.full(8, 0.5, np.float32),
            up=None,
            before=1,
            after=0,
        )

    monkeypatch.setattr("edgeres.calibration.recovery.bias.fit_bias", moved)
    table = recover(model, plain, images(40), CONFIG)
    assert table.recovery is not None
    assert not table.recovery.changes_anything
    for float_stream in (False, True):
        assert fp8_of(model, table, float_stream=float_stream) == fp8_of(
            model, plain, float_stream=float_stream
        )


def test_int8_takes_what_it_gains_by_where_fp8_does_not(tmp_path: Path) -> None:
    """Of one table: each lowering by its own word."""
    model, plain = saved_network("identity", tmp_path)
    name = next(
        n.name for n in view(model.proto).nodes if n.op_type == "Conv" and "main1_w" in n.input
    )
    one = Corrected(before_db=0, after_db=1, biases={name: (0.5,) * 8})
    lowerings = {LOWERING.name: one, ROUNDED: replace(one, applied=False), FLOAT: one}
    table = replace(plain, recovery=replace(EMPTY, lowerings=lowerings))
    assert quantize_for_tensorrt(model, table).model != quantize_for_tensorrt(model, plain).model
    assert fp8_of(model, table) == fp8_of(model, plain)
    assert fp8_of(model, table, float_stream=True) != fp8_of(model, plain, float_stream=True)


def test_a_table_of_an_earlier_edgeres_serves_fp8_as_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its recovery knows INT8 alone; FP8 is as trained, and the way to more is told."""
    model, plain = saved_network("identity", tmp_path)
    config = replace(CONFIG, precision=Precision.INT8, keeps_channels=True)
    table = recover(model, plain, images(40), config)
    assert table.recovery is not None
    assert not any("fp8" in name for name in table.recovery.lowerings)
    caplog.clear()
    assert fp8_of(model, table) == fp8_of(model, plain)
    assert (
        "is for onnxruntime, tensorrt, and biases of the lowering for tensorrt-fp8" in caplog.text
    )
    assert "calibrate --precision fp8 --recover bias" in caplog.text


def test_requests_that_contradict_are_refused(tmp_path: Path) -> None:
    """AdaRound is INT8's, a recovery is for one of two precisions, grouped networks have no FP8."""
    with pytest.raises(ConfigError, match="adaround fits the rounding of INT8's weights"):
        replace(CONFIG, recover=Recover.ADAROUND)
    with pytest.raises(
        ConfigError, match="A recovery is for int8 or fp8, and --precision is mixed"
    ):
        replace(CONFIG, precision=Precision.MIXED)
    model, table = saved_network("grouped", tmp_path)
    with pytest.raises(QuantizationError, match="are grouped"):
        recover(model, table, images(20), CONFIG)


def test_a_command_corrects_fp8(digits: Digits, tmp_path: Path) -> None:
    """It reports what the logits gain, the table has the biases, and the engine takes them."""
    few, table = tmp_path / "few.npz", tmp_path / "t.json"
    write_npz(few, take(embedded_digits()[0], np.arange(128)))
    line = "calibrate {model} --data {few} --precision fp8 -o {table}"
    result = run(*digits.words(line, few=few, table=table))
    assert result.exit_code == 0, result.output
    recovery = load_table(table).recovery
    assert recovery is not None
    assert recovery.lowerings[ROUNDED].applied
    assert f"on 64 held-out images: {ROUNDED} " in " ".join(result.stderr.split())
    build = "build-engine {model} --precision fp8 --target onnx --calibration {table} -o {out}"
    passed(*digits.words(build, out=tmp_path / "e.onnx", table=table))
    corrected = load_engine(tmp_path / "e.onnx").content
    plain = replace(load_table(table), recovery=None)
    save_table(table, plain)
    passed(*digits.words(build, out=tmp_path / "plain.onnx", table=table))
    assert corrected != load_engine(tmp_path / "plain.onnx").content


def test_an_engine_of_images_has_a_table_for_it(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For FP8 with its biases, for every other precision as ever."""
    requests = []

    def calibrate_model(
        _: object, __: object, request: CalibrationRequest, *___: object, **____: object
    ) -> CalibrationTable:
        requests.append(request)
        return load_table(digits.table)

    monkeypatch.setattr("edgeres.workflows.build.calibrate_model", calibrate_model)
    for precision in ("fp8", "int8"):
        line = f"build-engine {{model}} --precision {precision} --target onnx --calib-data {{train}} -o {{out}}"
        passed(*digits.words(line, out=tmp_path / precision))
    assert requests == [CalibrationRequest(precision=Precision.FP8), CalibrationRequest()]


def test_adaround_for_fp8_is_refused(digits: Digits, tmp_path: Path) -> None:
    """By the command, before any image is read."""
    line = "calibrate {model} --data missing --precision fp8 --recover adaround -o {out}"
    assert "Pass --recover bias" in refusal(*digits.words(line, out=tmp_path / "no"), code=2)
