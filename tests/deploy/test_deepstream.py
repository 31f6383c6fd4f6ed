"""nvinfer's configuration: read by an emulation of its own, and what nvinfer lacks refused."""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from commands import passed, refusal, run
from digits import Digits, gpu_plan
from numpy.typing import NDArray
from PIL import Image

from edgeres.core.artifacts import EngineArtifact, load_engine, manifest_path
from edgeres.core.contract import Color, Contract, Crop, InputType, OutputType
from edgeres.core.deployment import DeployRequest, Destination
from edgeres.core.resize import NO_RESIZE, Interpolation, ResizeLibrary, letterbox, shortest, squash
from edgeres.deploy import deploy
from edgeres.deploy.deepstream import (
    approximated,
    config_text,
    contract_reasons,
    deepstream_files,
)
from edgeres.errors import ConfigError
from edgeres.images import normalise, prepare
from edgeres.runtime import Classifier
from edgeres.serialization import save_json, to_json
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
    """1,000 digits of several shapes, squashed: the same classes from the written configuration."""
    files = deepstream_files(plan, None, gives_probabilities=True)
    config = properties(files["config_infer.txt"].decode())
    pixels = np.load(digits.train)["images"]
    images = [image[: 8 - i % 2, : 8 - i % 3] for i, image in enumerate(pixels)]
    assert len(images) == 1000
    frames = np.concatenate([nvinfer(config, image) for image in images])
    on_cpu = replace(plan, manifest=replace(plan.manifest, target="onnxruntime", batch=None))
    with Classifier(on_cpu, cpu_target().open(on_cpu)) as model:
        ours = model.predict(images, color="rgb", top=1)
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


@pytest.fixture(scope="module")
def wide(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits that are wider than high, so that a squash is no resize of the short side."""
    path = tmp_path_factory.mktemp("wide") / "wide.npz"
    with np.load(digits.test) as data:
        images = np.pad(data["images"][:200], ((0, 0), (0, 0), (1, 2), (0, 0)))
        np.savez(path, images=images, labels=data["labels"][:200])
    return path


BENCH = "bench {model} --reference {model} --data {wide} --as deepstream --json --iterations 2 "


@pytest.fixture(scope="module")
def measured(digits: Digits, wide: Path) -> Any:
    """The verdict on the FP32 model as its own engine: what nvinfer's preprocessing alone costs."""
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    return json.loads(passed(*digits.words(BENCH + "--warmup 0 --no-energy", wide=wide)))


def test_bench_as_deepstream_measures_what_nvinfer_would_feed(
    measured: Any, wide: Path, digits: Digits
) -> None:
    """Correct labels of either: the engine's with cv2's squash, the reference's with Pillow's crop."""
    import cv2

    with np.load(wide) as data:
        images, labels = data["images"], data["labels"]
    squashed = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR) for image in images]
    large = (Image.fromarray(image).resize((44, 32), Image.Resampling.BILINEAR) for image in images)
    cropped = [np.asarray(image)[:, 6:38] for image in large]
    session = onnxruntime.InferenceSession(digits.model.read_bytes())

    def correct(fed: list[NDArray[np.uint8]]) -> int:
        pixels = (np.stack(fed).transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5
        (logits,) = session.run(None, {"input": pixels.astype(np.float32)})
        return int((logits.argmax(axis=1) == labels).sum())

    accuracy = measured["accuracy"]
    assert accuracy["engine"]["correct"] == correct(squashed)
    assert accuracy["reference"]["correct"] == correct(cropped) != correct(squashed)


def test_the_verdict_says_what_it_measured(measured: Any) -> None:
    """In a sentence, and as the contract that a deployment is compared with."""
    (note,) = [each for each in measured["warnings"] if "deepstream" in each]
    assert "emulated on the CPU: squash to 32x32 bilinear of OpenCV" in note
    assert "of the engine and of this approximation together" in note
    emulated = measured["provenance"]["emulated"]
    assert emulated["destination"] == "deepstream"
    assert emulated["contract"]["resize"]["mode"] == "squash"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"resize": shortest(36), "crop": Crop.CENTER}, {"resize": SQUASH.resize}),
        ({"std": (0.2, 0.3, 0.4)}, {"std": pytest.approx((0.3, 0.3, 0.3))}),
        (
            {"resize": letterbox(32, 32, pad=114)},
            {"resize": letterbox(32, 32, library=ResizeLibrary.OPENCV)},
        ),
        ({"resize": NO_RESIZE, "crop": Crop.CENTER}, {"resize": SQUASH.resize}),
    ],
    ids=str,
)
def test_the_nearest_of_nvinfer_has_no_reason_against_it(
    changes: dict[str, Any], expected: dict[str, Any], plan: EngineArtifact
) -> None:
    """By hand; its configuration feeds what its contract prepares; an exact one stays as it is."""
    nearest = approximated(replace(SQUASH, **changes))
    assert list(contract_reasons(nearest)) == []
    assert all(getattr(nearest, name) == value for name, value in expected.items())
    config = config_text(replace(plan, manifest=replace(plan.manifest, contract=nearest)))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 57, 3), np.uint8)
    ours = normalise(prepare(pixels, nearest)[None], nearest)
    assert nvinfer(properties(config), pixels) == pytest.approx(ours, abs=2e-5, rel=1e-5)


