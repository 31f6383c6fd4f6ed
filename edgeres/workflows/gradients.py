"""Gradients by depth of two networks, on the embedded digits. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from edgeres.core.contract import Contract, preset
from edgeres.core.resize import shortest
from edgeres.errors import ConfigError
from edgeres.images import Batch, Dataset, batches, embedded_digits, take
from edgeres.networks.backward import TrainingBatch, profile_gradients
from edgeres.networks.explain import described_spec
from edgeres.networks.gradients import GradientComparison, NetworkGradients, counterpart
from edgeres.networks.specification import ModelSpec
from edgeres.plurals import counted
from edgeres.progress import Progress, silent, tracked_batches

DIGITS = 10

BATCH_SIZE = 50

LARGEST_SIZE = 32
"""Side in pixels that an ImageNet network gets by default: the digits have 8, and a CPU trains on 32
in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientRequest:
    """Which networks `compare_gradients` trains, and for how long."""

    architecture: str
    against: str | None = None
    """None: the same network without its skip connections, or a plain one with them."""
    steps: int = 60
    """Steps of training before the second measurement."""
    input_size: int | None = None
    """Side of the images in pixels; None: the network's own, at most `LARGEST_SIZE`."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"{counted(self.steps, 'step')} train nothing; expected at least 1.")


def compare_gradients(request: GradientRequest, progress: Progress = silent) -> GradientComparison:
    """Returns the gradients of two networks, each new and after some training.

    Both see the same digits in the same order, and begin with weights from the same seed.

    Raises:
        ConfigError: no such architecture, or a size or number of steps below 1.
        DataError: this installation lacks the digits.
    """
    spec = described_spec(request.architecture)
    other = counterpart(spec) if request.against is None else described_spec(request.against)
    own = min(spec.input_size, LARGEST_SIZE)
    size = own if request.input_size is None else request.input_size
    contract = replace(preset("digits"), height=size, width=size, resize=shortest(size))
    digits, _ = embedded_digits()
    return GradientComparison(
        network=_profile(spec, digits, contract, request, progress),
        other=_profile(other, digits, contract, request, progress),
        input_size=size,
        batch_size=BATCH_SIZE,
        seed=request.seed,
    )


def _profile(
    spec: ModelSpec,
    digits: Dataset,
    contract: Contract,
    request: GradientRequest,
    progress: Progress,
) -> NetworkGradients:
    order = np.random.default_rng(request.seed)
    # Epochs are counted in full batches and rounded up; what is too much is cut off below.
    epochs = -(-request.steps // (len(digits) // BATCH_SIZE))
    rows = [order.permutation(len(digits)) for _ in range(epochs)]
    sampled = take(digits, np.concatenate(rows)[: request.steps * BATCH_SIZE])
    shaped = replace(spec, num_classes=DIGITS, input_size=contract.height)
    first = take(digits, np.arange(BATCH_SIZE))
    with closing(batches(sampled, contract, batch_size=BATCH_SIZE)) as stream:
        training = tracked_batches(stream, len(sampled), f"Training {spec.name}", progress)
        # Both measurements take the same batch, so that only the weights differ.
        (probe,) = _labelled(batches(first, contract, batch_size=BATCH_SIZE))
        return profile_gradients(shaped, probe, _labelled(training), seed=request.seed)


def _labelled(stream: Iterator[Batch]) -> Iterator[TrainingBatch]:
    for batch in stream:
        if batch.labels is not None:
            yield TrainingBatch(images=batch.images, labels=batch.labels)
