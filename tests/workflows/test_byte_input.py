"""A network on a camera's bytes: what it computes, what its engines compute, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from digits import Digits
from networks import SIZE, network
from numpy.typing import NDArray
from onnx import numpy_helper
from tables import table_from_amax

import edgeres
from edgeres.byte_input import with_byte_input, without_byte_input
from edgeres.cli import main
from edgeres.core.artifacts import INPUT_HWC, load_engine
from edgeres.core.contract import Color, Contract, InputType
from edgeres.errors import ArtifactError, ConfigError, MismatchError
from edgeres.images import load_dataset, normalise, prepare
from edgeres.onnx_file import load_fp32, save_model
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.exact_pixels import exact_pixels
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.session import open_session, run_session
from edgeres.targets.session_runner import model_runner

torch = pytest.importorskip("torch", reason="torch, the reference here, is not installed")

CONTRACTS = {
    "imagenet": Contract(
        height=SIZE, width=SIZE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "bgr, raw values": Contract(
        height=SIZE, width=SIZE, color=Color.BGR, scale=1.0, mean=(103.939, 116.779, 123.68)
    ),
    "a tie at the border": Contract(height=SIZE, width=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3),
}


@dataclass(frozen=True)
class Exported:
    """The digits on bytes."""

    hwc: Path
    chw: Path
    engine: Path
    table: Path


@pytest.fixture(scope="module")
def exported(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The digits exported on bytes, calibrated and built for the CPU."""
    folder = tmp_path_factory.mktemp("bytes")
    made = Exported(*(folder / n for n in ("hwc.onnx", "chw.onnx", "hwc.int8.onnx", "table.json")))
    line = "export resnet20 --weights {weights} --preset digits --input uint8 -q"
    run(digits.words(f"{line} -o {{out}}", out=made.hwc))
    run(digits.words(f"{line} --layout chw -o {{out}}", out=made.chw))
    # As many images as the table of floats has, so that both engines have the same scales.
    run(["calibrate", str(made.hwc), "--data", str(digits.train), "-o", str(made.table), "-q"])
    run(
        [
            "build-engine",
            str(made.hwc),
            "--calibration",
            str(made.table),
            "-o",
            str(made.engine),
            "-q",
        ]
    )
    return made


def run(words: list[str]) -> str:
    """Runs a command that has to succeed."""
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return result.output


def frames(digits: Digits, contract: Contract, count: int = 40) -> NDArray[np.uint8]:
    """Returns images as the crop leaves them, (N, H, W, 3) uint8 RGB."""
    data = load_dataset(digits.test, labelled=True)
    return np.stack([prepare(data.image(i), contract) for i in range(count)])


@pytest.mark.parametrize("layout", ["hwc", "chw"])
def test_bytes_give_the_logits_of_pytorch_on_floats(
    exported: Exported, digits: Digits, layout: str
) -> None:
    """PyTorch's network on `(x / 255 - 0.5) / 0.5` written out, within 1e-4."""
    from edgeres.networks.load import load_trained

    path = exported.hwc if layout == "hwc" else exported.chw
    contract = load_fp32(path).artifact.contract
    assert contract is not None
    assert contract.input is InputType.UINT8
    pixels = frames(digits, contract)
    module = load_trained("resnet20", digits.weights).module.eval()
    floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = module((floats / 255 - 0.5) / 0.5).numpy()
    given = pixels if layout == "hwc" else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    session = open_session(path.read_bytes())
    assert session.get_inputs()[0].shape[1:] == list(given.shape[1:])
    (logits,) = run_session(session, ["logits"], {"input": given})
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    # A runner takes a camera's frames whatever the layout of its file.
    with model_runner(load_fp32(path)) as runner:
        np.testing.assert_array_equal(runner.infer(pixels), logits)


