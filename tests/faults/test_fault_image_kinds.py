"""Networks trained on squashed, padded, gray and OpenCV's images, from a checkpoint to verdicts.

Another preprocessing costs each of them accuracy: the usual mistakes are seeded in the contracts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import passed
from digits import QUICK
from seeds import alarms, bench, fp32_engine, reasons, save_arrays, with_contract

from edgeres.core.artifacts import load_engine
from edgeres.core.contract import Color, Contract, Crop, with_resize
from edgeres.core.resize import NO_RESIZE, ResizeLibrary, letterbox, shortest, squash
from edgeres.images import embedded_digits
from edgeres.onnx_file import load_onnx

pytest.importorskip("torch", reason="torch, which trains and exports, is not installed")
pytest.importorskip("cv2", reason="OpenCV is not installed")

from trained_kinds import canvases, trained_weights

HEIGHT, WIDTH = 24, 32
IMAGES = 320
HALVES = "--mean 0.5,0.5,0.5 --std 0.25,0.25,0.25 --input-size 24x32 "

COLORED = with_resize(
    Contract(height=HEIGHT, width=WIDTH, mean=(0.5,) * 3, std=(0.25,) * 3), squash(HEIGHT, WIDTH)
)
FRAMED = with_resize(COLORED, letterbox(HEIGHT, WIDTH))
OPENCV = with_resize(COLORED, squash(HEIGHT, WIDTH, library=ResizeLibrary.OPENCV))
GRAY = replace(COLORED, channels=1, color=Color.GRAY, mean=(0.5,), std=(0.25,))


@dataclass(frozen=True)
class Kind:
    """How a network is trained and exported."""

    ink: str
    contract: Contract
    options: str
    """Of export, beside the checkpoint."""


KINDS = {
    "squash": Kind("green", COLORED, HALVES + "--resize 24x32"),
    "letterbox": Kind("green", FRAMED, HALVES + "--resize-mode letterbox"),
    "opencv": Kind("stripes", OPENCV, HALVES + "--resize-mode squash --resize-library opencv"),
    "gray": Kind(
        "white", GRAY, "--mean 0.5 --std 0.25 --input-size 24x32 --channels 1 --resize 24x32"
    ),
}

FAULTS: Mapping[str, tuple[str, Contract, str]] = {
    "cropped": ("squash", with_resize(COLORED, shortest(32)), "takes them squashed to 24x32"),
    "framed": ("squash", with_resize(COLORED, letterbox(24, 32)), "takes them squashed to 24x32"),
    "made gray": ("squash", replace(COLORED, color=Color.GRAY), "made gray, the network takes RGB"),
    "squashed": ("letterbox", COLORED, "padded to a frame"),
    "exchanged": (
        "squash",
        with_resize(replace(COLORED, height=32, width=24, resize=shortest(40)), squash(32, 24)),
        "height and width are exchanged, the network takes 24x32",
    ),
    "a square": (
        "squash",
        with_resize(replace(COLORED, width=24, resize=NO_RESIZE, crop=Crop.CENTER), squash(24, 24)),
        "the input is 24x24, the network was made for about 24x32",
    ),
    "half": (
        "squash",
        with_resize(
            replace(COLORED, height=12, width=16, resize=NO_RESIZE, crop=Crop.CENTER),
            squash(12, 16),
        ),
        "the input is 12x16, the network was made for about 24x32",
    ),
    "Pillow's": (
        "opencv",
        COLORED,
        "the resize is Pillow's, with antialiasing, the network takes OpenCV's",
    ),
    "cropped by OpenCV": (
        "opencv",
        with_resize(COLORED, shortest(32, library=ResizeLibrary.OPENCV)),
        "takes them squashed to 24x32",
    ),
    "gray cropped": ("gray", with_resize(GRAY, shortest(32)), "takes them squashed to 24x32"),
}
"""The network, the contract that it is given, and what is said of it."""


@dataclass(frozen=True)
class Made:
    """Files of one kind."""

    model: Path
    train: Path
    test: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Each kind's network, exported by the command, with its images."""
    folder = tmp_path_factory.mktemp("kinds")
    digits, others = embedded_digits()
    found = {}
    for name, kind in KINDS.items():
        images, labels = canvases(digits, kind.ink, 0)
        weights = trained_weights(kind.contract, images, labels, folder / f"{name}.pth")
        model = folder / f"{name}.onnx"
        factory = "thin_gray_network" if name == "gray" else "thin_network"
        passed(
            "export", f"trained_kinds:{factory}", "--weights", weights, *kind.options.split(),
            "-o", model,
        )  # fmt: skip
        train = save_arrays(folder / f"{name}.train.npz", images[:200], labels[:200])
        images, labels = canvases(others, kind.ink, 1)
        test = save_arrays(folder / f"{name}.test.npz", images[:IMAGES], labels[:IMAGES])
        found[name] = Made(model, train, test)
    return found


