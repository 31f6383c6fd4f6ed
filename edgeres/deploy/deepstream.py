"""A configuration of DeepStream's nvinfer for a plan.

nvinfer computes `y = net-scale-factor * (x - offset_c)`: one scale for all channels. It squashes an
image to the network's size, or puts it on black; it neither crops a centre nor antialiases, and
its classifier wants probabilities. What a contract has beyond that is refused.
Source: NVIDIA DeepStream, gst-nvinfer: its documentation and the parser of its configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.contract import Color, Contract, Crop, InputType
from edgeres.core.precision import Precision
from edgeres.core.resize import Interpolation, Resize, ResizeLibrary, ResizeMode
from edgeres.deploy.folder import Files, template
from edgeres.deploy.golden import GoldenPair
from edgeres.errors import ConfigError
from edgeres.targets.base import target_of
from edgeres.version import __version__

CONFIG = "config_infer.txt"
LABELS = "labels.txt"
PLAN = "engine.plan"

KEYS = frozenset(
    {
        "batch-size", "classifier-threshold", "gie-unique-id", "gpu-id", "infer-dims",
        "labelfile-path", "maintain-aspect-ratio", "model-color-format", "model-engine-file",
        "net-scale-factor", "network-mode", "network-type", "offsets", "output-blob-names",
        "process-mode", "scaling-filter", "symmetric-padding",
    }
)  # fmt: skip
"""Keys of `[property]` that are written here, each in nvinfer's parser; others it only prints."""

_COLORS = {Color.RGB: 0, Color.BGR: 1, Color.GRAY: 2}
_MODES = {
    Precision.FP32: 0,
    Precision.INT8: 1,
    Precision.MIXED: 1,
    Precision.FP16: 2,
    Precision.FP8: 2,
}
_FILTERS = {Interpolation.NEAREST: 0, Interpolation.BILINEAR: 1}


def deepstream_files(
    engine: EngineArtifact, golden: GoldenPair | None, *, gives_probabilities: bool
) -> Files:
    """Returns the files of a folder with nvinfer's configuration and the plan.

    Args:
        engine: the plan.
        golden: its golden pair; None where this machine cannot run it.
        gives_probabilities: whether the network ends in probabilities.

    Raises:
        ConfigError: nvinfer cannot express the preprocessing or run the engine; the message has
            every reason with its way out.
    """
    manifest = engine.manifest
    reasons = [*_engine_reasons(engine, gives_probabilities), *contract_reasons(manifest.contract)]
    if reasons:
        raise ConfigError(f"DeepStream cannot run {engine.path}: {'; '.join(reasons)}.")
    files = {
        CONFIG: config_text(engine).encode(),
        LABELS: label_line(engine).encode(),
        PLAN: engine.content,
        "README.md": template(
            "deepstream.md",
            ENGINE=engine.path.name,
            VERSION=__version__,
            CONTRACT=manifest.contract,
        ).encode(),
    }
    if golden is not None:
        files |= {golden.name: golden.content, "golden.json": golden.expected.encode()}
    return files


def contract_reasons(contract: Contract) -> Iterator[str]:
    """Yields what nvinfer cannot express of a contract, each with the ways out."""
    resize = contract.resize
    way = (
        "export with --resize-mode squash --resize-library opencv, calibrate and bench it anew, or "
        "let nvdspreprocess or a program of your own prepare the images, or measure with bench --as "
        "deepstream what nvinfer's nearest costs and pass --approximate with that verdict"
    )
    if contract.input is not InputType.FLOAT32:
        yield (
            f"it takes {contract.input}, and nvinfer writes float32: export with --input float, or "
            "feed it by nvdspreprocess with input-tensor-from-meta=1"
        )
    if len(set(contract.std)) > 1:
        yield (
            f"its deviations {contract.std} differ, and nvinfer has one scale for all channels: "
            "export with --uniform-std, which folds what differs into the first convolution, and "
            "calibrate anew"
        )
    if contract.color is Color.GRAY and contract.channels == 3:
        yield (
            "it takes gray in three channels, and nvinfer gives gray in one: export with "
            "--channels 1, where the network has such a first convolution"
        )
    whole = (resize.height, resize.width) == (contract.height, contract.width)
    if resize.mode not in {ResizeMode.SQUASH, ResizeMode.LETTERBOX} or not whole:
        yield f"its images are prepared by '{contract}', and nvinfer does not crop a centre: {way}"
        return
    if resize.library is not ResizeLibrary.OPENCV:
        yield f"its resize antialiases, as Pillow's does, and nvinfer's does not: {way}"
    if resize.interpolation not in _FILTERS:
        yield (
            f"nvinfer has no {resize.interpolation} filter like OpenCV's: export with "
            f"--interpolation {' or '.join(one.value for one in _FILTERS)}"
        )
    if resize.mode is ResizeMode.LETTERBOX and resize.pad != 0:
        yield (
            f"its letterbox pads with {resize.pad}, and nvinfer with black: export with --pad-value 0"
        )


