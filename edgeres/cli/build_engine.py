"""`edgeres build-engine`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeres.cli.engine_options import (
    INPUT_SIZES,
    Profile,
    batch_profile,
    check_effect,
    engine_options,
)
from edgeres.cli.options import (
    PATH,
    PREPROCESSING,
    Names,
    common_options,
    option_group,
    output_option,
)
from edgeres.cli.output import progress_bars, say, show, show_json
from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.contract import ContractOptions
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildConfig, CalibrationConfig
from edgeres.targets.base import targets

if TYPE_CHECKING:
    from edgeres.core.artifacts import EngineArtifact

DEFAULTS = BuildConfig()


def _check_sources(
    precision: Precision, calibration: Path | None, calib_data: Path | None, judge_data: Path | None
) -> None:
    """Refuses files that exclude each other, and mixed precision without images to judge by."""
    if calibration is not None and calib_data is not None:
        raise click.UsageError("Pass --calibration or --calib-data, not both.")
    if (precision is Precision.MIXED) is (judge_data is None):
        raise click.UsageError(
            "--precision mixed needs --judge-data, labelled images to count the drop on."
            if judge_data is None
            else "--judge-data is for --precision mixed. Leave it out."
        )


def _tell(engine: EngineArtifact, config: BuildConfig) -> None:
    """Says what was built, how much of it runs as asked, and what a search weighed."""
    from edgeres.core.audit import describe_coverage
    from edgeres.report import mixed_table  # rich

    path, manifest = engine.path, engine.manifest
    say(f"{path}: {config.precision} for {config.target}, {path.stat().st_size / 1e6:.1f} MB")
    say(f"{path}.json: its manifest")
    if manifest.audit is not None:
        say(describe_coverage(manifest.audit, config.precision))
    if manifest.search is not None:
        show(mixed_table(manifest.search))


_request = option_group(
    "request",
    BuildConfig,
    click.option(
        "--precision",
        type=Names(Precision),
        default=DEFAULTS.precision.value,
        show_default=True,
        help="Of the convolutions and additions.",
    ),
    click.option(
        "--target",
        type=Names(targets()),
        default=DEFAULTS.target,
        show_default=True,
        help="What runs the engine.",
    ),
    click.option(
        "--max-drop",
        "max_drop_pp",
        type=float,
        metavar="PP",
        help="Budget of mixed precision, in percentage points of top-1 accuracy.",
    ),
    click.option(
        "--compute-capability",
        metavar="X.Y",
        help="GPU that a tensorrt-rtx plan is for, such as 8.6.",
    ),
    click.option(
        "--batch",
        metavar="MIN:OPT:MAX",
        callback=batch_profile,
        default=":".join(map(str, DEFAULTS.batch)),
        show_default=True,
        help="Batch sizes of a TensorRT plan.",
    ),
    click.option(
        "--float-layers",
        type=Names([Precision.FP16, Precision.FP32]),
        default=DEFAULTS.float_layers.value,
        show_default=True,
        help="Precision of what stays float in an int8 plan of TensorRT.",
    ),
    click.option(
        "--require-coverage",
        "required_coverage",
        type=float,
        metavar="PERCENT",
        help="Convolutions and additions that must run in the precision asked for; else exit code 5.",
    ),
)

_contract = option_group("contract", ContractOptions, *PREPROCESSING)


@click.command("build-engine", short_help="Build an INT8, FP16, FP32 or mixed engine.")
@click.argument("model", type=PATH)
@_request
@click.option(
    "--calibration",
    type=PATH,
    help="Table from edgeres calibrate, for int8; for fp16 it shows what would overflow.",
)
@click.option("--calib-data", type=PATH, help="Images to calibrate on now, instead of a table.")
@click.option("--judge-data", type=PATH, help="Labelled images that mixed precision is chosen by.")
@click.option("--method", type=Names(Method), help="Thresholds of the table. [default: its own]")
@engine_options
@_contract
@INPUT_SIZES
@output_option("The engine; its manifest is written beside it as OUTPUT.json.")
@common_options
def build_engine(
    model: Path,
    calibration: Path | None,
    calib_data: Path | None,
    judge_data: Path | None,
    method: Method | None,
    request: BuildConfig,
    options: TensorRTOptions,
    contract: ContractOptions,
    input_size: int | Profile | None,
    output: Path,
    as_json: bool,
) -> None:
    """Build an engine from MODEL: for this CPU, for TensorRT, or for TensorRT for RTX.

    Precision mixed keeps residual blocks from INT8, those first that cost the most accuracy for
    the least latency, until --judge-data lose at most --max-drop. Judge on images that neither
    training nor bench uses.
    What NVIDIA's version at hand lacks is refused by name; nothing that was asked for is dropped.
    Exit code 5: fewer layers than --require-coverage run in the precision asked for.

    \b
    Example:
      edgeres build-engine resnet50.onnx --calibration resnet50.table.json -o resnet50.int8.onnx
      edgeres build-engine resnet50.onnx --calibration resnet50.table.json \\
        --target tensorrt-rtx --compute-capability 8.6 -o resnet50.int8.plan
      edgeres build-engine resnet50.onnx --calibration resnet50.table.json \\
        --precision mixed --max-drop 0.2 --judge-data held_out/ -o resnet50.mixed.onnx
    """
    from edgeres.core.table import load_table
    from edgeres.workflows import Judges, build_from_model, calibrate_model, check_build  # onnx

    _check_sources(request.precision, calibration, calib_data, judge_data)
    # One number is the contract's crop, three are the profile of a plan.
    if isinstance(input_size, tuple):
        request = replace(request, options=options, input_size=input_size)
    else:
        request = replace(request, options=options)
        contract = replace(contract, input_size=input_size)
    check_effect(request)
    given = tuple(path for path in (calibration, calib_data, judge_data) if path is not None)
    has_ranges = calibration is not None or calib_data is not None
    check_build(
        request, has_ranges=has_ranges, method=method, output=output, inputs=(model, *given)
    )
    table = None if calibration is None else load_table(calibration)
    with progress_bars() as progress:
        if calib_data is not None:
            table = calibrate_model(
                model, calib_data, CalibrationConfig(), contract, progress=progress
            )
        judges = None
        if judge_data is not None:
            judges = Judges(data=judge_data, labelled=True)
        engine = build_from_model(
            model,
            request,
            table,
            method=method,
            options=contract,
            output=output,
            progress=progress,
            judges=judges,
        )
    if as_json:
        show_json(engine.manifest)
    else:
        _tell(engine, request)
