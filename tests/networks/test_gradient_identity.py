"""The identity that the residual network rests on, by autograd in float64, for every kind of block.

With H(x) = F(x) + x: dL/dx = dL/dH * dF/dx + dL/dH. The second term arrives as it is, whatever
the weights of F are. Where the shape changes, the shortcut s stands for x: dL/dH * ds/dx.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from edgeres.networks import find_spec
from edgeres.networks.resnet import ResNet, build_model
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut

TOLERANCE = 1e-5
"""Relative to the largest value; float64 leaves about 1e-13."""


@dataclass(frozen=True)
class Case:
    """One block of a network, and the shape that it reads."""

    spec: ModelSpec
    block: str
    channels: int

    def __str__(self) -> str:
        return f"{self.spec.name} {self.block}"


def _small(name: str, **changes: object) -> ModelSpec:
    small: ModelSpec = replace(find_spec(name), layers=(2, 2), base_width=8, **changes)  # type: ignore[arg-type]
    return small


RESNET20, RESNET50 = _small("resnet20"), _small("resnet50")
RESNEXT = _small("resnext50_32x4d", groups=4, width_per_group=8)
CASES = (
    Case(RESNET20, "layer1.1", 8),
    Case(RESNET20, "layer2.0", 8),
    Case(replace(RESNET20, shortcut=Shortcut.B), "layer2.0", 8),
    Case(RESNET50, "layer1.0", 8),
    Case(RESNET50, "layer1.1", 32),
    Case(_small("resnet50_v1"), "layer2.0", 32),
    Case(RESNEXT, "layer1.1", 32),
    Case(_small("wrn_16_4", widen_factor=2), "layer1.1", 16),
    Case(_small("wrn_16_4", widen_factor=2), "layer2.0", 16),
)
"""Identity, padding and projection; basic, bottleneck, grouped and pre-activation blocks."""


@dataclass(frozen=True)
class Terms:
    """Gradients at a block's input: of the loss, and its two parts."""

    total_gradient: Tensor
    """dL/dx, by autograd through all of the block."""
    through_f: Tensor
    """dL/dH * dF/dx, by autograd through a copy of the block without its shortcut."""
    through_skip: Tensor
    """dL/dH * ds/dx; for the identity dL/dH itself."""

    @property
    def error(self) -> float:
        """Largest difference between the total and the sum, relative to the largest value."""
        difference = self.total_gradient - self.through_f - self.through_skip
        return float(difference.abs().max() / self.total_gradient.abs().max())


def block_of(case: Case, seed: int = 0) -> nn.Module:
    """Returns the block in float64, with batch normalisation that does something."""
    torch.manual_seed(seed)
    block = build_model(case.spec).double().get_submodule(case.block)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return block


def sum_of(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns H, the sum before any last ReLU, and what the block makes of it."""
    entered: list[Tensor] = []
    relu = block.get_submodule("relu")
    hook = relu.register_forward_pre_hook(lambda _, arguments: entered.append(arguments[0]))
    out: Tensor = block(x)
    hook.remove()
    return (out if _ends_in_add(block) else entered[-1]), out


def _ends_in_add(block: nn.Module) -> bool:
    return type(block).__name__ == "PreactivationBlock"


def terms(case: Case, block: nn.Module) -> Terms:
    """Returns the gradients of a random loss at the block's input."""
    torch.manual_seed(1)
    x = torch.randn(3, case.channels, 8, 8, dtype=torch.float64, requires_grad=True)
    total, out = sum_of(block, x)
    loss = (out * torch.randn_like(out)).sum()
    at_sum, total_gradient = torch.autograd.grad(loss, (total, x), retain_graph=True)
    residual, _ = sum_of(_without_shortcut(case, block), x)
    (through_f,) = torch.autograd.grad(residual, x, at_sum)
    (through_skip,) = torch.autograd.grad(_shortcut_of(block, x), x, at_sum)
    return Terms(total_gradient=total_gradient, through_f=through_f, through_skip=through_skip)


def _without_shortcut(case: Case, block: nn.Module) -> nn.Module:
    """Returns the plain block with the same weights: F alone."""
    plain = ResNet(replace(case.spec, shortcut=Shortcut.NONE)).double().get_submodule(case.block)
    state = {k: v for k, v in block.state_dict().items() if "downsample" not in k}
    plain.load_state_dict(state)
    return plain.train(block.training)


def _shortcut_of(block: nn.Module, x: Tensor) -> Tensor:
    shortcut = block.get_submodule("downsample")
    projects = _ends_in_add(block) and not isinstance(shortcut, nn.Identity)
    start = block.get_submodule("relu")(block.get_submodule("bn1")(x)) if projects else x
    carried: Tensor = shortcut(start)
    return carried


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gradient_is_the_sum_of_both_ways(case: Case, training: bool) -> None:
    """dL/dx = dL/dH * dF/dx + dL/dH * ds/dx, within 1e-5."""
    assert terms(case, block_of(case).train(training)).error < TOLERANCE


IDENTITIES = tuple(case for case in CASES if case.block == "layer1.1")
"""Blocks whose shortcut is the identity, one of each kind."""


def silence(case: Case, block: nn.Module) -> None:
    """Sets the last convolution of F, and what normalisation adds behind it, to zero."""
    number = 3 if case.spec.block is BlockKind.BOTTLENECK else 2
    nn.init.zeros_(block.get_parameter(f"conv{number}.weight"))
    if not _ends_in_add(block):
        nn.init.zeros_(block.get_parameter(f"bn{number}.bias"))


@pytest.mark.parametrize("case", IDENTITIES, ids=str)
def test_the_identity_carries_the_gradient_undiminished(case: Case) -> None:
    """The second term is dL/dH itself; with F at zero it is all that arrives."""
    block = block_of(case)
    silence(case, block)
    found = terms(case, block)
    assert torch.equal(found.total_gradient, found.through_skip)
    assert float(found.through_f.abs().max()) == 0


@pytest.mark.parametrize("case", IDENTITIES, ids=str)
def test_without_the_second_term_the_identity_fails(case: Case) -> None:
    """The comparison sees a term that is missing or a hundredth too small."""
    found = terms(case, block_of(case))
    assert replace(found, through_skip=torch.zeros_like(found.total_gradient)).error > 0.1
    assert replace(found, through_skip=0.99 * found.through_skip).error > 100 * TOLERANCE


def test_a_plain_block_has_the_first_term_alone() -> None:
    """Without a skip connection what F does not let through is gone."""
    case = Case(replace(RESNET20, shortcut=Shortcut.NONE), "layer1.1", 8)
    block = block_of(case)
    torch.manual_seed(1)
    x = torch.randn(3, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    total, out = sum_of(block, x)
    at_sum, total_gradient = torch.autograd.grad(out.sin().sum(), (total, x), retain_graph=True)
    (through_f,) = torch.autograd.grad(total, x, at_sum)
    assert torch.allclose(total_gradient, through_f, rtol=1e-12, atol=1e-12)
    silence(case, block)
    (gone,) = torch.autograd.grad(sum_of(block, x)[1].sum(), x)
    assert float(gone.abs().max()) == 0
