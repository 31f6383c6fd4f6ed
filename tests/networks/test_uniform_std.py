"""`export --uniform-std`: other deviations, the same logits of the same pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import passed
from digits import Digits
from torch import Tensor, nn

import edgeres
from edgeres.core.contract import PRESETS, Contract
from edgeres.errors import ExportError
from edgeres.networks.uniform_std import with_uniform_std

CIFAR = replace(PRESETS["cifar"], height=8, width=8)


class Net(nn.Module):
    """A padded convolution with or without groups, and what a test puts before it."""

    def __init__(self, *, groups: int = 1, before: nn.Module | None = None) -> None:
        """Takes what reads the image."""
        super().__init__()
        torch.manual_seed(0)
        self.before = before or nn.Identity()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, groups=groups)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits."""
        logits: Tensor = self.fc(torch.relu(self.conv(self.before(x))).mean((2, 3)))
        return logits


class Skip(Net):
    """A network that reads the image twice."""

    def forward(self, x: Tensor) -> Tensor:
        """Adds the mean of the image."""
        return super().forward(x) + x.mean((2, 3)).sum(1, keepdim=True)


def logits(module: nn.Module, contract: Contract, pixels: Tensor) -> Tensor:
    """Returns the logits of raw pixels, prepared by hand."""
    mean, std = (torch.tensor(each).reshape(1, -1, 1, 1) for each in (contract.mean, contract.std))
    with torch.no_grad():
        outputs: Tensor = module((pixels * contract.scale - mean) / std)
    return outputs


def test_the_logits_of_the_same_pixels_are_the_same() -> None:
    """At the borders too: the first convolution pads, and zero stays zero."""
    module = Net()
    weights = module.conv.weight.detach().clone()
    folded, contract = with_uniform_std(module, CIFAR)
    assert contract.std == (sum(CIFAR.std) / 3,) * 3
    assert contract.mean == CIFAR.mean
    pixels = torch.randint(0, 256, (5, 3, 8, 8)).float()
    difference = logits(folded, contract, pixels) - logits(module, CIFAR, pixels)
    assert difference.abs().max() < 1e-5
    # The caller's network is left as it is, and the mean of the deviations alone is no fold.
    assert torch.equal(module.conv.weight, weights)
    unfolded = logits(module, contract, pixels) - logits(module, CIFAR, pixels)
    assert unfolded.abs().max() > 1e-4


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Net(groups=3), "read by 1 convolution, 0 without groups"),
        (Net(before=nn.ReLU()), "read by 0 convolutions, 0 without groups"),
        (Skip(), "something beside the first convolution reads the image"),
    ],
    ids=["groups", "a layer before", "a second reader"],
)
def test_another_reader_of_the_image_is_refused(module: nn.Module, said: str) -> None:
    """What is folded into one convolution would be missing in the other."""
    with pytest.raises(ExportError) as caught:
        with_uniform_std(module.eval(), CIFAR)
    assert said in str(caught.value)


def test_the_exported_file_has_one_deviation(digits: Digits, tmp_path: Path) -> None:
    """And the logits of the file without, from the same images."""
    words = "export resnet20 --weights {weights} --preset digits --std 0.4,0.5,0.6 -o {out}"
    plain, uniform = tmp_path / "plain.onnx", tmp_path / "uniform.onnx"
    passed(*digits.words(words, out=plain))
    passed(*digits.words(words, out=uniform), "--uniform-std")
    images = list(np.load(digits.test)["images"][:50])
    with edgeres.load(plain) as model, edgeres.load(uniform) as other:
        assert other.contract.std == pytest.approx((0.5, 0.5, 0.5))
        expected = model.infer(model.prepare(images, color="rgb"))
        found = other.infer(other.prepare(images, color="rgb"))
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
