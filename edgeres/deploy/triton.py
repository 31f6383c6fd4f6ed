"""A model repository of Triton Inference Server.

A plan, and with `--tensors` an ONNX file, is served by the runtime's own backend, which takes what
the network takes. An engine of the CPU is served by Triton's Python backend, which takes images
and answers with labels: preprocessing is edgeres' own, so its labels are bench's.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeres.core.artifacts import INPUT_HWC, EngineArtifact, manifest_path
from edgeres.core.deployment import DeployRequest
from edgeres.deploy.folder import Files, template
from edgeres.deploy.golden import TOP, GoldenPair
from edgeres.deploy.pbtxt import Literal, Message, render
from edgeres.deploy.repository import (
    CONFIG,
    DATA_TYPES,
    MODEL_FILES,
    check_repository,
    interface_of,
)
from edgeres.errors import ConfigError
from edgeres.plurals import counted
from edgeres.serialization import json_text
from edgeres.targets.base import target_of
from edgeres.version import __version__

LABELS = "labels.txt"
IMAGE_BATCH = 16
"""Largest batch of an engine that takes any."""

_DELAY_US = 1000
"""How long a request waits for others to be batched with; latency that bench did not measure."""


def triton_files(
    engine: EngineArtifact, request: DeployRequest, golden: GoldenPair | None
) -> Files:
    """Returns the files of a repository with one model, which `check_repository` has accepted.

    Raises:
        ConfigError: Triton cannot serve the engine as it was built or named.
    """
    name = model_name(engine.path)
    on_gpu = target_of(engine.manifest).uses_gpu
    labels = label_file(engine.manifest.classes)
    if on_gpu or request.tensors:
        files = _tensor_model(name, engine, request, labels)
        check_repository(
            {path.removeprefix("models/"): text for path, text in files.items()},
            name,
            interface_of(engine, on_gpu=on_gpu),
        )
        asks = "tensor"
    else:
        files = _image_model(name, engine, request)
        asks = "image"
    golden_files = _golden_files(golden, name, asks, engine)
    readme = template(
        f"triton_{asks}.md",
        NAME=name,
        ENGINE=engine.path.name,
        VERSION=__version__,
        CONTRACT=engine.manifest.contract,
        GOLDEN="golden.json" if golden else "(none: the engine does not run where it was deployed)",
    )
    return {**files, **golden_files, "README.md": readme.encode()}


def model_name(path: Path) -> str:
    """Returns a file's name as the name of a model: `resnet50.int8.plan` is `resnet50_int8`."""
    return (
        re.sub(r"[^A-Za-z0-9_-]+", "_", path.name.removesuffix(path.suffix)).strip("_") or "model"
    )


def label_file(classes: tuple[str, ...]) -> bytes:
    """Returns class names, one a line; empty where the engine has none.

    Raises:
        ConfigError: a name has a line break, and would be two labels.
    """
    for index, name in enumerate(classes):
        # A break at the end of a name is one too.
        if len(f"{name}\n".splitlines()) > 1:
            raise ConfigError(
                f"The name of class {index} has a line break ({name!r}), and a file of labels has "
                "one name a line. Export the model with --labels of single lines."
            )
    return "".join(f"{name}\n" for name in classes).encode()


