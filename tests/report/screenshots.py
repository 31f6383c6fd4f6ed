"""Screenshots of pages in small, with every letter a block, and how far two are apart.

Fonts differ between machines, and with them where lines break. `screenshots/blocks.ttf` has one
glyph for every letter, so that a page has the same layout everywhere: what is compared is places,
sizes and colours. Words are compared by other tests.

Run as a program, it stores the pages as they are now:
  PYTHONPATH=tests python tests/report/screenshots.py
"""

from __future__ import annotations

import base64
import html
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from browser import sweep, verdicts, visit
from numpy.typing import NDArray
from PIL import Image
from sample_verdict import ACCURACY, named, picture

from edgeres.report import render_html, shown_flips, sweep_page

STORED = Path(__file__).parent / "screenshots"
WIDTHS = (390, 1280)
"""Of a phone and a desk, in pixels."""

SCALE = 4
"""Pixels of the page in one of the screenshot, to a side."""

_CELL = 2
"""Pixels of a screenshot to a side of what is compared: a square of 8 pixels of the page."""

_VISIBLE = 5.0
"""Distance in CIELAB that is seen at a glance; 2.3 is just noticeable.

Source: Mahy et al. 1994, Evaluation of uniform color spaces.
"""

_FRAMES = """<!doctype html><meta charset=utf-8><style>body{margin:0;background:#fff}iframe{border:0;
position:absolute;top:0;transform-origin:0 0;transform:scale(%s)}</style>%s<pre id=result></pre>
<script>onload = () => document.querySelectorAll("iframe").forEach(frame => {
  const height = frame.contentDocument.documentElement.scrollHeight;
  frame.style.height = height + "px";
  result.textContent += JSON.stringify([frame.title, height]) + "\\n";
})</script>"""


def pages() -> dict[str, str]:
    """Returns twelve kinds of verdict, one of them dark, and a sweep."""
    pictures = {flip.index: picture(flip.index) for flip in shown_flips(ACCURACY)}
    names = "resnet50.int8.onnx", "resnet50.onnx"
    found = {
        name: render_html(named(verdict, *names), pictures=pictures)
        for name, verdict in verdicts().items()
    }
    # Dark on a screen that prefers it; here, whatever the screen prefers.
    unstable = found["unstable"].replace("@media screen and (prefers-color-scheme: dark)", "@media")
    return found | {"unstable, dark": unstable, "sweep": sweep_page(sweep())}


def title_of(name: str) -> str:
    """Returns a page's name as that of a file."""
    return name.replace(",", "").replace(" ", "_")


def in_blocks(page: str) -> str:
    """Returns a page whose letters are blocks."""
    font = base64.b64encode((STORED / "blocks.ttf").read_bytes()).decode()
    face = f"@font-face{{font-family:Blocks;src:url(data:font/ttf;base64,{font})}}"
    style = f"<style>{face}*,svg *{{font-family:Blocks!important}}</style></head>"
    allowed = "default-src 'none'; font-src data:;"
    return page.replace("default-src 'none';", allowed).replace("</head>", style)


def screenshots(folder: Path, pages: Mapping[str, str]) -> dict[str, Image.Image]:
    """Returns each page at both widths, by its name and width."""
    frames, places, left = "", {}, 0
    for number, (name, page) in enumerate(pages.items()):
        (folder / f"{number}.html").write_text(in_blocks(page), encoding="utf-8")
        for width in WIDTHS:
            title = f"{title_of(name)}.{width}"
            frames += (
                f'<iframe title="{title}" src="{number}.html" '
                f'style="left:{left}px;width:{width}px;height:200px"></iframe>'
            )
            places[title], left = (left, width // SCALE), left + width // SCALE + 1
    wrapper, file = folder / "wrapper.html", folder / "all.png"
    wrapper.write_text(_FRAMES % (1 / SCALE, frames), encoding="utf-8")
    visited = visit(
        wrapper,
        # Scripts of one file may look into another only where the browser is started so.
        "--disable-web-security",
        "--allow-file-access-from-files",
        # Of the edges of letters and lines nothing may depend on the machine.
        "--font-render-hinting=none",
        "--disable-lcd-text",
        "--force-color-profile=srgb",
        "--hide-scrollbars",
        f"--window-size={left},2200",
        f"--screenshot={file}",
    )
    found = re.search(r'<pre id="result">(.*?)</pre>', visited.dom, flags=re.DOTALL)
    assert found is not None
    heights = dict(json.loads(html.unescape(line)) for line in found[1].split("\n") if line)
    assert set(heights) == set(places)
    with Image.open(file) as whole:
        assert max(heights.values()) / SCALE <= whole.height, heights
        return {
            title: whole.crop((x, 0, x + width, heights[title] // SCALE)).convert("RGB")
            for title, (x, width) in places.items()
        }


def different_cells(one: Image.Image, other: Image.Image) -> int:
    """Returns how many squares of 8 pixels of the page differ visibly, by their mean in CIELAB."""
    # The shorter page is continued in black, so that what the longer one has more is counted.
    size = (max(one.width, other.width), max(one.height, other.height))
    cells = [_cells(image.crop((0, 0, *size))) for image in (one, other)]
    return int((np.linalg.norm(cells[0] - cells[1], axis=2) > _VISIBLE).sum())


def _cells(image: Image.Image) -> NDArray[np.float32]:
    pixels = np.asarray(image, np.float32) / np.float32(255)
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    size = (lab.shape[1] // _CELL, lab.shape[0] // _CELL)
    return np.asarray(cv2.resize(lab, size, interpolation=cv2.INTER_AREA), np.float32)


def main() -> int:
    """Stores the pages as they are."""
    with tempfile.TemporaryDirectory() as folder:
        for title, image in screenshots(Path(folder), pages()).items():
            # Of Pillow's ways to 256 colours the one that keeps small areas of strong colours.
            small = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
            small.save(STORED / f"{title}.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
