"""`edgeres deploy`."""

from __future__ import annotations

import click

from edgeres.cli.options import (
    PATH,
    common_options,
    contract_options,
    gathered,
    reference_option,
    request_options,
)
from edgeres.cli.output import progress_bars, show_json, show_status
from edgeres.core.deployment import DeployInputs, DeployRequest
from edgeres.plurals import counted

_option = request_options(DeployRequest)
_file = request_options(DeployInputs)


@click.command()
@click.argument("engine", type=PATH)
@_option("--to", "destination", help="What runs it there.")
@_option(
    "--tensors",
    help="Triton: serve prepared tensors by ONNX Runtime's backend. [default: images, by edgeres]",
)
@_option("--instances", metavar="N", help="Triton: copies of the engine that infer side by side.")
@_option(
    "--approximate",
    help="DeepStream: nvinfer's nearest to the preprocessing; --verdict is of bench --as "
    "deepstream.",
)
@_file("-o", "--output", metavar="DIR", help="A new or empty folder.")
@_file("--image", help="Image of the golden pair. [default: a drawn one]")
@_file("--verdict", metavar="FILE.json", help="JSON of bench on this engine, to go along.")
@reference_option
@contract_options
@common_options
@gathered("inputs", DeployInputs)
@gathered("request", DeployRequest)
def deploy(
    inputs: DeployInputs,
    request: DeployRequest,
    as_json: bool,
) -> None:
    """Write a folder that runs ENGINE elsewhere: Triton, DeepStream, or a program of one file.

    What the destination cannot express of the preprocessing is refused, with the ways out. The
    folder has a README with the commands that run it, and an image with the classes expected.

    \b
    Example:
      edgeres deploy resnet50.int8.onnx --to python -o classify/
      edgeres deploy resnet50.int8.plan --to triton --verdict int8.json -o repository/
    """
    # The engine runs once, for the classes that the README expects.
    with progress_bars():
        from edgeres.workflows import deploy_engine  # onnxruntime

        deployment = deploy_engine(inputs, request)
    if as_json:
        show_json(deployment)
        return
    show_status(
        f"{inputs.output}: {inputs.engine.name} for {request.destination}, {counted(len(deployment.files), 'file')}"
    )
    for note in deployment.notes:
        show_status(note)
    show_status(f"How to run it: {inputs.output / 'README.md'}")