def test_the_engine_of_bytes_is_the_engine_of_floats(exported: Exported, digits: Digits) -> None:
    """On the CPU the pixels are on their own grid either way: the same logits, bit for bit."""
    data = load_dataset(digits.test, labelled=True)
    images = [data.image(index) for index in range(40)]
    with edgeres.load(digits.engine) as floats, edgeres.load(exported.engine) as on_bytes:
        expected = floats.infer(floats.prepare(images, color="rgb"))
        prepared = on_bytes.prepare(images, color="rgb")
        assert prepared.dtype == np.uint8
        np.testing.assert_array_equal(on_bytes.infer(prepared), expected)
        # The order of the channels is the contract's, whatever the camera's.
        turned = [np.ascontiguousarray(image[..., ::-1]) for image in images]
        np.testing.assert_array_equal(on_bytes.prepare(turned, color="bgr"), prepared)
    kinds = {node.op_type for node in onnx.load(exported.engine).graph.node[:6]}
    assert "QuantizeLinear" not in kinds
    assert "Cast" not in kinds


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("raw", [True, False])
def test_the_first_convolution_reads_exact_pixels(name: str, raw: bool) -> None:
    """PyTorch's convolution of the float image with the rounded weights gives the same.

    At the border the zero of the image is half a level off at most.
    """
    contract = replace(CONTRACTS[name], input=InputType.UINT8)
    model = network("identity")
    graph = view(model)
    pixels = exact_pixels(graph, contract)
    assert pixels is not None
    table = replace(table_from_amax(graph, {}), contract=contract)
    lowered = lower_for_tensorrt(graph, place_for_tensorrt(graph), table, pixels=pixels, raw=raw)
    stem = next(node for node in lowered.graph.node if node.name == pixels.stem.name)
    lowered.graph.output[0].name = stem.output[0]
    del lowered.graph.output[0].type.tensor_type.shape.dim[:]
    values = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    values[0, ..., 0], values[0, ..., 2] = 255, 0
    normalised = normalise(values, contract)
    order = values[..., ::-1] if contract.color is Color.BGR else values
    fed = order.transpose(0, 3, 1, 2).astype(np.float32) if raw else normalised
    session = open_session(lowered.SerializeToString(), integer=False)
    (actual,) = run_session(session, [stem.output[0]], {graph.input: np.ascontiguousarray(fed)})
    constants = {t.name: numpy_helper.to_array(t) for t in lowered.graph.initializer}
    scales = constants[stem.name + "/weight_scale"].reshape(-1, 1, 1, 1)
    steps = (contract.scale / np.array(contract.std)).reshape(1, -1, 1, 1)
    weight = torch.from_numpy(constants[stem.name + "/weight_s8"] * scales / steps)
    bias = torch.from_numpy(np.array(graph.constant(pixels.stem.input[2])))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(normalised).double(), weight.double(), bias.double(), padding=1
    ).numpy()
    error = np.abs(actual - expected)
    assert error[..., 1:-1, 1:-1].max() < 2e-4 * np.abs(expected).max()
    half_a_level = 0.5 * float((np.abs(weight.numpy()) * steps).sum(axis=(1, 2, 3)).max())
    assert error.max() <= half_a_level + 1e-4
    # The rounded weights are near the trained ones: the fold is of the same network.
    trained = numpy_helper.to_array(graph.constants[pixels.stem.input[1]])
    np.testing.assert_allclose(weight.numpy(), trained, atol=float((scales / steps).max()))


@pytest.mark.parametrize("mean", [(-0.1, 0.5, 0.5), (0.5, 0.5, 0.9999)])
def test_a_zero_that_is_no_pixel_rounds_the_image(mean: tuple[float, float, float]) -> None:
    """INT8 could not hold the border's level."""
    contract = Contract(height=SIZE, width=SIZE, mean=mean, input=InputType.UINT8)
    assert exact_pixels(view(network("identity")), contract) is None
    assert exact_pixels(view(network("identity")), CONTRACTS["imagenet"]) is None


