"""The steps of normalization in their order, and the comparison with the file that ends them."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from numpy.typing import NDArray

from edgeres.batch_independence import QUANTIZED_TOLERANCE
from edgeres.core.contract import Contract
from edgeres.errors import ArtifactError, ConfigError, RunnerError
from edgeres.graph_checks import low_precision
from edgeres.graph_names import free_added_names
from edgeres.input_files import MODEL, read_bytes
from edgeres.normalization.constants import (
    evaluate_constants,
    is_constant,
    put,
    put_weights,
    take_weights,
)
from edgeres.normalization.flattening import unify_flattening
from edgeres.normalization.folding import fold_batch_norms, foldable
from edgeres.normalization.interface import (
    Dims,
    dims_of,
    feed_image_alone,
    fix_shape,
    image_input,
    is_channels_last,
    open_batch,
    take_channels_first,
)
from edgeres.normalization.pools import global_means, unify_global_means
from edgeres.normalization.rules import check_rules
from edgeres.onnx_file import LoadedModel, check_classes, is_own_export, opset_of, parse_model
from edgeres.plurals import counted
from edgeres.session import open_session, run_session

_LOG = logging.getLogger("edgeres.normalization")

MIN_OPSET = 13
"""First opset with a per-channel scale. Source: ONNX operator QuantizeLinear, version 13."""

_OPSET = 17
"""What an older one is raised to: the newest that TensorRT 8.6's parser reads, as exports have."""

TOLERANCE = 1e-4
"""Largest accepted difference of a logit as a fraction of the image's largest: that of an export."""

