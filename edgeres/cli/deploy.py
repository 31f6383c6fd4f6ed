"""`edgeres deploy`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeres.cli.options import PATH, Names, common_options, contract_options, option_group
from edgeres.cli.output import progress_bars, show_json, show_status
from edgeres.core.contract_options import ContractOptions
from edgeres.core.deployment import DeployInputs, DeployRequest, Destination
from edgeres.plurals import counted

_request = option_group(
    "request",
    DeployRequest,
    click.option(
        "--to", "destination", type=Names(Destination), required=True, help="What runs it there."
    ),
    click.option(
        "--tensors",
        is_flag=True,
        help="Triton: serve prepared tensors by ONNX Runtime's backend. [default: images, by edgeres]",
    ),
    click.option(
        "--instances",
        type=int,
        default=1,
        show_default=True,
        metavar="N",
        help="Triton: copies of the engine that infer side by side.",
    ),
    click.option(
        "--approximate",
        is_flag=True,
        help="DeepStream: nvinfer's nearest to the preprocessing; --verdict is of bench --as "
        "deepstream.",
    ),
)


@click.command()
@click.argument("engine", type=PATH)
@_request
@click.option(
    "-o", "--output", type=PATH, required=True, metavar="DIR", help="A new or empty folder."
)
@click.option("--image", type=PATH, help="Image of the golden pair. [default: a drawn one]")
@click.option(
    "--verdict", type=PATH, metavar="FILE.json", help="JSON of bench on this engine, to go along."
)
@click.option(
    "--reference",
    type=PATH,
    help="ONNX model or engine that lends preprocessing and class names to an ENGINE without.",
)
@contract_options
@common_options
def deploy(
    engine: Path,
    request: DeployRequest,
    output: Path,
    image: Path | None,
    verdict: Path | None,
    reference: Path | None,
    contract: ContractOptions,
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
    inputs = DeployInputs(
        engine=engine,
        output=output,
        image=image,
        verdict=verdict,
        reference=reference,
        contract=contract,
    )
    # The engine runs once, for the classes that the README expects.
    with progress_bars():
        from edgeres.workflows import deploy_engine  # onnxruntime

        deployment = deploy_engine(inputs, request)
    if as_json:
        show_json(deployment)
        return
    show_status(
        f"{output}: {engine.name} for {request.destination}, {counted(len(deployment.files), 'file')}"
    )
    for note in deployment.notes:
        show_status(note)
    show_status(f"How to run it: {output / 'README.md'}")
