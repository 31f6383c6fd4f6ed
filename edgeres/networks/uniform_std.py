"""One standard deviation for all channels: what differs goes into the first convolution.

With `z_c = (x_c - mean_c) / s` in the place of `(x_c - mean_c) / std_c`, weights of input channel c
become `W_c * s / std_c`. Zero stays zero, so padded borders are the same. Done to the FP32 network,
before calibration: runtimes such as nvinfer have one scale for all channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from edgeres.core.contract import Contract
from edgeres.errors import ExportError
from edgeres.networks.frozen import frozen_copy
from edgeres.plurals import counted


def with_uniform_std(module: nn.Module, contract: Contract) -> tuple[nn.Module, Contract]:
    """Returns a network that takes channels of one deviation, and its contract.

    Args:
        module: maps images to logits, prepared by `contract`.
        contract: of the network; its deviations may differ.

    Raises:
        ExportError: something else than one convolution reads the image.
    """
    uniform = sum(contract.std) / len(contract.std)
    folded = frozen_copy(module)
    image = torch.zeros(1, *contract.shape)
    readers: list[nn.Conv2d] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # The image itself, not what something computed from it.
        if inputs and inputs[0] is image and isinstance(layer, nn.Conv2d):
            readers.append(layer)

    hooks = [layer.register_forward_pre_hook(note) for layer in folded.modules()]
    with torch.inference_mode():
        folded(image)
    for hook in hooks:
        hook.remove()
    without = sum(layer.groups == 1 for layer in readers)
    if (len(readers), without) != (1, 1):
        raise ExportError(
            f"The image is read by {counted(len(readers), 'convolution')}, {without} without groups, and "
            "--uniform-std folds the deviations into one. Export without it, or normalise in the "
            "network's own forward."
        )
    scales = torch.tensor([uniform / std for std in contract.std]).reshape(1, -1, 1, 1)
    # A new parameter: the copy shares its weights with the network.
    readers[0].weight = nn.Parameter(readers[0].weight.detach() * scales)
    changed = replace(contract, std=(uniform,) * len(contract.std))
    _check_same(module, folded, contract, changed)
    return folded, changed


def _check_same(old: nn.Module, new: nn.Module, before: Contract, after: Contract) -> None:
    """Checks that both networks give random pixels the same logits, each by its own contract."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, *before.shape), generator=generator).double()

    def logits(network: nn.Module, contract: Contract) -> Tensor:
        mean, std = (
            torch.tensor(each, dtype=torch.float64).reshape(1, -1, 1, 1)
            for each in (contract.mean, contract.std)
        )
        with torch.inference_mode():
            outputs: Tensor = network(((pixels * contract.scale - mean) / std).float())
        return outputs

    expected = logits(frozen_copy(old), before)
    difference = (logits(new, after) - expected).abs().max() / expected.abs().max()
    if not difference < 1e-4:
        raise ExportError(
            f"With one deviation for all channels the logits differ by {difference:.2g} of the "
            "largest: something beside the first convolution reads the image. Export without "
            "--uniform-std."
        )