@pytest.mark.parametrize("changes", [{"input": InputType.UINT8}, {"color": Color.GRAY}], ids=str)
def test_what_has_no_approximation_is_refused(changes: dict[str, Any]) -> None:
    """Bytes, and gray in three channels: nvinfer's tensor would not be the network's."""
    with pytest.raises(ConfigError, match="DeepStream has no approximation of this: it takes"):
        approximated(replace(SQUASH, **changes))


@pytest.fixture
def cropping(digits: Digits, tmp_path: Path) -> Path:
    """A plan, on the disk, of a contract that crops, and that ends in probabilities."""
    path = gpu_plan(digits, tmp_path / "digits.plan")
    manifest = load_engine(path).manifest
    contract = replace(manifest.contract, output=OutputType.PROBABILITIES)
    save_json(manifest_path(path), replace(manifest, contract=contract))
    return path


def verdict_on(plan: Path, measured: Any, folder: Path, **emulated: Any) -> Path:
    """Writes a verdict as bench would on the board: on that plan, with nvinfer's preprocessing."""
    manifest = load_engine(plan).manifest
    provenance = measured["provenance"]
    contract = to_json(approximated(manifest.contract)) | emulated
    provenance = {
        **provenance,
        "engine": {**provenance["engine"], "sha256": manifest.engine_sha256},
        "emulated": {**provenance["emulated"], "contract": contract},
    }
    path = folder / "verdict.json"
    path.write_text(json.dumps({**measured, "provenance": provenance}))
    return path


DEPLOY = ("deploy", "--to", "deepstream", "--approximate", "-o")


def test_an_approximation_that_was_measured_is_deployed(
    cropping: Path, measured: Any, tmp_path: Path
) -> None:
    """Only when asked for; the folder has the verdict, and the cost is reported."""
    verdict, out = verdict_on(cropping, measured, tmp_path), tmp_path / "out"
    plain = ("deploy", cropping, "--to", "deepstream", "--verdict", verdict, "-o", out)
    assert "pass --approximate with that verdict" in refusal(*plain, code=2)
    said = run(*DEPLOY, out, cropping, "--verdict", verdict).stderr
    drop = measured["accuracy"]["drop_pp"]
    assert f"the drop of top-1 is {drop:.2f} pp on 200 images (MEASURED), emulated" in said
    config = properties((out / "config_infer.txt").read_text())
    assert (config["maintain-aspect-ratio"], config["scaling-filter"]) == ("0", "1")
    assert "squash to 32x32" in (out / "README.md").read_text()
    assert (out / "verdict.json").read_bytes() == verdict.read_bytes()


def test_an_approximation_that_was_not_measured_is_refused(
    cropping: Path, measured: Any, digits: Digits, tmp_path: Path
) -> None:
    """No verdict, one without emulation, one of another approximation, and nothing to approximate."""
    out = tmp_path / "out"
    said = refusal(*DEPLOY, out, cropping, code=2)
    assert "What that costs has to be measured: run edgeres bench" in said
    other = verdict_on(cropping, measured, tmp_path, std=[0.25] * 3)
    said = refusal(*DEPLOY, out, cropping, "--verdict", other, code=6)
    assert "was measured on images prepared as squash to 32x32" in said
    exact = json.loads(other.read_text())
    exact["provenance"]["emulated"] = None
    other.write_text(json.dumps(exact))
    said = refusal(*DEPLOY, out, cropping, "--verdict", other, code=6)
    assert "was measured on images prepared by its contract" in said
    manifest = load_engine(cropping).manifest
    save_json(manifest_path(cropping), replace(manifest, contract=SQUASH))
    said = refusal(*DEPLOY, out, cropping, "--verdict", other, code=2)
    assert "nothing is approximated" in said
    said = refusal("deploy", digits.engine, "--to", "python", "--approximate", "-o", out, code=2)
    assert "--approximate is for --to deepstream" in said
    assert not out.exists()