def _tensor_model(
    name: str, engine: EngineArtifact, request: DeployRequest, labels: bytes
) -> Files:
    """Returns a model that the backend of the engine's runtime serves."""
    manifest, target = engine.manifest, target_of(engine.manifest)
    image, logits, batch = manifest.input, manifest.output, manifest.batch
    platform = target.triton_platform
    if platform is None:
        raise ConfigError(
            f"{engine.path} is an engine for {manifest.target}, which Triton has no backend "
            "for. Build it with --target tensorrt, or deploy it to python."
        )
    if target.uses_gpu and batch is not None and 1 < batch[0] < batch[2]:
        raise ConfigError(
            f"{engine.path} takes batches of {batch[0]} to {batch[2]}, and Triton sends any from 1 "
            f"up. Build it with --batch 1:{batch[0]}:{batch[2]}."
        )
    if INPUT_HWC in manifest.flags:
        raise ConfigError(
            f"{engine.path} takes bytes in TensorRT's format HWC, and Triton feeds planes. Export "
            "the model with --input uint8 --layout chw, and build it again."
        )
    if labels and len(manifest.classes) != logits.shape[-1]:
        raise ConfigError(
            f"{engine.path} names {counted(len(manifest.classes), 'class')}, and has "
            f"{logits.shape[-1]}. Export the model with --labels of all its classes."
        )
    # Of a batch that is fixed, max_batch_size is 0, and the batch a part of dims.
    fixed = image.shape[0] is not None
    largest = 0 if fixed else IMAGE_BATCH if batch is None else batch[2]
    dims, outputs = (
        tuple(-1 if size is None else size for size in spec.shape[0 if fixed else 1 :])
        for spec in (image, logits)
    )
    output = _tensor(logits.name, DATA_TYPES[logits.dtype], outputs)
    if labels:
        output = {**output, "label_filename": (LABELS,)}
    taken = _tensor(image.name, DATA_TYPES[image.dtype], dims)
    config: dict[str, tuple[object, ...]] = {
        "name": (name,),
        "platform": (platform,),
        "max_batch_size": (largest,),
        "input": (taken,),
        "output": (output,),
        "instance_group": (_instances(request, on_gpu=target.uses_gpu),),
    }
    if largest > 1:
        preferred = {} if batch is None or batch[1] < 2 else {"preferred_batch_size": (batch[1],)}
        config["dynamic_batching"] = ({**preferred, "max_queue_delay_microseconds": (_DELAY_US,)},)
    if largest and all(size > 0 for size in dims):
        zero = {"data_type": taken["data_type"], "dims": dims, "zero_data": (True,)}
        config["model_warmup"] = (
            {
                "name": ("first inference",),
                "batch_size": (1,),
                "inputs": ({"key": (image.name,), "value": (zero,)},),
            },
        )
    files = {
        f"models/{name}/{CONFIG}": _config_text(config, engine),
        f"models/{name}/1/{MODEL_FILES[platform]}": engine.content,
    }
    return {**files, **({f"models/{name}/{LABELS}": labels} if labels else {})}


def _image_model(name: str, engine: EngineArtifact, request: DeployRequest) -> Files:
    """Returns a model of the Python backend, which takes images."""
    classes = engine.manifest.output.shape[-1] or TOP
    top = min(TOP, classes)
    batch = engine.manifest.batch
    config: Message = {
        "name": (name,),
        "backend": ("python",),
        "max_batch_size": (IMAGE_BATCH if batch is None else batch[2],),
        "input": (
            # One of the two: an encoded file, or a frame in RGB.
            {**_tensor("IMAGE", "TYPE_STRING", (1,)), "optional": (True,)},
            {**_tensor("FRAME", "TYPE_UINT8", (-1, -1, 3)), "optional": (True,)},
        ),
        "output": (
            _tensor("LABEL", "TYPE_STRING", (top,)),
            _tensor("INDEX", "TYPE_INT32", (top,)),
            _tensor("PROBABILITY", "TYPE_FP32", (top,)),
        ),
        "instance_group": (_instances(request, on_gpu=False),),
        "dynamic_batching": ({"max_queue_delay_microseconds": (_DELAY_US,)},),
    }
    file = f"engine{engine.path.suffix}"
    folder = f"models/{name}/1"
    return {
        f"models/{name}/{CONFIG}": _config_text(config, engine),
        f"{folder}/model.py": template("triton_model.py.txt", ENGINE=file, TOP=top).encode(),
        f"{folder}/{file}": engine.content,
        # The contract of an engine that carries none is in it too.
        f"{folder}/{manifest_path(Path(file)).name}": json_text(engine.manifest).encode(),
    }


def _tensor(name: str, kind: str, dims: tuple[int, ...]) -> Message:
    return {"name": (name,), "data_type": (Literal(kind),), "dims": dims}


def _instances(request: DeployRequest, *, on_gpu: bool) -> Message:
    kind = Literal("KIND_GPU" if on_gpu else "KIND_CPU")
    return {"count": (request.instances,), "kind": (kind,)}


def _config_text(config: Message, engine: EngineArtifact) -> bytes:
    head = f"# {engine.path.name}, by edgeres {__version__}: {engine.manifest.contract}\n"
    return f"{head}{render(config)}\n".encode()


def _golden_files(golden: GoldenPair | None, name: str, asks: str, engine: EngineArtifact) -> Files:
    """Returns the golden pair and the program that asks the server for it."""
    if golden is None:
        return {}
    manifest = engine.manifest
    client = template(
        f"triton_{asks}_client.py.txt",
        NAME=name,
        IMAGE=golden.name,
        INPUT=manifest.input.name,
        OUTPUT=manifest.output.name,
        TYPE=DATA_TYPES[manifest.input.dtype].removeprefix("TYPE_"),
        SHAPE=list(golden.tensor.shape),
    )
    files = {
        golden.name: golden.content,
        "golden.json": golden.expected.encode(),
        "client.py": client.encode(),
    }
    if asks == "tensor":
        files["golden.bin"] = golden.tensor.tobytes()
    return files
