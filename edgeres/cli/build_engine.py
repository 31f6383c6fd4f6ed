"""`edgeres build-engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgeres.cli.options import (
    PATH,
    choice,
    common_options,
    contract_from,
    contract_options,
    output_option,
)
from edgeres.cli.output import say, show_json, track
from edgeres.spec import BuildConfig, CalibrationConfig, Method, Precision, Target

DEFAULTS = BuildConfig()


def _batch_profile(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int, int]:
    """Returns the smallest, optimal and largest batch of `1:8:32`, or of one number for all."""
    parts = value.split(":")
    if len(parts) not in {1, 3} or not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r} is not a batch such as 8 or 1:8:32", ctx, param)
    low, best, high = (int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    return low, best, high


def _check_effect(config: BuildConfig) -> None:
    """Refuses an option that was typed and would have no effect on this target or precision."""
    for_tensorrt = config.target is not Target.ONNXRUNTIME
    if _was_typed("batch") and not for_tensorrt:
        raise click.UsageError(
            "--batch is for TensorRT plans; an onnxruntime engine takes any batch. Leave it out."
        )
    mixed = for_tensorrt and config.precision is Precision.INT8
    if _was_typed("float_layers") and not mixed:
        raise click.UsageError("--float-layers is for int8 plans of TensorRT. Leave it out.")


def _was_typed(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is ParameterSource.COMMANDLINE


@click.command("build-engine")
@click.argument("model", type=PATH)
@click.option(
    "--precision", type=choice(Precision), default=DEFAULTS.precision.value, show_default=True
)
@click.option("--target", type=choice(Target), default=DEFAULTS.target.value, show_default=True)
@click.option("--calibration", type=PATH, help="Table from edgeres calibrate, for int8.")
@click.option("--calib-data", type=PATH, help="Images to calibrate on now, instead of a table.")
@click.option("--method", type=choice(Method), help="Thresholds of the table. [default: its own]")
@click.option(
    "--compute-capability", metavar="X.Y", help="GPU that a tensorrt-rtx plan is for, such as 8.6."
)
@click.option(
    "--batch",
    metavar="MIN:OPT:MAX",
    callback=_batch_profile,
    default=":".join(map(str, DEFAULTS.batch)),
    show_default=True,
    help="Batch sizes of a TensorRT plan.",
)
@click.option(
    "--float-layers",
    type=click.Choice(["fp16", "fp32"]),
    default=DEFAULTS.float_layers.value,
    show_default=True,
    help="Precision of what stays float in an int8 plan of TensorRT.",
)
@contract_options
@output_option("The engine; its manifest is written beside it as OUTPUT.json.")
@common_options
def build_engine(
    model: Path,
    calibration: Path | None,
    calib_data: Path | None,
    output: Path,
    as_json: bool,
    **rest: Any,
) -> None:
    """Build an engine from MODEL: for this CPU, for TensorRT, or for TensorRT for RTX.

    \b
    Example:
      edgeres build-engine resnet50.onnx --calibration resnet50.table.json -o resnet50.int8.onnx
      edgeres build-engine resnet50.onnx --calibration resnet50.table.json \\
        --target tensorrt-rtx --compute-capability 8.6 -o resnet50.int8.plan
    """
    from edgeres.artifacts import load_table
    from edgeres.pipeline import build_from_model, calibrate_model, check_build  # onnx

    if calibration is not None and calib_data is not None:
        raise click.UsageError("Pass --calibration or --calib-data, not both.")
    options = contract_from(rest)
    method = None if rest["method"] is None else Method(rest["method"])
    config = BuildConfig(
        target=Target(rest["target"]),
        precision=Precision(rest["precision"]),
        compute_capability=rest["compute_capability"],
        batch=rest["batch"],
        float_layers=Precision(rest["float_layers"]),
    )
    _check_effect(config)
    sources = tuple(path for path in (calibration, calib_data) if path is not None)
    check_build(
        config,
        has_ranges=bool(sources),
        method=method,
        output=output,
        inputs=(model, *sources),
    )
    table = None if calibration is None else load_table(calibration)
    if calib_data is not None:
        table = calibrate_model(model, calib_data, CalibrationConfig(), options, track=track)
    engine = build_from_model(model, config, table, method=method, options=options, output=output)
    if as_json:
        show_json(engine.manifest.to_dict())
        return
    say(f"{output}: {config.precision} for {config.target}, {output.stat().st_size / 1e6:.1f} MB")
    say(f"{output}.json: its manifest")
