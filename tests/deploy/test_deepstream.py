"""nvinfer's configuration: read by an emulation of its own, and what nvinfer lacks refused."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits import Digits
from numpy.typing import NDArray

from edgeres.core.artifacts import EngineArtifact, load_engine
from edgeres.core.contract import Color, Contract, Crop, InputType, OutputType
from edgeres.core.deployment import DeployRequest, Destination
from edgeres.core.resize import Interpolation, ResizeLibrary, letterbox, shortest, squash
from edgeres.deploy import deploy
from edgeres.deploy.deepstream import config_text, contract_reasons, deepstream_files
from edgeres.errors import ConfigError
from edgeres.images import normalise, prepare
from edgeres.runtime import Classifier
from edgeres.targets.base import cpu_target

SQUASH = Contract(
    height=32,
    width=32,
    resize=squash(32, 32, library=ResizeLibrary.OPENCV),
    crop=Crop.NONE,
    mean=(0.5, 0.4, 0.3),
    std=(0.5, 0.5, 0.5),
    output=OutputType.PROBABILITIES,
)
"""What nvinfer can express."""


@pytest.fixture
def plan(digits: Digits) -> EngineArtifact:
    """The digits' engine as a plan with that contract."""
    engine = load_engine(digits.engine)
    names = tuple(f"digit {index}" for index in range(10))
    manifest = replace(
        engine.manifest, target="tensorrt", contract=SQUASH, classes=names, batch=(1, 1, 16)
    )
    return replace(engine, manifest=manifest, path=Path("digits.plan"))


def properties(text: str) -> Mapping[str, str]:
    """Returns the keys of `[property]` as a reader of its own finds them."""
    parser = configparser.ConfigParser(delimiters=("=",), comment_prefixes=("#",))
    parser.read_string(text)
    assert parser.sections() == ["property"]
    return parser["property"]


def nvinfer(config: Mapping[str, str], pixels: NDArray[np.uint8]) -> Any:
    """Returns what nvinfer feeds to the network, emulated from its documentation alone.

    `y = net-scale-factor * (x - offset_c)` in float32, the image squashed or put in the middle of
    a black frame by OpenCV's filter, in the order of model-color-format.
    """
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    channels, height, width = map(int, config["infer-dims"].split(";"))
    order = config["model-color-format"]
    if order == "2":
        # Of a camera's frame in NV12 the luma is scaled, so gray comes first.
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    flag = {"0": cv2.INTER_NEAREST, "1": cv2.INTER_LINEAR}[config["scaling-filter"]]
    if config["maintain-aspect-ratio"] == "1":
        assert config["symmetric-padding"] == "1"
        ratio = min(height / pixels.shape[0], width / pixels.shape[1])
        size = round(pixels.shape[1] * ratio), round(pixels.shape[0] * ratio)
        frame = np.zeros((height, width, channels), np.uint8)
        top, left = (height - size[1]) // 2, (width - size[0]) // 2
        frame[top : top + size[1], left : left + size[0]] = cv2.resize(
            pixels, size, interpolation=flag
        )
    else:
        frame = cv2.resize(pixels, (width, height), interpolation=flag)
    frame = frame.reshape(height, width, channels)
    if order == "1":
        frame = frame[..., ::-1]
    offsets = np.array(config["offsets"].split(";"), np.float32)
    assert len(offsets) == channels
    values = np.float32(config["net-scale-factor"]) * (frame.astype(np.float32) - offsets)
    return values.transpose(2, 0, 1)[None]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"color": Color.BGR},
        {"channels": 1, "color": Color.GRAY, "mean": (0.4,), "std": (0.25,)},
        {"scale": 1.0, "mean": (103.939, 116.779, 123.68), "std": (1.0, 1.0, 1.0)},
        {"resize": letterbox(32, 32, library=ResizeLibrary.OPENCV)},
        {
            "resize": squash(
                32, 32, interpolation=Interpolation.NEAREST, library=ResizeLibrary.OPENCV
            )
        },
    ],
    ids=str,
)
def test_what_the_configuration_feeds_is_what_the_contract_feeds(
    changes: dict[str, Any], plan: EngineArtifact
) -> None:
    """Emulated: to float32's rounding, from images of several shapes."""
    contract = replace(SQUASH, **changes)
    assert list(contract_reasons(contract)) == []
    config = properties(
        config_text(replace(plan, manifest=replace(plan.manifest, contract=contract)))
    )
    rng = np.random.default_rng(0)
    for shape in ((40, 31), (31, 57), (32, 32), (64, 64)):
        pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
        expected = normalise(prepare(pixels, contract)[None], contract)
        assert nvinfer(config, pixels) == pytest.approx(expected, abs=2e-5, rel=1e-5)