def approximated(contract: Contract) -> Contract:
    """Returns the preprocessing of nvinfer that comes nearest to a contract; itself, if exact.

    Images that are cropped are squashed, letterboxes are padded with black, filters are OpenCV's
    without antialiasing, and the mean of the deviations stands for each of them.

    Raises:
        ConfigError: nvinfer gives the network nothing that it could take.
    """
    resize = contract.resize
    if list(contract_reasons(contract)):
        framed = resize.mode is ResizeMode.LETTERBOX
        known = resize.interpolation in _FILTERS
        contract = replace(
            contract,
            resize=Resize(
                mode=ResizeMode.LETTERBOX if framed else ResizeMode.SQUASH,
                height=contract.height,
                width=contract.width,
                interpolation=resize.interpolation if known else Interpolation.BILINEAR,
                library=ResizeLibrary.OPENCV,
            ),
            crop=Crop.NONE,
            std=(fmean(contract.std),) * contract.channels,
        )
    if reasons := list(contract_reasons(contract)):
        raise ConfigError(f"DeepStream has no approximation of this: {'; '.join(reasons)}.")
    return contract


def _engine_reasons(engine: EngineArtifact, gives_probabilities: bool) -> Iterator[str]:
    manifest = engine.manifest
    if target_of(manifest).triton_platform != "tensorrt_plan":
        yield (
            f"it is an engine for {manifest.target}, and nvinfer runs TensorRT's plans: build it "
            "with --target tensorrt on the machine that it is for"
        )
    if not gives_probabilities:
        yield (
            "it ends in logits, and nvinfer's classifier takes the highest value above a threshold "
            "for a probability: export with --head softmax"
        )
    for index, name in enumerate(manifest.classes):
        if ";" in name or len(name.splitlines()) > 1:
            yield (
                f"the name of class {index}, {name!r}, has a semicolon or line break, which "
                "separates labels in its file: export with other --labels"
            )
            return


def config_text(engine: EngineArtifact) -> str:
    """Returns nvinfer's configuration."""
    manifest, contract = engine.manifest, engine.manifest.contract
    resize = contract.resize
    # y = (x * scale - mean) / std, with one std, is scale / std * (x - mean / scale).
    (std,) = set(contract.std)
    letterbox = int(resize.mode is ResizeMode.LETTERBOX)
    properties: dict[str, object] = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "process-mode": 1,
        "network-type": 1,
        "network-mode": _MODES[manifest.precision or Precision.FP32],
        # The one that was evaluated; without an onnx-file none is built in its place.
        "model-engine-file": PLAN,
        "batch-size": 1 if manifest.batch is None else manifest.batch[2],
        "infer-dims": ";".join(map(str, contract.shape)),
        "model-color-format": _COLORS[contract.color],
        "net-scale-factor": repr(contract.scale / std),
        "offsets": ";".join(repr(mean / contract.scale) for mean in contract.mean),
        "maintain-aspect-ratio": letterbox,
        "symmetric-padding": letterbox,
        "scaling-filter": _FILTERS[resize.interpolation],
        "output-blob-names": manifest.output.name,
        "labelfile-path": LABELS,
        # The highest probability wins, however low it is.
        "classifier-threshold": 0.0,
    }
    if unknown := set(properties) - KEYS:
        raise ConfigError(f"nvinfer has no key {', '.join(sorted(unknown))}.")
    lines = [f"{key}={value}" for key, value in properties.items()]
    head = f"# {engine.path.name}, by edgeres {__version__}: {contract}\n[property]\n"
    return head + "\n".join(lines) + "\n"


def label_line(engine: EngineArtifact) -> str:
    """Returns nvinfer's file of labels: one line for the one output, classes separated by `;`."""
    manifest = engine.manifest
    classes = manifest.classes or tuple(map(str, range(manifest.output.shape[-1] or 0)))
    return ";".join(classes) + "\n"
