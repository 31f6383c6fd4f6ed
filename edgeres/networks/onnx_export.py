"""A torch network to an ONNX file that provably computes the same.

The graph is traced, its constants are evaluated and batch normalisation is folded into the
convolutions. Then ONNX Runtime must agree with torch on random and on extreme inputs, at two
batch sizes; only after that does a file appear.

Knows nothing of architectures, checkpoints, quantization or targets.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # public, not in __all__

from edgeres.byte_input import Reads, with_byte_input
from edgeres.core.artifacts import PROBABILITIES, OnnxArtifact, TensorSpec
from edgeres.core.contract import Contract, InputType, OutputType
from edgeres.core.requests import Head, Layout, OnnxExportRequest
from edgeres.errors import ConfigError, ExportError, RunnerError
from edgeres.files import atomic_write
from edgeres.graph_checks import final_activation
from edgeres.graph_structure import with_weights_as_inputs
from edgeres.networks.frozen import frozen_copy
from edgeres.normalization import (
    Weights,
    evaluate_constants,
    fold_batch_norms,
    put_weights,
    relative_difference,
    unify_global_means,
)
from edgeres.onnx_file import IR_VERSION, load_model, write_model
from edgeres.plurals import counted
from edgeres.progress import Progress, silent
from edgeres.session import open_session, run_session

INPUT = "input"
OUTPUT = "logits"
PROBABILITIES_OUTPUT = "probabilities"

TOLERANCE = 1e-4
"""Largest accepted |ONNX - torch| as a fraction of the image's largest |logit|.

