"""A network as frozen values: layers, blocks and stages with their shapes and costs.

Costs are counted from the shapes alone: parameters, multiply-accumulates, activations and the
bytes that one image moves. Knows no torch and no weights; `explain` lays the values out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from itertools import groupby
from operator import add
from typing import Protocol

from edgeres.core.cost import VALUE_BYTES, OperatorCost
from edgeres.core.precision import Precision
from edgeres.names import Name
from edgeres.networks.specification import BlockKind, ModelSpec
from edgeres.serialization import SCHEMA_VERSION


class Skip(Name):
    """What joins a block's input to its output. Source: He et al. 2016a, section 3.3."""

    IDENTITY = "identity"
    PADDING = "padding"
    PROJECTION = "projection"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost(OperatorCost):
    """What a part of a network holds and does for one image; costs add up."""

    json_keys = (
        "parameters",
        "convolution_parameters",
        "norm_parameters",
        "classifier_parameters",
        "weights",
        "channels",
        "macs",
        "activations",
        "moved",
        "weight_bytes=weight_bytes_by_precision",
        "activation_bytes=activation_bytes_by_precision",
        "macs_per_byte=intensity_by_precision",
    )

    convolution_parameters: int = 0
    norm_parameters: int = 0
    """Scale and shift of each normalised channel."""
    classifier_parameters: int = 0
    activations: int = 0
    """Values that convolutions and classifier write.

    Source: Radosavovic et al. 2020 (arXiv 2003.13678), who count convolutions alone; timm's
    model cards, whose figures have the same digits with the classifier.
    """

    def __add__(self, other: Cost) -> Cost:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)}
        return Cost(**sums)

    @property
    def parameters(self) -> int:
        """Trained values."""
        return self.convolution_parameters + self.norm_parameters + self.classifier_parameters

    def activation_bytes(self, precision: Precision) -> int:
        """Returns the bytes of `activations`."""
        return self.activations * VALUE_BYTES[precision]

    @property
    def weight_bytes_by_precision(self) -> Mapping[Precision, int]:
        """`weight_bytes` in each precision."""
        return {precision: self.weight_bytes(precision) for precision in VALUE_BYTES}

    @property
    def activation_bytes_by_precision(self) -> Mapping[Precision, int]:
        """`activation_bytes` in each precision."""
        return {precision: self.activation_bytes(precision) for precision in VALUE_BYTES}

    @property
    def intensity_by_precision(self) -> Mapping[Precision, float]:
        """`intensity` in each precision."""
        return {precision: self.intensity(precision) for precision in VALUE_BYTES}


