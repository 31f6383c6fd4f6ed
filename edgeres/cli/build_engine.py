"""`edgeres build-engine`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgeres.cli.options import (
    PATH,
    Names,
    common_options,
    gathered,
    is_count,
    lengths,
    output_option,
    preprocessing_options,
    request_options,
    stacked,
    was_typed,
)
from edgeres.cli.output import progress_bars, show, show_json, show_status
from edgeres.cli.remote import RemoteCommand
from edgeres.core.builder_options import OPTIMIZATION_LEVELS, TensorRTOptions
from edgeres.core.contract_options import ContractOptions
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.targets.base import find_target, targets

Profile = tuple[int, int, int]


def batch_profile(ctx: click.Context, param: click.Parameter, value: str) -> Profile:
    """Returns the smallest, optimal and largest batch of `1:8:32`, or of one number for all."""
    parts = value.split(":")
    # isdecimal first: int() would accept "-1", " 8" and "1_6" too.
    if len(parts) not in {1, 3} or not all(is_count(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a batch such as 8 or 1:8:32")
    low, best, high = (int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    return low, best, high


def sizes(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | tuple[int, int] | Profile | None:
    """Returns what `lengths` does, or the smallest, optimal and largest of `160:224:288`."""
    if value is None or ":" not in value:
        return lengths(ctx, param, value)
    parts = value.split(":")
    if len(parts) != 3 or not all(is_count(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a size such as 224 or 160:224:288")
    low, best, high = map(int, parts)
    return low, best, high


INPUT_SIZES = click.option(
    "--input-size",
    "sizes",
    metavar="N|HxW|MIN:OPT:MAX",
    callback=sizes,
    help="Side of the crop, or height and width; three sides for a TensorRT plan of a model with dynamic sizes.",
)


_builder_option = request_options(TensorRTOptions)

engine_options = stacked(
    _builder_option(
        "--workspace",
        "workspace_mib",
        metavar="MIB",
        help="Scratch memory of one kernel. [default: TensorRT's; what fits on a board]",
    ),
    _builder_option(
        "--optimization-level",
        metavar=f"{OPTIMIZATION_LEVELS[0]}-{OPTIMIZATION_LEVELS[-1]}",
        help="Effort of the builder. [default: TensorRT's, 3]",
    ),
    _builder_option(
        "--timing-cache",
        type=click.Path(),
        metavar="FILE",
        help="Kernel timings, read if the file is there and kept in it.",
    ),
    _builder_option("--hardware-compatibility", help="Other GPUs that the plan runs on."),
    _builder_option("--version-compatible", help="Later versions may load the plan."),
    _builder_option("--refit", help="Weights can be replaced afterwards."),
    _builder_option("--strip-weights", help="Leave the weights out of the plan."),
    _builder_option("--sparsity", help="Use kernels for 2:4 sparse weights."),
    _builder_option("--dla", "dla_core", metavar="CORE", help="Build for a Jetson's DLA core."),
    _builder_option("--gpu-fallback", help="Layers that the DLA cannot run go to the GPU."),
    gathered("options", TensorRTOptions),
)
"""Adds the options of NVIDIA's builder; the command receives them as `options`."""


def check_effect(config: BuildRequest) -> None:
    """Refuses an option that was typed and would have no effect on this target or precision."""
    for_tensorrt = find_target(config.target).takes_profile
    if was_typed("batch") and not for_tensorrt:
        raise click.UsageError(
            f"--batch is for TensorRT plans; an engine for {config.target} takes any batch. Leave it out."
        )
    # In an FP16 or FP32 plan nothing is left beside the precision itself.
    has_float_layers = for_tensorrt and config.precision.quantizes
    if was_typed("float_layers") and not has_float_layers:
        raise click.UsageError(
            "--float-layers is for int8 and mixed plans of TensorRT. Leave it out."
        )


class _TargetNames(click.ParamType[str]):
    """Names of the targets that there are when the command runs, not when it was imported."""

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Names(targets()).convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return Names(targets()).get_metavar(param, ctx)


_option = request_options(BuildRequest)

