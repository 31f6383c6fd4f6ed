"""Whether a Triton model repository fits the engine in it: what Triton's own schema cannot see.

The configuration is read back from its text. Source: Triton Inference Server, "Model
Configuration" and model_config.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeres.core.artifacts import EngineArtifact, TensorSpec
from edgeres.deploy.folder import Files
from edgeres.deploy.pbtxt import Literal, Message, parse
from edgeres.errors import ConfigError
from edgeres.plurals import counted

CONFIG = "config.pbtxt"
DATA_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8"}
"""Triton's names of the types that engines take and give."""

MODEL_FILES = {"tensorrt_plan": "model.plan", "onnxruntime_onnx": "model.onnx"}
"""The file that a platform looks for in the folder of a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInterface:
    """What a configuration has to agree with."""

    input: TensorSpec
    output: TensorSpec
    classes: int | None
    """Length of the outputs; None where the engine does not show it."""
    smallest: int
    """Images in the smallest batch."""
    largest: int | None
    """Images in the largest batch; None where any is taken."""
    on_gpu: bool


def interface_of(engine: EngineArtifact, *, on_gpu: bool) -> EngineInterface:
    """Returns what a configuration has to agree with."""
    manifest = engine.manifest
    batch = manifest.batch
    return EngineInterface(
        input=manifest.input,
        output=manifest.output,
        classes=manifest.output.shape[-1],
        smallest=1 if batch is None else batch[0],
        largest=None if batch is None else batch[2],
        on_gpu=on_gpu,
    )


def check_repository(files: Files, name: str, engine: EngineInterface) -> None:
    """Checks a model of a repository that serves an engine's tensors as they are.

    Args:
        files: of the repository, by path.
        name: of the model, its folder.
        engine: what it serves.

    Raises:
        ConfigError: they disagree; the message has every mistake.
        ArtifactError: the configuration cannot be read.
    """
    path = f"{name}/{CONFIG}"
    if path not in files:
        raise ConfigError(f"The repository has no {path}. Deploy the engine again.")
    config = parse(files[path].decode("utf-8"), path)
    mistakes = [
        *_place_mistakes(config, files, name),
        *_batch_mistakes(config, engine),
        *_tensor_mistakes(config, "input", engine.input, engine),
        *_tensor_mistakes(config, "output", engine.output, engine),
        *_label_mistakes(config, files, name, engine),
        *_instance_mistakes(config, engine),
    ]
    if mistakes:
        raise ConfigError(
            f"{path} does not fit the engine: {'; '.join(mistakes)}. Correct it, or deploy the "
            "engine again."
        )


def _place_mistakes(config: Message, files: Files, name: str) -> Iterator[str]:
    if _one(config, "name", name) != name:
        yield f"its name is {_one(config, 'name')}, and its folder {name}"
    platform = _one(config, "platform")
    if platform not in MODEL_FILES:
        yield f"its platform is {platform}, expected {' or '.join(MODEL_FILES)}"
        return
    expected = _one(config, "default_model_filename", MODEL_FILES[str(platform)])
    versions = [
        path.split("/") for path in files if path.startswith(f"{name}/") and path.count("/") == 2
    ]
    if not any(version.isdecimal() and file == expected for _, version, file in versions):
        yield f"no folder of a version, such as {name}/1, has the file {expected} of {platform}"


def _batch_mistakes(config: Message, engine: EngineInterface) -> Iterator[str]:
    largest = _one(config, "max_batch_size", 0)
    if not isinstance(largest, int):
        yield f"max_batch_size is {largest}, expected a number"
        return
    if engine.largest is not None and largest > engine.largest:
        yield f"max_batch_size is {largest}, the engine takes at most {engine.largest}"
    if largest < engine.smallest and _is_dynamic(engine):
        yield f"max_batch_size is {largest}, the engine takes at least {engine.smallest}"
    for batching in config.get("dynamic_batching", ()):
        if largest == 0:
            yield "dynamic_batching needs a max_batch_size"
        preferred = (
            batching.get("preferred_batch_size", ()) if isinstance(batching, Mapping) else ()
        )
        for size in preferred:
            if isinstance(size, int) and size > largest > 0:
                yield f"preferred_batch_size is {size}, max_batch_size {largest}"
    for warmup in config.get("model_warmup", ()):
        size = _one(warmup, "batch_size", 0) if isinstance(warmup, Mapping) else 0
        if isinstance(size, int) and size > max(largest, 0):
            yield f"model_warmup has a batch of {size}, max_batch_size is {largest}"


def _tensor_mistakes(
    config: Message, kind: str, spec: TensorSpec, engine: EngineInterface
) -> Iterator[str]:
    tensors = [each for each in config.get(kind, ()) if isinstance(each, Mapping)]
    if len(tensors) != 1:
        yield f"it has {len(tensors)} {kind}s, the engine one"
        return
    (tensor,) = tensors
    if _one(tensor, "name") != spec.name:
        yield f"the {kind} is called {_one(tensor, 'name')}, in the engine {spec.name}"
    wanted = DATA_TYPES.get(spec.dtype, spec.dtype)
    if _one(tensor, "data_type") != wanted:
        yield f"the {kind} is {_one(tensor, 'data_type')}, in the engine {wanted}"
    dims = tuple(tensor.get("dims", ()))
    batched = _one(config, "max_batch_size", 0) != 0
    expected = tuple(-1 if size is None else size for size in spec.shape[1 if batched else 0 :])
    if dims == expected or (
        all(size in (-1, own) for size, own in zip(dims, expected, strict=False))
        and len(dims) == len(expected)
    ):
        return
    batch = " with max_batch_size above 0 the batch is no part of dims;" if batched else ""
    yield f"the {kind} has dims {list(dims)};{batch} expected {list(expected)}"


def _label_mistakes(
    config: Message, files: Files, name: str, engine: EngineInterface
) -> Iterator[str]:
    for output in config.get("output", ()):
        file = _one(output, "label_filename") if isinstance(output, Mapping) else None
        if file is None:
            continue
        content = files.get(f"{name}/{file}")
        if content is None:
            yield f"label_filename {file} is not in {name}"
        elif (count := len(content.decode("utf-8").splitlines())) != engine.classes:
            yield f"{file} names {counted(count, 'class')}, the engine has {engine.classes}"


def _instance_mistakes(config: Message, engine: EngineInterface) -> Iterator[str]:
    wanted = "KIND_GPU" if engine.on_gpu else "KIND_CPU"
    for group in config.get("instance_group", ()):
        kind = _one(group, "kind", "KIND_AUTO") if isinstance(group, Mapping) else None
        if kind not in {wanted, "KIND_AUTO"}:
            yield f"instance_group is {kind}, the engine runs on {wanted}"
        count = _one(group, "count", 1) if isinstance(group, Mapping) else 1
        if not isinstance(count, int) or count < 1:
            yield f"instance_group has the count {count}, expected at least 1"


def _is_dynamic(engine: EngineInterface) -> bool:
    return engine.input.shape[0] is None


def _one(message: Message, name: str, default: object = None) -> object:
    """Returns the value of a field, an enumeration's as its name; the default where it is not set."""
    values: Sequence[object] = message.get(name, ())
    value = values[-1] if values else default
    return value.name if isinstance(value, Literal) else value
