"""Which of the images that changed their label a page shows, and what it says of the others."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgeres.core.verdict import Flip, FlipKind, PairedAccuracy

SHOWN = 60
"""Most images of each kind on a page: with their pictures they stay below 1 MB."""

SMALL_PIXELS = 48
"""Pictures up to this side are enlarged with sharp edges; a smooth blur would hide what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A thumbnail."""

    jpeg: bytes = field(repr=False)
    side: int
    """Longer side in pixels."""

    @property
    def small(self) -> bool:
        """Whether it is enlarged with sharp edges."""
        return self.side <= SMALL_PIXELS

    @property
    def data_url(self) -> str:
        """The picture as a URL that holds it."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode('ascii')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipGroup:
    """Changed labels of one kind."""

    kind: FlipKind
    title: str
    order: str
    """By what the images were picked, where not all are shown."""
    total: int
    shown: tuple[Flip, ...]


def flip_groups(accuracy: PairedAccuracy, most: int = SHOWN) -> tuple[FlipGroup, ...]:
    """Returns the changed labels by kind, the worst first; kinds without any are left out."""
    return tuple(_groups(accuracy.flips, most))


def shown_flips(accuracy: PairedAccuracy) -> tuple[Flip, ...]:
    """Returns the images that a page shows, to have their pictures made."""
    return tuple(flip for group in flip_groups(accuracy) for flip in group.shown)


def _groups(flips: tuple[Flip, ...], most: int) -> Iterator[FlipGroup]:
    for kind, title, order, sureness in _KINDS:
        found = sorted((f for f in flips if f.kind is kind), key=sureness, reverse=True)
        if found:
            yield FlipGroup(
                kind=kind, title=title, order=order, total=len(found), shown=tuple(found[:most])
            )


def _engine_sureness(flip: Flip) -> float:
    return flip.engine.probability


def _reference_sureness(flip: Flip) -> float:
    return flip.reference.probability


_KINDS: tuple[tuple[FlipKind, str, str, Callable[[Flip], float]], ...] = (
    (
        FlipKind.LOST,
        "Lost, right in the reference and wrong in the engine",
        "the engine is surest",
        _engine_sureness,
    ),
    (
        FlipKind.GAINED,
        "Gained, wrong in the reference and right in the engine",
        "the reference is surest",
        _reference_sureness,
    ),
    (FlipKind.OTHER, "Wrong in both, each in its way", "the engine is surest", _engine_sureness),
)
