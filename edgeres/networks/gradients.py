"""Gradients by depth as frozen values, and the plain counterpart of a residual network.

Knows no torch; `backward` measures what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeres.networks.registry import ARCHITECTURES
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGradient:
    """What reaches one block on the way back from the loss."""

    name: str
    """State-dict name, such as `layer1.0`."""
    depth: int
    """Layers with weights from the image to the end of the block, projections not counted."""
    input_norm: float
    """Euclidean norm of dL/dx, x the block's input for all of the batch, L the mean loss."""
    weight_norm: float
    """Euclidean norm of dL/dw over the weights of the block's convolutions on the main path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientProfile:
    """The gradients of all blocks at one moment of training."""

    json_keys = ("*", "carried")

    steps: int
    """Steps of training before it."""
    loss: float
    """Mean cross-entropy of the batch that the gradients are of."""
    blocks: tuple[BlockGradient, ...]
    """From the image to the logits."""

    @property
    def carried(self) -> float:
        """Norm at the first block's input over that at the last's: 1 is carried unchanged."""
        return self.blocks[0].input_norm / self.blocks[-1].input_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkGradients:
    """One network at initialisation and after some training."""

    name: str
    initial: GradientProfile
    trained: GradientProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientComparison:
    """Two networks on the same images, with the conditions that both were measured under."""

    input_size: int
    """Side of the images in pixels."""
    batch_size: int
    """Images of a step, and of the batch that gradients are measured on."""
    seed: int
    network: NetworkGradients
    other: NetworkGradients


def counterpart(spec: ModelSpec) -> ModelSpec:
    """Returns the same network without its skip connections, or a plain one with them.

    It keeps the registry's name where it stands there. A plain CIFAR net of basic blocks gets
    option A, as in He et al. 2016a, section 4.2, any other option B.
    """
    if spec.shortcut is Shortcut.NONE:
        padded = spec.block is BlockKind.BASIC and spec.stem is Stem.CIFAR
        other = replace(spec, shortcut=Shortcut.A if padded else Shortcut.B)
        name = f"{spec.name} with skips"
    else:
        other, name = replace(spec, shortcut=Shortcut.NONE), f"{spec.name} without skips"
    # Equal in all but its name: a registered network is compared under the name it is known by.
    known = (each for each in ARCHITECTURES.values() if replace(other, name=each.name) == each)
    return next(known, replace(other, name=name))
