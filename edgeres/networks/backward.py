"""Gradients on their way back through a network, measured block by block.

In training mode, as training has them: batch normalisation takes the statistics of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingBatch:
    """Images and their labels."""

    images: NDArray[np.float32]
    """(N, 3, H, W), normalised."""
    labels: NDArray[np.int64]
    """(N,)."""


def profile_gradients(
    spec: ModelSpec, probe: TrainingBatch, batches: Iterable[TrainingBatch], *, seed: int
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
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
    steps = 0
    for batch in batches:
        optimizer.zero_grad()
        torch.autograd.backward(_loss(model, batch))
        optimizer.step()
        steps += 1
    trained = measure_gradients(model, probe, steps=steps)
    return NetworkGradients(name=spec.name, initial=initial, trained=trained)


def measure_gradients(model: nn.Module, probe: TrainingBatch, *, steps: int = 0) -> GradientProfile:
    """Returns the gradients of one batch's mean cross-entropy; the weights stay as they are.

    Args:
        model: of `build_model`, in training mode.
        probe: the batch.
        steps: of training so far, for the record.
    """
    blocks = {
        f"{stage}.{number}": block
        for stage, members in model.named_children()
        if stage.startswith("layer")
        for number, block in members.named_children()
    }
    names = {block: name for name, block in blocks.items()}
    inputs: dict[str, Tensor] = {}

    def record(block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[names[block]] = arguments[0]

    hooks = [block.register_forward_pre_hook(record) for block in blocks.values()]
    loss = _loss(model, probe)
    for hook in hooks:
        hook.remove()
    # Convolutions that are a block's own children: those of a projection are its grandchildren.
    weights = {
        name: [child.weight for child in block.children() if isinstance(child, nn.Conv2d)]
        for name, block in blocks.items()
    }
    # `grad` and not `backward`: nothing accumulates in the parameters, and one pass serves all.
    wanted = [*inputs.values(), *(weight for group in weights.values() for weight in group)]
    gradients = iter(torch.autograd.grad(loss, wanted))
    input_norms = {name: _norm([next(gradients)]) for name in inputs}
    depth, profile = 1, []
    for name, group in weights.items():
        depth += len(group)
        norm = _norm([next(gradients) for _ in group])
        profile.append(
            BlockGradient(name=name, depth=depth, input_norm=input_norms[name], weight_norm=norm)
        )
    return GradientProfile(steps=steps, loss=loss.item(), blocks=tuple(profile))


def _norm(tensors: Iterable[Tensor]) -> float:
    # float64: the square of a small gradient underflows float32.
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _loss(model: nn.Module, batch: TrainingBatch) -> Tensor:
    logits = model(torch.from_numpy(batch.images))
    return functional.cross_entropy(logits, torch.from_numpy(batch.labels))
