"""The public functions: what the commands do, from Python.

Each takes paths and a frozen request and returns a frozen value; nothing is printed, and every
refusal is an `EdgeresError` with the sentence that the command line would print.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.core.contract import InputType
from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.core.requests import BuildRequest, CalibrationRequest, Layout
from edgeres.names import known
from edgeres.progress import Progress, silent

if TYPE_CHECKING:
    from edgeres.core.artifacts import EngineArtifact, OnnxArtifact
    from edgeres.core.methods import Method
    from edgeres.core.table import CalibrationTable
    from edgeres.core.verdict import Ranking, Verdict
    from edgeres.estimation.estimate import BoardEstimate
    from edgeres.networks.specification import Shortcut

CALIBRATION = CalibrationRequest()
BUILD = BuildRequest()
BENCH = BenchRequest()


def export(
    architecture: str,
    weights: str | Path | None = None,
    *,
    output: str | Path,
    preprocessing: ContractOptions = NO_OPTIONS,
    num_classes: int | None = None,
    labels: str | Path | None = None,
    bn_eps: float | None = None,
    shortcut: Shortcut | None = None,
    opset: int = 17,
    weights_key: str | None = None,
    uniform_std: bool = False,
    input: InputType | str = InputType.FLOAT32,
    layout: Layout | str | None = None,
) -> OnnxArtifact:
    """Writes a trained checkpoint as ONNX, with its preprocessing inside. Needs the extra `export`.

    Args:
        architecture: registry name such as `resnet50`, `package.module:factory`, or published
            weights such as `timm:resnet50.a1_in1k`.
        weights: checkpoint, `.pth`, `.pt`, `.th` or `.safetensors`; None for published weights.
        output: the ONNX file.
        preprocessing: how images were prepared in training, by preset or by values.
        num_classes: checked against the classifier; None takes it from there.
        labels: text file with one class name a line.
        bn_eps: epsilon of batch normalisation, where the checkpoint's differs.
        shortcut: of a CIFAR network.
        opset: ONNX operator set, 13 to 20.
        weights_key: key of the set of weights in the checkpoint, such as `state_dict`; None: the
            averaged one where there is one.
        uniform_std: fold what differs of the channels' deviations into the first convolution.
        input: `float32`, or `uint8` for a file that takes pixels, with the arithmetic inside.
        layout: `hwc` or `chw`, of the pixels; None: HWC, as a camera has them.

    Raises:
        EdgeresError: the checkpoint cannot be read, trusted or fitted, the file would not compute
            what the network computes, or it cannot be written.
    """
    from edgeres.workflows import export_stage  # torch

    stage = export_stage()
    request = stage.ExportRequest(
        architecture=architecture,
        weights=None if weights is None else Path(weights),
        contract=preprocessing,
        num_classes=num_classes,
        labels=None if labels is None else Path(labels),
        bn_eps=bn_eps,
        shortcut=shortcut,
        opset=opset,
        weights_key=weights_key,
        uniform_std=uniform_std,
        input=InputType(input),
        layout=None if layout is None else Layout(layout),
    )
    artifact: OnnxArtifact = stage.export_model(request, output=Path(output))
    return artifact


def calibrate(
    model: str | Path,
    data: str | Path,
    request: CalibrationRequest = CALIBRATION,
    *,
    preprocessing: ContractOptions = NO_OPTIONS,
    output: str | Path | None = None,
    progress: Progress = silent,
) -> CalibrationTable:
    """Returns the calibration table of an ONNX model: thresholds by every method, from one pass.

    Args:
        model: the FP32 ONNX file.
        data: folder of images, or `.npz`; labels are not used.
        request: samples, method, and what is done against INT8's error.
        preprocessing: only for a model exported elsewhere, which carries none.
        output: where the table is written as JSON; None: nowhere.
        progress: receives how far each pass is.

    Raises:
        EdgeresError: the model or the images cannot be used, or the table cannot be written.
    """
    from edgeres.workflows import calibrate_model  # onnxruntime

    return calibrate_model(
        Path(model),
        Path(data),
        request,
        preprocessing,
        output=None if output is None else Path(output),
        progress=progress,
    )


def build_engine(
    model: str | Path,
    request: BuildRequest = BUILD,
    *,
    table: CalibrationTable | None = None,
    selection_data: str | Path | None = None,
    output: str | Path,
    method: Method | None = None,
    preprocessing: ContractOptions = NO_OPTIONS,
    progress: Progress = silent,
) -> EngineArtifact:
    """Builds an engine and writes it with its manifest, `output` with `.json` added.

    Args:
        model: the FP32 ONNX file.
        request: target, precision, batch and the builder's options.
        table: thresholds, for INT8.
        selection_data: labelled images that mixed precision is chosen by; only for that.
        output: the engine file.
        method: which of the table's thresholds; None takes its own.
        preprocessing: only for a model exported elsewhere, which carries none.
        progress: receives how far a search or NVIDIA's builder is.

    Raises:
        EdgeresError: the network cannot be lowered, the target refused it, or layers run in
            another precision than requested.
    """
    from edgeres.workflows import BuildInputs, SelectionData, build_from_model  # onnx

    images = None if selection_data is None else SelectionData(data=Path(selection_data))
    inputs = BuildInputs(
        model=Path(model),
        output=Path(output),
        table=table,
        selection=images,
        method=method,
        contract=preprocessing,
    )
    return build_from_model(inputs, request, progress=progress)


def bench(
    engine: str | Path,
    reference: str | Path,
    data: str | Path,
    request: BenchRequest = BENCH,
    *,
    simulate: bool = False,
    quantized_reference: bool = False,
    preprocessing: ContractOptions = NO_OPTIONS,
    baseline: str | Path | None = None,
    trust: bool = False,
    progress: Progress = silent,
) -> Verdict:
    """Returns the verdict on an engine: accuracy and latency beside the reference.

    Args:
        engine: an engine with its manifest, or with `simulate` a calibration table.
        reference: the FP32 ONNX model, or another engine.
        data: labelled images.
        request: limits, and how is measured.
        simulate: evaluate TensorRT's placement on the CPU, from a table; accuracy alone.
        quantized_reference: whether `reference` is an engine of less than FP32, or an ONNX file
            that was quantized or lowered.
        preprocessing: only for a reference that carries none.
        baseline: JSON of an earlier run on the same images, which this one must not be worse than.
        trust: run a plan that has no manifest; a plan is code.
        progress: receives how far each pass is.

    Raises:
        EdgeresError: files, images or labels cannot be used or do not belong together.
    """
    from edgeres.workflows import bench_engine  # onnxruntime

    inputs = BenchInputs(
        engine=Path(engine),
        reference=Path(reference),
        data=Path(data),
        simulate=simulate,
        quantized_reference=quantized_reference,
        contract=preprocessing,
        baseline=None if baseline is None else Path(baseline),
        trust=trust,
    )
    return bench_engine(inputs, request, progress=progress)


def inspect(path: str | Path) -> OnnxArtifact | CalibrationTable | EngineArtifact:
    """Returns what a file is, checked against its hashes: a model, a table, or an engine.

    Raises:
        EdgeresError: it is none of the three, or damaged.
    """
    from edgeres.workflows import inspect_artifact  # onnx

    return inspect_artifact(Path(path))


def compare(verdicts: Sequence[str | Path]) -> Ranking:
    """Returns how the engines of several verdicts stand against each other.

    Args:
        verdicts: files that hold what `edgeres bench --json` printed.

    Raises:
        EdgeresError: a file is no verdict, or there are fewer than two.
    """
    from edgeres.workflows import rank_runs  # onnxruntime

    return rank_runs([Path(path) for path in verdicts])


def estimate(
    model: str | Path,
    board: str,
    *,
    power_mode: str | None = None,
    precisions: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    timings: Sequence[str] = ("compute",),
) -> BoardEstimate:
    """Returns latency and throughput of a network on a board, which need not be at hand.

    Args:
        model: an FP32 ONNX file, or the name of a registered architecture.
        board: such as `orin-nano-8`; `edgeres estimate --list-boards` shows all.
        power_mode: such as `15W`; None takes the mode that the board is shipped in.
        precisions: of `fp32`, `fp16`, `int8`, `fp8`; empty: all that the board has.
        batches: images per inference.
        timings: of `compute`, `single-stream`, `offline`, `loop`.

    Raises:
        EdgeresError: no such board, mode or network, or the board lacks a precision.
    """
    from edgeres.estimation.arithmetic import Arithmetic
    from edgeres.estimation.estimate import EstimateRequest
    from edgeres.estimation.model import EstimatedTiming
    from edgeres.estimation.network import estimate_latency  # onnx
    from edgeres.machine.board_names import board_called

    request = EstimateRequest(
        board=board_called(board, power_mode),
        precisions=tuple(known(Arithmetic, name) for name in precisions),
        batches=tuple(batches),
        timings=tuple(known(EstimatedTiming, name) for name in timings),
    )
    return estimate_latency(str(model), request)
