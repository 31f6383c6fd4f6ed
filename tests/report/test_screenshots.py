"""Every kind of verdict looks as its stored screenshot does, on a phone and on a desk."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import BROWSER
from PIL import Image
from screenshots import STORED, different_cells, pages, screenshots, title_of

pytest.importorskip("jinja2", reason="jinja2, which renders the page, is not installed")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

ALLOWED = 8
"""Squares of 8 pixels that another Chromium may draw otherwise; a fault changes more."""

FAULTS: dict[str, tuple[str, Callable[[str], str]]] = {
    "a failure in green": ("fail", lambda page: page.replace("--fail: #b3201a", "--fail: #126c36")),
    "inconclusive in green": (
        "undecided",
        lambda page: page.replace('class="card verdict inconclusive"', 'class="card verdict pass"'),
    ),
    "an unstable time as if it were sound": (
        "unstable",
        lambda page: page.replace('class="tile unsure"', 'class="tile"'),
    ),
    "no badge of a simulation": ("simulated", lambda page: page.replace('class="tag"', "hidden")),
    "the map unfolded": ("measured", lambda page: page.replace("<details>", "<details open>")),
    "a table without its cue": (
        "pass",
        lambda page: page.replace("linear-gradient(to left, var(--edge)", "linear-gradient(#fff"),
    ),
    "no bound": (
        "a limit far away",
        lambda page: re.sub(r"class=.(bound|one-sided).", 'display="none"', page),
    ),
}
"""What could go wrong, by the kind of verdict that shows it."""


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image.Image]:
    """Screenshots of all pages, sound and with a fault."""
    sound = pages()
    seeded = {fault: change(sound[kind]) for fault, (kind, change) in FAULTS.items()}
    return screenshots(tmp_path_factory.mktemp("screenshots"), sound | seeded)


def test_every_page_looks_as_it_was_stored(taken: dict[str, Image.Image], tmp_path: Path) -> None:
    """Places, sizes and colours; `tests/report/screenshots.py` stores what is wanted otherwise."""
    stored = {path.stem: path for path in STORED.glob("*.png")}
    expected = {title for title in taken if not title.startswith(tuple(map(title_of, FAULTS)))}
    assert set(stored) == expected
    different = {}
    for title, path in stored.items():
        with Image.open(path) as image:
            count = different_cells(taken[title], image.convert("RGB"))
        if count > ALLOWED:
            taken[title].save(tmp_path / f"{title}.png")
            different[title] = count
    assert not different, f"squares that differ; the pages of now are in {tmp_path}"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_would_be_noticed(taken: dict[str, Image.Image], fault: str) -> None:
    """At one width at least."""
    kind, _ = FAULTS[fault]
    counts = []
    for width in (390, 1280):
        with Image.open(STORED / f"{title_of(kind)}.{width}.png") as image:
            counts.append(
                different_cells(taken[f"{title_of(fault)}.{width}"], image.convert("RGB"))
            )
    assert max(counts) > ALLOWED
