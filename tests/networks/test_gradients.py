"""Gradients by depth are those of backpropagation, and networks meet their counterparts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeres.networks import ARCHITECTURES, find_spec
from edgeres.networks.backward import TrainingBatch, measure_gradients, profile_gradients
from edgeres.networks.explain import network_from_spec
from edgeres.networks.gradients import BlockGradient, GradientProfile, counterpart
from edgeres.networks.resnet import build_model
from edgeres.networks.specification import ModelSpec, Shortcut
from edgeres.serialization import to_json

SIZE = 16
SMALL = replace(find_spec("resnet20"), layers=(2, 1), base_width=4, num_classes=3)
SPECS = {
    "basic": SMALL,
    "plain": replace(SMALL, shortcut=Shortcut.NONE),
    "bottleneck": replace(find_spec("resnet50"), layers=(1, 1), base_width=8, num_classes=3),
    "pre-activation": replace(find_spec("wrn_16_4"), layers=(1, 1), base_width=4, num_classes=3),
}


def batch(count: int = 6, seed: int = 0) -> TrainingBatch:
    """Returns random images of three classes."""
    generator = np.random.default_rng(seed)
    images = generator.standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)
    return TrainingBatch(images=images, labels=np.arange(count, dtype=np.int64) % 3)


def network(spec: ModelSpec) -> nn.Module:
    """Returns a new network by a fixed seed."""
    torch.manual_seed(0)
    return build_model(spec)


def by_hand(spec: ModelSpec) -> tuple[list[float], list[float]]:
    """Returns the norms at each block's input and of its weights, by one backward pass."""
    model = network(spec)
    images, labels = map(torch.from_numpy, (batch().images, batch().labels))
    x = model.get_submodule("conv1")(images)
    after = [model.get_submodule("bn1"), model.get_submodule("relu")]
    late = spec.block.value == "preactivation"
    x = x if late else after[1](after[0](x))
    x = model.get_submodule("maxpool")(x)
    blocks = [b for n in (1, 2) for b in model.get_submodule(f"layer{n}").children()]
    inputs: list[Tensor] = []
    for block in blocks:
        x.retain_grad()
        inputs.append(x)
        x = block(x)
    x = after[1](after[0](x)) if late else x
    logits = model.get_submodule("fc")(x.mean((2, 3)))
    torch.autograd.backward(functional.cross_entropy(logits, labels))
    convs = [[m for n, m in b.named_modules() if n.startswith("conv")] for b in blocks]
    return (
        [float(each.grad.norm()) for each in inputs if each.grad is not None],
        [sum(float(c.weight.grad.norm()) ** 2 for c in group) ** 0.5 for group in convs],
    )


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_norms_are_those_of_a_backward_pass(spec: ModelSpec) -> None:
    """Layer by layer by hand, for every kind of block."""
    found = measure_gradients(network(spec), batch()).blocks
    inputs, weights = by_hand(spec)
    assert [block.input_norm for block in found] == pytest.approx(inputs, rel=1e-4)
    assert [block.weight_norm for block in found] == pytest.approx(weights, rel=1e-4)


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "wrn_16_4", "plain34"])
def test_blocks_are_named_and_counted_as_explain_does(name: str) -> None:
    """The last block's depth is the network's but for the classifier."""
    spec = replace(find_spec(name), num_classes=3)
    described = network_from_spec(spec)
    found = measure_gradients(network(spec), batch(2)).blocks
    assert [block.name for block in found] == [block.name for block in described.blocks]
    layers = 1 + sum(len(block.layers) for block in described.blocks)
    assert found[-1].depth == layers


def test_measuring_changes_no_weight() -> None:
    """Neither values nor gradients are left behind."""
    model = network(SMALL)
    before = [parameter.clone() for parameter in model.parameters()]
    measure_gradients(model, batch())
    assert all(map(torch.equal, before, model.parameters()))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_lowers_the_loss_and_is_counted() -> None:
    """Ten steps on the batch that is measured."""
    found = profile_gradients(SMALL, batch(), [batch()] * 10, seed=0)
    assert (found.initial.steps, found.trained.steps) == (0, 10)
    assert found.trained.loss < found.initial.loss


def test_the_seed_decides_and_torch_s_generator_is_left_alone() -> None:
    """Two runs agree, another seed does not."""
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, same, other = (
        profile_gradients(SMALL, batch(), [batch(seed=1)], seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(1), expected)
    assert first == same
    assert first.initial != other.initial


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("resnet20", "plain20"),
        ("plain110", "resnet110"),
        ("resnet34", "plain34"),
        ("plain18", "resnet18"),
        ("resnet50", "resnet50 without skips"),
        ("wrn_16_4", "wrn_16_4 without skips"),
    ],
)
def test_a_network_meets_its_counterpart(name: str, other: str) -> None:
    """By the registry's name where it has one."""
    assert counterpart(find_spec(name)).name == other


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_counterpart_differs_by_its_skips_alone(name: str) -> None:
    """The counterpart of the counterpart is the network again."""
    spec = find_spec(name)
    other = counterpart(spec)
    assert (spec.shortcut is Shortcut.NONE) != (other.shortcut is Shortcut.NONE)
    assert replace(counterpart(other), name=name) == spec


def test_what_is_carried_is_first_over_last() -> None:
    """1 would be a gradient that arrives as it left."""
    norms = (0.5, 3.0, 2.0)
    blocks = tuple(
        BlockGradient(name=f"layer1.{i}", depth=i, input_norm=norm, weight_norm=1.0)
        for i, norm in enumerate(norms)
    )
    profile = GradientProfile(steps=0, loss=1.0, blocks=blocks)
    assert profile.carried == 0.25
    assert to_json(profile)["blocks"][1]["input_norm"] == 3.0
