"""The walk-throughs of docs/ do what they say, one after the other in one folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_readme import EDGERES, run_block, runnable_blocks
from test_readme import PAGES as README_PAGES

pytestmark = pytest.mark.usefixtures("one_core")

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Each goes on with what the tutorial left.
PAGES = ("your_own_network", "ci", "jetson", "triton", "deepstream", "cluster")


@pytest.mark.skipif(not EDGERES.exists(), reason="edgeres is not installed beside this Python")
def test_the_commands_of_the_walkthroughs_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From drawing the images to a verdict, a prediction and the folders that are deployed.

    One test, since each page goes on in the folder of the one before, on whichever process.
    """
    # The reader is in the clone, where the packages beside edgeres are found.
    paths = [str(DOCS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    for page in PAGES:
        blocks = runnable_blocks((DOCS / f"{page}.md").read_text(encoding="utf-8"))
        assert blocks, page
        for block in blocks:
            run_block(block, tmp_path)


def test_every_page_with_commands_is_run() -> None:
    """A new page joins one of the lists, or the guide's own test."""
    marked = {path.stem for path in DOCS.glob("*.md") if runnable_blocks(path.read_text("utf-8"))}
    with_readme = {Path(page).stem for page in README_PAGES if page.startswith("docs/")}
    assert marked == {*PAGES, *with_readme, "guide"}
