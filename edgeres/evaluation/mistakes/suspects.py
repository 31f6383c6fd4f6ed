"""The usual mistakes: what the right preprocessing would be if one, or two, had been made.

Two contracts that make the same numbers of an image are one suspect; the first, with the fewest
mistakes, stands for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from edgeres.core.contract import PRESETS, Color, Contract, Interpolation
from edgeres.evaluation.mistakes.values import LabelOrder, Suspect

Triple = tuple[float, float, float]

_ZERO, _ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_CROP_SHARE = 224 / 256
"""Share of the resized short side that the crop keeps. Source: torchvision's references."""

_RAW_UNITS = 2.0
"""A mean or deviation above it belongs to values of 0 to 255, not of 0 to 1."""


@dataclass(frozen=True, slots=True)
class _Normalisation:
    """A map from raw values to what a network takes, its triples in RGB order."""

    name: str
    scale: float
    mean: Triple
    std: Triple


def _from_preset(preset: str, name: str) -> _Normalisation:
    contract = PRESETS[preset]
    in_rgb = contract.color is Color.RGB
    mean = contract.mean if in_rgb else _reversed(contract.mean)
    std = contract.std if in_rgb else _reversed(contract.std)
    return _Normalisation(name, contract.scale, mean, std)


def _reversed(triple: Triple) -> Triple:
    return triple[2], triple[1], triple[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """How long the short sides of a data set's images are, in pixels."""

    shortest: int
    longest: int

    def are_changed_by(self, resize: int | None) -> bool:
        """Whether resizing the short side to `resize` changes any image."""
        return resize is not None and not self.shortest == self.longest == resize


_KNOWN = (
    _from_preset("imagenet", "ImageNet's mean and std"),
    _from_preset("cifar", "CIFAR-10's mean and std"),
    _from_preset("imagenet-inception", "values in [-1, 1]"),
    _from_preset("imagenet-caffe", "values in [0, 255] minus the mean"),
    _Normalisation("values in [0, 1]", 1 / 255, _ZERO, _ONE),
    _Normalisation("raw values in [0, 255]", 1.0, _ZERO, _ONE),
)


def suspects_of(contract: Contract, sides: Sides) -> tuple[Suspect, ...]:
    """Returns every suspected preprocessing: single mistakes, and colour beside values.

    Args:
        contract: the present preprocessing.
        sides: of the images.
    """
    values = tuple(_value_suspects(contract))
    pairs = (_both(v, c) for v in values for c in _color_suspects(v.contract, as_typed=False))
    singles = (*_color_suspects(contract), *values, *_geometry_suspects(contract, sides))
    return _distinct(Suspect(contract=contract), (*singles, *pairs), sides)


def geometry_beside(suspect: Suspect, sides: Sides) -> tuple[Suspect, ...]:
    """Returns a suspect with each mistake in the geometry beside its one; none where it has two."""
    if len(suspect.mistakes) != 1 or suspect.contract.resize is None:
        return ()
    found = (_both(suspect, other) for other in _geometry_suspects(suspect.contract, sides))
    return _distinct(suspect, found, sides)


def label_orders(
    network_classes: int, data_classes: Sequence[str], names: Sequence[str]
) -> tuple[LabelOrder, ...]:
    """Returns the other readings of the labels that can be told without looking at an image.

    Args:
        network_classes: length of the logits.
        data_classes: names of the data's classes in order of label; empty where not known.
        names: names of the network's classes in order; empty where not known.
    """
    shifts = (_shifted(network_classes, by) for by in (1, -1))
    return (*shifts, *_by_number(data_classes), *_by_name(data_classes, names))


def _both(first: Suspect, second: Suspect) -> Suspect:
    """Returns two mistakes at once; the second was derived from the first one's contract."""
    return replace(second, mistakes=(*first.mistakes, *second.mistakes))


def _color_suspects(contract: Contract, *, as_typed: bool = True) -> Iterator[Suspect]:
    """Yields the other colour order, mean and std going along with their channels.

    With `as_typed` first with both as they stand, which is right if the order alone was mistyped.
    """
    other = Color.BGR if contract.color is Color.RGB else Color.RGB
    mistakes = (f"red and blue are swapped, the network takes {other.upper()}",)
    swapped = replace(contract, color=other)
    if as_typed:
        yield Suspect(contract=swapped, mistakes=mistakes)
    mean, std = _reversed(contract.mean), _reversed(contract.std)
    yield Suspect(contract=replace(swapped, mean=mean, std=std), mistakes=mistakes)


def _value_suspects(contract: Contract) -> Iterator[Suspect]:
    """Yields the other maps from raw values, in the present colour order."""
    yield from _scale_suspects(contract)
    for known in _KNOWN:
        in_rgb = contract.color is Color.RGB
        mean, std = (t if in_rgb else _reversed(t) for t in (known.mean, known.std))
        right = replace(contract, scale=known.scale, mean=mean, std=std)
        yield Suspect(contract=right, mistakes=(_value_mistake(contract, right, known.name),))


def _scale_suspects(contract: Contract) -> Iterator[Suspect]:
    """Yields the scale that agrees with the units of mean and std, where the present one does not."""
    raw_units = max(*contract.mean, *contract.std) > _RAW_UNITS
    if raw_units and contract.scale < 1:
        mistake = "the values are scaled twice: by the scale, and by a mean and std of 0 to 255"
        yield Suspect(contract=replace(contract, scale=1.0), mistakes=(mistake,))
    if not raw_units and contract.scale == 1:
        mistake = "the scaling by 1/255 is missing"
        yield Suspect(contract=replace(contract, scale=1 / 255), mistakes=(mistake,))


def _value_mistake(present: Contract, right: Contract, name: str) -> str:
    """Returns what is wrong with the present map if `right`, of that name, is the network's."""
    bare = (_ZERO, _ONE)
    if (present.mean, present.std) == bare and present.scale == right.scale:
        return f"mean and std are missing, the network takes {name}"
    if (right.mean, right.std) == bare and right.scale == 1:
        return f"the values are scaled twice, the network takes {name} and scales them itself"
    if present.scale == 1 and right.scale < 1:
        return f"the scaling is missing, the network takes {name}"
    return f"scale, mean and std are another network's, this one takes {name}"


def _geometry_suspects(contract: Contract, sides: Sides) -> Iterator[Suspect]:
    """Yields the other ways to the same number of pixels, and the other filters of the resize."""
    size = contract.size
    resizes: dict[int | None, str] = {
        size: f"a margin is cropped off, the network takes images resized to {size}",
        round(size / _CROP_SHARE): "no margin is cropped off as the network has it",
    }
    if sides.shortest >= size:
        resizes[None] = "images are resized, the network takes their centre as it is"
    for resize, mistake in resizes.items():
        yield Suspect(contract=replace(contract, resize=resize), mistakes=(mistake,))
    for filter in Interpolation:
        mistake = f"the resize is {contract.interpolation}, the network takes {filter}"
        yield Suspect(contract=replace(contract, interpolation=filter), mistakes=(mistake,))


def _shifted(network_classes: int, by: int) -> LabelOrder:
    moved = (label + by for label in range(network_classes))
    reason = "the network's first class is none of the data's" if by > 0 else "they count from 1"
    return LabelOrder(
        mistake=f"the labels are one too {'low' if by > 0 else 'high'}, as if {reason}",
        remedy=f"Write a labels.csv, or an .npz, with every class index {by:+d}.",
        network_class=tuple(new if 0 <= new < network_classes else -1 for new in moved),
    )


def _by_number(data_classes: Sequence[str]) -> Iterator[LabelOrder]:
    """Yields the order of class folders by number where it is not that of their text."""
    if not data_classes or not all(name.isdecimal() for name in data_classes):
        return
    by_number = sorted(data_classes, key=int)
    if by_number != list(data_classes):
        yield LabelOrder(
            mistake="the class folders are sorted as text (1, 10, 2), the network's classes by "
            "number",
            remedy="Name the folders with leading zeros (01, 02, 10).",
            network_class=tuple(by_number.index(name) for name in data_classes),
        )


def _by_name(data_classes: Sequence[str], names: Sequence[str]) -> Iterator[LabelOrder]:
    """Yields the network's own order where both name the same classes in different orders."""
    if sorted(data_classes) == sorted(names) and list(data_classes) != list(names):
        yield LabelOrder(
            mistake="the class folders are in the order of their names, the network's classes "
            "are not",
            remedy="Write a labels.csv with the class indices of the network.",
            network_class=tuple(list(names).index(name) for name in data_classes),
        )


def _distinct(present: Suspect, suspects: Iterable[Suspect], sides: Sides) -> tuple[Suspect, ...]:
    """Drops what makes the same numbers as the present one or as one before it."""
    seen = {_numbers(present.contract, sides)}
    kept = []
    for suspect in suspects:
        numbers = _numbers(suspect.contract, sides)
        if numbers not in seen:
            seen.add(numbers)
            kept.append(suspect)
    return tuple(kept)


def _numbers(contract: Contract, sides: Sides) -> tuple[object, ...]:
    """Returns what decides the network's input: geometry, colour, slopes and offsets."""
    resized = sides.are_changed_by(contract.resize)
    geometry = (contract.resize, contract.interpolation) if resized else ()
    slopes = (contract.scale / std for std in contract.std)
    offsets = (mean / std for mean, std in zip(contract.mean, contract.std, strict=True))
    return geometry, contract.color, *(f"{number:.6g}" for number in (*slopes, *offsets))
