"""Which of the images that changed their label a page shows, in which order."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeres.core.verdict import Flip, FlipKind, PairedAccuracy
from edgeres.report.facts import flips_by_kind

SHOWN = 60
"""Most images of each kind on a page: with their pictures they stay below 1 MB."""

SMALL_PIXELS = 48
"""Pictures up to this side are enlarged with sharp edges; a smooth blur would hide what is there."""

_TITLES: Mapping[FlipKind, tuple[str, str]] = {
    FlipKind.LOST: ("Newly wrong, correct in the reference only", "engine"),
    FlipKind.GAINED: ("Newly correct, correct in the engine only", "reference"),
    FlipKind.OTHER: ("Wrong in both, with different labels", "engine"),
}
"""Heading of each kind, and the network whose confidence orders its images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A thumbnail."""

    jpeg: bytes = field(repr=False)
    side: int
    """Longer side in pixels."""

    @property
    def is_small(self) -> bool:
        """Whether it is enlarged with sharp edges."""
        return self.side <= SMALL_PIXELS

    @property
    def data_url(self) -> str:
        """The picture as a URL that contains it."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode('ascii')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipGroup:
    """Changed labels of one kind."""

    title: str
    ordered_by: str
    """Network that is the most confident of the images that come first."""
    total: int
    shown: tuple[Flip, ...]


def flip_groups(accuracy: PairedAccuracy, most: int = SHOWN) -> tuple[FlipGroup, ...]:
    """Returns the changed labels by kind, the worst first; kinds without any are left out."""
    return tuple(
        FlipGroup(
            title=_TITLES[kind][0],
            ordered_by=_TITLES[kind][1],
            total=len(flips),
            shown=tuple(flips[:most]),
        )
        for kind, flips in flips_by_kind(accuracy.flips).items()
        if flips
    )


def shown_flips(accuracy: PairedAccuracy) -> tuple[Flip, ...]:
    """Returns the images that a page shows, to have their pictures made."""
    return tuple(flip for group in flip_groups(accuracy) for flip in group.shown)