def total(costs: Iterable[Cost]) -> Cost:
    """Returns the sum of costs."""
    return reduce(add, costs, Cost())


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """A convolution padded to keep the size at stride 1; the classifier is one on a single pixel."""

    json_keys = ("*", "output_size", "weights", "cost.macs")

    name: str
    """State-dict name, such as `layer1.0.conv1`."""
    kernel: int
    in_channels: int
    out_channels: int
    input_size: int
    """Height and width of the map that it reads, in pixels."""
    stride: int = 1
    groups: int = 1
    bias: bool = False

    @property
    def output_size(self) -> int:
        """Height and width of the map that it writes: ceil(input_size / stride)."""
        return -(-self.input_size // self.stride)

    @property
    def weights(self) -> int:
        """Values of the kernel: kernel * kernel * in_channels / groups * out_channels."""
        return self.kernel**2 * self.in_channels // self.groups * self.out_channels

    @property
    def inputs(self) -> int:
        """Values that it reads; a kernel smaller than its stride passes over the others."""
        # A strided 1x1 projection reads every stride-th pixel of every stride-th row.
        size = self.output_size if self.kernel < self.stride else self.input_size
        return self.in_channels * size**2

    @property
    def outputs(self) -> int:
        """Values that it writes."""
        return self.out_channels * self.output_size**2

    @property
    def parameters(self) -> int:
        """Kernel values and biases."""
        return self.weights + (self.out_channels if self.bias else 0)

    @property
    def cost(self) -> Cost:
        """What it holds and does, as a convolution."""
        return Cost(
            convolution_parameters=self.parameters,
            weights=self.weights,
            channels=self.out_channels,
            macs=self.weights * self.output_size**2,
            activations=self.outputs,
            inputs=self.inputs,
            outputs=self.outputs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildingBlock:
    """One residual block, or its plain counterpart."""

    json_keys = (
        "name",
        "kind",
        "kernels",
        "channels",
        "stride",
        "groups",
        "skip",
        "output_size",
        "layers",
        "projection",
        "cost",
    )

    name: str
    """State-dict name, such as `layer1.0`."""
    kind: BlockKind
    layers: tuple[LayerShape, ...]
    """Convolutions of the main path."""
    skip: Skip
    projection: LayerShape | None
    """The 1x1 convolution of a projecting skip connection."""
    norm_channels: int
    """Channels of all its batch normalisations."""

    @property
    def convolutions(self) -> tuple[LayerShape, ...]:
        """Those of the main path, then the projection."""
        return self.layers if self.projection is None else (*self.layers, self.projection)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels before, between and after the convolutions of the main path."""
        return (self.layers[0].in_channels, *(layer.out_channels for layer in self.layers))

    @property
    def kernels(self) -> tuple[int, ...]:
        """Kernel size of each convolution of the main path."""
        return tuple(layer.kernel for layer in self.layers)

    @property
    def stride(self) -> int:
        """Factor by which the block reduces height and width."""
        return max(layer.stride for layer in self.layers)

    @property
    def groups(self) -> int:
        """Groups of its grouped convolution; 1 where there is none."""
        return max(layer.groups for layer in self.layers)

    @property
    def output_size(self) -> int:
        """Height and width of what it writes, in pixels."""
        return self.layers[-1].output_size

    @property
    def cost(self) -> Cost:
        """What its layers cost, and the Add, which reads the skip connection once more."""
        added = 0
        if self.skip is not Skip.NONE:
            # Of a padded skip connection the zeros are not read.
            channels = self.channels[0] if self.skip is Skip.PADDING else self.channels[-1]
            added = channels * self.output_size**2
        own = Cost(norm_parameters=2 * self.norm_channels, inputs=added)
        return total((*(layer.cost for layer in self.convolutions), own))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks of one width and resolution."""

    name: str
    """State-dict name, such as `layer1`."""
    blocks: tuple[BuildingBlock, ...]

    @property
    def cost(self) -> Cost:
        """What its blocks cost together."""
        return total(block.cost for block in self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network from the image to the logits."""

    schema_version = SCHEMA_VERSION
    json_keys = (
        "schema_version",
        "spec.name",
        "spec.input_size",
        "spec.num_classes",
        "depth",
        "convolutions=convolution_count",
        "cost",
        "parts=cost_of_parts",
        "stem",
        "stages",
        "classifier",
    )

    spec: ModelSpec
    stem: LayerShape
    pool: LayerShape | None
    """Shape of the max pooling behind the stem, which has no weights; None in a CIFAR net."""
    stages: tuple[Stage, ...]
    classifier: LayerShape
    outer_norm_channels: int
    """Channels of the batch normalisation outside the blocks."""

    @property
    def name(self) -> str:
        """Its architecture's."""
        return self.spec.name

    @property
    def blocks(self) -> tuple[BuildingBlock, ...]:
        """Blocks of all stages."""
        return tuple(block for stage in self.stages for block in stage.blocks)

    @property
    def convolutions(self) -> tuple[LayerShape, ...]:
        """Every convolution in the order in which it runs, projections included."""
        return (self.stem, *(layer for block in self.blocks for layer in block.convolutions))

    @property
    def depth(self) -> int:
        """Layers as the architecture's paper counts them.

        He et al. 2016a, table 1: layers with weights on the main path, the classifier included.
        Zagoruyko and Komodakis 2016 (n in WRN-n-k): all convolutions; their 6N + 4 counts three
        projections, of which a net of width 1, not among the registered ones, has two.
        """
        # No classifier: the 6n + 4 of a WRN are its convolutions alone.
        if self.spec.block is BlockKind.PREACTIVATION:
            return len(self.convolutions)
        return 1 + sum(len(block.layers) for block in self.blocks) + 1

    @property
    def parts(self) -> tuple[tuple[str, Cost], ...]:
        """Stem, stages and head by name, in their order; their costs make up the network's."""
        stages = ((stage.name, stage.cost) for stage in self.stages)
        stem, head = self.stem.cost, self.classifier.cost
        # The classifier is counted as a convolution on one pixel; its parameters are its own kind.
        parameters = self.classifier.parameters
        head = replace(head, convolution_parameters=0, classifier_parameters=parameters)
        if self.pool is not None:
            stem += Cost(inputs=self.pool.inputs, outputs=self.pool.outputs)
        # Global average pooling reads the last map and writes one value a channel.
        last = self.blocks[-1].layers[-1]
        head += Cost(inputs=last.outputs, outputs=last.out_channels)
        # The normalisation outside the blocks: behind pre-activation blocks, else in the stem.
        norm = Cost(norm_parameters=2 * self.outer_norm_channels)
        if self.spec.block is BlockKind.PREACTIVATION:
            head += norm
        else:
            stem += norm
        return (("stem", stem), *stages, ("head", head))

    @property
    def convolution_count(self) -> int:
        """Number of convolutions, projections included."""
        return len(self.convolutions)

    @property
    def cost_of_parts(self) -> Mapping[str, Cost]:
        """Cost of each of `parts` by its name."""
        return dict(self.parts)

    @property
    def cost(self) -> Cost:
        """What the network holds and does for one image."""
        return total(cost for _, cost in self.parts)


class Counted(Protocol):
    """A network whose figures can be compared with another's."""

    @property
    def name(self) -> str:
        """What a table calls it."""

    @property
    def depth(self) -> int:
        """Layers as its paper counts them."""

    @property
    def convolution_count(self) -> int:
        """Number of convolutions."""

    @property
    def cost(self) -> Cost:
        """What it holds and does for one image."""


def measures(network: Counted) -> dict[str, float]:
    """Returns the figures by which two networks are compared."""
    cost = network.cost
    return {
        "depth": network.depth,
        "convolutions": network.convolution_count,
        "parameters": cost.parameters,
        "convolution_parameters": cost.convolution_parameters,
        "norm_parameters": cost.norm_parameters,
        "classifier_parameters": cost.classifier_parameters,
        "macs": cost.macs,
        "activations": cost.activations,
        "weight_bytes_fp32": cost.weight_bytes(Precision.FP32),
        "weight_bytes_int8": cost.weight_bytes(Precision.INT8),
        "macs_per_byte_fp32": cost.intensity(Precision.FP32),
        "macs_per_byte_int8": cost.intensity(Precision.INT8),
    }


def ratios(network: Counted, other: Counted) -> dict[str, float | None]:
    """Returns how many times the other's figures the network's are, by `measures`' names.

    None where the other has none at all, such as batch normalisations in VGG.
    """
    baseline = measures(other)
    return {
        name: value / baseline[name] if baseline[name] else None
        for name, value in measures(network).items()
    }


def runs(blocks: Iterable[BuildingBlock]) -> tuple[tuple[BuildingBlock, ...], ...]:
    """Returns neighbouring blocks of one shape together, in their order."""

    def shape(block: BuildingBlock) -> tuple[object, ...]:
        return block.kind, block.skip, tuple(replace(layer, name="") for layer in block.layers)

    return tuple(tuple(run) for _, run in groupby(blocks, key=shape))
