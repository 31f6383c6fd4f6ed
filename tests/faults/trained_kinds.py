"""Digits drawn on wide canvases, and small networks trained on them in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeres.core.contract import Contract
from edgeres.images import Dataset, normalise, prepare
from edgeres.networks.registry import find_spec
from edgeres.networks.resnet import build_model
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut

CANVAS = (40, 80)
RED, GREEN, WHITE = (np.array(color, float) for color in ((190, 62, 60), (60, 128, 60), (250,) * 3))
"""Red and green are as bright as each other: gray shows neither on the other."""

STEPS = 130


def canvases(dataset: Dataset, ink: str, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns each digit on red as wide as the canvas, (N, 40, 80, 3), and the labels.

    Args:
        dataset: digits of 8 x 8.
        ink: `green`, `white`, or `stripes` of one column each, which antialiasing makes even.
        seed: of place and noise.
    """
    generator = np.random.default_rng(seed)
    images = np.empty((len(dataset), *CANVAS, 3), np.uint8)
    stripes = np.where(np.arange(72) % 2, 60.0, -60.0)[None, :, None]
    change = {"green": GREEN - RED, "white": WHITE - RED, "stripes": stripes}[ink]
    for index in range(len(dataset)):
        digit = np.kron(dataset.image(index)[..., 0] / 255, np.ones((4, 9)))[..., None]
        canvas = np.tile(RED, (*CANVAS, 1))
        top, left = generator.integers(0, 9, 2)
        canvas[top : top + 32, left : left + 72] += change * digit
        images[index] = (canvas + generator.normal(0, 8, canvas.shape)).clip(0, 255)
    assert dataset.labels is not None
    return images, dataset.labels


def trained_weights(
    contract: Contract,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    path: Path,
    spec: ModelSpec | None = None,
) -> Path:
    """Trains a network, by default a thin resnet20, on images prepared by a contract; saves it."""
    torch.manual_seed(0)
    network = build_model(spec or thin_spec(contract.channels)).train()
    ready = np.stack([prepare(image, contract) for image in images])
    x, y = torch.from_numpy(normalise(ready, contract)), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (50,), generator=generator)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x[rows]), y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    torch.save(network.state_dict(), path)
    return path


def thin_network() -> torch.nn.Module:
    """Returns the network of three channels, for export's `module:factory`."""
    return build_model(thin_spec(3))


def thin_gray_network() -> torch.nn.Module:
    """Returns the network of one channel."""
    return build_model(thin_spec(1))


def thin_bottlenecks(stride_in_1x1: bool) -> ModelSpec:
    """Returns the network of bottlenecks, with the stride of v1 or of v1.5."""
    return replace(thin_spec(3), block=BlockKind.BOTTLENECK, stride_in_1x1=stride_in_1x1)


def thin_v1() -> torch.nn.Module:
    """Returns the network of bottlenecks with its strides in the 1x1 convolutions."""
    return build_model(thin_bottlenecks(True))


def thin_v15() -> torch.nn.Module:
    """Returns the network of bottlenecks with its strides in the 3x3 convolutions."""
    return build_model(thin_bottlenecks(False))


def thin_plain() -> torch.nn.Module:
    """Returns the network without shortcuts."""
    return build_model(replace(thin_spec(3), shortcut=Shortcut.NONE))


def thin_spec(channels: int) -> ModelSpec:
    """Returns resnet20 with one block a stage, eight channels wide."""
    return replace(
        find_spec("resnet20"),
        layers=(1, 1, 1),
        base_width=8,
        num_classes=10,
        image_channels=channels,
    )
