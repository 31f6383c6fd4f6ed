"""Networks of other families, to compare a ResNet with: VGG-16, VGG-19 and GoogLeNet.

Counted from their definitions by the same rules; they cannot be exported. Source: Simonyan and
Zisserman 2015 (arXiv 1409.1556), table 1, D and E; Szegedy et al. 2015 (arXiv 1409.4842), table 1;
their results at ILSVRC, and ResNet's, as the constants below cite them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from edgeres.networks.network import Cost, LayerShape, total
from edgeres.networks.registry import COMPARED
from edgeres.serialization import SCHEMA_VERSION

_IMAGE_CHANNELS = 3

_VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and 3x3 convolutions of each stage of VGG-16; a max pool halves the map behind each."""

_VGG_MAP = 7
"""Side of the map that the classifier reads, whatever the image's size, as torchvision pools it."""

_INCEPTION = (
    # 1x1; 3x3 reduced and 3x3; 5x5 reduced and 5x5; behind the pool. Stages 3, 4 and 5.
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedNetwork:
    """A network that is counted, and no more."""

    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = (
        "schema_version",
        "name",
        "input_size",
        "num_classes",
        "depth",
        "convolutions=convolution_count",
        "cost",
        "layers",
        "classifiers",
    )

    name: str
    structure: str
    """What stands in the place of residual blocks, in words."""
    depth: int
    """Layers with weights on a path from the image to the logits, as the paper counts them."""
    layers: tuple[LayerShape, ...]
    """Convolutions."""
    classifiers: tuple[LayerShape, ...]
    """Fully connected layers, each a convolution whose output is one pixel."""
    pooled: Cost
    """What the pools read and write."""
    norm_channels: int = 0
    """Channels of all batch normalisations."""

    @property
    def input_size(self) -> int:
        """Height and width of the image."""
        return self.layers[0].input_size

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.classifiers[-1].out_channels

    @property
    def convolution_count(self) -> int:
        """Number of convolutions."""
        return len(self.layers)

    @property
    def cost(self) -> Cost:
        """What the network holds and does for one image."""
        connected = total(layer.cost for layer in self.classifiers)
        parameters = sum(layer.parameters for layer in self.classifiers)
        connected = replace(connected, convolution_parameters=0, classifier_parameters=parameters)
        norms = Cost(norm_parameters=2 * self.norm_channels)
        return total((*(layer.cost for layer in self.layers), connected, self.pooled, norms))


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedError:
    """A published error on ImageNet's 1000 classes."""

    year: int
    network: str
    depth: int
    top5_error: float
    """Percent."""
    what: str
    """Of what: images, crops, one network or an ensemble, and its rank."""
    source: str


ILSVRC = (
    PublishedError(
        year=2014,
        network="GoogLeNet",
        depth=22,
        top5_error=6.7,
        what="test set, ensemble of 7, first",
        source="Szegedy et al. 2015, arXiv 1409.4842, table 2",
    ),
    PublishedError(
        year=2014,
        network="VGG",
        depth=19,
        top5_error=7.3,
        what="test set, ensemble of 7, second",
        source="Simonyan and Zisserman 2015, arXiv 1409.1556, table 7",
    ),
    PublishedError(
        year=2015,
        network="ResNet",
        depth=152,
        top5_error=3.57,
        what="test set, ensemble of 6, first",
        source="He et al. 2016a, arXiv 1512.03385, table 5",
    ),
    PublishedError(
        year=2016,
        network="ResNet-152",
        depth=152,
        top5_error=6.16,
        what="validation, one network, one crop",
        source="Zagoruyko and Komodakis 2016, arXiv 1605.07146, section 3.4",
    ),
    PublishedError(
        year=2016,
        network="Wide ResNet-50-2",
        depth=50,
        top5_error=6.03,
        what="validation, one network, one crop",
        source="Zagoruyko and Komodakis 2016, arXiv 1605.07146, section 3.4",
    ),
)
"""Top-5 errors that papers report; figures of the test set and of validation do not compare."""


def compared_network(
    name: str, *, input_size: int | None = None, num_classes: int | None = None
) -> ComparedNetwork:
    """Returns one of `COMPARED`; None leaves 224 pixels and 1000 classes."""
    build = _BUILDERS[name]
    return build(name, 224 if input_size is None else input_size, num_classes or 1000)


def _vgg(name: str, size: int, classes: int, *, more: int) -> ComparedNetwork:
    """Returns VGG; VGG-19 has `more` convolutions in each of the last three stages."""
    layers: list[LayerShape] = []
    pooled = Cost()
    channels = _IMAGE_CHANNELS
    for stage, (width, count) in enumerate(_VGG, start=1):
        for number in range(1, count + (more if stage > 2 else 0) + 1):
            layers.append(
                _convolution(f"conv{stage}_{number}", 3, channels, width, size, bias=True)
            )
            channels = width
        pooled += _pool(channels, size, 2)
        size = -(-size // 2)
    widths = (4096, 4096, classes)
    connected = [
        LayerShape(
            name=f"fc{number}",
            kernel=_VGG_MAP if number == 6 else 1,
            in_channels=channels if number == 6 else 4096,
            out_channels=width,
            input_size=_VGG_MAP if number == 6 else 1,
            stride=_VGG_MAP if number == 6 else 1,
            bias=True,
        )
        for number, width in enumerate(widths, start=6)
    ]
    return ComparedNetwork(
        name=name,
        structure="5 stages of 3x3 convolutions",
        depth=len(layers) + len(connected),
        layers=tuple(layers),
        classifiers=tuple(connected),
        pooled=pooled,
    )


def _googlenet(name: str, size: int, classes: int, *, normalised: bool) -> ComparedNetwork:
    """Returns GoogLeNet without its auxiliary heads.

    Args:
        name: of the network.
        size: of the image.
        classes: number of logits.
        normalised: torchvision's form, batch normalisation for biases and a 3x3 for the 5x5.
    """
    kernel, bias = (3, False) if normalised else (5, True)
    convolution = partial(_convolution, bias=bias)
    layers = [convolution("conv1", 7, _IMAGE_CHANNELS, 64, size, stride=2)]
    size = layers[-1].output_size
    pooled = _pool(64, size, 2)
    size = -(-size // 2)
    layers += [convolution("conv2", 1, 64, 64, size), convolution("conv3", 3, 64, 192, size)]
    pooled += _pool(192, size, 2)
    size, channels, modules = -(-size // 2), 192, 0
    for stage, widths in enumerate(_INCEPTION, start=3):
        if stage > 3:
            pooled += _pool(channels, size, 2)
            size = -(-size // 2)
        for letter, (one, reduce3, three, reduce5, five, pool) in zip(
            "abcde", widths, strict=False
        ):
            within = f"inception{stage}{letter}"
            layers += [
                convolution(f"{within}.branch1", 1, channels, one, size),
                convolution(f"{within}.branch2.0", 1, channels, reduce3, size),
                convolution(f"{within}.branch2.1", 3, reduce3, three, size),
                convolution(f"{within}.branch3.0", 1, channels, reduce5, size),
                convolution(f"{within}.branch3.1", kernel, reduce5, five, size),
                convolution(f"{within}.branch4.1", 1, channels, pool, size),
            ]
            pooled += _pool(channels, size, 1)
            channels = one + three + five + pool
            modules += 1
    head = LayerShape(
        name="fc", kernel=1, in_channels=channels, out_channels=classes, input_size=1, bias=True
    )
    return ComparedNetwork(
        name=name,
        structure=f"{modules} inception modules",
        # Three convolutions of the stem, two on each path through a module, and the classifier.
        depth=3 + 2 * modules + 1,
        layers=tuple(layers),
        classifiers=(head,),
        pooled=pooled + Cost(inputs=channels * size**2, outputs=channels),
        norm_channels=sum(layer.out_channels for layer in layers) if normalised else 0,
    )


def _convolution(
    name: str, kernel: int, inside: int, outside: int, size: int, *, bias: bool, stride: int = 1
) -> LayerShape:
    return LayerShape(
        name=name,
        kernel=kernel,
        in_channels=inside,
        out_channels=outside,
        input_size=size,
        stride=stride,
        bias=bias,
    )


def _pool(channels: int, size: int, stride: int) -> Cost:
    """Returns what a pool reads and writes."""
    return Cost(inputs=channels * size**2, outputs=channels * (-(-size // stride)) ** 2)


_BUILDERS: Mapping[str, Callable[[str, int, int], ComparedNetwork]] = dict(
    zip(
        COMPARED,
        (
            partial(_vgg, more=0),
            partial(_vgg, more=1),
            partial(_googlenet, normalised=False),
            partial(_googlenet, normalised=True),
        ),
        strict=True,
    )
)
