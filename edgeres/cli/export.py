"""`edgeres export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeres.cli.options import (
    PATH,
    Names,
    common_options,
    contract_options,
    output_option,
)
from edgeres.cli.output import progress_bars, show_json, show_status
from edgeres.core.contract import InputType
from edgeres.core.contract_options import ContractOptions
from edgeres.core.requests import Head, Layout
from edgeres.networks import ARCHITECTURES, is_published
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


@click.command()
@click.argument("architecture", metavar="ARCH", shell_complete=complete_architecture)
@click.option("--weights", type=PATH, help="Checkpoint: .pth, .pt, .th, .safetensors.")
@click.option(
    "--weights-key",
    metavar="NAME",
    help="Set of weights in the file.  [default: the averaged one, if any]",
)
@contract_options
@click.option("--num-classes", type=int, metavar="N", help="Checked against the classifier.")
@click.option("--labels", type=PATH, help="Text file with one class name a line.")
@click.option(
    "--bn-eps", type=float, metavar="X", help="Epsilon of batch normalisation (Keras: 1e-3)."
)
@click.option(
    "--shortcut",
    type=Names([Shortcut.A, Shortcut.B], case_sensitive=True),
    help="Shortcut of a CIFAR net.",
)
@click.option(
    "--uniform-std",
    is_flag=True,
    help="One deviation for all channels, as DeepStream has; the rest goes into the first layer.",
)
@click.option(
    "--head", type=Names(Head), help="What the file ends in.  [default: what the network ends in]"
)
@click.option(
    "--input",
    "input_type",
    type=Names(["float", "uint8"], case_sensitive=True),
    default="float",
    show_default=True,
    help="What the file takes: prepared floats, or pixels with the arithmetic inside.",
)
@click.option(
    "--layout", type=Names(Layout), help="Of the pixels of --input uint8.  [default: hwc]"
)
@click.option("--opset", type=int, default=17, show_default=True, help="ONNX operator set.")
@output_option("The ONNX file.")
@common_options
def export(
    architecture: str,
    weights: Path | None,
    weights_key: str | None,
    contract: ContractOptions,
    num_classes: int | None,
    labels: Path | None,
    bn_eps: float | None,
    shortcut: Shortcut | None,
    head: Head | None,
    opset: int,
    input_type: str,
    layout: Layout | None,
    uniform_std: bool,
    output: Path,
    as_json: bool,
) -> None:
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
    if architecture in COMPARED:
        find_spec(architecture)
    if weights is None and not is_published(architecture):
        raise click.UsageError("Missing option '--weights'. Pass the checkpoint of ARCH.")
    with progress_bars() as progress:
        from edgeres.workflows import export_stage  # torch

        stage = export_stage()
        request = stage.ExportRequest(
            architecture=architecture,
            weights=weights,
            contract=contract,
            num_classes=num_classes,
            labels=labels,
            bn_eps=bn_eps,
            shortcut=shortcut,
            head=head,
            opset=opset,
            weights_key=weights_key,
            uniform_std=uniform_std,
            input=InputType.UINT8 if input_type == InputType.UINT8.value else InputType.FLOAT32,
            layout=layout,
        )
        artifact = stage.export_model(request, output=output, progress=progress)
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
