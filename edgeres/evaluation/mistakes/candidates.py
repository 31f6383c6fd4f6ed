"""The usual mistakes: which contract would be the network's own if one, or two, had been made.

Two contracts that make the same numbers of an image are one candidate; the first, with the fewest
mistakes, stands for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from edgeres.core.contract import PRESETS, Color, Contract, Crop, with_resize
from edgeres.core.resize import (
    NO_RESIZE,
    Interpolation,
    Resize,
    ResizeLibrary,
    ResizeMode,
    letterbox,
    shortest,
    squash,
)
from edgeres.evaluation.mistakes.values import Candidate, LabelMapping
from edgeres.images import is_kept
from edgeres.installation import is_installed

Values = tuple[float, ...]

_ZERO, _ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_CROP_FRACTION = 224 / 256
"""Fraction of the resized short side that the crop keeps. Source: torchvision's references."""

_RAW_UNITS = 2.0
"""A mean or deviation above it belongs to values of 0 to 255, not of 0 to 1."""

_SIDES = (1 / 2, 3 / 4, 4 / 3, 2)
"""Factors on the sides of an input: coarse, since a network is nearly as good a tenth beside its
size, and with the pairs that are confused, 224 and 299, 24 and 32, and a half."""


@dataclass(frozen=True, slots=True)
class _Normalisation:
    """A map from raw values to what a network takes, its triples in RGB order."""

    name: str
    scale: float
    mean: Values
    std: Values


def _reversed(values: Values) -> Values:
    return values[::-1]


def _in_order(values: Values, color: Color) -> Values:
    """Returns values of RGB in a contract's channel order, or the other way round."""
    return _reversed(values) if color is Color.BGR else values


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSizes:
    """Heights and widths of a data set's images, in pixels."""

    sizes: frozenset[tuple[int, int]]

    @property
    def shortest(self) -> int:
        """The shortest side of all."""
        return min(map(min, self.sizes))

    def effect_of(self, resize: Resize) -> object:
        """Returns what a resize does to these images: equal for two that make the same of them."""
        if all(is_kept(resize, *size) for size in self.sizes):
            return None
        filtered = resize.interpolation, resize.library
        square = all(height == width for height, width in self.sizes)
        # A square made a square keeps its shape, whatever a resize does about it.
        if square and resize.mode is ResizeMode.SHORTEST:
            return resize.short, *filtered
        if square and resize.height == resize.width:
            return resize.height, *filtered
        return resize


_PRESETS = {
    "imagenet": "ImageNet's mean and std",
    "cifar": "CIFAR-10's mean and std",
    "imagenet-inception": "values in [-1, 1]",
    "imagenet-caffe": "values in [0, 255] minus the mean",
}

_KNOWN = (
    *(
        _Normalisation(
            name, known.scale, _in_order(known.mean, known.color), _in_order(known.std, known.color)
        )
        for preset, name in _PRESETS.items()
        for known in (PRESETS[preset],)
    ),
    _Normalisation("values in [0, 1]", 1 / 255, _ZERO, _ONE),
    _Normalisation("raw values in [0, 255]", 1.0, _ZERO, _ONE),
)

_KNOWN_GRAY = (
    _Normalisation("values in [-1, 1]", 1 / 255, (0.5,), (0.5,)),
    _Normalisation("MNIST's mean and std", 1 / 255, (0.1307,), (0.3081,)),
    _Normalisation("ImageNet's mean and std of gray", 1 / 255, (0.449,), (0.226,)),
    _Normalisation("values in [0, 1]", 1 / 255, (0.0,), (1.0,)),
    _Normalisation("raw values in [0, 255]", 1.0, (0.0,), (1.0,)),
)
"""Source: PyTorch's example of MNIST; the means over the channels of ImageNet's mean and std."""


def candidate_contracts(contract: Contract, sizes: ImageSizes) -> tuple[Candidate, ...]:
    """Returns every candidate contract: single mistakes, and colour with values.

    Args:
        contract: the present preprocessing.
        sizes: of the images.
    """
    values = tuple(_value_candidates(contract))
    # Colour is tried after the values: then mean and std go with their channels.
    pairs = (_both(v, c) for v in values for c in _color_candidates(v.contract, as_typed=False))
    singles = (
        *_color_candidates(contract),
        *values,
        *_geometry_candidates(contract, sizes),
        *_size_candidates(contract, sizes),
    )
    return _distinct(Candidate(contract=contract), (*singles, *pairs), sizes)


