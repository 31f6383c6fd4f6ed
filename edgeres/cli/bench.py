"""`edgeres bench`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
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
    request_options,
    stacked,
    trust_option,
    was_typed,
)
from edgeres.cli.output import command_line, progress_bars, show, show_json
from edgeres.cli.spread import Spread, SpreadCommand
from edgeres.core.bench_requests import (
    BenchInputs,
    BenchRequest,
    LoadGenRequest,
    ReportFiles,
    Scenario,
)
from edgeres.core.deployment import Destination
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ArtifactError

_option = request_options(BenchRequest)
_file = request_options(BenchInputs)
_loadgen = request_options(LoadGenRequest)
_report = request_options(ReportFiles)


def _spread(params: Mapping[str, Any]) -> Spread:
    """Returns how the images of a bench are spread over a cluster."""
    from edgeres.core.artifacts import load_engine
    from edgeres.images import load_dataset, order_classes, select
    from edgeres.workflows.parts import PART_UNIT

    classes: tuple[str, ...] = ()
    # Which images a sample takes depends on the order of the classes; without a manifest they are
    # in the order of the data's own.
    with suppress(ArtifactError):
        classes = load_engine(params["engine"]).manifest.classes
    labelled = order_classes(load_dataset(params["data"]), classes)
    return Spread(
        dataset=select(labelled, params["samples"], params["seed"]),
        unit=params["batch_size"] or PART_UNIT,
        joined="--outcomes",
        left_out=frozenset({"samples", "seed", "baseline", "dump", "image", "as_json"}),
    )


_limits = stacked(
    _option(
        "--max-drop",
        "max_drop_pp",
        metavar="PP",
        help="Limit of the drop of top-1 accuracy, in percentage points.",
    ),
    _option(
        "--decide",
        help="What is compared with --max-drop and --min-speedup: the bound that the measurement proves, "
        "or the figure measured.",
    ),
    _option(
        "--reference-top1",
        metavar="PERCENT",
        help="Top-1 accuracy that the reference is known to have on such images: exit code 6 where "
        "it is significantly less often correct.",
    ),
    _option(
        "--min-speedup",
        metavar="X",
        help="Least ratio of the median latencies, the reference's over the engine's.",
    ),
    _option(
        "--max-slowdown",
        metavar="FRACTION",
        help="Largest growth of the latency compared with --baseline, as a fraction.",
    ),
)

_measurement = stacked(
    _option("--samples", metavar="N", help="Images to evaluate on. [default: all]"),
    _option("--seed", help="Random seed for sampling images."),
    _option(
        "--batch-size",
        help="Images per inference while accuracy is measured. [default: 16, or the engine's largest]",
    ),
    _option(
        "--latency-batch",
        help="Images per inference while latency is measured. [default: 1, or the engine's smallest]",
    ),
    _option("--iterations", help="Timed inferences of each engine."),
    _option("--warmup", help="Warm-up runs of each engine."),
    _option(
        "--timing",
        help="What a sample covers; all but end-to-end need a GPU. trtexec's have their own counts.",
    ),
    _option(
        "--streams",
        metavar="N",
        help="Measure images a second with N inferences under way, after the latency, which is "
        "timed alone. On the CPU N sessions share the cores. [default: from the latency]",
    ),
    _option(
        "--strict",
        help="INCONCLUSIVE, exit code 7, if the machine was unstable or LoadGen's run is INVALID.",
    ),
    _option(
        "--energy/--no-energy",
        help="Meter joules where the machine can; takes some 15 seconds.",
    ),
    _option("--profile", help="Show where the time goes, by residual block and layer."),
    # Three states: without either the library decides, by how often the reference is correct.
    _option(
        "--diagnose/--no-diagnose",
        help="Try the usual mistakes in preprocessing and labels, in at most 8,000 inferences. "
        "[default: if the reference is suspiciously often wrong]",
    ),
    _loadgen(
        "--scenario",
        required=False,
        help="Let MLPerf's LoadGen drive the engine too, and pass on its VALID or INVALID.",
    ),
    _loadgen(
        "--loadgen-seconds",
        "seconds",
        help="How long LoadGen runs; a submission to MLPerf takes 600.",
    ),
)

_reports = stacked(
    _report("--report", "html", metavar="OUT.html", help="Write the HTML report."),
    _report("--markdown", metavar="OUT.md", help="Write Markdown for a pull request."),
    _report("--junit", metavar="OUT.xml", help="Write the checks as JUnit XML for CI."),
    gathered("reports", ReportFiles),
)


@click.command(cls=SpreadCommand, spread=_spread)
@click.argument("engine", type=PATH)
@_file("--reference", help="FP32 ONNX model, or an engine of it in FP32.")
@_file("--data", help="Labelled images.")
@_file(
    "--quantized-reference",
    help="The reference is an engine of less than FP32, or an ONNX file that was quantized.",
)
@_limits
@_measurement
@_file(
    "--baseline",
    metavar="OLD.json",
    help="JSON of an earlier engine on these images, by --json, or a file of --history, of which "
    "the last matching run is taken; this one must not be worse. "
    "INCONCLUSIVE, exit code 7, if other load or throttling disturbed either latency.",
)
@_file(
    "--history",
    metavar="FILE",
    help="Add this run to a file of JSON lines, for compare --history.",
)
@trust_option
@_file(
    "--as",
    "prepared_as",
    type=Names([Destination.DEEPSTREAM]),
    help="Prepare the engine's images as that runtime does, emulated on the CPU; the reference's "
    "by its contract.",
)
@_file(
    "--dump",
    metavar="TENSOR.npy",
    help="What another program fed to its engine for --image: what differs from the contract is "
    "named.",
)
@_file("--image", help="The image that --dump was made of.")
@_file("--loadgen-logs", metavar="DIR", help="Keep LoadGen's own logs.")
@_file(
    "--simulate",
    help="ENGINE is a calibration table: TensorRT's placement on this CPU, accuracy only.",
)
@_file(
    "--float-layers",
    type=Names([Precision.FP16, Precision.FP32]),
    help="Precision of what stays float in a simulation. [default: a plan's, "
    f"{BuildRequest().float_layers}]",
)
@click.option("--part", type=PATH, hidden=True, help="Evaluate these images alone.")
@click.option("-o", "--output", type=PATH, hidden=True, help="Outcomes of --part.")
@_file("--outcomes", type=PATH, multiple=True, hidden=True, help="Outcomes of all parts.")
@_reports
@contract_options
@common_options
@gathered("config", BenchRequest)
@gathered("inputs", BenchInputs)
def bench(
    inputs: BenchInputs,
    config: BenchRequest,
    scenario: Scenario | None,
    seconds: float,
    part: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compare ENGINE with the FP32 reference on the same images: accuracy and latency.

    PASS: every limit was kept; MEASURED: none was set; FAIL; or INCONCLUSIVE: the images (3) or the
    machine (7) cannot decide. Exit codes: 0 pass or measured, 3 accuracy, 4 speed, 5 layers not in
    INT8, 6 engine, images or labels do not belong together, 7 timing undecided.

    \b
    Example:
      edgeres bench resnet50.int8.onnx --reference resnet50.onnx --data val/ --max-drop 0.5
      edgeres bench resnet50.table.json --simulate --reference resnet50.onnx --data val/
      edgeres bench resnet50.int8.plan --reference resnet50.onnx --data val/ --timing compute \\
        --min-speedup 2 --strict --report verdict.html
      edgeres bench resnet50.int8.plan --reference resnet50.onnx --data val/ --streams 4
    """
    # trtexec's modes run by time, so a count that was typed would be dropped in silence.
    counts = [f"--{name}" for name in ("iterations", "warmup") if was_typed(name)]
    if config.timing.trtexec and counts:
        raise click.UsageError(
            f"--timing {config.timing} takes as many inferences as trtexec does: at least 10, for "
            f"3 seconds, after 0.2 seconds of warm-up. Leave {' and '.join(counts)} out."
        )
    if scenario is not None:
        config = replace(config, loadgen=LoadGenRequest(scenario=scenario, seconds=seconds))
    inputs = replace(inputs, command=command_line())
    with progress_bars() as progress:
        if part is not None and output is not None:
            from edgeres.workflows.parts import bench_part

            bench_part(inputs, config, part, output, progress)
            return
        from edgeres.workflows import bench_engine  # onnxruntime

        verdict = bench_engine(inputs, config, progress=progress)
    if as_json:
        show_json(verdict)
    else:
        from edgeres.report import render_verdict

        show(render_verdict(verdict))
    # After the verdict is shown: a failed check is a result, not an error.
    click.get_current_context().exit(verdict.exit_code)
