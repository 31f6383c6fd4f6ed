"""`edgeres calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgeres.cli.options import (
    PATH,
    Names,
    common_options,
    contract_options,
    gathered,
    output_option,
    request_options,
    stacked,
)
from edgeres.cli.output import progress_bars, show, show_json, show_status
from edgeres.cli.spread import Spread, SpreadCommand
from edgeres.core.contract_options import ContractOptions
from edgeres.core.requests import RECOVERED, CalibrationRequest
from edgeres.plurals import counted

_option = request_options(CalibrationRequest)

_ranges = stacked(
    _option("--samples", help="Images to use, sampled from --data."),
    _option("--seed", help="Random seed for sampling images."),
    _option("--method", help="Thresholds that engines use; the table holds those of all methods."),
    _option("--percentile", help="Share of values that method percentile keeps."),
    _option(
        "--weight-method",
        help="Scales of the weights' channels.  [default: max, or the better by method auto]",
    ),
    _option("--batch-size", help="Images per inference."),
    _option(
        "--recover",
        help="Recover accuracy: correct biases, or fit the rounding of every weight too (torch).  "
        "[default: none; for fp8, and by method auto if classes are few, bias if the logits gain]",
    ),
    _option(
        "--precision",
        type=Names(RECOVERED),
        help="Engines that a recovery is for; the ranges serve all.",
    ),
    _option(
        "--recover-iterations",
        help="Steps of adaround on each layer, of which those over 262,144 weights take two thirds.",
    ),
    _option(
        "--sensitivity",
        help="Measure what each block, layer and source of error does to the logits.",
    ),
    gathered("request", CalibrationRequest),
)


def _spread(params: Mapping[str, Any]) -> Spread | None:
    """Returns how the images of a calibration are spread over a cluster."""
    from edgeres.images import load_dataset, select
    from edgeres.workflows.parts import unit_of

    if params["data"] is None:
        return None
    dataset = load_dataset(params["data"], labelled=False)
    return Spread(
        dataset=select(dataset, params["samples"], params["seed"]),
        unit=unit_of(CalibrationRequest(batch_size=params["batch_size"])),
        joined="--ranges",
        left_out=frozenset({"samples", "seed", "as_json"}),
    )


@click.command(cls=SpreadCommand, spread=_spread)
@click.argument("model", type=PATH)
@click.option("--data", type=PATH, help="Folder of images, or .npz; labels unused.")
@_ranges
@click.option(
    "--import-trt-cache",
    type=PATH,
    metavar="FILE",
    help="Take the thresholds of a calib.cache of TensorRT 8 to 10, in the place of --data.",
)
@click.option(
    "--emit-trt-cache",
    type=PATH,
    metavar="FILE",
    help="Write TensorRT's own text cache too, for JetPack 5 and 6 and the DLA; a recovery then "
    "equalizes no channels.",
)
# The default is JetPack 6.2's; a cache of another version is refused there.
@click.option(
    "--trt-version",
    default="10.3.0",
    metavar="X.Y.Z",
    help="TensorRT that reads that cache.",
)
@click.option("--part", type=PATH, hidden=True, help="Collect the ranges of these images alone.")
@click.option("--ranges", type=PATH, multiple=True, hidden=True, help="Ranges of all parts.")
@click.option("--recorded-as", hidden=True, help="What the table calls the data.")
@contract_options
@output_option("The calibration table, JSON.")
@common_options
def calibrate(
    model: Path,
    data: Path | None,
    request: CalibrationRequest,
    contract: ContractOptions,
    output: Path,
    import_trt_cache: Path | None,
    emit_trt_cache: Path | None,
    trt_version: str,
    part: Path | None,
    ranges: tuple[Path, ...],
    recorded_as: str | None,
    as_json: bool,
) -> None:
    """Collect the ranges of MODEL's activations on images, by every method in one pass.

    Method auto then searches: it holds images out of the ranges, and takes the thresholds with
    which the logits of these images come out best, for the CPU's and for TensorRT's engines.
    Preprocessing is the model's own; its options are only for a model exported elsewhere.
    With --import-trt-cache nothing runs: the table has the scales of a cache that a calibrator of
    TensorRT wrote for MODEL, and serves TensorRT's targets alone.

    \b
    Example:
      edgeres calibrate resnet50.onnx --data train/ --samples 512 -o resnet50.table.json
      edgeres calibrate resnet50.onnx --data train/ --method auto --sensitivity -o resnet50.table.json
      edgeres calibrate resnet50.onnx --import-trt-cache calib.cache -o resnet50.table.json
    """
    source = data or import_trt_cache
    if source is None or None not in (data, import_trt_cache):
        raise click.UsageError(
            "Pass --data, images to calibrate on, or --import-trt-cache, a cache that TensorRT's "
            "calibrator wrote; one of the two."
        )
    with progress_bars() as progress:
        from edgeres import workflows  # onnxruntime

        if part is not None:
            from edgeres.workflows.parts import calibrate_part

            calibrate_part(model, source, request, contract, part, output, progress)
            return
        # A cache that cannot be written is refused before minutes of calibration.
        if emit_trt_cache is not None:
            workflows.check_trt_cache(
                emit_trt_cache, trt_version, table=output, inputs=[model, source]
            )
        if import_trt_cache is not None:
            loaded, table = workflows.import_trt_cache(
                model, import_trt_cache, request, contract, output=output
            )
        else:
            loaded = workflows.load_normalized(model, contract)
            table = workflows.calibrate_model(
                loaded,
                source,
                replace(request, keeps_channels=emit_trt_cache is not None),
                contract,
                output=output,
                ranges=ranges,
                recorded_as=recorded_as,
                progress=progress,
            )
    # The table is on the disk by now, so it is reported even if the cache is refused below.
    if import_trt_cache is not None:
        show_status(
            f"{output}: {counted(len(table.tensors), 'activation')} from {table.data.path}, for "
            "--precision int8 of --target tensorrt, tensorrt-rtx and onnx alone"
        )
    else:
        calibrated = sum(bool(ranges.thresholds) for ranges in table.tensors.values())
        show_status(
            f"{output}: {counted(calibrated, 'activation')} from {counted(table.samples, 'image')}, method {table.method}"
        )
    if emit_trt_cache is not None:
        count = workflows.emit_trt_cache(loaded, table, trt_version, output=emit_trt_cache)
        show_status(f"{emit_trt_cache}: {counted(count, 'tensor')} for TensorRT {trt_version}")
    if as_json:
        show_json(table)
        return
    from edgeres.report import describe_choice, describe_recovery, sensitivity_tables  # rich

    for choice in table.choices:
        show_status(describe_choice(choice))
    if table.recovery is not None:
        show_status(describe_recovery(table.recovery))
    if table.sensitivity is not None:
        show(sensitivity_tables(table.sensitivity))