def with_geometry(candidate: Candidate, sizes: ImageSizes) -> tuple[Candidate, ...]:
    """Returns a candidate with each mistake in the geometry added; none where it has two."""
    if len(candidate.mistakes) != 1 or candidate.contract.resize.mode is ResizeMode.NONE:
        return ()
    pairs = (_both(candidate, other) for other in _geometry_candidates(candidate.contract, sizes))
    return _distinct(candidate, pairs, sizes)


def with_mappings(candidate: Candidate, mappings: Sequence[LabelMapping]) -> tuple[Candidate, ...]:
    """Returns a candidate and, where it has one mistake at most, it with each label mapping."""
    if len(candidate.mistakes) > 1:
        return (candidate,)
    # Reading the same predictions with other labels costs no inference.
    mapped = (
        replace(candidate, labels=one, mistakes=(*candidate.mistakes, one.mistake))
        for one in mappings
    )
    return (candidate, *mapped)


def _both(first: Candidate, second: Candidate) -> Candidate:
    """Returns two mistakes at once; the second was derived from the first one's contract."""
    # Only the first may read the labels another way: the second was derived without them.
    return replace(second, labels=first.labels, mistakes=(*first.mistakes, *second.mistakes))


def _color_candidates(contract: Contract, *, as_typed: bool = True) -> Iterator[Candidate]:
    """Yields the other orders of three channels, mean and std going along with theirs.

    With `as_typed` first with both as they stand, which is correct if only the order was mistyped,
    and gray for colour.
    """
    if contract.channels == 1:
        return
    if contract.color is Color.GRAY:
        for other in (Color.RGB, Color.BGR):
            mistake = f"the images are made gray, the network takes {other.upper()}"
            yield Candidate(contract=replace(contract, color=other), mistakes=(mistake,))
        return
    other = Color.BGR if contract.color is Color.RGB else Color.RGB
    mistakes = (f"red and blue are swapped, the network takes {other.upper()}",)
    swapped = replace(contract, color=other)
    if as_typed:
        yield Candidate(contract=swapped, mistakes=mistakes)
    mean, std = _reversed(contract.mean), _reversed(contract.std)
    yield Candidate(contract=replace(swapped, mean=mean, std=std), mistakes=mistakes)
    if as_typed:
        gray = ("the images are in colour, the network takes gray in each channel",)
        yield Candidate(contract=replace(contract, color=Color.GRAY), mistakes=gray)


def _value_candidates(contract: Contract) -> Iterator[Candidate]:
    """Yields the other maps from raw values, in the present colour order."""
    # A scale that does not agree with the units of mean and std comes first: it is the likelier.
    raw_units = max(*contract.mean, *contract.std) > _RAW_UNITS
    if raw_units and contract.scale < 1:
        mistake = "the values are scaled twice: by the scale, and by a mean and std of 0 to 255"
        yield Candidate(contract=replace(contract, scale=1.0), mistakes=(mistake,))
    if not raw_units and contract.scale == 1:
        mistake = "the scaling by 1/255 is missing"
        yield Candidate(contract=replace(contract, scale=1 / 255), mistakes=(mistake,))
    bare = (_ZERO[: contract.channels], _ONE[: contract.channels])
    for known in _KNOWN if contract.channels == 3 else _KNOWN_GRAY:
        mean, std = known.mean, known.std
        if (contract.mean, contract.std) == bare and contract.scale == known.scale:
            mistake = f"mean and std are missing, the network takes {known.name}"
        elif (mean, std) == bare and known.scale == 1:
            mistake = (
                f"the values are scaled twice, the network takes {known.name} and scales them "
                "itself"
            )
        elif contract.scale == 1 and known.scale < 1:
            mistake = f"the scaling is missing, the network takes {known.name}"
        else:
            mistake = f"scale, mean and std are another network's, this one takes {known.name}"
        mean, std = (_in_order(triple, contract.color) for triple in (mean, std))
        corrected = replace(contract, scale=known.scale, mean=mean, std=std)
        yield Candidate(contract=corrected, mistakes=(mistake,))