def test_what_would_normalize_twice_is_refused(
    exported: Exported, digits: Digits, tmp_path: Path
) -> None:
    """Floats for bytes, bytes for floats, and files that disagree with their contract."""
    model = load_fp32(exported.hwc)
    contract = model.artifact.contract
    assert contract is not None
    pixels = frames(digits, contract, 2)
    with model_runner(model) as runner, pytest.raises(MismatchError, match="normalized twice"):
        runner.infer(normalise(pixels, contract))
    with (
        model_runner(load_fp32(digits.model)) as runner,
        pytest.raises(MismatchError, match="normalized twice"),
    ):
        runner.infer(pixels)
    proto = onnx.load(exported.hwc)
    wrong = tmp_path / "wrong.onnx"
    for other, message in (
        (contract.prepared, "its contract has float32"),
        (replace(contract, mean=(0.4, 0.5, 0.5)), "its own arithmetic has"),
        (replace(contract, scale=1.0), "its own arithmetic has"),
        (None, "carries no preprocessing contract"),
    ):
        save_model(wrong, proto, replace(model.artifact, contract=other))
        with pytest.raises(ArtifactError, match=message):
            load_fp32(wrong)
    save_model(wrong, model.prepared.proto, replace(model.artifact, contract=contract))
    with pytest.raises(ArtifactError, match="normalized twice"):
        load_fp32(wrong)


def test_a_foreign_head_is_no_arithmetic_of_a_contract() -> None:
    """Without the Sub, or with a reader of the raw bytes, nothing is taken off."""
    contract = replace(CONTRACTS["imagenet"], input=InputType.UINT8)
    from edgeres.byte_input import Reads

    for change in (0, 1):
        model = with_byte_input(
            network("identity"), contract, Reads.NORMALIZED, channels_last=False
        )
        if change:
            model.graph.node[1].op_type = "Add"
        else:
            extra = onnx.helper.make_node("Cast", ["image"], ["other"], to=1)
            model.graph.node.append(extra)
        with pytest.raises(ValueError, match="does not begin with Cast, Sub, Mul"):
            without_byte_input(model, contract)


def test_a_layout_is_of_bytes_alone(digits: Digits, tmp_path: Path) -> None:
    """`--layout` beside floats would have no effect."""
    with pytest.raises(ConfigError, match="--layout hwc is of the bytes of --input uint8"):
        edgeres.export(
            "resnet20",
            digits.weights,
            output=tmp_path / "a.onnx",
            preprocessing=edgeres.ContractOptions(preset="digits"),
            layout="hwc",
        )


def test_bench_and_the_typed_file_follow(
    exported: Exported, digits: Digits, tmp_path: Path
) -> None:
    """The engine of bytes and the simulation are benched; the typed file has its trtexec line."""
    quick = "--samples 100 --iterations 2 --warmup 0 --no-energy -q"
    run(
        digits.words(
            f"bench {{own}} --reference {{hwc}} --data {{test}} {quick}",
            own=exported.engine,
            hwc=exported.hwc,
        )
    )
    simulated = "bench {own} --simulate --reference {hwc} --data {test} --samples 100 -q"
    run(digits.words(simulated, own=exported.table, hwc=exported.hwc))
    typed = tmp_path / "typed.onnx"
    line = "build-engine {hwc} --target onnx --calibration {own} -o {typed} -q"
    run(digits.words(line, hwc=exported.hwc, own=exported.table, typed=typed))
    commands = load_engine(typed).manifest.commands
    assert all("--inputIOFormats=uint8:hwc" in command for command in commands)
    assert onnx.load(typed).graph.node[0].op_type == "Cast"
    run(
        digits.words(
            f"bench {{typed}} --reference {{hwc}} --data {{test}} {quick}",
            typed=typed,
            hwc=exported.hwc,
        )
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_nvidia_builds_a_plan_of_hwc_bytes(
    exported: Exported, digits: Digits, tmp_path: Path, precision: str
) -> None:
    """Its own parser and builder, and the plan's flag for runners that feed planes."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    plan = tmp_path / "bytes.plan"
    line = "build-engine {hwc} --target tensorrt-rtx --compute-capability 8.6 -o {plan} -q"
    more = " --calibration {own}" if precision == "int8" else ""
    run(
        digits.words(
            f"{line} --precision {precision}{more}", hwc=exported.hwc, own=exported.table, plan=plan
        )
    )
    manifest = load_engine(plan).manifest
    assert INPUT_HWC in manifest.flags
    assert manifest.input.dtype == "uint8"
    assert manifest.input.shape[1:] == (3, 32, 32)
