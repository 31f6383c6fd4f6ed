"""`edgeres predict`."""

from __future__ import annotations

import click

from edgeres.cli.options import (
    PATH,
    common_options,
    contract_options,
    gathered,
    reference_option,
    request_options,
    trust_option,
)
from edgeres.cli.output import progress_bars, show, show_error, show_json
from edgeres.core.predictions import PredictInputs

_option = request_options(PredictInputs)


@click.command()
@click.argument("engine", type=PATH)
@click.argument(
    "images",
    nargs=-1,
    required=True,
    type=PATH,
    metavar="IMAGE...",
    # A pattern such as photos/*.jpg is no path yet.
    callback=lambda ctx, param, value: tuple(map(str, value)),
)
@_option("--top", metavar="N", help="Classes for each image.")
@_option("--csv", metavar="OUT.csv", help="Write a row for each class of each image.")
@reference_option
@trust_option
@contract_options
@common_options
@gathered("inputs", PredictInputs)
def predict(inputs: PredictInputs, as_json: bool) -> None:
    """Classify images with an engine: files, folders, or patterns in quotes.

    ENGINE is an engine with its manifest, an ONNX file of any tool, or with --trust a plan that
    trtexec built. Images are prepared by the contract that it carries; the options describe it
    where it carries none. An image that cannot be read is named, and the exit code is 1.

    \b
    Example:
      edgeres predict resnet50.int8.onnx cat.jpg photos/
      edgeres predict quantized.onnx 'photos/*.png' --reference resnet50.onnx --top 1 --csv out.csv
      edgeres predict resnet50.plan cat.jpg --trust --preset imagenet --json
    """
    with progress_bars() as progress:
        from edgeres.report import PredictionTable
        from edgeres.workflows import predict_images  # onnxruntime

        table = PredictionTable()
        run = predict_images(
            inputs,
            progress=progress,
            # Rows as they come: thousands of images are not waited for, and `| head` ends early.
            receive=None if as_json else lambda batch: show(table.render(batch)),
        )
    if as_json:
        show_json(run)
    else:
        for failed in run.failed:
            show_error(f"Error: {failed.error}")
    click.get_current_context().exit(run.exit_code)
