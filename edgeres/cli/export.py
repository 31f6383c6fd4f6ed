"""`edgeres export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeres.cli.options import (
    Names,
    common_options,
    contract_options,
    gathered,
    output_option,
    request_options,
)
from edgeres.cli.output import progress_bars, show_json, show_status
from edgeres.core.contract import InputType
from edgeres.networks import ARCHITECTURES, is_published
from edgeres.networks.export_request import ExportRequest
from edgeres.networks.registry import COMPARED, find_spec
from edgeres.networks.specification import Shortcut
from edgeres.plurals import counted

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_architecture(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Returns the registered architectures whose names begin like the word being typed."""
    # Imported when a shell completes a word, not whenever a command runs.
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in ARCHITECTURES if name.startswith(incomplete)]


_option = request_options(ExportRequest)


@click.command()
@click.argument("architecture", metavar="ARCH", shell_complete=complete_architecture)
# Not of published weights, so the command itself requires it.
@_option("--weights", required=False, help="Checkpoint: .pth, .pt, .th, .safetensors.")
@_option(
    "--weights-key",
    metavar="NAME",
    help="Set of weights in the file.  [default: the averaged one, if any]",
)
@contract_options
@_option("--num-classes", metavar="N", help="Checked against the classifier.")
@_option("--labels", help="Text file with one class name a line.")
@_option("--bn-eps", metavar="X", help="Epsilon of batch normalisation (Keras: 1e-3).")
@_option(
    "--shortcut",
    type=Names([Shortcut.A, Shortcut.B], case_sensitive=True),
    help="Shortcut of a CIFAR net.",
)
@_option(
    "--uniform-std",
    help="One deviation for all channels, as DeepStream has; the rest goes into the first layer.",
)
@_option("--head", help="What the file ends in.  [default: what the network ends in]")
@_option(
    "--input",
    type=Names(["float", "uint8"], case_sensitive=True),
    default="float",
    callback=lambda ctx, param, value: InputType("float32" if value == "float" else value),
    help="What the file takes: prepared floats, or pixels with the arithmetic inside.",
)
@_option("--layout", help="Of the pixels of --input uint8.  [default: hwc]")
@_option("--opset", help="ONNX operator set.")
@output_option("The ONNX file.")
@common_options
@gathered("request", ExportRequest)
def export(request: ExportRequest, output: Path, as_json: bool) -> None:
    """Write a trained checkpoint as ONNX, with its preprocessing inside.

    ARCH is a registered architecture, such as resnet50, resnet50_v1, resnet20 or wrn_16_4
    (a wrong name is answered with all of them), or `package.module:factory`. How its images
    were prepared is in no checkpoint: pass a preset, or --mean, --std, --input-size and
    --resize. Weights that torchvision or timm publish need none of that: `torchvision:ARCH`
    and `timm:ARCH.TAG` fetch them, with their preprocessing. The file is compared with the
    network before it appears.

    \b
    Example:
      edgeres export resnet50 --weights resnet50.pth --preset imagenet -o resnet50.onnx
      edgeres export resnet18 --weights squashed.pth --preset imagenet --resize-mode squash -o resnet18.onnx
      edgeres export resnet18 --weights resnet18.pth --preset imagenet --input uint8 -o resnet18.onnx
      edgeres export torchvision:resnet50 -o resnet50.onnx
      edgeres export timm:resnet50.a1_in1k -o resnet50.onnx
    """
    # Before torch is imported, which takes seconds. A network that is only counted has no weights
    # to ask for.
    architecture = request.architecture
    if architecture in COMPARED:
        find_spec(architecture)
    if request.weights is None and not is_published(architecture):
        raise click.UsageError("Missing option '--weights'. Pass the checkpoint of ARCH.")
    with progress_bars() as progress:
        from edgeres.workflows import export_stage  # torch

        artifact = export_stage().export_model(request, output=output, progress=progress)
    if as_json:
        show_json(artifact)
        return
    show_status(
        f"{output}: {architecture}, {counted(artifact.num_classes, 'class')}, sha256 {artifact.sha256[:12]}"
    )
    show_status(f"preprocessing: {artifact.contract}")
    if artifact.equal_shapes:
        show_status(
            f"also of these shapes: {', '.join(artifact.equal_shapes)}. A stride and a shortcut of option A have "
            "no weights: where the accuracy is low, export that one."
        )