def test_labels_of_emulated_frames_are_ours(plan: EngineArtifact, digits: Digits) -> None:
    """All test images of the digits, squashed: the same classes from the written configuration."""
    files = deepstream_files(plan, None, gives_probabilities=True)
    config = properties(files["config_infer.txt"].decode())
    images = np.load(digits.test)["images"]
    frames = np.concatenate([nvinfer(config, image) for image in images])
    on_cpu = replace(plan, manifest=replace(plan.manifest, target="onnxruntime", batch=None))
    with Classifier(on_cpu, cpu_target().open(on_cpu)) as model:
        ours = model.predict(list(images), color="rgb", top=1)
        emulated = model.rank(frames, top=1)
    assert [one[0].index for one in emulated] == [one[0].index for one in ours]
    labels = files[config["labelfile-path"]].decode()
    assert labels.count("\n") == 1
    assert labels.strip().split(";") == list(plan.manifest.classes)


def test_it_names_the_plan_that_was_evaluated_and_no_other(plan: EngineArtifact) -> None:
    """A file to build another engine from is not in it, and every probability counts."""
    files = deepstream_files(plan, None, gives_probabilities=True)
    config = properties(files["config_infer.txt"].decode())
    assert files[config["model-engine-file"]] == plan.content
    assert "onnx-file" not in config
    assert (config["network-mode"], config["network-type"], config["batch-size"]) == (
        "1",
        "1",
        "16",
    )
    assert float(config["classifier-threshold"]) == 0.0
    assert config["output-blob-names"] == plan.manifest.output.name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"std": (0.229, 0.224, 0.225)}, "export with --uniform-std, which folds what differs"),
        ({"resize": shortest(36), "crop": Crop.CENTER}, "nvinfer does not crop a centre: export"),
        ({"resize": squash(32, 32)}, "its resize antialiases, as Pillow's does"),
        (
            {"resize": squash(40, 40, library=ResizeLibrary.OPENCV), "crop": Crop.CENTER},
            "nvinfer does not crop a centre",
        ),
        (
            {
                "resize": squash(
                    32, 32, interpolation=Interpolation.BICUBIC, library=ResizeLibrary.OPENCV
                )
            },
            "export with --interpolation nearest or bilinear",
        ),
        (
            {"resize": letterbox(32, 32, pad=114, library=ResizeLibrary.OPENCV)},
            "pads with 114, and nvinfer with black: export with --pad-value 0",
        ),
        ({"input": InputType.UINT8}, "nvdspreprocess with input-tensor-from-meta=1"),
        ({"color": Color.GRAY}, "nvinfer gives gray in one: export with --channels 1"),
    ],
)
def test_what_nvinfer_cannot_express_is_refused(
    changes: dict[str, Any], said: str, plan: EngineArtifact
) -> None:
    """With the way out, and nothing else is complained of."""
    contract = replace(SQUASH, **changes)
    (reason,) = contract_reasons(contract)
    assert said in reason
    other = replace(plan, manifest=replace(plan.manifest, contract=contract))
    with pytest.raises(ConfigError, match="DeepStream cannot run"):
        deepstream_files(other, None, gives_probabilities=True)


def test_what_is_no_plan_ends_in_logits_or_has_semicolons_is_refused(
    plan: EngineArtifact,
) -> None:
    """Every reason at a time."""
    manifest = replace(plan.manifest, target="onnxruntime", classes=("a;b", *"cdefghijk"[:9]))
    with pytest.raises(ConfigError) as caught:
        deepstream_files(replace(plan, manifest=manifest), None, gives_probabilities=False)
    said = str(caught.value)
    assert "build it with --target tensorrt" in said
    assert "export with --head softmax" in said
    assert "the name of class 0, 'a;b', has a semicolon" in said
    rtx = replace(plan, manifest=replace(plan.manifest, target="tensorrt-rtx"))
    with pytest.raises(ConfigError, match="nvinfer runs TensorRT's plans"):
        deepstream_files(rtx, None, gives_probabilities=True)


def test_deploy_takes_the_head_from_the_contract(plan: EngineArtifact) -> None:
    """A plan shows nothing of its end; its contract does."""
    request = DeployRequest(destination=Destination.DEEPSTREAM)
    files, golden = deploy(plan, request)
    assert {"config_infer.txt", "labels.txt", "engine.plan", "README.md"} <= set(files)
    assert isinstance(golden, str)
    logits = replace(plan.manifest, contract=replace(SQUASH, output=OutputType.LOGITS))
    with pytest.raises(ConfigError, match="it ends in logits"):
        deploy(replace(plan, manifest=logits), request)