_engine = stacked(
    _option("--precision", help="Of the convolutions and additions."),
    # Read from the targets themselves, so that one that joins is a choice without a change here.
    _option("--target", type=_TargetNames(), help="What runs the engine."),
    _option(
        "--max-drop",
        "max_drop_pp",
        metavar="PP",
        help="Budget of mixed precision, in percentage points of top-1 accuracy.",
    ),
    _option(
        "--float-stream",
        help="Keep what additions read of the residual stream in FP16: all with fp8, with mixed those "
        "that the budget needs.",
    ),
    _option(
        "--compute-capability",
        metavar="X.Y",
        help="GPU that a tensorrt-rtx plan is for, such as 8.6.",
    ),
    _option(
        "--batch",
        metavar="MIN:OPT:MAX",
        callback=batch_profile,
        default=":".join(map(str, BuildRequest().batch)),
        help="Batch sizes of a TensorRT plan.",
    ),
    _option(
        "--float-layers",
        type=Names([Precision.FP16, Precision.FP32]),
        help="Precision of what stays float in an int8 plan of TensorRT.",
    ),
    _option(
        "--require-coverage",
        "required_coverage",
        metavar="PERCENT",
        help="Convolutions and additions that must run in the requested precision; else exit code 5.",
    ),
)


@click.command("build-engine", cls=RemoteCommand)
@click.argument("model", type=PATH)
@_engine
@click.option(
    "--calibration",
    type=PATH,
    help="Table from edgeres calibrate, for int8, and with its --precision fp8 for fp8; for fp16 it "
    "shows what would overflow.",
)
@click.option("--calib-data", type=PATH, help="Images to calibrate on now, instead of a table.")
@click.option("--judge-data", type=PATH, help="Labelled images that mixed precision is chosen by.")
@click.option("--method", type=Names(Method), help="Thresholds of the table. [default: its own]")
@engine_options
@preprocessing_options
@INPUT_SIZES
@output_option("The engine; its manifest is written beside it as OUTPUT.json.")
@common_options
@gathered("request", BuildRequest)
def build_engine(
    model: Path,
    calibration: Path | None,
    calib_data: Path | None,
    judge_data: Path | None,
    method: Method | None,
    request: BuildRequest,
    contract: ContractOptions,
    sizes: int | tuple[int, int] | Profile | None,
    output: Path,
    as_json: bool,
) -> None:
    """Build an engine from MODEL: for this CPU, for TensorRT, or for TensorRT for RTX.

    Precision mixed keeps residual blocks from INT8, those first that cost the most accuracy for
    the least latency, until --judge-data, images that neither training nor bench should use, lose
    at most --max-drop. What NVIDIA's version at hand lacks is refused by name, never dropped.
    Exit code 5: fewer layers than --require-coverage run in the requested precision.

    \b
    Example:
      edgeres build-engine resnet50.onnx --calibration resnet50.table.json -o resnet50.int8.onnx
      edgeres build-engine resnet50.onnx --calibration resnet50.table.json \\
        --target tensorrt-rtx --compute-capability 8.6 -o resnet50.int8.plan
      edgeres build-engine resnet50.onnx --calibration resnet50.table.json \\
        --precision mixed --max-drop 0.2 --judge-data held_out/ -o resnet50.mixed.onnx
    """
    # One number, or two, are the contract's crop, three are the profile of a plan.
    if isinstance(sizes, tuple) and len(sizes) == 3:
        request = replace(request, input_size=sizes)
    else:
        contract = replace(contract, input_size=sizes)
    check_effect(request)
    with progress_bars() as progress:
        from edgeres.workflows import BuildInputs, SelectionData, build_from_model  # onnx

        inputs = BuildInputs(
            model=model,
            output=output,
            table=calibration,
            calibration_data=calib_data,
            selection=None if judge_data is None else SelectionData(data=judge_data),
            method=method,
            contract=contract,
        )
        engine = build_from_model(inputs, request, progress=progress)
    from edgeres.core.audit import describe_coverage
    from edgeres.report import mixed_table  # rich

    manifest = engine.manifest
    if as_json:
        show_json(manifest)
        return
    mb = len(engine.content) / 1e6
    show_status(f"{output}: {request.precision} for {request.target}, {mb:.1f} MB")
    show_status(f"{output}.json: its manifest")
    if manifest.audit is not None:
        show_status(describe_coverage(manifest.audit, request.precision))
    for command in manifest.commands:
        show_status(command)
    if manifest.search is not None:
        show(mixed_table(manifest.search))