Measured with torch 2.13 and ONNX Runtime 1.32 on x86-64: rounding reaches 2.7e-6 over every
architecture with random weights and three trained nets; an epsilon of 1e-5 for 1e-3 makes 1e-3.
"""

_BATCH = "N"
_TRACED_BATCH = 2
_PROBE_BATCH = 3
"""Another one than was traced, and than the 1 of the other probes."""

_LARGE = 10
"""How far the probe of large values goes beyond what an image can hold."""

_STAGE = "Exporting"

_Arrays = dict[str, NDArray[np.float32]]


def export_onnx(
    model: nn.Module,
    config: OnnxExportRequest,
    *,
    output: Path,
    progress: Progress = silent,
) -> OnnxArtifact:
    """Writes `model` as an ONNX file and returns what was written.

    The input is `input`, (N, C, H, W) float32 or bytes with a dynamic N; the output is `logits`, or
    `probabilities` of a softmax head, (N, classes) float32. The network is exported in evaluation mode and left as it is.

    Args:
        model: maps images to logits.
        config: contract, class names, lineage and opset.
        output: the file, written atomically.
        progress: receives how much of tracing and comparing is done.

    Raises:
        ConfigError: the class names are not as many as the logits.
        ExportError: torch cannot trace the network, the result is no valid ONNX, or it does
            not compute what the network computes.
        ArtifactError: the file cannot be written.
    """
    # A copy, so that the caller's network keeps its mode, device and type.
    frozen = frozen_copy(model)
    images = probes(config.contract)
    # Each probe runs in torch and in ONNX Runtime, and the network is traced in between.
    steps = 2 * len(images) + 1
    expected = {}
    for done, (name, batch) in enumerate(images.items()):
        progress(_STAGE, done, steps, name)
        expected[name] = _torch_logits(frozen, batch)
    progress(_STAGE, len(images), steps, "tracing")
    logits = next(iter(expected.values())).shape[1]
    if config.classes and len(config.classes) != logits:
        raise ConfigError(
            f"{len(config.classes)} class names for {counted(logits, 'logit')}. Pass --labels with "
            "one name per class, in the order of the network's outputs."
        )
    exported, weights = _traced(frozen, config)
    ends = final_activation(exported)
    if ends and config.head is not None:
        raise ExportError(
            f"The network itself ends in {ends}, and --head is {config.head}. Leave --head out, or "
            "give the network a forward that returns logits."
        )
    contract, name = config.contract, OUTPUT
    if config.head is Head.SOFTMAX:
        name = PROBABILITIES_OUTPUT
        add_softmax(exported, name)
        expected = {probe: _softmax(values) for probe, values in expected.items()}
    if config.head is Head.SOFTMAX or ends in PROBABILITIES:
        contract = replace(contract, output=OutputType.PROBABILITIES)
    last = contract.input is InputType.UINT8 and config.layout is Layout.HWC
    shape = contract.fed_shape if last else contract.shape
    described = OnnxArtifact(
        path=output,
        sha256="",
        input=TensorSpec(name=INPUT, shape=(None, *shape), dtype=contract.input.value),
        output=TensorSpec(name=name, shape=(None, logits)),
        activation=final_activation(exported),
        contract=contract,
        classes=config.classes,
        architecture=config.architecture,
        checkpoint_sha256=config.checkpoint_sha256,
    )
    _fold(exported, weights)
    with atomic_write(output) as temporary:
        sha256 = write_model(temporary, exported, described)
        # The file is what is compared: from here on its bytes are the only ones.
        del exported
        _check_equal(temporary, name, images, expected, progress)
        progress(_STAGE, steps, steps)
        if contract.input is InputType.UINT8:
            sha256 = _put_behind_bytes(temporary, described, channels_last=last)
    return replace(described, sha256=sha256)


def _fold(exported: onnx.ModelProto, weights: Weights) -> None:
    """Brings a traced graph to the form that quantization takes, with its weights in it.

    Raises:
        ExportError: it is no valid ONNX then, or cannot be run.
    """
    # Constants first: a weight behind an Identity, as torch writes shared ones, cannot be folded.
    try:
        evaluate_constants(exported, weights)
    except RunnerError as error:
        raise ExportError(f"The exported model cannot be run: {error}") from error
    fold_batch_norms(exported, weights)
    put_weights(exported, weights)
    unify_global_means(exported)
    try:
        onnx.checker.check_model(with_weights_as_inputs(exported), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"The exported model is no valid ONNX: {error}. No file was written. "
            "Try another --opset."
        ) from error


def _put_behind_bytes(path: Path, described: OnnxArtifact, *, channels_last: bool) -> str:
    """Puts the preprocessing into an exported file, compares all levels, returns the SHA-256.

    Raises:
        ExportError: the arithmetic inside is not the contract's.
    """
    contract, name = described.contract, described.output.name
    assert contract is not None
    # All 256 levels in every channel, as far as the image has room.
    planes = [
        np.arange(i, i + contract.height * contract.width) % 256 for i in range(contract.channels)
    ]
    pixels = np.stack(planes).reshape(1, *contract.shape).astype(np.uint8)
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (contract.mean, contract.std))
    prepared = ((pixels * contract.scale - mean) / std).astype(np.float32)
    given = pixels.transpose(0, 2, 3, 1) if channels_last else pixels
    # One session after the other, since each holds all weights.
    (expected,) = run_session(_session(path), [name], {INPUT: prepared})
    fed = with_byte_input(load_model(path), contract, Reads.NORMALIZED, channels_last=channels_last)
    sha256 = write_model(path, fed, described)
    del fed
    (logits,) = run_session(_session(path), [name], {INPUT: np.ascontiguousarray(given)})
    difference = relative_difference(logits, expected)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"The model on bytes differs from the one on floats by {difference:.1e} of the largest "
            f"logit, where rounding explains {TOLERANCE:.0e}. No file was written. Export it with "
            "--input float."
        )
    return sha256


def add_softmax(model: onnx.ModelProto, name: str) -> None:
    """Lets a model of logits, (N, classes), give their softmax under a name, in place."""
    (logits,) = model.graph.output
    # The node, not a module around the network, whose layers would have other names then.
    model.graph.node.append(
        onnx.helper.make_node("Softmax", [logits.name], [name], name="/Softmax", axis=1)
    )
    logits.name = name


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    probabilities: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits), 1).numpy()
    return probabilities


def probes(contract: Contract) -> _Arrays:
    """Returns images, (N, C, H, W) float32, by what they are: extreme ones and random.

    Black and white are the ends of what the contract lets through, so a branch on an image's
    values that tracing froze takes both ways; two batch sizes show that N is dynamic.
    """
    mean, std = np.array(contract.mean), np.array(contract.std)
    shape = (1, *contract.shape)
    black, white = (
        np.broadcast_to(((value * contract.scale - mean) / std)[:, None, None], shape)
        for value in (0, 255)
    )
    generator = np.random.default_rng(0)
    brightness = generator.random((_PROBE_BATCH, *shape[1:]))
    largest = _LARGE * max(np.abs(black).max(), np.abs(white).max())
    images = {
        "a black image": black,
        "a white image": white,
        "zeros": np.zeros(shape),
        "random images": black + (white - black) * brightness,
        "large values": generator.standard_normal(shape) * largest,
    }
    return {name: x.astype(np.float32) for name, x in images.items()}


def _torch_logits(model: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        with torch.inference_mode():
            logits = model(torch.from_numpy(images))
    except RuntimeError as error:
        raise ExportError(
            f"The network does not take images of the shape {images.shape}: {error}. "
            "Check --input-size, --channels and the architecture."
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ExportError(
            f"The network maps {images.shape} to {shape}; expected one tensor of logits, "
            f"({len(images)}, classes). Wrap it so that it returns the logits alone."
        )
    array: NDArray[np.float32] = logits.numpy()
    return array


def _traced(model: nn.Module, config: OnnxExportRequest) -> tuple[onnx.ModelProto, Weights]:
    """Returns torch's ONNX of the network, one node an operation, and what it stores."""
    buffer = io.BytesIO()
    # torch 2.13 dumps its graph on an unsupported operation; standard output is the caller's.
    torch._C._jit_set_onnx_log_output_stream("stderr")
    try:
        with warnings.catch_warnings():
            # torch.export cannot write opset 17, which is what TensorRT 8.6's parser reads.
            warnings.filterwarnings("ignore", "You are using the legacy", DeprecationWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx")
            # What a trace freezes is found by comparing, on inputs that take both ways.
            warnings.filterwarnings("ignore", category=TracerWarning)
            # torch warns of constants that it does not fold; `evaluate_constants` does.
            warnings.filterwarnings("ignore", "Constant folding - ", UserWarning)
            torch.onnx.export(
                model,
                (torch.zeros(_TRACED_BATCH, *config.contract.shape),),
                buffer,  # type: ignore[arg-type]  # tracing writes to a stream too
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: _BATCH}, OUTPUT: {0: _BATCH}},
                opset_version=config.opset,
                dynamo=False,
                # Otherwise torch folds batch normalisation itself, in float32.
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                # With its weights torch holds the file three times over; they are inputs here.
                export_params=False,
            )
    except (RuntimeError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise ExportError(
            f"torch cannot export the network to opset {config.opset}: {error}. "
            "Replace the operation, or pass another --opset."
        ) from error
    exported = onnx.load_model_from_string(buffer.getvalue())
    exported.ir_version = IR_VERSION
    stored = [value.name for value in exported.graph.input if value.name != INPUT]
    del exported.graph.input[1:]
    values = model.state_dict()
    return exported, {name: numpy_helper.from_array(values[name].numpy(), name) for name in stored}


def _session(path: Path) -> Any:
    try:
        # Without ONNX Runtime's own layouts, which are a second set of all weights.
        return open_session(path, portable=True)
    except RunnerError as error:
        raise ExportError(f"The exported model cannot be run: {error}") from error


def _check_equal(
    path: Path, output: str, images: _Arrays, expected: _Arrays, progress: Progress
) -> None:
    """Raises ExportError where ONNX Runtime departs from torch's logits by more than rounding."""
    session = _session(path)
    for done, (name, batch) in enumerate(images.items(), len(images) + 1):
        progress(_STAGE, done, 2 * len(images) + 1, name)
        try:
            logits = run_session(session, [output], {INPUT: batch})[0]
        except RunnerError as error:
            raise ExportError(
                f"The exported model does not run on images of the shape {batch.shape}, though "
                f"the network does: {error}. No file was written. Its forward must not fix the "
                "batch size."
            ) from error
        difference = relative_difference(logits, expected[name])
        # Not `difference > TOLERANCE`, which NaN is not.
        if not difference <= TOLERANCE:
            raise ExportError(
                f"The exported model differs from the network on {name}: by {difference:.1e} of "
                f"the largest logit, where rounding explains {TOLERANCE:.0e}. No file was written. "
                "A trace keeps one branch of an `if` on tensor values and one batch size: make "
                "the network's forward free of both."
            )