@pytest.mark.parametrize("name", KINDS)
def test_it_is_calibrated_built_and_benched(
    name: str, made: dict[str, Made], tmp_path: Path
) -> None:
    """The whole path: a CPU engine and TensorRT's placement, both with the network's accuracy."""
    files, kind = made[name], KINDS[name]
    assert load_onnx(files.model).artifact.contract == kind.contract
    table, engine = tmp_path / "a.table.json", tmp_path / "a.int8.onnx"
    passed("calibrate", files.model, "--data", files.train, "-o", table)
    passed("build-engine", files.model, "--calibration", table, "-o", engine)
    assert load_engine(engine).manifest.contract == kind.contract
    result, verdict = bench(engine, files.model, files.test, "--diagnose", brief=QUICK)
    assert (result.exit_code, alarms(verdict)) == (0, [])
    assert verdict["diagnosis"]["named"] is None
    assert verdict["accuracy"]["reference"]["top1"] > 0.7
    result, verdict = bench(table, files.model, files.test, "--simulate", brief="--no-energy")
    assert result.exit_code == 0
    assert abs(verdict["accuracy"]["drop_pp"]) < 5


@pytest.mark.rtx
@pytest.mark.parametrize("name", KINDS)
def test_it_becomes_a_plan(name: str, made: dict[str, Made], tmp_path: Path) -> None:
    """NVIDIA's builder takes inputs that are not square, and of one channel."""
    files, kind = made[name], KINDS[name]
    plan = tmp_path / "a.plan"
    passed(
        "build-engine", files.model, "--calib-data", files.train, "--target", "tensorrt-rtx",
        "--compute-capability", "8.6", "-o", plan,
    )  # fmt: skip
    manifest = load_engine(plan).manifest
    assert manifest.contract == kind.contract
    assert manifest.input.shape[1:] == kind.contract.shape
    convolutions = [layer for layer in manifest.layers if layer.op_type == "Conv"]
    assert {layer.precision for layer in convolutions} == {"int8"}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_mistake_is_named(fault: str, made: dict[str, Made], tmp_path: Path) -> None:
    """With the options that repair it, from a run that was asked for no diagnosis."""
    name, contract, words = FAULTS[fault]
    files = made[name]
    wrong = tmp_path / "wrong.onnx"
    with_contract(files.model, wrong, **{n: getattr(contract, n) for n in CHANGED})
    if contract.shape != KINDS[name].contract.shape:
        resized = onnx.load(wrong)
        for axis, side in ((2, contract.height), (3, contract.width)):
            resized.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = side
        onnx.save(resized, wrong)
    result, verdict = bench(fp32_engine(wrong), wrong, files.test, "--diagnose", brief=QUICK)
    (message,) = reasons(verdict, "likely_mistakes")
    assert result.exit_code == 6
    assert message.startswith("Likely mistake: ")
    assert words in message


CHANGED = ("height", "width", "color", "resize", "crop")


def test_the_options_that_are_named_repair_the_export(made: dict[str, Made]) -> None:
    """A gray network's own options make the contract that it was trained with."""
    contract = load_onnx(made["gray"].model).artifact.contract
    assert contract is not None
    assert contract.shape == (1, HEIGHT, WIDTH)
    weight = next(t for t in onnx.load(made["gray"].model).graph.initializer if len(t.dims) == 4)
    assert np.prod(weight.dims[1:]) == 9