def _geometry_candidates(contract: Contract, sizes: ImageSizes) -> Iterator[Candidate]:
    """Yields the other ways to the same number of pixels, and the other filters of the resize."""
    height, width, present = contract.height, contract.width, contract.resize
    size, words = max(height, width), f"{height}x{width}" if height != width else str(height)
    wider, higher = (round(side / _CROP_FRACTION) for side in (width, height))
    squashed = "the images keep their shape, the network takes them squashed"
    resizes = {
        shortest(size): f"a margin is cropped off, the network takes images resized to {size}",
        shortest(round(size / _CROP_FRACTION)): "no margin is cropped off as the network has it",
        squash(height, width): f"{squashed} to {words}",
        squash(higher, wider): f"{squashed}, and their centre",
        letterbox(height, width): "the images lose a margin or their shape, the network takes them "
        "padded to a frame",
    }
    if present.mode is ResizeMode.SQUASH:
        kept = "the images are squashed, the network takes them in their shape"
        resizes |= {how: kept for how in resizes if how.mode is ResizeMode.SHORTEST}
        resizes[squash(height, width)] = f"a margin is cropped off, the network takes {words}"
        resizes[squash(higher, wider)] = "no margin is cropped off as the network has it"
    for resize, mistake in resizes.items():
        other = replace(resize, interpolation=present.interpolation, library=present.library)
        yield Candidate(contract=with_resize(contract, other), mistakes=(mistake,))
    # Smaller images cannot be cropped without being resized.
    if all(high >= height and wide >= width for high, wide in sizes.sizes):
        mistake = "images are resized, the network takes their centre as it is"
        yield Candidate(contract=with_resize(contract, NO_RESIZE), mistakes=(mistake,))
    yield from _filter_candidates(contract)
    if height != width:
        turned = replace(
            contract,
            height=width,
            width=height,
            resize=replace(present, height=present.width, width=present.height),
        )
        mistake = f"height and width are exchanged, the network takes {width}x{height}"
        yield Candidate(contract=turned, mistakes=(mistake,))


def _size_candidates(contract: Contract, sizes: ImageSizes) -> Iterator[Candidate]:
    """Yields inputs of another size, which a network with a global pool computes as well.

    A network fails on those that it does not take, and has none of them correct.
    """
    height, width, present = contract.height, contract.width, contract.resize
    both = [(side, side) for side in _SIDES]
    one = [pair for side in _SIDES for pair in ((1, side), (side, 1))]
    for taller, broader in (*both, *one):
        high, wide = round(height * taller), round(width * broader)
        if present.short is not None and taller == broader:
            resize = replace(present, short=round(present.short * taller))
        elif present.mode is ResizeMode.NONE:
            if not all(own[0] >= high and own[1] >= wide for own in sizes.sizes):
                continue
            resize = present
        else:
            # Beside a crop of another shape there is no telling how much of an image it had.
            framed = present if present.short is None else squash(height, width)
            resize = replace(
                framed,
                height=round((framed.height or height) * taller),
                width=round((framed.width or width) * broader),
                interpolation=present.interpolation,
                library=present.library,
            )
        mistake = f"the input is {height}x{width}, the network was made for about {high}x{wide}"
        bare = replace(contract, height=high, width=wide, resize=NO_RESIZE, crop=Crop.CENTER)
        yield Candidate(contract=with_resize(bare, resize), mistakes=(mistake,))


def _filter_candidates(contract: Contract) -> Iterator[Candidate]:
    """Yields the other filters of the same resize, and the other library's."""
    present = contract.resize
    for filter in Interpolation:
        # Only OpenCV has it.
        if filter is not Interpolation.AREA or present.library is ResizeLibrary.OPENCV:
            other = replace(present, interpolation=filter)
            mistake = f"the resize is {present.interpolation}, the network takes {filter}"
            yield Candidate(contract=replace(contract, resize=other), mistakes=(mistake,))
    to_pillow = present.library is ResizeLibrary.OPENCV
    if not to_pillow and not is_installed("cv2"):
        return
    library = ResizeLibrary.PILLOW if to_pillow else ResizeLibrary.OPENCV
    words = {ResizeLibrary.PILLOW: "Pillow's, with antialiasing", ResizeLibrary.OPENCV: "OpenCV's"}
    filter = present.interpolation
    same = Interpolation.BILINEAR if filter is Interpolation.AREA else filter
    swapped = replace(present, library=library, interpolation=same)
    mistake = f"the resize is {words[present.library]}, the network takes {words[library]}"
    yield Candidate(contract=replace(contract, resize=swapped), mistakes=(mistake,))


def _distinct(
    present: Candidate, candidates: Iterable[Candidate], sizes: ImageSizes
) -> tuple[Candidate, ...]:
    """Drops what makes the same numbers as the present one or as one before it."""
    by_input: dict[tuple[object, ...], Candidate] = {}
    for candidate in (present, *candidates):
        contract = candidate.contract
        slopes = (contract.scale / std for std in contract.std)
        offsets = (mean / std for mean, std in zip(contract.mean, contract.std, strict=True))
        # Six digits: the same constant typed with fewer digits is no other preprocessing.
        numbers = (f"{number:.6g}" for number in (*slopes, *offsets))
        key = (sizes.effect_of(contract.resize), contract.shape, contract.color, *numbers)
        by_input.setdefault(key, candidate)
    return tuple(by_input.values())[1:]