_PLAIN = frozenset(
    {"Conv", "Relu", "Clip", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Gemm", "Pad"}
    | {"Slice", "Concat", "Flatten", "Reshape", "BatchNormalization", "Softmax", "LogSoftmax"}
)
"""Operators that no optimization of ONNX Runtime's takes out of a network that is folded."""

_WINDOWS = frozenset(["Conv", "MaxPool", "AveragePool"])

_LARGEST_BATCH = 1024
"""Images of a fixed batch; the file is run with as many once, to be compared with its other form."""

_PROBES = 3
"""Images of the comparison; a batch that is opened is compared with these, and with one."""

_Array = NDArray[np.float32]


def normalize(
    model: LoadedModel, contract: Contract, *, fix_sizes: bool = True, operators: bool = True
) -> LoadedModel:
    """Returns a model in the form that `export` writes, or the same one where it has it already.

    A quantized model keeps its operators, since other ones would round elsewhere: its batch, its
    image size and the place of its channels alone are brought to that form.

    Args:
        model: as it was read.
        contract: its size is the image's where the model leaves it open.
        fix_sizes: False keeps an open height and width, for a plan of several image sizes.
        operators: False keeps the operators of every model, for one that is run and not quantized.

    Raises:
        ConfigError: the model takes images of another size than the contract makes.
        ArtifactError: it cannot be brought to that form, or computes something else in it.
    """
    if model.is_normalized:
        return model
    path, graph = model.artifact.path, model.proto.graph
    if operators:
        check_rules(path, model.proto)
    channels_last = is_channels_last(graph)
    dims = dims_of(image_input(graph))
    if (dims[0] or 0) > _LARGEST_BATCH:
        raise ArtifactError(
            f"{path} takes batches of {dims[0]} images and no others; at most {_LARGEST_BATCH} are "
            "run to open a fixed batch. Export it with a dynamic batch."
        )
    shape = _image_shape(path, (dims[0], dims[3], *dims[1:3]) if channels_last else dims, contract)
    is_fixed = None not in dims[1:] or not fix_sizes
    keeps_operators = not operators or bool(low_precision(model.proto))
    is_final = fix_sizes and operators
    if (
        dims[0] is None
        and is_fixed
        and not channels_last
        and (keeps_operators or _has_plain_operators(model.proto))
    ):
        return _counted(replace(model, is_normalized=is_final), shape)
    proto = parse_model(path, model.content)
    feed_image_alone(proto)
    try:
        steps = [] if keeps_operators else _raise_opset(path, proto)
        steps += _change_interface(proto.graph, shape if fix_sizes else None, channels_last)
        if not keeps_operators:
            # Shapes that are computed from constants have to be known before the batch is opened.
            steps += _change_operators(proto)
        if dims[0] is not None:
            open_batch(proto.graph)
            steps.append(f"opened the batch of {dims[0]}")
        if not keeps_operators:
            proto = _optimized(path, proto, steps)
        if not steps:
            return _counted(replace(model, is_normalized=is_final), shape)
        logits = _check_equal(model, proto, steps, shape, channels_last=channels_last)
    except RunnerError as error:
        raise ArtifactError(
            f"{path} is not in the form that quantization takes, and cannot be brought to it: "
            f"{' '.join(str(error).split())} Export it with opset {_OPSET}, a dynamic batch and "
            "constant folding."
        ) from error
    artifact = model.artifact
    described = replace(
        artifact,
        input=replace(artifact.input, shape=dims_of(image_input(proto.graph))),
        output=replace(artifact.output, shape=(None, logits)),
        batch=dims[0],
    )
    check_classes(described)
    content = proto.SerializeToString()
    free_added_names(path, proto)
    return LoadedModel(artifact=described, content=content, proto=proto, is_normalized=is_final)


def _counted(model: LoadedModel, shape: tuple[int, int, int]) -> LoadedModel:
    """Returns a model with the number of its logits, which its file may leave open.

    Raises:
        ArtifactError: there are fewer than two, or ONNX Runtime refused the model.
    """
    spec, output = model.artifact.input, model.artifact.output
    if output.shape[-1] is not None:
        return model
    image = np.zeros((1, *shape), np.uint8 if spec.dtype == "uint8" else np.float32)
    try:
        (logits,) = run_session(open_session(model.content), [output.name], {spec.name: image})
    except RunnerError as error:
        raise ArtifactError(f"{model.artifact.path} cannot be run: {error}") from error
    counted = replace(model.artifact, output=replace(output, shape=(None, logits.shape[-1])))
    check_classes(counted)
    return replace(model, artifact=counted)


def _image_shape(path: Path, dims: Dims, contract: Contract) -> tuple[int, int, int]:
    """Returns channels, height and width of the images, and refuses a model of other ones."""
    _, channels, *sides = dims
    if channels not in {None, contract.channels}:
        raise ConfigError(
            f"{path} takes images of {counted(channels, 'channel')}, and the preprocessing makes "
            f"{contract.channels}. Pass --channels {channels}, with --mean and --std for each."
        )
    height, width = contract.height, contract.width
    if any(a not in {None, b} for a, b in zip(sides, (height, width), strict=True)):
        spelled = "x".join(map(str, sides))
        size = sides[0] if sides[0] == sides[1] else spelled
        raise ConfigError(
            f"{path} takes images of {spelled} pixels, and the preprocessing makes them "
            f"{height}x{width}. Pass --input-size {size}, or the --preset of this model."
        )
    return contract.channels, height, width


def _has_plain_operators(model: onnx.ModelProto) -> bool:
    """Whether no step would change an operator: true of every export of edgeres."""
    graph = model.graph
    stored = {"", *(tensor.name for tensor in graph.initializer)}
    if (
        opset_of(model) < MIN_OPSET
        or model.functions
        or any(is_constant(node, stored) for node in graph.node)
        or any(foldable(graph, stored))
    ):
        return False
    return is_own_export(model) or not (unusual_operators(graph) or any(global_means(model)))


def unusual_operators(graph: onnx.GraphProto) -> Counter[str]:
    """Counts the operators that ONNX Runtime's optimizations may take out of a folded network."""
    stored = {tensor.name for tensor in graph.initializer}
    windowed = {node.input[0] for node in graph.node if node.op_type in _WINDOWS}
    return Counter(
        node.op_type
        for node in graph.node
        if node.op_type not in _PLAIN
        # A bias beside its convolution; a padding beside its window.
        or (node.op_type == "Add" and not stored.isdisjoint(node.input))
        or (node.op_type == "Pad" and node.output[0] in windowed)
    )


def _raise_opset(path: Path, model: onnx.ModelProto) -> list[str]:
    """Brings operators of an older version, and functions, to ONNX's operators of today."""
    steps = []
    if model.functions:
        model.CopyFrom(onnx.inliner.inline_local_functions(model))
        steps.append("inlined functions")
    if (opset := opset_of(model)) < MIN_OPSET:
        try:
            model.CopyFrom(onnx.version_converter.convert_version(model, _OPSET))
        except (RuntimeError, ValueError) as error:
            raise RunnerError(f"ONNX's converter cannot raise opset {opset}: {error}.") from error
        steps.append(f"raised opset {opset} to {_OPSET}")
    return steps


def _change_interface(
    graph: onnx.GraphProto, shape: tuple[int, int, int] | None, channels_last: bool
) -> list[str]:
    """Puts the channels first and fixes the image size, unless that is None."""
    steps = []
    if channels_last:
        take_channels_first(graph)
        steps.append("put the channels first")
    if shape is not None and None in dims_of(image_input(graph))[1:]:
        fix_shape(graph, shape)
        steps.append(f"fixed the image size at {shape[1]}x{shape[2]}")
    return steps


def _change_operators(model: onnx.ModelProto) -> list[str]:
    """Evaluates constants, folds batch normalisation, unifies global means and what follows."""
    weights = take_weights(model)
    # Constants first: a weight behind an operator can be folded only then.
    evaluated, folded = evaluate_constants(model, weights), fold_batch_norms(model, weights)
    put_weights(model, weights)
    means, ways = unify_global_means(model), unify_flattening(model)
    steps = (
        (evaluated, f"evaluated {counted(evaluated, 'operator')} on constants"),
        (folded, f"folded {counted(folded, 'BatchNormalization')}"),
        (means, f"wrote {counted(means, 'mean')} over height and width as GlobalAveragePool"),
        (ways, f"wrote {counted(ways, 'way')} from there to the classifier as Flatten"),
    )
    return [step for number, step in steps if number]


def _optimized(path: Path, model: onnx.ModelProto, steps: list[str]) -> onnx.ModelProto:
    """Returns a model without the operators that change nothing, by ONNX Runtime's optimizer."""
    before = unusual_operators(model.graph)
    if not before:
        return model
    with tempfile.TemporaryDirectory(prefix="edgeres-") as folder:
        file = Path(folder) / "optimized.onnx"
        open_session(model.SerializeToString(), optimized=file, portable=True)
        optimized = parse_model(path, read_bytes(file, MODEL))
    used = {node.domain or "" for node in optimized.graph.node}
    # It lists every set of operators that it knows, and older parsers refuse those they do not.
    kept = [entry for entry in optimized.opset_import if entry.domain in used | {""}]
    put(optimized.opset_import, kept)
    optimized.ir_version = model.ir_version
    removed = before - unusual_operators(optimized.graph)
    if not removed or used - {node.domain or "" for node in model.graph.node}:
        return model
    listed = ", ".join(f"{count} {kind}" for kind, count in removed.items())
    steps.append(f"merged {listed} with what they stand beside")
    steps.extend(_change_operators(optimized))
    return optimized


def _check_equal(
    model: LoadedModel,
    changed: onnx.ModelProto,
    steps: list[str],
    shape: tuple[int, int, int],
    *,
    channels_last: bool,
) -> int:
    """Checks that a changed model computes what its file does; returns the number of its logits.

    Raises:
        ArtifactError: it does not.
        RunnerError: ONNX Runtime refused one of them.
    """
    original, spec = model.proto.graph, model.artifact
    random = np.random.default_rng(0).standard_normal((_PROBES, *shape))
    # What networks take: values around 0, or those of pixels.
    images = (random * np.array([1, 0.3, 64])[:, None, None, None]).astype(np.float32)
    images[-1] += 128
    if spec.input.dtype == "uint8":
        images = images.clip(0, 255).astype(np.uint8)
    batch = dims_of(image_input(original))[0] or _PROBES
    session = open_session(model.content)
    fed = images.transpose(0, 2, 3, 1) if channels_last else images
    # Filled up to whole batches of the size that the file takes.
    rows = np.resize(np.arange(_PROBES), -(-_PROBES // batch) * batch)
    expected = np.concatenate(
        [
            run_session(session, [spec.output.name], {spec.input.name: fed[part]})[0]
            for part in rows.reshape(-1, batch)
        ]
    )[:_PROBES]
    session = open_session(changed.SerializeToString())
    for part in (images, images[:1]):
        logits = run_session(session, [spec.output.name], {spec.input.name: part})[0]
        difference = relative_difference(logits, expected[: len(part)])
        # A sum in another order may round to another level. Not `difference > tolerance`, which NaN
        # is not.
        tolerance = QUANTIZED_TOLERANCE if low_precision(model.proto) else TOLERANCE
        if not difference <= tolerance:
            raise ArtifactError(
                f"{spec.path} is not in the form that quantization takes, and computes something "
                f"else in it: with {counted(len(part), 'image')}, logits differ by "
                f"{difference:.1e} of the largest, where rounding explains {tolerance:.0e} "
                f"({', '.join(steps)}). Export it with opset {_OPSET}, a dynamic batch and "
                "constant folding."
            )
    _LOG.warning(
        "%s is normalized: %s. Its logits are the same within rounding.",
        spec.path,
        ", ".join(steps),
    )
    return int(expected.shape[1])


def relative_difference(actual: _Array, expected: _Array) -> float:
    """Returns the largest |actual - expected| of a row as a fraction of its largest |expected|.

    Both are (N, classes). NaN on either side gives NaN; a row of zeros gives 0 where it is met
    and infinity where not.
    """
    if actual.shape != expected.shape:
        return float("inf")
    difference = np.abs(actual - expected).max(axis=1)
    largest = np.abs(expected).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # 0 / 0 of a row of zeros that is met would be NaN.
        fraction = np.where(difference == 0, 0, difference / largest)
    return float(fraction.max())
