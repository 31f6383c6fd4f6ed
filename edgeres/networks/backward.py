"""Gradients on their way back through a network, measured block by block.

In training mode, as training has them: batch normalisation takes the statistics of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgeres.networks.gradients import BlockGradient, GradientProfile, NetworkGradients
from edgeres.networks.resnet import build_model
from edgeres.networks.specification import ModelSpec

RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4
"""Of the stochastic gradient descent. Source: He et al. 2016a, section 4.2."""

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Images, (N, 3, H, W) float32 normalised, and their labels, (N,)."""


def profile_gradients(
    spec: ModelSpec, probe: Labelled, batches: Iterable[Labelled], *, seed: int
) -> NetworkGradients:
    """Returns the gradients of a new network before and after a step on each batch.

    Args:
        spec: the network; its number of classes must fit the labels.
        probe: the batch that gradients are measured on, both times.
        batches: to train on.
        seed: of the initial weights. torch's own generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(spec)
    initial = measure_gradients(model, probe)
    steps = _train(model, batches)
    trained = measure_gradients(model, probe, steps=steps)
    return NetworkGradients(name=spec.name, initial=initial, trained=trained)


def measure_gradients(model: nn.Module, probe: Labelled, *, steps: int = 0) -> GradientProfile:
    """Returns the gradients of one batch's mean cross-entropy; the weights stay as they are.

    Args:
        model: of `build_model`, in training mode.
        probe: the batch.
        steps: of training so far, for the record.
    """
    blocks = dict(_blocks(model))
    inputs: dict[str, Tensor] = {}
    hooks = [
        block.register_forward_pre_hook(partial(_keep, inputs, name))
        for name, block in blocks.items()
    ]
    loss = _loss(model, probe)
    for hook in hooks:
        hook.remove()
    weights = {name: _main_weights(block) for name, block in blocks.items()}
    wanted = [*inputs.values(), *(w for group in weights.values() for w in group)]
    found = iter(torch.autograd.grad(loss, wanted))
    into = {name: _norm([next(found)]) for name in inputs}
    depth, profile = 1, []
    for name, group in weights.items():
        depth += len(group)
        norm = _norm([next(found) for _ in group])
        profile.append(
            BlockGradient(name=name, depth=depth, input_norm=into[name], weight_norm=norm)
        )
    return GradientProfile(steps=steps, loss=loss.item(), blocks=tuple(profile))


def _blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the blocks by state-dict name, in the order in which they run."""
    for stage, blocks in model.named_children():
        if stage.startswith("layer"):
            yield from ((f"{stage}.{number}", block) for number, block in blocks.named_children())


def _keep(
    inputs: dict[str, Tensor], name: str, block: nn.Module, arguments: tuple[Any, ...]
) -> None:
    inputs[name] = arguments[0]


def _main_weights(block: nn.Module) -> list[Tensor]:
    return [child.weight for child in block.children() if isinstance(child, nn.Conv2d)]


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _loss(model: nn.Module, batch: Labelled) -> Tensor:
    images, labels = map(torch.from_numpy, batch)
    return functional.cross_entropy(model(images), labels)


def _train(model: nn.Module, batches: Iterable[Labelled]) -> int:
    """Takes one step a batch and returns how many there were."""
    optimiser = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
    steps = 0
    for batch in batches:
        steps += 1
        optimiser.zero_grad()
        torch.autograd.backward(_loss(model, batch))
        optimiser.step()
    return steps
